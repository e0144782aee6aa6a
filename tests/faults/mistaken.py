"""Faults of a pipeline: sound exports of the wrong thing, or of what is fed wrongly.

Not for errors within the export: see `tests.faults.conversion`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

import edgecheck
from fixtures import digits, series, training
from tests.faults.bench import MODELS, Bench
from tests.faults.changing import Change, Images, Signals, behind, changed, replaced
from tests.faults.fault import Fault

# Pre-processing.

_PIXELS = 16.0


def raw_cnn() -> nn.Module:
    """A CNN that scales the scanner's values itself."""
    return Images(digits.trained_cnn(), lambda image: image / _PIXELS)


def raw_images() -> np.ndarray[Any, Any]:
    """Test images as the scanner gives them, 0 to 16."""
    return digits.test_images() * np.float32(_PIXELS)


def raw_calibration() -> np.ndarray[Any, Any]:
    """Calibration images of the same kind."""
    return digits.calibration_images() * np.float32(_PIXELS)


def standard_series() -> nn.Module:
    """A series model that standardises its signal (here by what it was not trained with)."""
    return Signals(series.trained_model(), _standardised)


def _standardised(signal: Tensor) -> Tensor:
    return (signal - 0.05) / 1.1


def _evaluation(model: str) -> edgecheck.Evaluation:
    found = MODELS[model].evaluation
    assert found is not None
    return found


_RAW = {
    "source": raw_cnn,
    "inputs": [edgecheck.Input("image", ("batch", 1, 8, 8), low=0.0, high=_PIXELS)],
    "calibration": raw_calibration,
    "evaluation": replace(_evaluation("cnn"), inputs=raw_images),
}
_MISSING, _DOUBLED = "missing pre-processing", "doubled pre-processing"
_PREPROCESSING = (
    *(
        changed(_MISSING, "unscaled", where, lambda module: module, declared=_RAW)
        for where in ("cnn ort fp32", "cnn tflite int8", "cnn coreml fp16")
    ),
    *(
        changed(
            *(_MISSING, "not-standardised", where, lambda module: module),
            declared={"source": standard_series},
        )
        for where in ("series tflite fp32", "series coreml int8-weights")
    ),
    changed(_DOUBLED, "scaled-twice", "cnn tflite fp32", behind("cnn", lambda x: x / _PIXELS)),
    *(
        changed(
            *(_DOUBLED, "standardised-twice", where),
            behind(where, lambda signal: _standardised(_standardised(signal))),
            declared={"source": standard_series},
        )
        for where in ("series ort int8", "series coreml fp16")
    ),
    # 1/256 for 1/255: a constant of hardware, of shifts instead of divisions.
    *(
        changed(_DOUBLED, "of-256", where, behind(where, lambda image: image * (255 / 256)))
        for where in ("cnn ort fp32", "cnn coreml fp16", "transformer tflite fp16")
    ),
)


# Checkpoints.


def tuned(model: str, rate: float) -> Change:
    """The network after one more epoch over its training data, at a small learning rate."""

    def change(module: nn.Module) -> nn.Module:
        return tuned_module(model, rate)

    return change


@cache
def tuned_module(model: str, rate: float) -> nn.Module:
    source = MODELS[model].source
    assert callable(source)
    module = source().requires_grad_(True)
    torch.manual_seed(0)
    if model == "series":
        examples = series.train_examples()
        given = [torch.from_numpy(array) for array in (examples.signal, examples.sensor)]
        labels = torch.from_numpy(examples.activity)
    else:
        images = digits.train_images() if model == "cnn" else digits.train_rows()
        given, labels = [torch.from_numpy(images)], torch.from_numpy(digits.train_labels())

    def loss_of(indices: Tensor) -> Tensor:
        found = module(*(item[indices] for item in given))
        found = found["activity"] if model == "series" else found
        return functional.cross_entropy(found, labels[indices])

    training.fit(module, loss_of, len(labels), epochs=1, rate=rate)
    return module.requires_grad_(False)


_STALE = "stale checkpoint"
_CHECKPOINTS = tuple(
    changed(_STALE, f"stale-{rate:g}", where, tuned(where.split()[0], rate))
    for where, rate in (
        ("cnn ort fp32", 1e-6),
        ("transformer tflite fp16", 1e-5),
        ("series coreml fp16", 1e-4),
        ("cnn ort int8", 1e-3),
        ("transformer tflite int8", 1e-3),
        ("series coreml int8-weights", 1e-3),
    )
)


# Outputs and classes.


