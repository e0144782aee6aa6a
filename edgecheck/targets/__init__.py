"""The targets: one module each, saying which precisions it has and how to build and inspect them.

A target knows nothing of pytest and judges nothing. `Target.tools` names a class that runs in a
child process (see `Tools`); heavy imports happen there only.
"""

from __future__ import annotations

import abc
import hashlib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edgecheck.errors import SelectionError
from edgecheck.names import NAME, PRECISIONS, resolve


@dataclass(frozen=True)
class Target:
    """A runtime that models ship to.

    Attributes:
        name: of the command line and of case ids.
        aliases: other names that the command line accepts.
        title: for people.
        suffix: of its model files.
        precisions: what the runtime has, and for each what it is built from: ``"torch"`` (a .pt2
            program), ``"float"`` (the target's own fp32 file), or ``"onnx"`` (ONNX Runtime's).
        from_tensorflow: the same where the source is TensorFlow's, of the precisions in which that
            differs: ``"tensorflow"`` (a SavedModel directory), or ``""`` for those without a route.
        packages: importable module -> pip requirement, all that building and running need.
        install: the command that installs them, where that is not edgecheck's own extra.
        distributions: packages whose version decides what a build gives, for cache keys.
        runtime: the package that runs its files.
        executor: what runs them, where that is not the runtime itself.
        tools: ``"module:Class"``, see `Tools`.
        drivers: modules of its runtime driver, sent to where it runs; the last has the class.
        driver: ``"module:Class"``.
        reads: the kinds of source that it is built from: ``"torch"``, ``"onnx"``, ``"tensorflow"``.
        shares_files: the target whose files it runs, where it has none of its own.
        weights: module with ``stored(path)``, the weights in a file of its (see
            `edgecheck.targets.common.weight_audit`); "" where they are not audited.
        keeps_dynamic_batch: whether its files keep a dynamic batch; else they are fixed to one.
        repeats: whether the same call on one thread gives the same result; else, as on a GPU, that
            of another order of sums.
        options: what `Model.target_options` may say about it, with the defaults; plain data.
        check_options: what is wrong with such options, all of them given, or "".
        lacks: what else than packages this machine lacks to build, and what would help, or "".
        gaps: why this machine can't make a check, given all options: by check, by precision for
            those whose files can't be run, or ``"run"`` where none can (the export check then only
            builds and inspects).
        others: versions of what it uses besides packages, by name.
    """

    name: str
    title: str
    suffix: str
    precisions: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    from_tensorflow: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    install: str = ""
    distributions: tuple[str, ...] = ()
    runtime: str = ""
    tools: str = ""
    drivers: tuple[str, ...] = ()
    driver: str = ""
    executor: str = ""
    reads: tuple[str, ...] = ("torch",)
    shares_files: str = ""
    weights: str = ""
    keeps_dynamic_batch: bool = True
    repeats: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    check_options: Callable[[Mapping[str, Any]], str] = lambda options: ""
    lacks: Callable[[], str] = lambda: ""
    gaps: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda options: {}
    others: Callable[[], Mapping[str, str]] = dict

    def missing(self) -> str:
        """Why this machine can't build for it and what would help, or ""."""
        absent = [
            requirement
            for module, requirement in self.packages.items()
            if importlib.util.find_spec(module) is None
        ]
        if not absent:
            return self.lacks()
        install = self.install or f"pip install 'edgecheck[{self.name}]'"
        return f"{', '.join(absent)} not installed: {install}"

    def made_from(self, precision: str, kind: str) -> str:
        """What a precision is built from, given a source of a kind; "" where there is no route."""
        if kind not in self.reads:
            return ""
        differing = self.from_tensorflow if kind == "tensorflow" else {}
        return differing.get(precision, self.precisions[precision])

    def no_route(self, precision: str, kind: str) -> str:
        """What to say where `made_from` is ""."""
        source = {"onnx": "an ONNX file", "tensorflow": "a TensorFlow model"}.get(kind, kind)
        file = f"{precision} for {self.title}" if kind in self.reads else self.title
        return (
            f"no route from {source} to {file}: bring "
            f"artifacts= or builders={{({self.name!r}, {precision!r}): ...}}"
        )

    def gap(
        self, check: str, precision: str = "fp32", options: Mapping[str, Any] | None = None
    ) -> str:
        """Why this machine can't make a check of its files (or "run" them), or "".

        Args:
            options: all of them, where they are not the defaults.
        """
        gaps = self.gaps(self.options if options is None else options)
        if check == "export":
            return gaps.get(check, "")
        return gaps.get(check) or gaps.get("run") or gaps.get(precision, "")

    def recipe(self) -> dict[str, str]:
        """What besides the program decides a build: the recipes' sources and the tools' versions.

        The recipes are all modules beside the one of `tools`; drivers count too, whose readers of
        files inspection may use.
        """
        digest = hashlib.sha256()
        for path in sorted(_beside(self.tools.split(":")[0])):
            digest.update(path.read_bytes())
        for name in self.drivers:
            digest.update(_origin(name).read_bytes())
        return {"recipe": digest.hexdigest(), **versions(self.distributions)}


