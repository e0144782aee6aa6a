"""Elementwise operators against NumPy's."""

from __future__ import annotations

import operator as python
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from edgecheck.mil.call import TensorType, UnsupportedError
from tests.mil.operators.common import close, noise, run

INSIDE = torch.linspace(-0.95, 0.95, 39)
WIDE = torch.linspace(-4, 4, 161)
POSITIVE = torch.linspace(0.01, 9, 90)


@pytest.mark.parametrize(
    ("operator", "function", "x"),
    [
        ("abs", np.abs, WIDE),
        ("acos", np.arccos, INSIDE),
        ("asin", np.arcsin, INSIDE),
        ("atan", np.arctan, WIDE),
        ("atanh", np.arctanh, INSIDE),
        ("ceil", np.ceil, WIDE),
        ("cos", np.cos, WIDE),
        ("cosh", np.cosh, WIDE),
        ("erf", special.erf, WIDE),
        ("exp", np.exp, WIDE),
        ("exp2", np.exp2, WIDE),
        ("floor", np.floor, WIDE),
        ("round", np.rint, torch.arange(-3, 3, 0.25)),
        ("sign", np.sign, WIDE),
        ("sin", np.sin, WIDE),
        ("sinh", np.sinh, WIDE),
        ("sqrt", np.sqrt, POSITIVE),
        ("square", np.square, WIDE),
        ("tan", np.tan, INSIDE),
        ("tanh", np.tanh, WIDE),
    ],
)
def test_of_one(operator: str, function: Callable[..., Any], x: torch.Tensor) -> None:
    close(run(operator, x=x), function(x.numpy()))


@pytest.mark.parametrize(
    ("operator", "function"),
    [
        ("add", python.add),
        ("sub", python.sub),
        ("mul", python.mul),
        ("maximum", np.maximum),
        ("minimum", np.minimum),
        ("floor_div", python.floordiv),
        ("mod", python.mod),
        ("equal", python.eq),
        ("not_equal", python.ne),
        ("greater", python.gt),
        ("greater_equal", python.ge),
        ("less", python.lt),
        ("less_equal", python.le),
    ],
)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99), whole=st.booleans())
def test_of_two(operator: str, function: Callable[..., Any], seed: int, whole: bool) -> None:
    random = np.random.default_rng(seed)
    x: Any = random.integers(-6, 7, (3, 1, 4))
    y: Any = random.integers(1, 6, (2, 1))
    y *= random.choice([-1, 1], (2, 1))
    dtype = np.int32 if whole else np.float32
    x, y = x.astype(dtype), y.astype(dtype)
    if not whole:
        x, y = x / np.float32(2), y / np.float32(2)
    close(run(operator, x=torch.from_numpy(x), y=torch.from_numpy(y)), function(x, y))


def test_real_div_is_of_floats_only() -> None:
    x, y = noise(3, 4), noise(4, seed=1)
    close(run("real_div", x=x, y=y), x.numpy() / y.numpy())
    with pytest.raises(UnsupportedError, match="real_div of integers"):
        run("real_div", x=[3], y=[2])


def test_pow() -> None:
    close(run("pow", x=POSITIVE, y=-1.5), POSITIVE.numpy() ** np.float32(-1.5), 1e-4)
    close(run("pow", x=WIDE, y=3.0), WIDE.numpy() ** 3)


@pytest.mark.parametrize("function", [np.logical_and, np.logical_or, np.logical_xor])
def test_logical(function: Callable[..., Any]) -> None:
    x, y = torch.tensor([[False], [True]]), torch.tensor([False, True])
    close(run(function.__name__, x=x, y=y), function(x.numpy(), y.numpy()))
    close(run("logical_not", x=x), [[True], [False]])


@settings(max_examples=10, deadline=None)
@given(low=st.floats(-3, 0, width=32), high=st.floats(0, 3, width=32))
def test_bounds(low: float, high: float) -> None:
    close(run("clip", x=WIDE, alpha=low, beta=high), np.clip(WIDE.numpy(), low, high))
    close(run("threshold", x=WIDE, alpha=low), np.maximum(WIDE.numpy(), low))
    whole = torch.arange(-5, 5, dtype=torch.int32)
    close(run("threshold", x=whole, alpha=2), np.maximum(whole.numpy(), 2))


def test_epsilon() -> None:
    x = POSITIVE.numpy()
    close(run("inverse", x=POSITIVE), 1 / (x + np.float32(1e-4)))
    close(run("inverse", x=POSITIVE, epsilon=0.5), 1 / (x + np.float32(0.5)))
    close(run("log", x=POSITIVE), np.log(x))
    close(run("log", x=POSITIVE, epsilon=1.0), np.log1p(x))
    close(run("rsqrt", x=POSITIVE), 1 / np.sqrt(x))
    close(run("rsqrt", x=POSITIVE, epsilon=3.0), 1 / np.sqrt(x + np.float32(3)))


def test_default_epsilon_vanishes_in_fp16() -> None:
    zero = torch.zeros(())
    assert float(run("log", x=zero)) == pytest.approx(np.log(1.4e-45), rel=1e-3)
    assert run("log", x=zero, outputs=(TensorType("fp16", ()),)) == -np.inf


def test_select_broadcasts() -> None:
    condition, a, b = torch.tensor([[True], [False]]), noise(2, 3), noise(3, seed=1)
    close(run("select", cond=condition, a=a, b=b), np.where(condition, a, b))