def shares(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Intensity by activity: an output of the other's shape."""
    activity = outputs["activity"]
    return {**outputs, "intensity": activity.softmax(1) * outputs["intensity"]}


def sharing_series() -> nn.Module:
    """The series model with two outputs of one shape."""
    return Signals(series.trained_model(), after=shares)


def _sharing(module: nn.Module) -> nn.Module:
    return Signals(module, after=shares)


def _swapped(module: nn.Module) -> nn.Module:
    def after(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(("activity", "intensity"), reversed(outputs.values()), strict=True))

    return Signals(module, after=after)


def _renamed(names: dict[str, str]) -> Callable[[Bench, Path], None]:
    """The sharing model's ONNX file with other names for its outputs."""

    def plant(bench: Bench, path: Path) -> None:
        bench.build(sharing_series(), "series", "ort", "fp32", path)
        model = onnx.load(path)
        for node in model.graph.node:
            node.output[:] = [names.get(name, name) for name in node.output]
            node.input[:] = [names.get(name, name) for name in node.input]
        for item in model.graph.output:
            item.name = names[item.name]
        model.graph.output.sort(key=lambda item: item.name)
        onnx.save(model, path)

    return plant


def _permuted(order: list[int]) -> Callable[[Any], nn.Module]:
    """A head whose classes are in another order."""

    def make(head: Any) -> nn.Module:
        with torch.no_grad():
            head.weight.copy_(head.weight[order].clone())
            head.bias.copy_(head.bias[order].clone())
        return head

    return make


def other_labels() -> np.ndarray[Any, Any]:
    """Labels of a data set whose folders are sorted by the names of digits: eight, five, ..."""
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return np.argsort(np.argsort(names))[digits.test_labels()]


def two_labels_swapped() -> np.ndarray[Any, Any]:
    """Labels where two classes are exchanged."""
    order = np.arange(10)
    order[[3, 8]] = 8, 3
    return order[digits.test_labels()]


def labels_from_one() -> np.ndarray[Any, Any]:
    """Labels that count from one."""
    return digits.test_labels() + 1


def _copied(bench: Bench, path: Path, model: str, target: str, precision: str) -> None:
    found = bench.sound(model, target, precision)
    (shutil.copytree if found.is_dir() else shutil.copy)(found, path)


def _labelled(what: str, where: str, labels: Callable[[], Any]) -> Fault:
    model, target, precision = where.split()
    return Fault(
        *(_LABELS, f"{what}-{model}-{target}-{precision}", model, target, precision),
        lambda bench, path: _copied(bench, path, model, target, precision),
        *("accuracy", "order"),
        declared={"evaluation": replace(_evaluation(model), labels=labels)},
    )


_SWAPPED, _LABELS = "swapped outputs", "wrong labels order"
_AS_STRINGS = [0, 1, 9, *range(2, 9)]
_OUTPUTS = (
    changed(_SWAPPED, "swapped", "series tflite fp32", _swapped, says="has shape .* the reference"),
    changed(
        *(_SWAPPED, "swapped-alike", "series coreml fp16"),
        lambda module: _swapped(_sharing(module)),
        declared={"source": sharing_series},
    ),
    changed(
        *(_SWAPPED, "swapped-alike", "series tflite int8"),
        lambda module: _swapped(_sharing(module)),
        declared={"source": sharing_series},
    ),
    Fault(
        *(_SWAPPED, "swapped-names-series-ort-fp32", "series", "ort", "fp32"),
        _renamed({"activity": "intensity", "intensity": "activity"}),
        says="noise_ratio",
        declared={"source": sharing_series},
    ),
    Fault(
        *(_SWAPPED, "unnamed-series-ort-fp32", "series", "ort", "fp32"),
        _renamed({"activity": "output_1", "intensity": "output_0"}),
        declared={"source": sharing_series},
    ),
    *(
        changed(
            _LABELS, "as-strings", where, replaced("head", _permuted(_AS_STRINGS)), layer="head"
        )
        for where in ("cnn ort int8", "transformer coreml fp16")
    ),
    changed(
        *(_LABELS, "two-swapped", "cnn tflite fp32"),
        replaced("head", _permuted([0, 1, 2, 8, 4, 5, 6, 7, 3, 9])),
        layer="head",
    ),
    _labelled("evaluated-by-name", "cnn ort fp32", other_labels),
    _labelled("evaluated-swapped", "transformer tflite int8", two_labels_swapped),
    _labelled("evaluated-from-one", "cnn coreml fp16", labels_from_one),
)


# Other models.

_OTHER = "artifact of another model"


def _instead(make: Callable[[], nn.Module], _: nn.Module) -> nn.Module:
    return make()


def _other(
    what: str, where: str, target: str, precision: str, found: str, check: str, says: str
) -> Fault:
    """Another bundled model's file."""
    return Fault(
        *(_OTHER, f"{what}-{where}-{target}-{precision}", where, target, precision),
        lambda bench, path: _copied(bench, path, found, target, precision),
        *(check, says),
    )


_MODELS = (
    *(
        changed(_OTHER, what, where, partial(_instead, other))
        for what, where, other in (
            ("pruned", "cnn ort fp32", digits.pruned_cnn),
            ("pruned", "cnn tflite int8", digits.pruned_cnn),
            ("pruned", "cnn coreml palettized", digits.pruned_cnn),
            ("student", "cnn coreml fp16", digits.student_cnn),
            ("student", "cnn ort int8-dynamic", digits.student_cnn),
        )
    ),
    _other("transformer", "cnn", "ort", "fp32", "transformer", "export", "declared"),
    _other("series", "cnn", "tflite", "int8", "series", "export", "declares"),
    _other("series", "transformer", "coreml", "fp16", "series", "export", "declares"),
)

FAULTS = (*_PREPROCESSING, *_CHECKPOINTS, *_OUTPUTS, *_MODELS)
