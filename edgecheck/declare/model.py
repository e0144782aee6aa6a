"""The declaration of a model: its source, inputs, outputs, data and artifacts.

See also `edgecheck.capture.torch`, which captures the source, and `edgecheck.capture.data`, which
stores the data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.declare.inputs import BATCH as BATCH
from edgecheck.declare.inputs import DEFAULT_DIM as DEFAULT_DIM
from edgecheck.declare.inputs import Input as Input
from edgecheck.declare.metrics import Metric, as_metric
from edgecheck.declare.outputs import Output, names_and_declarations
from edgecheck.errors import DeclarationError
from edgecheck.names import NAME, PRECISIONS

DROP_POLICIES = ("point", "upper-bound")

Source = Callable[[], Any] | str | os.PathLike[str]
ArtifactKey = str | tuple[str, str]
# Draws some inputs of a valid call, by name: sizes of the named dimensions, a seeded generator.
Draw = Callable[[dict[str, int], np.random.Generator], Mapping[str, Any]]


@dataclass(frozen=True)
class Artifact:
    """A model file that already exists, and how its tensors correspond to the declared ones.

    Attributes:
        path: the file.
        inputs: declared input name -> name in the file, if they differ.
        outputs: declared output name -> name in the file, if they differ.
        transpose: declared input or output name -> axes that turn the declared layout into the
            file's, as in ``numpy.transpose``; ``(0, 2, 3, 1)`` for an NHWC file of an NCHW model.
    """

    path: str | os.PathLike[str]
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    transpose: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Labelled data and the metric that scores a model on it.

    Attributes:
        inputs: an array (one input), a dict of arrays by input name, an iterable of samples, a
            PyTorch Dataset or DataLoader, or a callable that returns one of these. If the inputs
            share no batch axis, a sample is a whole call.
        labels: an array, or a callable that returns one; None if `inputs` yields
            ``(sample, label)`` pairs.
        metric: a `Metric`, the name of one (see `edgecheck.metrics.METRICS`), or any
            ``metric(predictions, labels) -> float``.
        output: the output to score; None scores the only one, or passes a dict of all.
        postprocess: applied to the predictions before the metric.
        batch_size: samples per call if the batch is dynamic; fewer if they are large.
        drop_policy: how `Budget.accuracy_drop` is judged: ``"point"`` by the drop that was
            measured, ``"upper-bound"`` by the upper end of its 95 % confidence interval.
    """

    inputs: Any
    labels: Any = None
    metric: Metric | str | Callable[[Any, Any], float] = field(kw_only=True)
    output: str | None = field(default=None, kw_only=True)
    postprocess: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    batch_size: int = field(default=64, kw_only=True)
    drop_policy: str = field(default="point", kw_only=True)

    def __post_init__(self) -> None:
        if not callable(self.metric) and not isinstance(self.metric, str):
            raise DeclarationError(f"the metric {self.metric!r} is not a name and not callable")
        if self.drop_policy not in DROP_POLICIES:
            raise DeclarationError(
                f"drop_policy is {self.drop_policy!r}; it is one of {', '.join(DROP_POLICIES)}"
            )
        object.__setattr__(self, "metric", as_metric(self.metric))
        if self.batch_size < 1:
            raise DeclarationError(f"evaluation batch_size is {self.batch_size}; it starts at 1")


