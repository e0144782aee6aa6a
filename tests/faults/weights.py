"""Faults of stored weights: transposed, a channel zeroed, a bit flipped. Edits of sound files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.bench import Bench
from tests.faults.fault import UNLIKE_QUANTIZED, Fault
from tests.localization.files import Array, opened

# What the check says of a float file, and of a quantized one.
_FLOAT, _QUANTIZED = "noise_ratio|NaN or infinite", UNLIKE_QUANTIZED
_AUDIT = "weights of layer .* not the reference's"

Edit = Callable[[Array, Array], Array]


def position_of(weights: list[Array], weight: Array) -> int:
    """Which of a file's weights is a module's: batch norm may be folded in, or bits lost."""

    def likeness(stored: Array) -> float:
        if stored.size != weight.size:
            return -1.0
        if stored.ndim == 4 and stored.shape[1] != weight.shape[1]:  # TFLite: channels last
            stored = np.moveaxis(stored, -1, 1)
        return abs(float(np.corrcoef(stored.ravel().astype(float), weight.ravel())[0, 1]))

    return int(np.argmax([likeness(stored) for stored in weights]))


def edit_weight(
    bench: Bench,
    path: Path,
    model: str,
    target: str,
    precision: str,
    layer: str,
    edit: Edit,
) -> None:
    """A sound file, but for one layer's weight.

    Args:
        edit: gives it, from what is stored and from what the module has.
    """
    file = opened(bench.sound(model, target, precision))
    weights = file.weights
    truth = bench.module(model).get_submodule(layer).weight.detach().numpy()
    position = position_of(weights, truth)
    file.put(position, edit(weights[position], truth))
    file.save(path)


def zero(weight: Array, truth: Array) -> Array:
    """Without one output channel: the one whose weights are largest, before quantization."""
    changed = weight.copy()
    changed[int(np.linalg.norm(truth.reshape(len(truth), -1), axis=1).argmax())] = 0
    return changed


def transpose(weight: Array, truth: Array) -> Array:
    """Inputs and outputs exchanged; TFLite has a convolution's inputs last."""
    last = weight.ndim - 1 if weight.shape[0] != weight.shape[1] else 1
    return np.swapaxes(weight, 0, last)


def flip(weight: Array, truth: Array, bit: int) -> Array:
    """One bit of the largest weight that is stored."""
    changed = np.array(weight, order="C")
    at = np.unravel_index(np.abs(changed.astype(np.float64)).argmax(), changed.shape)
    bits = changed.view(f"u{changed.itemsize}")
    bits[at] ^= bits.dtype.type(1 << bit)
    return changed


def _fault(kind: str, what: str, case: tuple[str, ...], edit: Edit, **other: Any) -> Fault:
    model, target, precision, layer = case
    plant = partial(
        edit_weight, model=model, target=target, precision=precision, layer=layer, edit=edit
    )
    says = _FLOAT if precision in ("fp32", "fp16") else _QUANTIZED
    return Fault(
        kind,
        f"{what}-{model}-{layer.replace('.', '-')}-{target}-{precision}",
        model,
        target,
        precision,
        plant,
        layer=layer,
        **{"says": f"{says}|{_AUDIT}", **other},
    )


_TRANSPOSED = (
    ("cnn", "ort", "fp32", "block3.0"),
    ("cnn", "tflite", "int8", "block3.0"),
    ("transformer", "tflite", "fp32", "layers.1.attention.key"),
    ("transformer", "ort", "int8", "layers.0.attention.value"),
    ("transformer", "coreml", "fp16", "layers.1.attention.output"),
)
_ZEROED = (
    ("cnn", "tflite", "int8", "hidden"),
    ("cnn", "coreml", "fp16", "block2.0"),
    ("transformer", "ort", "int8", "layers.1.expand"),
    ("transformer", "tflite", "fp32", "layers.0.attention.query"),
    ("series", "ort", "fp16", "conv2"),
    ("series", "coreml", "int8", "hidden"),
)
_FLIPPED = {
    ("cnn", "ort", "fp32", "hidden"): (31, 30, 23, 22, 18, 14, 10, 4, 0),
    ("transformer", "tflite", "fp32", "layers.1.contract"): (31, 30, 22, 14, 7),
    ("series", "coreml", "fp16", "conv1"): (15, 14, 10, 9, 6, 0),
    ("cnn", "tflite", "int8", "block2.0"): (7, 6, 3, 0),
    ("transformer", "ort", "int8", "head"): (7, 6, 3, 0),
    ("cnn", "coreml", "int8", "hidden"): (7, 6, 0),
}

FAULTS = (
    *(_fault("transposed weight", "transposed", case, transpose) for case in _TRANSPOSED),
    *(_fault("zeroed channel", "zeroed", case, zero) for case in _ZEROED),
    *(
        _fault("flipped bit", f"bit-{bit}", case, partial(flip, bit=bit))
        for case, bits in _FLIPPED.items()
        for bit in bits
    ),
)
