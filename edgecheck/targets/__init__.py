"""The targets: one module each, saying which precisions it has and how to build and inspect them.

A target knows nothing of pytest and judges nothing. `Target.tools` names a class that runs in a
child process and has two methods (see `Tools`); heavy imports happen there only.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgecheck.names import resolve


@dataclass(frozen=True)
class Target:
    """A runtime that models ship to.

    Attributes:
        name: of the command line and of case ids.
        aliases: other names that the command line accepts.
        title: for people.
        suffix: of its model files.
        precisions: what the runtime has, and for each the kinds of source that it is built from:
            ``"torch"`` (a .pt2 program), or ``"float"`` (the target's own fp32 file).
        packages: importable module -> pip requirement, all that building and running need.
        distributions: packages whose version decides what a build gives, for cache keys.
        runtime: the package that runs its files.
        tools: ``"module:Class"``, see `Tools`.
        drivers: modules of its runtime driver, sent to where it runs; the last has the class.
        driver: ``"module:Class"``.
        reads_onnx: whether its fp32 file is an ONNX file, so that ONNX sources need no conversion.
        keeps_dynamic_batch: whether its files keep a dynamic batch; else they are fixed to one.
        unavailable: why no machine can run it yet, or "".
    """

    name: str
    title: str
    suffix: str
    precisions: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    distributions: tuple[str, ...] = ()
    runtime: str = ""
    tools: str = ""
    drivers: tuple[str, ...] = ()
    driver: str = ""
    reads_onnx: bool = False
    keeps_dynamic_batch: bool = True
    unavailable: str = ""

    def missing(self) -> str:
        """Why this machine can't run it and what would help, or ""."""
        if self.unavailable:
            return self.unavailable
        absent = [
            requirement
            for module, requirement in self.packages.items()
            if importlib.util.find_spec(module) is None
        ]
        if not absent:
            return ""
        return f"{', '.join(absent)} not installed: pip install 'edgecheck[{self.name}]'"

    def recipe(self) -> dict[str, str]:
        """What besides the program decides a build: the recipes' sources and the tools' versions.

        The recipes are all modules beside the one of `tools`.
        """
        module = importlib.util.find_spec(self.tools.split(":")[0])
        digest = hashlib.sha256()
        if module is not None and module.origin is not None:
            for path in sorted(Path(module.origin).parent.glob("*.py")):
                digest.update(path.read_bytes())
        return {"recipe": digest.hexdigest(), **versions(self.distributions)}


class Tools(Protocol):
    """What `Target.tools` names: builds and inspects files, in a child process."""

    def build(
        self,
        *,
        precision: str,
        source: str,
        output: str,
        inputs: list[str],
        outputs: list[str],
        calibration: dict[str, str] | None,
        example: dict[str, str],
    ) -> None:
        """Write a model file.

        Args:
            source: a .pt2 program, or the target's fp32 file (see `Target.precisions`).
            inputs, outputs: declared names.
            calibration: .npy path by input, samples on axis 0.
            example: .npy path by input: one call, with the batch fixed to one where the target
                keeps no dynamic batch.
        """

    def inspect(self, *, path: str) -> dict[str, Any]:
        """What is in a model file, without running it.

        Returns ``failures`` and ``warnings`` (lists of lines), ``format`` (versions), ``operators``
        and ``quantized_operators`` (count by type), ``weight_elements`` and ``weight_bytes`` (by
        storage type: float32, float16, int8, int4 ...); where the file can be read
        ``activation_memory`` (see `edgecheck.arena.describe`; or ``unplanned``, why there is no
        plan); and where there are any ``external_files``, names of the files beside it that belong
        to it.
        """


def unreadable(reason: str) -> dict[str, Any]:
    """What `Tools.inspect` returns of a file that it can't read."""
    contents: dict[str, Any] = {"failures": [reason], "warnings": []}
    kinds = ("format", "operators", "quantized_operators", "weight_elements", "weight_bytes")
    return {**contents, **{kind: {} for kind in kinds}}


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Installed version by distribution; absent ones left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


_MODULES = ("ort", "tflite", "planned")


def all_targets() -> dict[str, Target]:
    """Every target by name, in the order of reports."""
    targets = {}
    for name in _MODULES:
        for target in importlib.import_module(f"edgecheck.targets.{name}").TARGETS:
            targets[target.name] = target
    return targets


def find_target(given: str) -> Target:
    """The target of a name or alias.

    Raises:
        SelectionError: there is none.
    """
    targets = all_targets()
    aliases = {alias: target.name for target in targets.values() for alias in target.aliases}
    return targets[resolve(given, targets, "target", aliases)]
