"""Convolutions over one to three spatial axes."""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from edgecheck.mil.call import Call, Handler
from edgecheck.mil.operators.windows import padded, padding

_FORWARD = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _conv(call: Call) -> torch.Tensor:
    x, weight = call.tensor("x"), call.tensor("weight")
    kernel = weight.shape[2:]
    ones = [1] * len(kernel)
    strides, dilations = call.integers("strides", ones), call.integers("dilations", ones)
    amounts = padding(call, x.shape[2:], kernel, strides, dilations)
    # Torch pads faster itself, but only by the same amount on both sides.
    within = [before for before, _ in amounts]
    if any(before != after for before, after in amounts):
        x, within = padded(x, amounts), [0] * len(kernel)
    return _FORWARD[len(kernel)](
        x, weight, call.optional("bias"), strides, within, dilations, call.integer("groups", 1)
    )


def _conv_transpose(call: Call) -> torch.Tensor:
    x, weight = call.tensor("x"), call.tensor("weight")
    rank = weight.ndim - 2
    ones = [1] * rank
    strides, dilations = call.integers("strides", ones), call.integers("dilations", ones)
    kind = call.text("pad_type", "valid")
    full = [
        (size - 1) * stride + (kernel - 1) * dilation + 1
        for size, kernel, stride, dilation in zip(
            x.shape[2:], weight.shape[2:], strides, dilations, strict=True
        )
    ]
    if kind == "same":
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        before = [max(0, all_ - kept) // 2 for all_, kept in zip(full, wanted, strict=True)]
    else:
        amounts = padding(call, x.shape[2:], weight.shape[2:], strides, dilations)
        before = [less for less, _ in amounts]
        wanted = [all_ - less - more for all_, (less, more) in zip(full, amounts, strict=True)]
    if call.has("output_shape"):
        asked = call.integers("output_shape")[-rank:]
        if kind == "same":
            # The gradient of a convolution with this padding, from an input of the asked size.
            before = [max(0, all_ - kept) // 2 for all_, kept in zip(full, asked, strict=True)]
        elif asked != wanted:
            # Core ML's compute units disagree: https://github.com/apple/coremltools/issues/2281
            raise call.unsupported(f"with pad_type {kind!r} and another output_shape")
        wanted = asked
    y = _TRANSPOSED[rank](x, weight, None, strides, 0, 0, call.integer("groups", 1), dilations)
    y = padded(
        y,
        [
            (-less, kept - (all_ - less))
            for all_, less, kept in zip(full, before, wanted, strict=True)
        ],
    )
    bias = call.optional("bias")
    return y if bias is None else y + bias.reshape(-1, *ones)


HANDLERS: dict[str, Handler] = {"conv": _conv, "conv_transpose": _conv_transpose}
