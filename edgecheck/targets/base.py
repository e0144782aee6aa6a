"""What a target declares about itself, and what its builder takes and gives.

A target knows nothing of pytest and judges nothing. Names of classes in a declaration are
``"module:Class"``: they are imported in child processes only.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

# Whose half-precision kernels differ from those of Arm processors.
ON_X86 = platform.machine() in ("x86_64", "AMD64") and sys.platform != "darwin"


@dataclass(frozen=True)
class Files:
    """The model files of a target.

    Attributes:
        suffix: of the file, or of the folder where its files are folders.
        keeps_dynamic_batch: whether they keep a dynamic batch; otherwise they are fixed to one.
        shared_with: the target whose files it runs, if it has none of its own.
        source_kind: the kind of `Model` source that such a file is; "" if it can't be a source.
    """

    suffix: str
    keeps_dynamic_batch: bool = True
    shared_with: str = ""
    source_kind: str = ""


@dataclass(frozen=True)
class Build:
    """How a target's files are made.

    Attributes:
        precisions: what the runtime has, and for each what it is built from: ``"torch"`` (a .pt2
            program), ``"float"`` (the target's own fp32 file), or the name of another target (that
            one's fp32 file).
        builder: ``"module:Class"``, a `Builder`.
        reads: the kinds of source that it is built from: ``"torch"``, ``"onnx"``, ``"tensorflow"``.
        from_tensorflow: like `precisions`, for those that differ if the source is TensorFlow's:
            ``"tensorflow"`` (a SavedModel directory), or ``""`` for those without a route.
        distributions: packages whose version decides what a build gives, for cache keys.
        weights: a module with ``stored(path)``, the weights in a file (see
            `edgecheck.targets.common.weight_audit`); "" if they are not audited.
    """

    precisions: Mapping[str, str]
    builder: str
    reads: tuple[str, ...] = ("torch",)
    from_tensorflow: Mapping[str, str] = field(default_factory=dict)
    distributions: tuple[str, ...] = ()
    weights: str = ""


@dataclass(frozen=True)
class Runtime:
    """What runs a target's files.

    Attributes:
        package: the distribution that runs them.
        runner: ``"module:Class"``, a `edgecheck.runtime.runner.Runner`. Its source is sent to where
            it runs, with the modules of edgecheck and of its own package that it imports.
        needs_edgecheck: whether it can't be sent, since it needs edgecheck to be installed there.
        tracer: ``"module:Class"``, a `edgecheck.runtime.tracer.Tracer`.
        untraceable: why there is no tracer.
        executor: what runs the files, if that is not the runtime itself.
        deterministic: whether the same call on one thread gives the same result; False if the order
            of sums may vary, as on a GPU.
        wide_half_sums: whether it adds up products of half-precision numbers in float32.
        other_versions: versions of what it uses besides Python packages, by name.
    """

    runner: str
    package: str = ""
    needs_edgecheck: bool = False
    tracer: str = ""
    untraceable: str = ""
    executor: str = ""
    deterministic: bool = True
    wide_half_sums: bool = False
    other_versions: Callable[[], Mapping[str, str]] = dict


@dataclass(frozen=True)
class Options:
    """What `Model.target_options` may say about a target: plain data.

    Attributes:
        defaults: every option, with its default.
        problem: what is wrong with options, all of them given, or "".
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    problem: Callable[[Mapping[str, Any]], str] = lambda options: ""


@dataclass(frozen=True)
class Host:
    """What a target needs of the machine.

    Attributes:
        packages: importable module -> pip requirement, all that building and running need.
        install: the command that installs them, if that is not edgecheck's own extra.
        missing: non-package prerequisites that are missing to build, with the fix, or "".
        gaps: why this machine can't make a check, given all options: by check, by precision for
            those whose files can't be run, or ``"run"`` if none can (the export check then only
            builds and inspects).
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    install: str = ""
    missing: Callable[[], str] = lambda: ""
    gaps: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda options: {}


@dataclass(frozen=True)
class Target:
    """A runtime that models ship to.

    Attributes:
        name: of the command line and of case ids.
        title: for people.
        aliases: other names that the command line accepts.
    """

    name: str
    title: str
    files: Files
    build: Build
    runtime: Runtime
    options: Options = Options()
    host: Host = Host()
    aliases: tuple[str, ...] = ()

    def missing(self) -> str:
        """Why this machine can't build for it and what would help, or ""."""
        absent = [
            requirement
            for module, requirement in self.host.packages.items()
            if importlib.util.find_spec(module) is None
        ]
        if not absent:
            return self.host.missing()
        install = self.host.install or f"pip install 'edgecheck[{self.name}]'"
        return f"{', '.join(absent)} not installed: {install}"

    def made_from(self, precision: str, kind: str) -> str:
        """What a precision is built from, given a source of a kind; "" if there is no route."""
        if kind not in self.build.reads:
            return ""
        differing = self.build.from_tensorflow if kind == "tensorflow" else {}
        return differing.get(precision, self.build.precisions[precision])

    def float_file_of(self, made_from: str) -> str:
        """The target whose fp32 file a build starts from; "" if it starts from a source."""
        if made_from == "float":
            return self.name
        return "" if made_from in ("torch", "tensorflow") else made_from

    def no_route(self, precision: str, kind: str) -> str:
        """What to say if `made_from` is ""."""
        source = {"onnx": "an ONNX file", "tensorflow": "a TensorFlow model"}.get(kind, kind)
        file = f"{precision} for {self.title}" if kind in self.build.reads else self.title
        return (
            f"no route from {source} to {file}: bring "
            f"artifacts= or builders={{({self.name!r}, {precision!r}): ...}}"
        )

    def gap(
        self, check: str, precision: str = "fp32", options: Mapping[str, Any] | None = None
    ) -> str:
        """Why this machine can't make a check of its files (or "run" them), or "".

        Args:
            options: all of them, if they are not the defaults.
        """
        gaps = self.host.gaps(self.options.defaults if options is None else options)
        if check == "export":
            return gaps.get(check, "")
        return gaps.get(check) or gaps.get("run") or gaps.get(precision, "")


@dataclass(frozen=True)
class BuildRequest:
    """What is to be built.

    Attributes:
        source: a .pt2 program, a SavedModel directory, or a fp32 file (see `Build.precisions`).
        output: path of the file, or of the folder if the target's files are folders.
        inputs, outputs: declared names.
        calibration: .npy path by input, samples on axis 0; None for precisions without it.
        example: .npy path by input: one call, with the batch fixed to one if the target keeps no
            dynamic batch.
        options: of the target, all of them.
        dims: smallest and largest size of each named dimension of the inputs.
        program: the .pt2 program that names the layers of ``keep_float``; "" if there is none.
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


@dataclass(frozen=True)
class Inspection:
    """What is in a model file, read without running it.

    Attributes:
        failures: why the file can't ship, a line each.
        warnings: a line each.
        format: versions, by name; empty if the file can't be read.
        operators, quantized_operators: count by type.
        weight_elements, weight_bytes: count by storage type (float32, float16, int8, int4 ...).
        half_operators: how many give results in half precision; None if that is not known.
        layers: names of those with constant weights, by whether they are computed in ``integer`` or
            ``float`` (those whose activations are quantized at run time are float ones); None if
            that is not known.
        activation_memory: see `edgecheck.targets.common.static_arena.describe`; or ``unplanned``,
            why there is no plan; None if nothing is known.
        external_files: names of the files beside it that belong to it.
        lint: the warnings among them that a budget may forbid (``lint_findings``); None if the
            target has no lint.
        not_inspected: why this machine can't look into it, or "".
    """

    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    format: Mapping[str, Any] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    quantized_operators: Mapping[str, int] = field(default_factory=dict)
    weight_elements: Mapping[str, int] = field(default_factory=dict)
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    half_operators: int | None = None
    layers: Mapping[str, list[str]] | None = None
    activation_memory: Mapping[str, Any] | None = None
    external_files: tuple[str, ...] = ()
    lint: tuple[str, ...] | None = None
    not_inspected: str = ""

    def as_data(self) -> dict[str, Any]:
        """Plain data that `from_data` takes; what is not known is left out."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in fields.items() if value is not None}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Inspection:
        """An inspection of plain data."""
        lists = ("failures", "warnings", "external_files", "lint")
        fields: dict[str, Any] = {
            name: tuple(value) if name in lists else value for name, value in data.items()
        }
        return cls(**fields)

    @classmethod
    def unreadable(cls, reason: str) -> Inspection:
        """That of a file that can't be read."""
        return cls(failures=(reason,))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


class Builder(abc.ABC):
    """Builds and inspects a target's files, in a child process: subclass it in ``build.py``.

    `write` and `inspect_file` are to be overridden, and `find_layers` by targets with the option
    ``keep_float``. The other methods are what the parent process calls; they take and return plain
    data.
    """

    @abc.abstractmethod
    def write(self, request: BuildRequest) -> None:
        """Write a model file."""

    @abc.abstractmethod
    def inspect_file(self, path: Path) -> Inspection:
        """What is in a model file, also in one that is damaged or of another format."""

    def find_layers(self, request: BuildRequest) -> list[str]:
        """The layers that ``keep_float`` may name for a build."""
        return []

    @final
    def build(self, **request: Any) -> None:
        """Write a model file: the fields of a `BuildRequest`."""
        self.write(BuildRequest(**request))

    @final
    def layers(self, **request: Any) -> list[str]:
        """The layers that ``keep_float`` may name: the fields of a `BuildRequest`."""
        return self.find_layers(BuildRequest(**request))

    @final
    def inspect(self, *, path: str) -> dict[str, Any]:
        """What is in a model file, as `Inspection.as_data`."""
        try:
            return self.inspect_file(Path(path)).as_data()
        except OSError as error:
            reason = f"{Path(path).name} can't be read: {error.strerror or error}"
            return Inspection.unreadable(reason).as_data()

    @final
    def audit(self, *, path: str, program: str, reader: str) -> dict[str, Any]:
        """A file's weights against those of its program (see `weight_audit.audited`).

        Args:
            program: path of a .pt2 or .onnx file.
            reader: `Build.weights`.
        """
        # By name: what audits a file does not decide what is in it, and is not in its recipe.
        common = "edgecheck.targets.common"
        kind = "onnx.weights" if program.endswith(".onnx") else "program_weights"
        weights = importlib.import_module(f"{common}.{kind}").read(program)
        weight_audit = importlib.import_module(f"{common}.weight_audit")
        stored = importlib.import_module(reader).stored(path)
        findings: dict[str, Any] = weight_audit.audited(stored, weights)
        return findings


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Installed version by distribution; absent ones are left out."""
    installed = {}
    for name in distributions:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
