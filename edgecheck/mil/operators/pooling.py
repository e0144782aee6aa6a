"""Pools over one to three spatial axes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional

from edgecheck.mil.call import Call, Handler
from edgecheck.mil.operators.windows import Padding, padded, padding

_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_MAXIMUM = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def _windows(call: Call) -> tuple[list[int], list[int], Padding, Padding]:
    """Kernel, strides, the padding, and what ``ceil_mode`` adds beyond it."""
    x = call.tensor("x")
    kernel = call.integers("kernel_sizes")
    strides = call.integers("strides", [1] * len(kernel))
    amounts = padding(call, x.shape[2:], kernel, strides, [1] * len(kernel))
    beyond = [(0, 0)] * len(kernel)
    if call.flag("ceil_mode", False) and call.text("pad_type", "valid") in ("valid", "custom"):
        beyond = [
            (0, _overhang(call, size, before, after, width, stride))
            for size, (before, after), width, stride in zip(
                x.shape[2:], amounts, kernel, strides, strict=True
            )
        ]
    return kernel, strides, amounts, beyond


def _overhang(call: Call, size: int, before: int, after: int, kernel: int, stride: int) -> int:
    """Elements behind the padded input that the last window of ``ceil_mode`` reaches."""
    count = math.ceil((size + before + after - kernel) / stride) + 1
    if (count - 1) * stride >= size + before:
        if not before + after:
            raise call.unsupported("with ceil_mode and a window behind the input")
        count -= 1
    return max(0, (count - 1) * stride + kernel - (size + before + after))


def _max_pool(call: Call) -> torch.Tensor:
    kernel, strides, amounts, beyond = _windows(call)
    x = padded(padded(call.tensor("x"), amounts, -math.inf), beyond, -math.inf)
    return _MAXIMUM[len(kernel)](x, kernel, strides)


def _avg_pool(call: Call) -> torch.Tensor:
    kernel, strides, amounts, beyond = _windows(call)
    pool, x = _AVERAGE[len(kernel)], call.tensor("x")
    mean = pool(padded(padded(x, amounts), beyond), kernel, strides)
    # What ceil_mode adds is padding to Core ML, and counts unless excluded; in PyTorch it never
    # does (see `edgecheck.mil.deviations`).
    if not call.flag("exclude_padding_from_average", False) or not any(
        before or after for before, after in (*amounts, *beyond)
    ):
        return mean
    counted = padded(x.new_ones((1, 1, *x.shape[2:])), amounts)
    share = pool(padded(counted, beyond), kernel, strides)
    if not bool(share.all()):
        raise call.unsupported("with a window that holds padding only")
    return mean / share


def _l2_pool(call: Call) -> torch.Tensor:
    kernel, strides, amounts, beyond = _windows(call)
    squares = padded(padded(call.tensor("x").square(), amounts), beyond)
    return (_AVERAGE[len(kernel)](squares, kernel, strides) * math.prod(kernel)).sqrt()


HANDLERS: dict[str, Handler] = {
    "avg_pool": _avg_pool,
    "l2_pool": _l2_pool,
    "max_pool": _max_pool,
}
