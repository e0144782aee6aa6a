"""Matrix products against torch's layers and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.mil.operators.common import close, noise, run


def test_linear() -> None:
    layer, x = nn.Linear(4, 3), noise(2, 5, 4)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    close(run("linear", x=x, weight=weight, bias=bias), layer(x).detach())
    close(run("linear", x=x, weight=weight), (layer(x) - bias).detach())
    whole = torch.tensor([[1, 2]], dtype=torch.int32)
    close(run("linear", x=whole, weight=[[3, 4]]), np.array([[11]], dtype=np.int32))


@pytest.mark.parametrize(
    ("left", "right"),
    [((4,), (4,)), ((4,), (2, 4, 3)), ((5, 4), (4,)), ((10, 5, 4), (2, 1, 4, 3))],
)
def test_matmul_broadcasts_and_transposes(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    x, y = noise(*left), noise(*right, seed=1)
    expected = np.matmul(x.numpy(), y.numpy())
    close(run("matmul", x=x, y=y), expected)
    turned = [x.mT if x.ndim > 1 else x, y.mT if y.ndim > 1 else y]
    found = run("matmul", x=turned[0], y=turned[1], transpose_x=True, transpose_y=True)
    close(found, expected)


@pytest.mark.parametrize("shapes", [((2, 3, 4, 5), (2, 5, 4, 6)), ((1, 3, 4, 5), (2, 5, 1, 6))])
def test_einsum(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x, y = noise(*shapes[0]), noise(*shapes[1], seed=1)
    expected = torch.zeros(2, 3, 4, 6)
    for batch, height in np.ndindex(2, 4):
        left = x[batch % x.shape[0], :, height]
        expected[batch, :, height] = left @ y[batch, :, height % y.shape[2]]
    close(run("einsum", values=[x, y], equation="nchw,nwhu->nchu"), expected)


def test_attention_as_torchs() -> None:
    query, key, value = noise(2, 3, 4, 8), noise(2, 3, 5, 8, seed=1), noise(2, 3, 5, 6, seed=2)
    given = {"query": query, "key": key, "value": value}
    torchs = nn.functional.scaled_dot_product_attention
    close(run("scaled_dot_product_attention", **given), torchs(query, key, value))
    shift = noise(4, 5, seed=3)
    found = run("scaled_dot_product_attention", **given, attn_mask=shift)
    close(found, torchs(query, key, value, shift))
    mask = torch.ones(4, 5, dtype=torch.bool).tril(1)
    found = run("scaled_dot_product_attention", **given, attn_mask=mask)
    close(found, torchs(query, key, value, mask))
