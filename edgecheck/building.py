"""Model files: brought by the user, written by the user's builder, or built by a target's recipe.

Builds run in children, and what they write is kept in the artifact cache. Not for running the
files: see `edgecheck.devices`.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck import data
from edgecheck.case import Case, find_builder
from edgecheck.errors import ArtifactError
from edgecheck.model import Artifact, Model, Source
from edgecheck.once import Once
from edgecheck.process import Pool, Service
from edgecheck.sources import Sources, dimension_ranges, existing
from edgecheck.store import Store, digest_of, file_sha256

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


class Builder:
    """Gets candidates' model files, each once a run."""

    def __init__(
        self, pool: Pool, once: Once, store: Store, sources: Sources, timeout_s: float
    ) -> None:
        self._pool = pool
        self._once = once
        self._store = store
        self._sources = sources
        self._timeout_s = timeout_s

    def built(self, case: Case) -> Built:
        """The candidate's model file, built if need be.

        Raises:
            EdgecheckError: it can't be had; the message is one line.
        """

        def produce(folder: Path) -> Any:
            declared = case.artifact
            if declared is not None:
                path = existing(declared.path, "artifact")
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
        if source.suffix == target.suffix and target.precisions[precision] == "torch":
            return source, source_digest, False, 0.0  # the source is such a file already
        calibration = (
            self._sources.data(case.model_name, model, "calibration")
            if precision == "int8"
            else None
        )
        key = digest_of(
            {
                "source": source_digest,
                "target": target.name,
                "precision": precision,
                "inputs": [asdict(item) for item in model.inputs],
                "outputs": list(model.outputs),
                "dims": dimension_ranges(model),
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
                timeout_s=self._timeout_s,
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

        entry = self._store.get_or_build(key, file_name, case.candidate, build)
        return entry.path, entry.sha256, entry.cached, entry.build_s

    def _build_source(self, case: Case) -> tuple[Path, str]:
        """The file that a build starts from, and its digest: a program or the fp32 file."""
        model, target, precision = case.model, case.target, case.precision
        if target.precisions[precision] == "float":
            float_case = replace(case, precision="fp32")
            built = self.built(float_case)
            return built.path, built.sha256
        if precision == "int8-qat":
            source = model.qat_source(target.name)
            assert source is not None
            program = self._sources.program(f"{case.model_name} qat {target.name}", source, model)
        else:
            program = self._sources.program(*own_source(case), model)
        if program["kind"] == "onnx" and not target.reads_onnx:
            raise ArtifactError(f"there is no route from an ONNX file to {target.title}")
        return Path(program["path"]), program["digest"]

    def _build_with(
        self, builder: object, case: Case, folder: Path
    ) -> tuple[Path, str, bool, float]:
        """A file from the user's builder. Never cached: its code can't be told to be unchanged."""
        name, source = own_source(case)
        path = folder / f"{_file_stem(case)}{case.target.suffix}"
        self._sources.build(builder, name, source, case.model, path)
        return path, file_sha256(path), False, 0.0

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
            return child.call("inspect", timeout_s=self._timeout_s, path=str(self.built(case).path))

        found: dict[str, Any] = self._once(f"inspect {case.candidate}", produce)
        return found


def own_source(case: Case) -> tuple[str, Source]:
    """Name and source of the candidate itself."""
    source = case.model.variants[case.variant] if case.variant else case.model.source
    if source is None:
        raise ArtifactError(f"{case.model_name} has no source to build from")
    return f"{case.model_name}:{case.variant}", source


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
