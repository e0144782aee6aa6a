"""The sums inside operators, against sums written out, and what half precision makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch.utils._python_dispatch import TorchDispatchMode

from edgecheck.capture.arithmetic import simulator
from edgecheck.capture.half_sums import OVERFLOW, Sums, sums_inside

HALF = {"kind": "float16"}
torch.manual_seed(3)
X = torch.randn(2, 4, 6, 6) * 3 + 1


class Watching(TorchDispatchMode):
    """Keeps the sums inside each call."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[Sums] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        results = returned if isinstance(returned, tuple | list) else [returned]
        found = sums_inside(func, args, kwargs or {}, results)
        if found is not None:
            torch.broadcast_shapes(found.values.shape, results[0].shape)
            self.sums.append(found)
        return returned


def about(x: torch.Tensor, axes: list[int]) -> torch.Tensor:
    """The larger of the sum and the sum of squared deviations, over some axes."""
    squares = (x - x.mean(axes, True)).square().sum(axes, True)
    return torch.maximum(x.sum(axes, True).abs(), squares)


GROUPS = X.reshape(2, 2, 2, 6, 6)
WINDOWS = X.unfold(2, 2, 2).unfold(3, 3, 3)
CASES: dict[str, tuple[Callable[[], Any], torch.Tensor, int]] = {
    "mean": (lambda: X.mean((2, 3), keepdim=True), X.sum((2, 3), True).abs(), 36),
    "mean of all": (lambda: X.mean(), X.sum().abs(), 288),
    "global pool": (lambda: functional.adaptive_avg_pool2d(X, 1), X.sum((2, 3), True).abs(), 36),
    "variance": (lambda: X.var(1, keepdim=True), about(X, [1]), 4),
    "variance of all": (lambda: X.var(correction=0), about(X, [0, 1, 2, 3]).reshape(()), 288),
    "deviation and mean": (lambda: torch.std_mean(X, 1, keepdim=True), about(X, [1]), 4),
    "norm": (lambda: functional.normalize(X), X.square().sum(1, True), 4),
    "cubic norm": (lambda: X.norm(3, 1, True), X.abs().pow(3).sum(1, True), 4),
    "distance": (
        lambda: torch.cdist(X[0, 0], X[0, 1]),
        (X[0, 0][:, None] - X[0, 1]).square().sum(-1),
        6,
    ),
    "layer norm": (lambda: functional.layer_norm(X, (6, 6)), about(X, [2, 3]), 36),
    "group norm": (
        lambda: functional.group_norm(X, 2),
        about(GROUPS, [2, 3, 4]).expand(2, 2, 2, 1, 1).reshape(2, 4, 1, 1),
        72,
    ),
    "instance norm": (
        lambda: functional.instance_norm(X),
        about(X, [2, 3]).reshape(1, 8, 1, 1),
        36,
    ),
    "batch norm of the batch": (
        lambda: functional.batch_norm(X, None, None, training=True),
        about(X, [0, 2, 3]),
        72,
    ),
    "pool": (lambda: functional.avg_pool2d(X, (2, 3)), WINDOWS.sum((-1, -2)).abs(), 6),
    "pool of volumes": (
        lambda: functional.avg_pool3d(X, 2),
        X.reshape(2, 2, 2, 3, 2, 3, 2).sum((2, 4, 6)).abs(),
        8,
    ),
    "adaptive pool": (
        lambda: functional.adaptive_avg_pool2d(X, (3, 2)),
        WINDOWS.sum((-1, -2)).abs(),
        6,
    ),
    "uneven adaptive pool": (
        lambda: functional.adaptive_avg_pool2d(X, (1, 4)),
        torch.stack([X[..., a:b].sum((2, 3)) for a, b in ((0, 2), (1, 3), (3, 5), (4, 6))], -1)
        .unsqueeze(2)
        .abs(),
        12,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sum_inside_an_operator_is_the_one_written_out(name: str) -> None:
    compute, expected, terms = CASES[name]
    with torch.no_grad(), Watching() as watching:
        compute()
    (found,) = watching.sums
    assert found.terms == terms
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "compute",
    [
        lambda: X @ X,
        lambda: X.sum(1),
        lambda: X.norm(1, 1),
        lambda: X.amax(1),
        lambda: functional.softmax(X, 1),
        lambda: functional.batch_norm(X, torch.zeros(4), torch.ones(4)),
        lambda: functional.scaled_dot_product_attention(X, X, X),
        lambda: X[:0].mean(1),
    ],
)
def test_of_other_operators_nothing_inside_can_overflow_unseen(compute: Callable[[], Any]) -> None:
    with torch.no_grad(), Watching() as watching:
        compute()
    assert not any(bool(found.overflowing.any()) for found in watching.sums)


def test_a_softmax_over_more_entries_than_half_precision_counts() -> None:
    x = torch.stack([torch.zeros(70_000), torch.linspace(-9, 0, 70_000)])
    with torch.no_grad(), Watching() as watching:
        functional.softmax(x, 1)
    assert watching.sums[0].overflowing.tolist() == [[True], [False]]


def test_scores_of_attention_are_sums() -> None:
    query, key = torch.full((1, 2, 3, 16), 200.0), torch.full((1, 2, 5, 16), 90.0)
    query[:, 1] = 1.0
    with torch.no_grad(), Watching() as watching:
        functional.scaled_dot_product_attention(query, key, key)
    (found,) = watching.sums
    assert found.overflowing[..., 0].tolist() == [[[True] * 3, [False] * 3]]


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x.mean(1)) * 2


@pytest.mark.parametrize(("level", "overflows"), [(OVERFLOW / 1024 - 0.5, 0), (64.0, 1)])
def test_only_what_depends_on_a_sum_beyond_the_type_is_lost(level: float, overflows: int) -> None:
    x = np.ones((2, 1024), np.float32)
    x[1] = level
    plain = simulator(Mean(), ["y"], HALF)
    marked = simulator(Mean(), ["y"], {**HALF, "sums": "half"})
    assert np.isfinite(plain({"x": x})["y"]).all()
    assert np.isnan(marked({"x": x})["y"]).tolist() == [False, bool(overflows)]
    told = [f"mean adds 1024 values to {level * 1024:.3g}"] * overflows
    assert plain.overflowing_sums == told  # type: ignore[attr-defined]


def test_an_infinite_term_is_not_an_overflowing_sum() -> None:
    x = np.full((2, 8), np.inf, np.float32)
    plain = simulator(Mean(), ["y"], HALF)
    plain({"x": x})
    assert plain.overflowing_sums == []  # type: ignore[attr-defined]
