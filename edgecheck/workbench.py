"""The workbench: captures, builds, runs and caches what the checks of a case need.

One per pytest process; processes of a run share its scratch directory, so that each thing is done
once. Not for judging: see `edgecheck.checks`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from edgecheck import data
from edgecheck.binding import Binding, bind
from edgecheck.case import Case, find_builder
from edgecheck.devices.local import LocalDevice, Session
from edgecheck.errors import ArtifactError, ChildError, DataError, EdgecheckError
from edgecheck.metrics import as_metric
from edgecheck.model import Artifact, Model, Source, artifact_key
from edgecheck.packing import pack
from edgecheck.process import Child, Pool, Service
from edgecheck.store import Store, digest_of, file_sha256
from edgecheck.targets import find_target

_SOURCE_SERVICE = Service("edgecheck.source:SourceService")
# Hushes the converters' progress bars and start-up banners.
_QUIET = {
    "LITERT_TORCH_SHOW_PROGRESS": "n",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "ABSL_MIN_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
    "TQDM_DISABLE": "1",
}
# Source, tools and device processes of one candidate, and one to spare for the next.
_WARM_CHILDREN = 4
USER_SAMPLES = 32


@dataclass(frozen=True)
class Settings:
    """How a run works.

    Attributes:
        cache: directory of the artifact cache.
        scratch: directory of this run, shared by its processes.
        timeout_s: limit of one build or one call to a device.
    """

    cache: Path
    scratch: Path
    timeout_s: float = 300.0


@dataclass(frozen=True)
class Built:
    """A candidate's model file.

    Attributes:
        declared: the user's own artifact, or one with just the path of what was built.
        gzip_bytes: its size after gzip at level 6.
        cached: whether it came from the cache; None where the user brought it.
        build_s: what the build took when it was made; None where the user brought it.
    """

    path: Path
    sha256: str
    size_bytes: int
    gzip_bytes: int
    declared: Artifact
    cached: bool | None
    build_s: float | None


@dataclass(frozen=True)
class Feeds:
    """Inputs of the parity check.

    Attributes:
        feeds: .npy path by input name, one dict a call.
        labels: what each is: ``random, batch 2`` or ``samples``.
        sizes: of the named dimensions in each.
    """

    feeds: list[dict[str, str]]
    labels: list[str]
    sizes: list[dict[str, int]]


class Workbench:
    """Does the work of cases, each piece once a run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        for name in ("logs", "once", "locks"):
            (settings.scratch / name).mkdir(parents=True, exist_ok=True)
        self.store = Store(settings.cache, settings.scratch)
        self._pool = Pool(settings.scratch / "logs", _WARM_CHILDREN)
        self.device = LocalDevice(self._pool, settings.timeout_s)
        self._opened: dict[str, tuple[Child, bool]] = {}

    def close(self) -> None:
        """End all child processes."""
        self._pool.close()

    # -- once a run ---------------------------------------------------------------------------

    def _once(self, what: str, produce: Callable[[Path], Any]) -> Any:
        """The plain result of `produce`, made once in this run by whichever process comes first.

        A failure is remembered too: what failed for one check is not tried again for the next.
        """
        key = digest_of({"what": what})[:40]
        folder = self._settings.scratch / "once" / key
        result = folder / "result.json"
        with FileLock(self._settings.scratch / "locks" / f"{key}.lock"):
            if not result.is_file():
                folder.mkdir(exist_ok=True)
                try:
                    outcome = {"what": what, "value": produce(folder)}
                except EdgecheckError as error:
                    outcome = {
                        "what": what,
                        "error": str(error),
                        "type": type(error).__name__,
                        "kind": getattr(error, "kind", ""),
                        "log_tail": getattr(error, "log_tail", ""),
                    }
                partial = folder / "result.partial"
                partial.write_text(json.dumps(outcome))
                partial.rename(result)
            outcome = json.loads(result.read_text())
        if "error" in outcome:
            if outcome["type"] == "ChildError":
                raise ChildError(
                    outcome["error"], kind=outcome["kind"], log_tail=outcome["log_tail"]
                )
            kinds: dict[str, type[EdgecheckError]] = {
                kind.__name__: kind for kind in (ArtifactError, DataError)
            }
            raise kinds.get(outcome["type"], EdgecheckError)(outcome["error"])
        return outcome["value"]

    # -- the user's own code ------------------------------------------------------------------

    def _source_child(self, name: str, source: Source, model: Model) -> tuple[Child, bool]:
        """A child with the source opened, and whether the module came in training mode."""
        child, _ = self._pool.get(f"source:{name}", _SOURCE_SERVICE)
        opened, training = self._opened.get(name, (None, False))
        if opened is not child:
            training = child.call(
                "open_source",
                timeout_s=self._settings.timeout_s,
                source=pack(source) if callable(source) else str(source),
                inputs=[asdict(item) for item in model.inputs],
                outputs=list(model.outputs),
                seed=model.seed,
                what=f"source {_source_name(source)}",
            )
            self._opened[name] = (child, training)
        return child, training

    def data(self, case: Case, what: str) -> dict[str, Any]:
        """The files of a model's "calibration", "evaluation" or "samples" data (see `DataFiles`).

        Raises:
            EdgecheckError: the data does not fit, or making it failed.
        """
        model = case.model
        labelled = what == "evaluation"
        if labelled:
            assert model.evaluation is not None
            values, labels = model.evaluation.inputs, model.evaluation.labels
        else:
            values, labels = getattr(model, what), None

        def produce(folder: Path) -> Any:
            if not callable(values):
                return data.materialize(
                    values, labels, model.inputs, folder, what, labelled
                ).as_dict()
            child, _ = self._pool.get("data", _SOURCE_SERVICE)
            return child.call(
                "materialize",
                timeout_s=self._settings.timeout_s,
                data=pack(values),
                labels=pack(labels) if labelled else None,
                inputs=[asdict(item) for item in model.inputs],
                directory=str(folder),
                what=what,
            )

        found: dict[str, Any] = self._once(f"data {case.model_name} {what}", produce)
        return found

    def program(self, name: str, source: Source, model: Model) -> dict[str, Any]:
        """The captured program: ``path``, ``kind`` (torch or onnx), ``digest`` and ``training``."""
        if _is_onnx(source):
            path = _existing(source, "source")
            return {"path": str(path), "kind": "onnx", "digest": file_sha256(path)}

        def produce(folder: Path) -> Any:
            child, training = self._source_child(name, source, model)
            path = folder / "program.pt2"
            digest = child.call(
                "capture",
                timeout_s=self._settings.timeout_s,
                path=str(path),
                dims=_dims(model),
            )
            return {"path": str(path), "kind": "torch", "digest": digest, "training": training}

        found: dict[str, Any] = self._once(f"program {name}", produce)
        return found

    # -- model files --------------------------------------------------------------------------

    def built(self, case: Case) -> Built:
        """The candidate's model file, built if need be.

        Raises:
            EdgecheckError: it can't be had; the message is one line.
        """

        def produce(folder: Path) -> Any:
            declared = case.artifact
            if declared is not None:
                path = _existing(declared.path, "artifact")
                return {"path": str(path), "sha256": file_sha256(path), **_sizes(path)}
            path, sha256, cached, build_s = self._build(case, folder)
            return {
                "path": str(path),
                "sha256": sha256,
                "cached": cached,
                "build_s": build_s,
                **_sizes(path),
            }

        info = self._once(f"build {case.candidate}", produce)
        return Built(
            path=Path(info["path"]),
            sha256=info["sha256"],
            size_bytes=info["size_bytes"],
            gzip_bytes=info["gzip_bytes"],
            declared=case.artifact or Artifact(info["path"]),
            cached=info.get("cached"),
            build_s=info.get("build_s"),
        )

    def _build(self, case: Case, folder: Path) -> tuple[Path, str, bool, float]:
        model, target, precision = case.model, case.target, case.precision
        builder = None if case.variant else find_builder(model, target.name, precision)
        if builder is not None:
            return self._build_with(builder, case, folder)
        source, source_digest = self._build_source(case)
        calibration = self.data(case, "calibration") if precision == "int8" else None
        key = digest_of(
            {
                "source": source_digest,
                "target": target.name,
                "precision": precision,
                "inputs": [asdict(item) for item in model.inputs],
                "outputs": list(model.outputs),
                "dims": _dims(model),
                "calibration": calibration and calibration["sha256"],
                **target.recipe(),
            }
        )
        file_name = f"{_file_stem(case)}{target.suffix}"

        def build(path: Path) -> None:
            child, _ = self._pool.get(
                f"tools:{target.name}", Service(target.tools, environment=_QUIET)
            )
            child.call(
                "build",
                timeout_s=self._settings.timeout_s,
                precision=precision,
                source=str(source),
                output=str(path),
                inputs=[item.name for item in model.inputs],
                outputs=list(model.outputs),
                calibration=calibration and calibration["inputs"],
                example=self._example(model, folder),
            )
            if not path.is_file() or path.stat().st_size == 0:
                raise ArtifactError(f"the {target.name} {precision} build wrote no file")

        entry = self.store.get_or_build(key, file_name, case.candidate, build)
        return entry.path, entry.sha256, entry.cached, entry.build_s

    def _build_source(self, case: Case) -> tuple[Path, str]:
        """The file that a build starts from, and its digest: a program or the fp32 file."""
        model, target, precision = case.model, case.target, case.precision
        if target.precisions[precision] == "float":
            float_case = _at_precision(case, "fp32")
            built = self.built(float_case)
            return built.path, built.sha256
        if precision == "int8-qat":
            source = model.qat_source(target.name)
            assert source is not None
            program = self.program(f"{case.model_name} qat {target.name}", source, model)
        else:
            program = self.program(*self._own_source(case), model)
        if program["kind"] == "onnx" and not target.reads_onnx:
            raise ArtifactError(f"there is no route from an ONNX file to {target.title}")
        return Path(program["path"]), program["digest"]

    def _build_with(
        self, builder: object, case: Case, folder: Path
    ) -> tuple[Path, str, bool, float]:
        """A file from the user's builder. Never cached: its code can't be told to be unchanged."""
        name, source = self._own_source(case)
        path = folder / f"{_file_stem(case)}{case.target.suffix}"
        child, _ = self._source_child(name, source, case.model)
        child.call(
            "build",
            timeout_s=self._settings.timeout_s,
            builder=pack(builder),
            path=str(path),
            source_path=None if callable(source) else str(source),
        )
        return path, file_sha256(path), False, 0.0

    def _own_source(self, case: Case) -> tuple[str, Source]:
        """Name and source of the candidate itself."""
        source = case.model.variants[case.variant] if case.variant else case.model.source
        if source is None:
            raise ArtifactError(f"{case.model_name} has no source to build from")
        return f"{case.model_name}:{case.variant}", source

    def _example(self, model: Model, folder: Path) -> dict[str, str]:
        """One call's inputs at the sizes that a fixed-shape file gets: batch one, dims largest."""
        rng = np.random.default_rng(model.seed)
        sizes = data.dimension_sizes(model.inputs, model.dims, 1, None)
        return data.save_feed(data.random_inputs(model.inputs, sizes, rng), folder / "example")

    def inspect(self, case: Case) -> dict[str, Any]:
        """What is in the candidate's file (see `edgecheck.targets.Tools.inspect`)."""

        def produce(folder: Path) -> Any:
            child, _ = self._pool.get(
                f"tools:{case.target.name}", Service(case.target.tools, environment=_QUIET)
            )
            return child.call(
                "inspect", timeout_s=self._settings.timeout_s, path=str(self.built(case).path)
            )

        found: dict[str, Any] = self._once(f"inspect {case.candidate}", produce)
        return found

    # -- runs ---------------------------------------------------------------------------------

    def session(self, case: Case) -> Session:
        """The candidate loaded into its runtime, its inputs and outputs matched.

        Raises:
            EdgecheckError: it does not load, or does not fit what is declared.
        """
        built = self.built(case)
        session = self.device.open(case.candidate, case.target, built.path)
        if session.binding is None:
            session.bind(
                bind(
                    case.model.inputs,
                    case.model.outputs,
                    session.inputs,
                    session.outputs,
                    built.declared,
                )
            )
        return session

    def feeds(self, case: Case) -> Feeds:
        """Seeded random inputs of the declared domain, and the user's samples."""
        model = case.model

        def produce(folder: Path) -> Any:
            rng = np.random.default_rng(model.seed)
            feeds: list[dict[str, str]] = []
            labels: list[str] = []
            sizes: list[dict[str, int]] = []
            batches = model.batch_sizes if model.dynamic_batch else [1]
            others = data.dimension_sizes(model.inputs, model.dims, 1, None).keys() - {"batch"}
            # Fixed-shape files take the largest sizes only; dynamic ones also what is drawn.
            for drawn in [False, True] if others else [False]:
                for batch in batches:
                    size = data.dimension_sizes(
                        model.inputs, model.dims, batch, rng if drawn else None
                    )
                    arrays = data.random_inputs(model.inputs, size, rng)
                    feeds.append(data.save_feed(arrays, folder / f"random-{len(feeds)}"))
                    labels.append(f"random, {_sizes_text(size)}")
                    sizes.append(size)
            samples = self._samples(case, folder)
            if samples is not None:
                feeds.append(samples[0])
                labels.append("samples")
                sizes.append(samples[1])
            return {"feeds": feeds, "labels": labels, "sizes": sizes}

        return Feeds(**self._once(f"feeds {case.model_name}", produce))

    def _samples(self, case: Case, folder: Path) -> tuple[dict[str, str], dict[str, int]] | None:
        """The first of the user's own inputs, from the samples, evaluation or calibration data."""
        model = case.model
        what = next(
            (
                item
                for item in ("samples", "evaluation", "calibration")
                if getattr(model, item) is not None
            ),
            None,
        )
        if what is None:
            return None
        files = self.data(case, what)
        count = min(USER_SAMPLES, files["count"])
        if model.dynamic_batch:
            count = min(count, model.dim_range("batch")[1])
        arrays = {
            name: np.load(path, mmap_mode="r", allow_pickle=False)[:count]
            for name, path in files["inputs"].items()
        }
        sizes = {
            name: arrays[item.name].shape[axis]
            for item in model.inputs
            for axis, name in enumerate(item.shape)
            if isinstance(name, str)
        }
        return data.save_feed(arrays, folder / "samples"), sizes

    def single_feed(self, case: Case) -> dict[str, str]:
        """One inference's inputs: the first sample, or the first random feed."""
        feeds = self.feeds(case)
        position = feeds.labels.index("samples") if "samples" in feeds.labels else 0

        def produce(folder: Path) -> Any:
            binding = self.session(case).binding
            assert binding is not None
            count = binding.batch or 1
            arrays = {}
            for name, path in feeds.feeds[position].items():
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                arrays[name] = (
                    np.resize(array, (count, *array.shape[1:]))
                    if (name in binding.batched)
                    else array
                )
            return data.save_feed(arrays, folder)

        found: dict[str, str] = self._once(f"single feed {case.candidate}", produce)
        return found

    def reference_outputs(
        self, case: Case, feeds: Sequence[Mapping[str, str]], what: str, *, main: bool
    ) -> list[dict[str, str]]:
        """The reference's outputs on feeds, computed once a run.

        Args:
            what: names the feeds.
            main: the model's reference; else the candidate's own float program, which differs for
                variants and QAT-converted programs.
        """
        model = case.model
        batch_size = model.evaluation.batch_size if model.evaluation else None
        if not main and not case.variant and case.precision == "int8-qat":
            own = model.qat_source(case.target.name)
            name = f"{case.model_name} qat {case.target.name}"
            if own is not None:
                return self._source_outputs(name, own, model, feeds, what, batch_size)
        elif not main and case.variant:
            name, own = self._own_source(case)
            return self._source_outputs(name, own, model, feeds, what, batch_size)
        if model.reference == "source":
            assert model.source is not None
            return self._source_outputs(
                f"{case.model_name}:", model.source, model, feeds, what, batch_size
            )
        target_name, precision = artifact_key(model.reference)
        reference = Case(
            case.model_name, "", find_target(target_name), precision, model, case.budget
        )

        def produce(folder: Path) -> Any:
            return self.session(reference).run(feeds, folder, batch_size)

        outputs: list[dict[str, str]] = self._once(
            f"reference {reference.candidate} {what}", produce
        )
        return outputs

    def _source_outputs(
        self,
        name: str,
        source: Source,
        model: Model,
        feeds: Sequence[Mapping[str, str]],
        what: str,
        batch_size: int | None,
    ) -> list[dict[str, str]]:
        def produce(folder: Path) -> Any:
            if _is_onnx(source):
                return self._onnx_reference(name, source, model).run(feeds, folder, batch_size)
            child, _ = self._source_child(name, source, model)
            session = Session(child, {"inputs": [], "outputs": []}, self._settings.timeout_s)
            session.bind(reference_binding(model))
            return session.run(feeds, folder, batch_size)

        outputs: list[dict[str, str]] = self._once(f"reference {name} {what}", produce)
        return outputs

    def _onnx_reference(self, name: str, source: Source, model: Model) -> Session:
        """An ONNX source as its own reference: with the runtime's graph optimisations off."""
        path = _existing(source, "source")
        session = self.device.open(f"reference {name}", find_target("ort"), path, optimize=False)
        if session.binding is None:
            session.bind(
                bind(model.inputs, model.outputs, session.inputs, session.outputs, Artifact(path))
            )
        return session

    def score(self, case: Case, predictions: Mapping[str, str], labels: str) -> float:
        """The metric of saved predictions, computed in a child."""
        assert case.model.evaluation is not None
        evaluation = case.model.evaluation
        metric = as_metric(evaluation.metric)
        function = pack((metric, evaluation.postprocess), metric.function, evaluation.postprocess)
        child, _ = self._pool.get("data", _SOURCE_SERVICE)
        value: float = child.call(
            "score",
            timeout_s=self._settings.timeout_s,
            function=function,
            output=evaluation.output,
            predictions=dict(predictions),
            labels=labels,
        )
        return value


