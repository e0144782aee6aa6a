"""Reductions against NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from edgecheck.mil.call import UnsupportedError
from tests.mil.operators.common import close, noise, run


def _root(x: Any, **how: Any) -> Any:
    return np.sqrt(np.sum(x * x, **how))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_l1_norm": lambda x, **how: np.sum(np.abs(x), **how),
    "reduce_l2_norm": _root,
    "reduce_log_sum": lambda x, **how: np.log(np.sum(x, **how)),
    "reduce_log_sum_exp": special.logsumexp,
    "reduce_max": np.max,
    "reduce_mean": np.mean,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum": np.sum,
    "reduce_sum_square": lambda x, **how: np.sum(x * x, **how),
}
FLOATS_ONLY = {"reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp", "reduce_mean"}


@pytest.mark.parametrize("operator", FUNCTIONS)
@settings(max_examples=8, deadline=None)
@given(axes=st.none() | st.sets(st.integers(0, 2), min_size=1), keep=st.booleans())
def test_over_axes(operator: str, axes: set[int] | None, keep: bool) -> None:
    x = noise(2, 3, 4).abs() + 0.1
    how = {} if axes is None else {"axes": [axis - 3 for axis in axes]}
    expected = FUNCTIONS[operator](
        x.numpy(), axis=None if axes is None else tuple(axes), keepdims=keep
    )
    close(run(operator, x=x, keep_dims=keep, **how), expected, 1e-4)


@pytest.mark.parametrize("operator", FUNCTIONS)
def test_of_integers(operator: str) -> None:
    x = torch.tensor([[1, -2, 3], [4, 5, -6]], dtype=torch.int32)
    if operator in FLOATS_ONLY:
        with pytest.raises(UnsupportedError, match="of integers"):
            run(operator, x=x, axes=[1])
    else:
        expected = FUNCTIONS[operator](x.numpy(), axis=1).astype(np.int32)
        close(run(operator, x=x, axes=[1]), expected)


@pytest.mark.parametrize("operator", ["reduce_argmax", "reduce_argmin"])
def test_an_index_among_nan_is_refused(operator: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{operator} of NaN"):
        run(operator, x=torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@settings(max_examples=8, deadline=None)
@given(axis=st.integers(-3, 2), keep=st.booleans())
def test_index_of(name: str, axis: int, keep: bool) -> None:
    x = noise(2, 3, 4)
    expected = getattr(np, name)(x.numpy(), axis=axis, keepdims=keep).astype(np.int32)
    close(run(f"reduce_{name}", x=x, axis=axis, keep_dims=keep), expected)
    close(run(f"reduce_{name}", x=x), getattr(np, name)(x.numpy(), axis=-1).astype(np.int32))
