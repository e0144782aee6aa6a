"""Convolutions and pooling of ONNX in NumPy, in the type of their operands.

Those of `onnx.reference` loop in Python. Each function takes a node's attributes, its operands and
the number of its outputs, and gives None where it does not know what is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Attributes = Mapping[str, Any]


def _padding(attributes: Attributes, rank: int) -> list[tuple[int, int]] | None:
    """Elements before and after each spatial axis; None where they depend on its size."""
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    pads = list(attributes.get("pads", [0] * 2 * rank))
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _padded(values: Array, padding: Sequence[tuple[int, int]], fill: float) -> Array:
    return np.pad(values, [(0, 0), (0, 0), *padding], constant_values=fill)


def _windows(
    values: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Array:
    """Views of shape (batch, channels, *output, *kernel)."""
    rank = len(kernel)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(values, reach, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None), slice(None), *(slice(None, None, step) for step in strides)]
    return views[(*steps, *(slice(None, None, step) for step in dilations))]


def _convolved(
    values: Array,
    weight: Array,
    bias: Array | None,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Array:
    """The convolution of padded values; weight of shape (outputs, inputs / groups, *kernel)."""
    rank = weight.ndim - 2
    views = _windows(values, weight.shape[2:], strides, dilations)
    width, height = weight.shape[1], weight.shape[0] // groups
    axes = [1, *range(2 + rank, 2 + 2 * rank)], [1, *range(2, 2 + rank)]
    parts = [
        np.moveaxis(
            np.tensordot(
                views[:, group * width : (group + 1) * width],
                weight[group * height : (group + 1) * height],
                axes=axes,
            ),
            -1,
            1,
        )
        for group in range(groups)
    ]
    result = np.concatenate(parts, axis=1)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def _convolution(attributes: Attributes, operands: Sequence[Any], outputs: int) -> Array | None:
    values, weight, bias = (*operands, None)[:3]
    rank = weight.ndim - 2
    padding = _padding(attributes, rank)
    if padding is None:
        return None
    return _convolved(
        _padded(values, padding, 0.0),
        weight,
        bias,
        attributes.get("strides", [1] * rank),
        attributes.get("dilations", [1] * rank),
        attributes.get("group", 1),
    )


def _transposed_convolution(
    attributes: Attributes, operands: Sequence[Any], outputs: int
) -> Array | None:
    """The convolution of values with zeros between them, with the mirrored kernel."""
    values, weight, bias = (*operands, None)[:3]
    rank = weight.ndim - 2
    padding = _padding(attributes, rank)
    if padding is None or "output_shape" in attributes:
        return None
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    groups = attributes.get("group", 1)
    extra = attributes.get("output_padding", [0] * rank)
    sizes = [(size - 1) * step + 1 for size, step in zip(values.shape[2:], strides, strict=True)]
    spread = np.zeros((*values.shape[:2], *sizes), values.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, step) for step in strides))] = values
    around = [
        ((size - 1) * step - before, (size - 1) * step - after + more)
        for size, step, (before, after), more in zip(
            weight.shape[2:], dilations, padding, extra, strict=True
        )
    ]
    if any(item < 0 for pair in around for item in pair):
        return None
    inputs, height = weight.shape[:2]
    mirrored = np.flip(weight, tuple(range(2, 2 + rank)))
    mirrored = mirrored.reshape(groups, inputs // groups, height, *weight.shape[2:])
    mirrored = mirrored.swapaxes(1, 2).reshape(groups * height, inputs // groups, *weight.shape[2:])
    return _convolved(_padded(spread, around, 0.0), mirrored, bias, [1] * rank, dilations, groups)


def _pooled(
    attributes: Attributes, values: Array, reduce: Callable[..., Any], fill: float
) -> Array | None:
    kernel = attributes["kernel_shape"]
    rank = len(kernel)
    padding = _padding(attributes, rank)
    if padding is None or attributes.get("ceil_mode", 0):
        return None
    views = _windows(
        _padded(values, padding, fill),
        kernel,
        attributes.get("strides", [1] * rank),
        attributes.get("dilations", [1] * rank),
    )
    reduced: Array = reduce(views, axis=tuple(range(2 + rank, 2 + 2 * rank)))
    return reduced


def _largest(attributes: Attributes, operands: Sequence[Any], outputs: int) -> Array | None:
    (values,) = operands
    if outputs > 1 or values.dtype.kind != "f":
        return None
    return _pooled(attributes, values, np.max, -np.inf)


def _mean(attributes: Attributes, operands: Sequence[Any], outputs: int) -> Array | None:
    (values,) = operands
    total = _pooled(attributes, values, np.sum, 0.0)
    if total is None:
        return None
    if attributes.get("count_include_pad", 0):
        mean: Array = total / values.dtype.type(math.prod(attributes["kernel_shape"]))
        return mean
    counts = _pooled(attributes, np.ones((1, 1, *values.shape[2:]), values.dtype), np.sum, 0.0)
    assert counts is not None
    inside: Array = total / counts
    return inside


FAST: Mapping[str, Callable[[Attributes, Sequence[Any], int], Array | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MaxPool": _largest,
    "AveragePool": _mean,
}
