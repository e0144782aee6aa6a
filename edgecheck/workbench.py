"""The workbench: what the checks of a case need, made once a run and shared by its processes.

One per pytest process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.build.artifact_cache import Store
from edgecheck.build.builder import ArtifactBuilder, Built
from edgecheck.build.sources import own_source, qat_name
from edgecheck.capture import data, drawing
from edgecheck.capture.calls import join_outputs, save_calls
from edgecheck.capture.client import Sources, is_onnx
from edgecheck.declare.case import Case
from edgecheck.declare.inputs import takes_whole_calls
from edgecheck.declare.model import Artifact, Model, Source, artifact_key
from edgecheck.declare.settings import Settings
from edgecheck.devices.binding import Binding, bind
from edgecheck.devices.local import Loadable, LoadedModel, LocalDevice
from edgecheck.errors import ArtifactError
from edgecheck.process.lock import MachineLock
from edgecheck.process.parent import Pool, share_of_cores
from edgecheck.process.run_cache import Once
from edgecheck.targets.registry import find_target, target_of_source

# The user's code and each target's tools: importing what they need takes seconds.
_WARM_WORKERS = 8
# A candidate's and a reference's device; the next candidate gets a fresh one.
_WARM_DEVICES = 2
# Evaluation feeds are cut to this many bytes a call: large activations cost more than calls do.
_CALL_BYTES = 1 << 24
USER_SAMPLES = 32
# Random inputs where the batch is static, each a call. A unit that reacts to a quarter of all
# inputs stays quiet in all of them once in a hundred models.
STATIC_DRAWS = 16

# Runs feeds into a directory, with so many samples a call: .npy paths by output for each feed.
Runner = Callable[[Sequence[Mapping[str, str]], Path, int | None], list[dict[str, str]]]


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
    """Does the work of cases."""

    def __init__(self, settings: Settings) -> None:
        logs, temporary = settings.scratch / "logs", settings.scratch / "temporary"
        for folder in (logs, temporary):
            folder.mkdir(parents=True, exist_ok=True)
        # What converters leave behind goes with the run's directory.
        environment = {"TMPDIR": str(temporary)}
        self.workers = Pool(
            logs, _WARM_WORKERS, environment={**environment, **share_of_cores(settings.sharers)}
        )
        self._devices = Pool(
            logs, _WARM_DEVICES, spare=settings.sharers == 1, environment=environment
        )
        self.settings = settings
        self.lock = MachineLock(settings.lock, settings.tell)
        self.once = Once(settings.scratch)
        self.sources = Sources(
            self.workers, self.once, settings.timeout_s, settings.file_limit_bytes
        )
        self.device = LocalDevice(
            self._devices,
            settings.timeout_s,
            self.lock,
            threads=settings.threads,
            cpus=settings.cpus,
        )
        self.builder = ArtifactBuilder(
            self.workers,
            self.once,
            Store(settings.cache, settings.scratch),
            self.sources,
            settings.timeout_s,
        )

    def close(self) -> None:
        """End all child processes."""
        self.workers.close()
        self._devices.close()
        self.lock.close()

    def built(self, case: Case) -> Built:
        """The candidate's model file, built if need be (see `ArtifactBuilder.built`)."""
        return self.builder.built(case)

    def rebuilt(self, case: Case) -> Path | None:
        """The file built once more (see `ArtifactBuilder.rebuilt`)."""
        return self.builder.rebuilt(case)

    def layers(self, case: Case) -> list[str]:
        """The layers that ``keep_float`` may name (see `ArtifactBuilder.layers`)."""
        return self.builder.layers(case)

    def data(self, case: Case, what: str) -> dict[str, Any]:
        """The files of the model's data (see `Sources.data`)."""
        return self.sources.data(case.model_name, case.model, what)

    def session(self, case: Case) -> LoadedModel:
        """The candidate loaded into its runtime, its inputs and outputs matched.

        Raises:
            EdgecheckError: it does not load, or does not fit what is declared.
        """
        built = self.built(case)
        session = self.device.open(case.candidate, case.target, built.path, case.options)
        if session.binding is None:
            model = case.model
            tensors = (session.inputs, session.outputs)
            session.bind(bind(model.inputs, model.outputs, *tensors, built.declared))
        return session

    def feeds(self, case: Case) -> Feeds:
        """Seeded random inputs of the declared domain, and the user's samples."""
        model = case.model

        def produce(folder: Path) -> Any:
            rng = np.random.default_rng(model.seed)
            feeds: list[dict[str, str]] = []
            labels: list[str] = []
            sizes: list[dict[str, int]] = []
            batches = model.batch_sizes if model.dynamic_batch else [1] * STATIC_DRAWS
            others = data.dimension_sizes(model.inputs, model.dims, 1, None).keys() - {"batch"}
            # Fixed-shape files take the largest sizes only; dynamic ones also what is drawn.
            for drawn in [False, True] if others else [False]:
                for batch in batches:
                    size = data.dimension_sizes(
                        model.inputs, model.dims, batch, rng if drawn else None
                    )
                    arrays = drawing.random_call(model.inputs, size, rng, model.draw)
                    feeds.append(data.save_feed(arrays, folder / f"random-{len(feeds)}"))
                    labels.append(f"random, {_sizes_text(size)}")
                    sizes.append(size)
            for sample, own_sizes in self._samples(case, folder):
                feeds.append(sample)
                labels.append("samples")
                sizes.append(own_sizes)
            return {"feeds": feeds, "labels": labels, "sizes": sizes}

        return Feeds(**self.once(f"feeds {case.model_name}", produce))

    def _samples(self, case: Case, folder: Path) -> list[tuple[dict[str, str], dict[str, int]]]:
        """The first of the user's own inputs, from the samples, evaluation or calibration data.

        Each is a feed and the sizes of its named dimensions: one of all samples, or whole calls.
        """
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
            return []
        files = self.data(case, what)
        count = min(USER_SAMPLES, files["count"])
        if takes_whole_calls(model.inputs):
            calls = save_calls(files["inputs"], range(count), folder)
            return [(call, _sizes(call, model)) for call in calls]
        if model.dynamic_batch:
            count = min(count, model.dim_range("batch")[1])
        arrays = {
            name: np.load(path, mmap_mode="r", allow_pickle=False)[:count]
            for name, path in files["inputs"].items()
        }
        samples = data.save_feed(arrays, folder / "samples")
        return [(samples, _sizes(samples, model))]

    def feed_outputs(self, case: Case) -> dict[int, dict[str, str]]:
        """The candidate's outputs by position of the feed, for the feeds that its file takes.

        A batch is cut to what the file takes; other dimensions that it fixes must have that size.

        Raises:
            ArtifactError: it takes none of them.
        """
        feeds = self.feeds(case)

        def produce(folder: Path) -> Any:
            session = self.session(case)
            assert session.binding is not None
            fixed = {name: size for name, size in session.binding.fixed.items() if name != "batch"}
            usable = [
                index
                for index, sizes in enumerate(feeds.sizes)
                if all(sizes.get(name, size) == size for name, size in fixed.items())
            ]
            if not usable:
                raise ArtifactError(f"no input fits the file, which fixes {fixed}: {feeds.sizes}")
            outputs = session.run([feeds.feeds[index] for index in usable], folder)
            return [usable, outputs]

        usable, outputs = self.once(f"outputs {case.candidate}", produce)
        return dict(zip(usable, outputs, strict=True))

    def evaluation_outputs(self, case: Case, directory: Path) -> tuple[dict[str, str], ...]:
        """The candidate's and the reference's outputs on the evaluation data."""
        files = self.data(case, "evaluation")
        if takes_whole_calls(case.model.inputs):
            calls = save_calls(files["inputs"], range(files["count"]), directory / "inputs")
            references = self.reference_outputs(case, calls, "evaluation", main=True)
            name, _ = self.reference_runner(case, main=True)
            expected = self.once(
                f"joined {name} evaluation", lambda folder: join_outputs(references, folder)
            )
            candidates = self.session(case).run(calls, directory)
            return join_outputs(candidates, directory / "outputs"), expected
        rows = [
            np.load(path, mmap_mode="r", allow_pickle=False) for path in files["inputs"].values()
        ]
        row_bytes = sum(array.nbytes // len(array) for array in rows)
        assert case.model.evaluation is not None
        batch_size = max(1, min(case.model.evaluation.batch_size, _CALL_BYTES // row_bytes))
        feeds = [files["inputs"]]
        (expected,) = self.reference_outputs(
            case, feeds, "evaluation", main=True, batch_size=batch_size
        )
        (outputs,) = self.session(case).run(feeds, directory, batch_size)
        return outputs, expected

    def binding(self, case: Case) -> Binding:
        """How the candidate's inputs and outputs are matched; its session is opened for it once."""

        def produce(folder: Path) -> Any:
            binding = self.session(case).binding
            assert binding is not None
            return asdict(binding)

        return Binding(**self.once(f"binding {case.candidate}", produce))

    def single_feed(self, case: Case, batch: int = 1) -> dict[str, str]:
        """One inference's inputs: the first sample, or the first random feed.

        Args:
            batch: number of samples, where the file does not fix it.
        """
        feeds = self.feeds(case)
        position = feeds.labels.index("samples") if "samples" in feeds.labels else 0

        def produce(folder: Path) -> Any:
            binding = self.binding(case)
            count = binding.batch or batch
            arrays = {}
            for name, path in feeds.feeds[position].items():
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                arrays[name] = (
                    np.resize(array, (count, *array.shape[1:]))
                    if (name in binding.batched)
                    else array
                )
            return data.save_feed(arrays, folder)

        found: dict[str, str] = self.once(f"single feed {case.candidate} {batch}", produce)
        return found

    def loadable(self, case: Case, batch: int = 1) -> Loadable:
        """All that a fresh device process needs to run the candidate once."""
        return Loadable(
            self.built(case).path,
            self.binding(case).for_runner(),
            self.single_feed(case, batch),
            case.options,
        )

    def baseline(self, case: Case) -> Loadable | None:
        """The same of the last release's file, with the same input; None where none is declared.

        Raises:
            EdgecheckError: it does not load, or takes other inputs than the candidate.
        """
        artifact = case.baseline
        if artifact is None:
            return None
        path = self.sources.existing(artifact.path, "baseline")
        session = self.device.open(f"baseline {case.candidate}", case.target, path, case.options)
        model = case.model
        try:
            binding = bind(model.inputs, model.outputs, session.inputs, session.outputs, artifact)
        except ArtifactError as error:
            raise ArtifactError(f"the baseline {path.name}: {error}") from None
        own = self.binding(case).batch or 1
        if (binding.batch or own) != own:
            raise ArtifactError(
                f"the baseline {path.name} has batch {binding.batch} and the candidate {own}: "
                "their latencies can't be compared"
            )
        return Loadable(path, binding.for_runner(), self.single_feed(case), case.options)

    def reference_outputs(
        self,
        case: Case,
        feeds: Sequence[Mapping[str, str]],
        what: str,
        *,
        main: bool,
        batch_size: int | None = None,
    ) -> list[dict[str, str]]:
        """The reference's outputs on feeds, computed once a run.

        Args:
            what: names the feeds.
            main: the model's reference; else the candidate's own float program, which differs for
                variants and QAT-converted programs.
            batch_size: samples a call; None for whole feeds.
        """
        name, run = self.reference_runner(case, main=main)

        def produce(folder: Path) -> Any:
            return run(feeds, folder, batch_size)

        outputs: list[dict[str, str]] = self.once(f"reference {name} {what}", produce)
        return outputs

    def reference_runner(self, case: Case, *, main: bool) -> tuple[str, Runner]:
        """The name of the reference (see `reference_outputs`), and what runs it."""
        model = case.model
        found = self.reference_source(case, main=main)
        if found is None:
            target_name, precision = artifact_key(model.reference)
            reference = Case(
                case.model_name, "", find_target(target_name), precision, model, case.budget
            )
            return reference.candidate, lambda *run: self.session(reference).run(*run)
        name, source = found
        if is_onnx(source):
            return name, lambda *run: self._onnx_reference(name, source, model).run(*run)
        return name, partial(self.sources.run, name, source, model)

    def reference_source(self, case: Case, *, main: bool) -> tuple[str, Source] | None:
        """Name and source of the reference (see `reference_outputs`); None where it is a file."""
        model = case.model
        if not main and case.variant:
            return own_source(case)
        if not main and case.precision == "int8-qat":
            own = model.qat_source(case.target.name)
            if own is not None:
                return qat_name(case), own
        if model.reference != "source":
            return None
        assert model.source is not None
        return f"{case.model_name}:", model.source

    def _onnx_reference(self, name: str, source: Source, model: Model) -> LoadedModel:
        """An ONNX source as its own reference: with the runtime's graph optimisations off."""
        path, target = self.sources.existing(source, "source"), target_of_source("onnx")
        session = self.device.open(
            f"reference {name}", target, path, target.options.defaults, optimize=False
        )
        if session.binding is None:
            session.bind(
                bind(model.inputs, model.outputs, session.inputs, session.outputs, Artifact(path))
            )
        return session


def _sizes(feed: Mapping[str, str], model: Model) -> dict[str, int]:
    """Sizes of the named dimensions in a feed."""
    return {
        name: np.load(feed[item.name], mmap_mode="r").shape[axis]
        for item in model.inputs
        for axis, name in enumerate(item.shape)
        if isinstance(name, str)
    }


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items()) or "static shape"