@dataclass(frozen=True)
class Model:
    """A model under test.

    Attributes:
        source: a callable that returns a ``torch.nn.Module``, a Keras model or a ``tf.Module``; or
            the path of a ``.pt2``, ``.onnx`` or ``.keras`` file or of a SavedModel directory. None
            if the model exists as artifacts only.
        inputs: the declared inputs, in the order of the model's parameters.
        outputs: names of the outputs, in the order the model returns them; an `Output` in a
            name's place says more. They are names once the model is declared (see `output`).
        name: what reports call it; by default the name of the Conformance class.
        artifacts: files that ship, by target (fp32) or (target, precision).
        builders: exporters of the user's own, by target (fp32) or (target, precision): a callable
            ``builder(model, path)`` that writes the file. `model` is what the source returns (a
            path stays a path).
        baselines: files of the last release, with keys as in `artifacts`: what the budget's
            ``latency_vs_baseline`` compares with.
        reference: "source", or the key of the artifact that the others are compared with.
        qat: a callable or ``.pt2`` path of the quantization-aware-trained, converted program; or
            a dict of those by target. It makes the precision ``int8-qat`` available.
        variants: further candidates by name (a pruned model, a distilled student): sources that
            take the same inputs and give the same outputs, judged against this reference.
        calibration: data for static quantization, in any form that `Evaluation.inputs` takes.
        evaluation: data and metric for the accuracy check.
        samples: inputs of the user's own for the parity check; by default the first of the
            evaluation or calibration data.
        targets: the precisions that ship, by target. By default all that the target has; if
            artifacts or builders are declared, exactly those.
        target_options: how to build for and run on a target, by target: see docs/targets.md.
        batch_sizes: batch sizes at which a dynamic batch is tried.
        dims: smallest and largest size of the named dimensions.
        draw: ``draw(sizes, rng)`` returns arrays by input name, for inputs that are not valid in
            every combination of their values, as a mask that must keep something; the others are
            drawn from their domains. `sizes` has the named dimensions, `rng` is a seeded
            ``numpy.random.Generator``.
        seed: of the generated inputs.
        fuzz: how many adversarial inputs the parity check tries, if ``--edge-fuzz`` is not
            given.

    Raises:
        DeclarationError: the declaration contradicts itself.
    """

    source: Source | None = None
    inputs: Sequence[Input] = field(kw_only=True)
    outputs: Sequence[Any] = field(kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    artifacts: Mapping[ArtifactKey, Artifact | str | os.PathLike[str]] = field(
        default_factory=dict, kw_only=True
    )
    builders: Mapping[ArtifactKey, Callable[[Any, Path], object]] = field(
        default_factory=dict, kw_only=True
    )
    baselines: Mapping[ArtifactKey, Artifact | str | os.PathLike[str]] = field(
        default_factory=dict, kw_only=True
    )
    reference: ArtifactKey = field(default="source", kw_only=True)
    qat: Source | Mapping[str, Source] | None = field(default=None, kw_only=True)
    variants: Mapping[str, Source] = field(default_factory=dict, kw_only=True)
    calibration: Any = field(default=None, kw_only=True)
    evaluation: Evaluation | None = field(default=None, kw_only=True)
    samples: Any = field(default=None, kw_only=True)
    targets: Mapping[str, Sequence[str]] | None = field(default=None, kw_only=True)
    target_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, kw_only=True)
    batch_sizes: Sequence[int] = field(default=(1, 2, 5), kw_only=True)
    dims: Mapping[str, tuple[int, int]] = field(default_factory=dict, kw_only=True)
    draw: Draw | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    fuzz: int = field(default=0, kw_only=True)

    _outputs: Mapping[str, Output] = field(default_factory=dict, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        names, declared = names_and_declarations(self.outputs)
        object.__setattr__(self, "_outputs", {**self._outputs, **declared})
        object.__setattr__(self, "outputs", names)
        _check_draw(self.draw)
        _check_fuzz(self.fuzz)
        _check_names("input", [item.name for item in self.inputs])
        _check_names("output", list(self.outputs))
        _check_source(self.source)
        for what in ("artifacts", "builders", "baselines"):
            _check_keys(what, getattr(self, what))
        _check_reference(self.reference, self.source, self.artifacts)
        _check_dims(self.dims, self.inputs)
        _check_batch_sizes(self.batch_sizes, *self.dim_range(BATCH))
        _check_scored_output(self.evaluation, self.outputs)
        _check_by_target("targets", self.targets)
        _check_by_target("target_options", self.target_options)
        _check_precisions(self.targets or {}, [*self.artifacts, *self.builders, *self.baselines])
        _check_reported_names([*self.variants, *([] if self.name is None else [self.name])])

    def output(self, name: str) -> Output:
        """The declaration of an output."""
        return self._outputs.get(name, Output(name))

    def dim_range(self, name: str) -> tuple[int, int]:
        """Smallest and largest size of a named dimension."""
        return self.dims.get(name, DEFAULT_DIM)

    @property
    def dynamic_batch(self) -> bool:
        """Whether any input has a dynamic batch axis."""
        return any(item.batched for item in self.inputs)

    def qat_source(self, target: str) -> Source | None:
        """The QAT-converted program for a target, or None."""
        return self.qat.get(target) if isinstance(self.qat, Mapping) else self.qat

    @property
    def classifier_output(self) -> str | None:
        """The output that holds class scores, or None if the metric needs none."""
        if self.evaluation is None or not as_metric(self.evaluation.metric).classifier:
            return None
        return self.evaluation.output or (self.outputs[0] if len(self.outputs) == 1 else None)


def artifact_key(key: ArtifactKey) -> tuple[str, str]:
    """The (target, precision) that a key of `Model.artifacts` or `Model.builders` means."""
    return (key, "fp32") if isinstance(key, str) else (key[0], key[1])


def as_artifact(artifact: Artifact | str | os.PathLike[str]) -> Artifact:
    """An Artifact from a bare path."""
    return artifact if isinstance(artifact, Artifact) else Artifact(artifact)


def source_kind(source: Source) -> str:
    """The kind of a source that is a file: ``"torch"``, ``"onnx"``, ``"tensorflow"``; else ""."""
    if callable(source):
        return ""
    path = Path(source)
    kinds = {".pt2": "torch", ".onnx": "onnx", ".keras": "tensorflow"}
    if path.suffix not in kinds and (path / "saved_model.pb").is_file():
        return "tensorflow"
    return kinds.get(path.suffix, "")


def _check_draw(draw: object) -> None:
    if draw is not None and not callable(draw):
        raise DeclarationError(
            f"draw is a {type(draw).__name__}; it is a callable draw(sizes, rng) that returns "
            "arrays by input name"
        )


def _check_fuzz(fuzz: int) -> None:
    if fuzz < 0:
        raise DeclarationError(f"fuzz is {fuzz}; a number of inputs starts at 0")


def _check_names(what: str, names: list[str]) -> None:
    if not names:
        raise DeclarationError(f"a model needs at least one {what}")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DeclarationError(f"{what} names repeat: {repeated}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise DeclarationError(f"{what} names must be non-empty strings, not {name!r}")


def _check_source(source: Any) -> None:
    """The source is None, a callable, or the path of a file or directory that can be loaded."""
    if source is None or callable(source):
        return
    is_path = isinstance(source, str | os.PathLike)
    if is_path and source_kind(source):
        return
    if is_path and Path(source).suffix in (".h5", ".hdf5"):
        raise DeclarationError(
            f"source {source!r} is an HDF5 file, which may hold code that loading would run: save "
            "the model as .keras, or pass a callable that loads it"
        )
    raise DeclarationError(
        f"source {source!r} is neither a callable, nor the path of a .pt2, .onnx or .keras file, "
        "nor that of a SavedModel directory (one with saved_model.pb in it)"
    )


def _check_keys(what: str, keys: Iterable[ArtifactKey]) -> None:
    """No two keys mean the same candidate: one of them would be left out without a word."""
    known: dict[tuple[str, str], ArtifactKey] = {}
    for key in keys:
        other = known.setdefault(artifact_key(key), key)
        if other != key:
            raise DeclarationError(f"{what}: {other!r} and {key!r} mean the same candidate")


def _check_reference(
    reference: ArtifactKey, source: Source | None, artifacts: Mapping[ArtifactKey, object]
) -> None:
    """The reference is a source that exists, or one of the declared artifacts."""
    if source is None and reference == "source":
        raise DeclarationError(
            "a model without a source needs reference=, the key of one of its artifacts"
        )
    if reference != "source" and artifact_key(reference) not in map(artifact_key, artifacts):
        raise DeclarationError(
            f"reference {reference!r} is not an artifact of this model "
            f"(artifacts: {sorted(map(str, artifacts)) or 'none'})"
        )


def _check_dims(dims: Mapping[str, tuple[int, int]], inputs: Sequence[Input]) -> None:
    """Each dimension is one that an input has, with a range of sizes from 1 up."""
    named = {size for item in inputs for size in item.shape if isinstance(size, str)}
    if unknown := sorted(set(dims) - named):
        raise DeclarationError(
            f"dims names {unknown}, but the dimensions of the inputs are {sorted(named)}"
        )
    for name, (low, high) in dims.items():
        if not 1 <= low <= high:
            raise DeclarationError(f"dimension {name!r}: no range between {low} and {high}")


def _check_batch_sizes(sizes: Sequence[int], low: int, high: int) -> None:
    if not sizes or not all(low <= size <= high for size in sizes):
        raise DeclarationError(f"batch_sizes {sizes} leave the range {low}..{high}")


def _check_scored_output(evaluation: Evaluation | None, outputs: Sequence[str]) -> None:
    if evaluation and evaluation.output not in (None, *outputs):
        raise DeclarationError(
            f"evaluation scores output {evaluation.output!r}, but the outputs are {list(outputs)}"
        )


def _check_by_target(field_name: str, value: object) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise DeclarationError(
            f"{field_name} is a {type(value).__name__}; it is a dict by target name"
        )


def _check_precisions(targets: Mapping[str, Sequence[str]], keys: Sequence[ArtifactKey]) -> None:
    """All precisions are known, those by target and those in the keys of files and builders."""
    by_target = {precision for precisions in targets.values() for precision in precisions}
    named = by_target | {artifact_key(key)[1] for key in keys}
    if unknown := sorted(named - set(PRECISIONS)):
        raise DeclarationError(
            f"unknown precisions {unknown}; precisions are {', '.join(PRECISIONS)}"
        )


def _check_reported_names(names: Sequence[str]) -> None:
    """The names of the model and its variants can stand in the names of cases and files."""
    for name in names:
        if not NAME.fullmatch(name):
            raise DeclarationError(
                f"{name!r} can't name a model or variant: use letters, digits, '_', '-', '.'"
            )
