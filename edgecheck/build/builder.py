"""Model files: brought by the user, written by the user's builder, or built by a target's recipe.

Builds run in children, and what they write is kept in the artifact cache.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.build.artifact_cache import Store
from edgecheck.build.recipe import recipe
from edgecheck.build.sources import own_source, program_source
from edgecheck.capture import data, drawing
from edgecheck.capture.client import Sources, dimension_ranges
from edgecheck.declare.case import Case, brought, find_builder
from edgecheck.declare.model import Artifact, Model
from edgecheck.digests import digest_of, file_sha256
from edgecheck.errors import ArtifactError
from edgecheck.names import CALIBRATED
from edgecheck.process.parent import Child, Pool, Service
from edgecheck.process.run_cache import Once
from edgecheck.targets.base import Inspection, Target
from edgecheck.targets.common import keep_float
from edgecheck.targets.registry import find_target

# Hushes the converters' progress bars and start-up banners.
_QUIET = {
    "LITERT_TORCH_SHOW_PROGRESS": "n",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "ABSL_MIN_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
    "TQDM_DISABLE": "1",
}


@dataclass(frozen=True)
class Built:
    """A candidate's model file.

    Attributes:
        contents: what is in the file.
        declared: the user's own artifact, or one with just the path of what was built.
        gzip_bytes: its size after gzip at level 6.
        cached: whether it came from the cache; None where the user brought it.
        build_s: what the build took when it was made; None where the user brought it.
    """

    path: Path
    sha256: str
    size_bytes: int
    gzip_bytes: int
    contents: Inspection
    declared: Artifact
    cached: bool | None
    build_s: float | None


class ArtifactBuilder:
    """Gets candidates' model files, each once a run."""

    def __init__(
        self, pool: Pool, once: Once, store: Store, sources: Sources, timeout_s: float
    ) -> None:
        self._pool = pool
        self._once = once
        self._store = store
        self._sources = sources
        self._timeout_s = timeout_s
        self._recipes: dict[str, dict[str, str]] = {}

    def built(self, case: Case) -> Built:
        """The candidate's model file, built if need be.

        Raises:
            EdgecheckError: it can't be had; the message is one line.
        """

        builder = find_builder(case.model, case.target.name, case.precision)
        if (
            case.target.files.shared_with
            and case.artifact is None
            and (builder is None or case.variant)
        ):
            return self.built(replace(case, target=find_target(case.target.files.shared_with)))

        def produce(folder: Path) -> Any:
            declared = case.artifact
            own = declared is not None or (builder is not None and not case.variant)
            if own and _build_options(case).get(keep_float.OPTION):
                raise ArtifactError(_not_built(case))
            if declared is not None:
                return self._found(self._sources.existing(declared.path, "artifact"), case)
            if builder is not None and not case.variant:
                return self._build_with(builder, case, folder)
            source, source_digest = self._build_source(case)
            if source.suffix == case.target.files.suffix and _needs_program(case):
                return self._found(source, case)  # the source is such a file already
            return self._build(case, source, source_digest, folder)

        info = self._once(f"build {case.candidate}", produce)
        return Built(
            path=Path(info["path"]),
            sha256=info["sha256"],
            size_bytes=info["size_bytes"],
            gzip_bytes=info["gzip_bytes"],
            contents=Inspection.from_data(info["contents"]),
            declared=case.artifact or Artifact(info["path"]),
            cached=info["cached"],
            build_s=info["build_s"],
        )

    def rebuilt(self, case: Case) -> Path | None:
        """The file built once more, past the cache and in a process of its own.

        None where it is not built here.
        """
        builder = find_builder(case.model, case.target.name, case.precision)
        if (
            case.target.files.shared_with
            and case.artifact is None
            and (builder is None or case.variant)
        ):
            return self.rebuilt(replace(case, target=find_target(case.target.files.shared_with)))

        def produce(folder: Path) -> Any:
            if case.artifact is not None:
                return None
            if builder is not None and not case.variant:
                return self._build_with(builder, case, folder)["path"]
            source, _ = self._build_source(case)
            if source.suffix == case.target.files.suffix and _needs_program(case):
                return None
            path = folder / f"{_file_stem(case)}{case.target.files.suffix}"
            with self._pool.once(_tools_service(case.target)) as tools:
                self._write(tools, case, source, path, folder)
            return str(path)

        found = self._once(f"build again {case.candidate}", produce)
        return None if found is None else Path(found)

    def _found(self, path: Path, case: Case) -> dict[str, Any]:
        """What is known of a file that was not built here, and of the files that belong to it."""
        contents = self._inspect(path, case)
        others = [path.parent / name for name in contents.external_files]
        sha256 = file_sha256(path)
        if others:
            sha256 = digest_of({"files": [sha256, *map(file_sha256, others)]})
        return {
            "path": str(path),
            "sha256": sha256,
            "cached": None,
            "build_s": None,
            **_sizes([path, *others]),
            "contents": contents.as_data(),
        }

    def _inspect(self, path: Path, case: Case) -> Inspection:
        child = self._tools(case.target)
        fields = child.call("inspect", timeout_s=self._timeout_s, path=str(path))
        return Inspection.from_data(fields)

    def _recipe(self, target: Target) -> dict[str, str]:
        if target.name not in self._recipes:
            self._recipes[target.name] = recipe(target)
        return self._recipes[target.name]

    def _tools(self, target: Target) -> Child:
        child, _ = self._pool.get(f"tools:{target.name}", _tools_service(target))
        return child

    def _build(self, case: Case, source: Path, source_digest: str, folder: Path) -> dict[str, Any]:
        """The file from the cache, or built and kept there."""
        model, target, precision = case.model, case.target, case.precision
        calibration, options = self._calibration(case), _build_options(case)
        program = self._layer_names(case) if options.get(keep_float.OPTION) else {}
        key = digest_of(
            {
                "source": source_digest,
                "target": target.name,
                "precision": precision,
                "inputs": [asdict(item) for item in model.inputs],
                "outputs": list(model.outputs),
                "dims": dimension_ranges(model),
                "calibration": calibration and calibration["sha256"],
                "options": options,
                "layer_names": program.get("digest", ""),
                **self._recipe(target),
            }
        )

        def build(path: Path) -> dict[str, Any]:
            self._write(self._tools(target), case, source, path, folder)
            return {**_sizes([path]), "contents": self._inspect(path, case).as_data()}

        file_name = f"{_file_stem(case)}{target.files.suffix}"
        entry = self._store.get_or_build(key, file_name, replace(case, trial="").candidate, build)
        return {
            "path": str(entry.path),
            "sha256": entry.sha256,
            "cached": entry.cached,
            "build_s": entry.build_s,
            **entry.facts,
        }

    def _write(self, tools: Child, case: Case, source: Path, path: Path, folder: Path) -> None:
        calibration, options = self._calibration(case), _build_options(case)
        program = self._layer_names(case) if options.get(keep_float.OPTION) else {}
        tools.call(
            "build",
            timeout_s=self._timeout_s,
            calibration=calibration and calibration["inputs"],
            **self._request(case, source, path, folder, program),
        )
        if not _written(path):
            raise ArtifactError(f"the {case.target.name} {case.precision} build wrote no file")

    def _calibration(self, case: Case) -> dict[str, Any] | None:
        """The files of the calibration data, where the precision needs them."""
        if case.precision not in CALIBRATED:
            return None
        return self._sources.data(case.model_name, case.model, "calibration")

    def _request(
        self, case: Case, source: Path, output: Path, folder: Path, program: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a target's tools are asked for, but for the calibration data."""
        model = case.model
        return {
            "precision": case.precision,
            "source": str(source),
            "output": str(output),
            "inputs": [item.name for item in model.inputs],
            "outputs": list(model.outputs),
            "example": self._example(model, folder),
            "options": _build_options(case),
            "dims": dimension_ranges(model),
            **({"program": program["path"]} if program else {}),
        }

    def _layer_names(self, case: Case) -> dict[str, Any]:
        """The program that names a candidate's layers; {} where its file's operators do."""
        if case.model.source is None and not case.variant:
            return {}
        if self._sources.kind(*program_source(case), case.model) != "torch":
            return {}
        return self._sources.program(*program_source(case), case.model)

    def _float_program(self, case: Case) -> dict[str, Any]:
        """The source whose weights a file should have: a .pt2 program or an .onnx file; or {}."""
        if case.model.source is None and not case.variant:
            return {}
        if self._sources.kind(*program_source(case), case.model) == "tensorflow":
            return {}
        return self._sources.program(*program_source(case), case.model)

    def layers(self, case: Case) -> list[str]:
        """The layers that ``keep_float`` may name for a candidate.

        Raises:
            EdgecheckError: its file is not built here, or its target has no such option.
        """
        if case.target.files.shared_with:
            return self.layers(replace(case, target=find_target(case.target.files.shared_with)))
        builder = find_builder(case.model, case.target.name, case.precision)
        if case.artifact or (builder is not None and not case.variant):
            raise ArtifactError(_not_built(case))
        if keep_float.OPTION not in case.target.options.defaults:
            raise ArtifactError(f"{case.target.name} has no option {keep_float.OPTION}")

        def produce(folder: Path) -> Any:
            source, _ = self._build_source(case)
            program = self._layer_names(case)
            request = self._request(case, source, folder / "unwritten", folder, program)
            return self._tools(case.target).call(
                "layers", timeout_s=self._timeout_s, calibration=None, **request
            )

        found: list[str] = self._once(f"layers {case.candidate}", produce)
        return found

    def audited(self, case: Case) -> dict[str, Any]:
        """What an audit of its weights found (see `weight_audit.audited`); {} without a program."""

        def produce(folder: Path) -> Any:
            program = self._float_program(case)
            return program and self._tools(case.target).call(
                "audit",
                timeout_s=self._timeout_s,
                path=str(self.built(case).path),
                program=program["path"],
                reader=case.target.build.weights,
            )

        found: dict[str, Any] = self._once(f"audit {case.candidate}", produce)
        return found

    def _build_source(self, case: Case) -> tuple[Path, str]:
        """The file that a build starts from, and its digest: a program or the fp32 file."""
        made_from = self._made_from(case)
        if maker := case.target.float_file_of(made_from):
            float_case = replace(case, target=find_target(maker), precision="fp32", trial="")
            built = self.built(float_case)
            return built.path, built.sha256
        program = self._sources.program(*program_source(case), case.model)
        return Path(program["path"]), program["digest"]

    def _made_from(self, case: Case) -> str:
        """What the precision is built from, which depends on the kind of the source."""
        model, target, precision = case.model, case.target, case.precision
        made_from = target.build.precisions[precision]
        maker = target.float_file_of(made_from)
        if maker and not case.variant and brought(model, maker, "fp32"):
            return made_from
        kind = self._sources.kind(*program_source(case), model)
        made_from = target.made_from(precision, kind)
        if not made_from:
            raise ArtifactError(target.no_route(precision, kind))
        return made_from

    def _build_with(self, builder: object, case: Case, folder: Path) -> dict[str, Any]:
        """A file from the user's builder. Never cached: its code can't be told to be unchanged."""
        name, source = own_source(case)
        path = folder / f"{_file_stem(case)}{case.target.files.suffix}"
        start = time.perf_counter()
        self._sources.build(builder, name, source, case.model, path)
        build_s = round(time.perf_counter() - start, 3)
        return {**self._found(path, case), "cached": False, "build_s": build_s}

    def _example(self, model: Model, folder: Path) -> dict[str, str]:
        """One call's inputs at the sizes that a fixed-shape file gets: batch one, dims largest."""
        rng = np.random.default_rng(model.seed)
        sizes = data.dimension_sizes(model.inputs, model.dims, 1, None)
        call = drawing.random_call(model.inputs, sizes, rng, model.draw)
        return data.save_feed(call, folder / "example")


def _tools_service(target: Target) -> Service:
    return Service(target.build.builder, environment=_QUIET)


def _needs_program(case: Case) -> bool:
    """Whether the target makes the precision from a program, not from its own fp32 file."""
    return case.target.build.precisions[case.precision] == "torch"


def _written(path: Path) -> bool:
    """Whether there is a file with something in it, or a folder with something in it."""
    if path.is_dir():
        return any(path.iterdir())
    return path.is_file() and path.stat().st_size > 0


def _not_built(case: Case) -> str:
    return f"{case.candidate} is a file of your own: {keep_float.OPTION} is for those built here"


def _build_options(case: Case) -> dict[str, Any]:
    """The target's options, without what is kept in float at other precisions."""
    options = dict(case.options)
    if keep_float.OPTION in options:
        names = options[keep_float.OPTION].get(keep_float.key(case.variant, case.precision), ())
        options[keep_float.OPTION] = {case.precision: sorted(set(names))} if names else {}
    return options


def _file_stem(case: Case) -> str:
    """A file name of the candidate's words, safe on every system."""
    return "".join(
        letter if letter.isalnum() or letter in "-_" else "-"
        for letter in replace(case, trial="").candidate
    )


def _sizes(paths: Iterable[Path]) -> dict[str, int]:
    """Bytes on disk and after gzip of files, of a directory all in it."""
    files = []
    for path in paths:
        inside = sorted(item for item in path.rglob("*") if item.is_file())
        files += inside if path.is_dir() else [path]
    size = compressed = 0
    for item in files:
        packer = zlib.compressobj(level=6, wbits=31)  # 31: with a gzip header (zlib manual)
        with item.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                size += len(chunk)
                compressed += len(packer.compress(chunk))
        compressed += len(packer.flush())
    return {"size_bytes": size, "gzip_bytes": compressed}
