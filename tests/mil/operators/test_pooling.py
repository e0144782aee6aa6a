"""Pools against torch's layers, and uneven padding by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from edgecheck.mil.call import UnsupportedError
from tests.mil.operators.common import close, noise, run

MAXIMUM = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


@settings(max_examples=40, deadline=None)
@given(
    rank=st.integers(1, 3),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    pad=st.integers(0, 2),
    ceil=st.booleans(),
    excluded=st.booleans(),
)
def test_as_torchs_layers(
    rank: int, kernel: int, stride: int, pad: int, ceil: bool, excluded: bool
) -> None:
    assume(pad <= kernel // 2)
    sizes = range(5, 5 + rank)
    # Torch drops a window behind the input even without padding; coremltools does not.
    assume(not ceil or pad or all((n - kernel) % stride == 0 or stride <= kernel for n in sizes))
    x = noise(2, 3, *sizes)
    given_ = {
        "x": x,
        "kernel_sizes": [kernel] * rank,
        "strides": [stride] * rank,
        "pad_type": "custom",
        "pad": [pad] * 2 * rank,
        "ceil_mode": ceil,
    }
    layer: Any = MAXIMUM[rank - 1](kernel, stride, pad, ceil_mode=ceil)
    close(run("max_pool", **given_), layer(x))
    if ceil and not excluded:
        return  # PyTorch and Core ML differ: the test below
    layer = AVERAGE[rank - 1](kernel, stride, pad, ceil, not excluded)
    found = run("avg_pool", **given_, exclude_padding_from_average=excluded)
    close(found, layer(x))


def test_a_window_that_ceil_mode_cuts_is_divided_by_the_whole_kernel() -> None:
    """The numbers that Core ML gave (https://github.com/apple/coremltools/pull/2844)."""
    x = torch.arange(49.0).reshape(1, 1, 7, 7)
    given_ = {"x": x, "kernel_sizes": [2, 2], "strides": [3, 3], "pad_type": "valid"}
    measured = [[4.0, 7.0, 4.75], [25.0, 28.0, 15.25], [21.25, 22.75, 12.0]]
    close(run("avg_pool", **given_, ceil_mode=True), [[measured]])
    close(
        run("avg_pool", **given_, ceil_mode=True, exclude_padding_from_average=True),
        nn.AvgPool2d(2, 3, ceil_mode=True)(x),
    )


@pytest.mark.parametrize("kind", ["same", "same_lower", "valid", "custom"])
@pytest.mark.parametrize("excluded", [False, True])
@settings(max_examples=15, deadline=None)
@given(size=st.integers(4, 9), kernel=st.integers(1, 4), stride=st.integers(1, 3))
def test_windows_by_hand(kind: str, excluded: bool, size: int, kernel: int, stride: int) -> None:
    x = noise(1, 1, size)
    before = after = 0
    if kind == "custom":
        before, after = kernel - 1, 1
    elif kind != "valid":
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        before, after = total // 2, total - total // 2
        if kind == "same_lower":
            before, after = after, before
    count = (size + before + after - kernel) // stride + 1
    windows = [
        [float(x[0, 0, at]) for at in range(start, start + kernel) if 0 <= at < size]
        for start in range(-before, -before + count * stride, stride)
    ]
    given_ = {"x": x, "kernel_sizes": [kernel], "strides": [stride], "pad_type": kind}
    if kind == "custom":
        given_["pad"] = [before, after]
    if not all(windows):
        if excluded:
            with pytest.raises(UnsupportedError, match="a window that holds padding only"):
                run("avg_pool", **given_, exclude_padding_from_average=True)
        return
    close(run("max_pool", **given_), [[[max(window) for window in windows]]])
    roots = [sum(value**2 for value in window) ** 0.5 for window in windows]
    close(run("l2_pool", **given_), [[roots]])
    means = [sum(window) / (len(window) if excluded else kernel) for window in windows]
    found = run("avg_pool", **given_, exclude_padding_from_average=excluded)
    close(found, [[means]])


def test_strides_default_to_one() -> None:
    x = noise(1, 2, 5, 6)
    found = run("max_pool", x=x, kernel_sizes=[2, 3], pad_type="valid")
    close(found, torch.nn.MaxPool2d((2, 3), 1)(x))


def test_ceil_mode_with_a_window_behind_the_input() -> None:
    with pytest.raises(UnsupportedError, match="max_pool with ceil_mode and a window behind"):
        run(
            "max_pool",
            x=noise(1, 1, 3),
            kernel_sizes=[1],
            strides=[4],
            pad_type="valid",
            ceil_mode=True,
        )