def reference_binding(model: Model) -> Binding:
    """A torch module takes and gives everything as declared."""
    tensors = [
        {"name": item.name, "dtype": item.dtype, "shape": [None] * len(item.shape)}
        for item in model.inputs
    ]
    outputs = [{"name": name} for name in model.outputs]
    return bind(model.inputs, model.outputs, tensors, outputs, Artifact(""))


def _at_precision(case: Case, precision: str) -> Case:
    return replace(case, precision=precision)


def _existing(given: Any, what: str) -> Path:
    path = Path(given)
    if not path.exists():
        raise ArtifactError(f"{what} {path} does not exist")
    if path.is_file() and path.stat().st_size == 0:
        raise ArtifactError(f"{what} {path} is empty")
    return path


def _is_onnx(source: Source) -> bool:
    return not callable(source) and Path(source).suffix == ".onnx"


def _source_name(source: Source) -> str:
    return str(getattr(source, "__qualname__", repr(source)) if callable(source) else source)


def _dims(model: Model) -> dict[str, tuple[int, int]]:
    named = {size for item in model.inputs for size in item.shape if isinstance(size, str)}
    return {name: model.dim_range(name) for name in sorted(named)}


def _file_stem(case: Case) -> str:
    """A file name of the candidate's words, safe on every system."""
    return "".join(
        letter if letter.isalnum() or letter in "-_" else "-" for letter in case.candidate
    )


def _sizes(path: Path) -> dict[str, int]:
    """Bytes on disk and after gzip, of a file or all files of a directory."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    size = compressed = 0
    for item in files:
        packer = zlib.compressobj(level=6, wbits=31)  # 31: with a gzip header (zlib manual)
        with item.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                size += len(chunk)
                compressed += len(packer.compress(chunk))
        compressed += len(packer.flush())
    return {"size_bytes": size, "gzip_bytes": compressed}


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items()) or "static shape"