def _origin(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


def _beside(module: str) -> list[Path]:
    """A module's file and those beside it."""
    return list(_origin(module).parent.glob("*.py"))


@dataclass(frozen=True)
class BuildRequest:
    """What is to be built.

    Attributes:
        source: a .pt2 program, a SavedModel directory, or a fp32 file (see `Target.precisions`).
        output: path of the file, or of the folder where the target's files are folders.
        inputs, outputs: declared names.
        calibration: .npy path by input, samples on axis 0; None for precisions without it.
        example: .npy path by input: one call, with the batch fixed to one where the target keeps
            no dynamic batch.
        options: of the target, all of them.
        dims: smallest and largest size of each named dimension of the inputs.
        program: the .pt2 program that names the layers of ``keep_float``; "" where there is none.
    """

    precision: str
    source: str
    output: str
    inputs: list[str]
    outputs: list[str]
    calibration: dict[str, str] | None
    example: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    dims: dict[str, tuple[int, int]] = field(default_factory=dict)
    program: str = ""


class Tools(abc.ABC):
    """What `Target.tools` names: builds and inspects files, in a child process."""

    def build(self, **request: Any) -> None:
        """Write a model file: the fields of a `BuildRequest`, as plain data."""
        self.write(BuildRequest(**request))

    def layers(self, **request: Any) -> list[str]:
        """The layers that ``keep_float`` may name for a build (see `keep_float`)."""
        return self.find_layers(BuildRequest(**request))

    def find_layers(self, request: BuildRequest) -> list[str]:
        """The same; for targets that have the option."""
        return []

    def audit(self, *, path: str, program: str, reader: str) -> dict[str, Any]:
        """A file's weights against those of its .pt2 program (see `weight_audit.audited`).

        Args:
            reader: `Target.weights`.
        """
        from edgecheck.targets.common import program_weights, weight_audit

        stored = importlib.import_module(reader).stored(path)
        return weight_audit.audited(stored, program_weights.read(program))

    @abc.abstractmethod
    def write(self, request: BuildRequest) -> None:
        """Write a model file."""

    @abc.abstractmethod
    def inspect(self, *, path: str) -> dict[str, Any]:
        """What is in a model file, without running it.

        Returns ``failures`` and ``warnings`` (lists of lines), ``format`` (versions), ``operators``
        and ``quantized_operators`` (count by type), ``weight_elements`` and ``weight_bytes`` (by
        storage type: float32, float16, int8, int4 ...); where the file can be read
        ``activation_memory`` (see `edgecheck.targets.common.static_arena.describe`; or
        ``unplanned``, why there is no plan); and where there are any ``external_files``, names of
        the files beside it that belong to it; ``layers``, those with constant weights by whether
        they are computed in ``integer`` or ``float`` (lists of their names; activations that are
        quantized at run time are float ones); ``lint``, the warnings among them that a budget may
        forbid (``lint_findings``); ``not_inspected``, why this machine can't look into it.
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


ENTRY_POINTS = "edgecheck.targets"
_MODULES = ("ort", "tflite", "coreml", "trt", "executorch", "ort_web")


def all_targets() -> dict[str, Target]:
    """Every target by name, in the order of reports: edgecheck's own, then those of others.

    Others add theirs through the entry-point group ``edgecheck.targets``: each entry point is a
    `Target`, or several in a tuple.

    Raises:
        SelectionError: an entry point does not load, or is no target that can be added.
    """
    return dict(_registered())


@cache
def _registered() -> Mapping[str, Target]:
    targets: dict[str, Target] = {}
    for name in _MODULES:
        for target in importlib.import_module(f"edgecheck.targets.{name}").TARGETS:
            targets[target.name] = target
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        for target in _load(point):
            taken = {name for known in targets.values() for name in (known.name, *known.aliases)}
            if problem := _unfit(target, taken):
                raise SelectionError(f"{_place(point)} {problem}")
            targets[target.name] = target
    return targets


def _load(point: importlib.metadata.EntryPoint) -> tuple[Any, ...]:
    try:
        found = point.load()
    except Exception as error:  # of code that others wrote
        text = " ".join(str(error).split())[:300]
        raise SelectionError(
            f"{_place(point)} does not load: {type(error).__name__}: {text}"
        ) from error
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def _place(point: importlib.metadata.EntryPoint) -> str:
    package = f" of {point.dist.name}" if point.dist is not None else ""
    return f"the entry point {point.name!r}{package} in {ENTRY_POINTS}"


def _unfit(target: Any, taken: Collection[str]) -> str:
    """Why something can't be added as a target, or ""."""
    if not isinstance(target, Target):
        return f"is a {type(target).__name__}, not an edgecheck.targets.Target"
    for name in (target.name, *target.aliases):
        if not NAME.fullmatch(name):
            return f"names a target {name!r}: use letters, digits, '_', '-', '.'"
        if name in taken:
            return f"names a target {name!r}, which exists already"
    if unknown := sorted(set(target.precisions) - set(PRECISIONS)):
        return f"has unknown precisions {unknown}; precisions are {', '.join(PRECISIONS)}"
    if target.shares_files and target.shares_files not in taken:
        return f"runs the files of {target.shares_files!r}, which is no target"
    return ""


def find_target(given: str) -> Target:
    """The target of a name or alias.

    Raises:
        SelectionError: there is none.
    """
    targets = all_targets()
    aliases = {alias: target.name for target in targets.values() for alias in target.aliases}
    return targets[resolve(given, targets, "target", aliases)]
