"""Where the windows of convolutions and pools lie on the padded input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional

from edgecheck.mil.call import Call

Padding = list[tuple[int, int]]


def padding(
    call: Call,
    input_shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Padding:
    """What ``pad_type`` and ``pad`` ask for: elements before and after on each spatial axis.

    ``same`` puts the odd element after, ``same_lower`` before: BOTTOM_RIGHT_HEAVY and
    TOP_LEFT_HEAVY of SamePadding in Core ML's NeuralNetwork.proto.
    """
    kind = call.text("pad_type", "valid")
    if kind == "valid":
        return [(0, 0)] * len(kernel_shape)
    if kind == "custom":
        pad = call.integers("pad", [0] * 2 * len(kernel_shape))
        return list(zip(pad[::2], pad[1::2], strict=True))
    if kind not in ("same", "same_lower"):
        raise call.unsupported(f"with pad_type {kind!r}")
    found = []
    for size, kernel, stride, dilation in zip(
        input_shape, kernel_shape, strides, dilations, strict=True
    ):
        total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        found.append((less, more) if kind == "same" else (more, less))
    return found


def padded(x: torch.Tensor, amounts: Padding, value: float = 0.0) -> torch.Tensor:
    """Pad (or crop, where an amount is negative) the last axes of x."""
    if not any(before or after for before, after in amounts):
        return x
    flat = [amount for pair in reversed(amounts) for amount in pair]
    return functional.pad(x, flat, value=value)
