"""Activations against torch's layers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecheck.mil.call import UnsupportedError
from tests.mil.operators.common import close, noise, run

X = torch.cat([torch.linspace(-40, 40, 161), torch.linspace(-3, 3, 61)])


@pytest.mark.parametrize(
    ("operator", "layer"),
    [
        ("relu", nn.ReLU()),
        ("relu6", nn.ReLU6()),
        ("sigmoid", nn.Sigmoid()),
        ("silu", nn.SiLU()),
        ("softplus", nn.Softplus()),
        ("softsign", nn.Softsign()),
    ],
)
def test_plain(operator: str, layer: nn.Module) -> None:
    close(run(operator, x=X), layer(X))


@settings(max_examples=10, deadline=None)
@given(alpha=st.floats(-2, 2, width=32), beta=st.floats(-2, 2, width=32))
def test_of_two_numbers(alpha: float, beta: float) -> None:
    close(run("leaky_relu", x=X, alpha=alpha), nn.LeakyReLU(alpha)(X))
    close(run("elu", x=X, alpha=alpha), torch.where(X > 0, X, alpha * torch.expm1(X)))
    close(run("linear_activation", x=X, alpha=alpha, beta=beta), alpha * X + beta)
    close(run("scaled_tanh", x=X, alpha=alpha, beta=beta), alpha * nn.Tanh()(beta * X))
    close(run("sigmoid_hard", x=X, alpha=alpha, beta=beta), nn.Hardtanh(0, 1)(alpha * X + beta))
    expected = [min(beta, x if x >= 0 else alpha * x) for x in X.tolist()]
    close(run("clamped_relu", x=X, alpha=alpha, beta=beta), expected)
    expected = [x if x >= alpha else 0.0 for x in X.tolist()]
    close(run("thresholded_relu", x=X, alpha=alpha), expected)


def test_gelu_by_mode() -> None:
    exact = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in X.tolist()]
    close(run("gelu", x=X), exact)
    close(run("gelu", x=X, mode="EXACT"), exact)
    close(run("gelu", x=X, mode="TANH_APPROXIMATION"), nn.GELU(approximate="tanh")(X))
    close(run("gelu", x=X, mode="SIGMOID_APPROXIMATION"), X * nn.Sigmoid()(1.702 * X))
    with pytest.raises(UnsupportedError, match="gelu with mode 'ERF'"):
        run("gelu", x=X, mode="ERF")


@settings(max_examples=10, deadline=None)
@given(channels=st.integers(1, 4), spatial=st.integers(1, 3))
def test_by_channel(channels: int, spatial: int) -> None:
    x, alpha = noise(2, channels, *[3] * spatial), noise(channels, seed=1)
    beta = noise(channels, seed=2)
    layer = nn.PReLU(channels)
    layer.weight.data = alpha
    close(run("prelu", x=x, alpha=alpha), layer(x).detach())
    expected = torch.stack(
        [
            a * torch.log1p(torch.exp(b * part))
            for a, b, part in zip(alpha, beta, x.unbind(1), strict=True)
        ],
        1,
    )
    close(run("softplus_parametric", x=x, alpha=alpha, beta=beta), expected)


@settings(max_examples=10, deadline=None)
@given(axis=st.integers(-3, 2))
def test_softmax(axis: int) -> None:
    x = noise(2, 3, 4)
    close(run("softmax", x=x, axis=axis), nn.Softmax(axis)(x))
    close(run("softmax", x=x), nn.Softmax(-1)(x))
