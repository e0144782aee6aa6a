"""Convolutions against torch's layers, and ``same`` padding against TensorFlow's arithmetic."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecheck.mil.call import UnsupportedError
from tests.mil.operators.common import close, noise, run

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
COMMON = {
    "rank": st.integers(1, 3),
    "kernel": st.integers(1, 3),
    "stride": st.integers(1, 3),
    "dilation": st.integers(1, 2),
    "groups": st.sampled_from([1, 2, 4]),
    "biased": st.booleans(),
}


@settings(max_examples=25, deadline=None)
@given(**COMMON, pad=st.integers(0, 2))
def test_conv_as_torchs_layer(
    rank: int, kernel: int, stride: int, dilation: int, groups: int, biased: bool, pad: int
) -> None:
    layer: Any = LAYERS[rank - 1](4, 8, kernel, stride, pad, dilation, groups, biased)
    x = noise(2, 4, *range(6, 6 + rank))
    found = run(
        "conv",
        x=x,
        weight=layer.weight.detach(),
        strides=[stride] * rank,
        pad_type="custom",
        pad=[pad] * 2 * rank,
        dilations=[dilation] * rank,
        groups=groups,
        **({"bias": layer.bias.detach()} if biased else {}),
    )
    close(found, layer(x).detach())


def test_conv_defaults_and_uneven_padding() -> None:
    x, weight = noise(1, 2, 5, 6), noise(3, 2, 2, 3, seed=1)
    layer = nn.Conv2d(2, 3, (2, 3), bias=False)
    layer.weight.data = weight
    close(run("conv", x=x, weight=weight), layer(x).detach())
    found = run("conv", x=x, weight=weight, pad_type="custom", pad=[2, 0, 1, 3])
    close(found, layer(nn.ZeroPad2d((1, 3, 2, 0))(x)).detach())


@pytest.mark.parametrize("kind", ["same", "same_lower"])
@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(3, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
def test_same_padding_by_hand(
    kind: str, size: int, kernel: int, stride: int, dilation: int
) -> None:
    x, weight = noise(1, 1, size), noise(1, 1, kernel, seed=1)
    count = -(-size // stride)
    total = max(0, (count - 1) * stride + (kernel - 1) * dilation + 1 - size)
    before = total // 2 if kind == "same" else total - total // 2
    expected = [
        sum(
            float(weight[0, 0, tap] * x[0, 0, at])
            for tap in range(kernel)
            if 0 <= (at := step * stride + tap * dilation - before) < size
        )
        for step in range(count)
    ]
    found = run("conv", x=x, weight=weight, strides=[stride], dilations=[dilation], pad_type=kind)
    close(found, [[expected]])


@settings(max_examples=25, deadline=None)
@given(**COMMON, pad=st.integers(0, 1))
def test_conv_transpose_as_torchs_layer(
    rank: int, kernel: int, stride: int, dilation: int, groups: int, biased: bool, pad: int
) -> None:
    layer: Any = TRANSPOSED[rank - 1](
        4, 8, kernel, stride, pad, groups=groups, bias=biased, dilation=dilation
    )
    x = noise(2, 4, *range(3, 3 + rank))
    if any(size < 1 for size in ((n - 1) * stride + 1 - 2 * pad for n in x.shape[2:])):
        return
    found = run(
        "conv_transpose",
        x=x,
        weight=layer.weight.detach(),
        strides=[stride] * rank,
        pad_type="custom",
        pad=[pad] * 2 * rank,
        dilations=[dilation] * rank,
        groups=groups,
        **({"bias": layer.bias.detach()} if biased else {}),
    )
    close(found, layer(x).detach())


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"), list(itertools.product((3, 4), (1, 2, 3, 4), (1, 2, 3)))
)
def test_conv_transpose_same_is_the_gradient_of_conv_same(
    shaped: bool, size: int, kernel: int, stride: int
) -> None:
    whole = size * stride - (stride - 1 if shaped else 0)
    weight, y = noise(2, 3, kernel, seed=1), noise(1, 2, size)
    x = torch.zeros(1, 3, whole, requires_grad=True)
    run("conv", x=x, weight=weight, strides=[stride], pad_type="same").backward(y)
    assert x.grad is not None
    output_shape = {"output_shape": [1, 3, whole]} if shaped else {}
    found = run(
        "conv_transpose", x=y, weight=weight, strides=[stride], pad_type="same", **output_shape
    )
    close(found, x.grad)


def test_conv_transpose_output_shape_that_devices_disagree_on() -> None:
    x, weight = noise(1, 2, 3), noise(2, 3, 3, seed=1)
    expected = run("conv_transpose", x=x, weight=weight)
    close(run("conv_transpose", x=x, weight=weight, output_shape=[1, 3, 5]), expected)
    with pytest.raises(UnsupportedError, match="conv_transpose with pad_type 'valid' and another"):
        run("conv_transpose", x=x, weight=weight, output_shape=[1, 3, 3])
