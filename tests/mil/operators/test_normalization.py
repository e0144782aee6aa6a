"""Normalizations against torch's layers and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecheck.mil.call import UnsupportedError
from tests.mil.operators.common import close, noise, run

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@settings(max_examples=10, deadline=None)
@given(rank=st.integers(1, 3), epsilon=st.sampled_from([None, 1e-3]), scaled=st.booleans())
def test_batch_norm(rank: int, epsilon: float | None, scaled: bool) -> None:
    layer = NORMS[rank - 1](4, eps=epsilon or 1e-5, affine=scaled).eval()
    layer.running_mean, layer.running_var = noise(4, seed=1), noise(4, seed=2).square() + 0.1
    x = noise(2, 4, *[3] * rank)
    given_ = {"x": x, "mean": layer.running_mean, "variance": layer.running_var}
    if scaled:
        layer.weight.data, layer.bias.data = noise(4, seed=3), noise(4, seed=4)
        given_ |= {"gamma": layer.weight.detach(), "beta": layer.bias.detach()}
    found = run("batch_norm", **given_, **({"epsilon": epsilon} if epsilon else {}))
    close(found, layer(x).detach())


@pytest.mark.parametrize(("norm", "rank"), [(nn.InstanceNorm1d, 1), (nn.InstanceNorm2d, 2)])
def test_instance_norm(norm: type[nn.InstanceNorm2d], rank: int) -> None:
    x, gamma, beta = noise(2, 3, *[5] * rank) + 2, noise(3, seed=1), noise(3, seed=2)
    close(run("instance_norm", x=x), norm(3)(x))
    layer = norm(3, eps=0.1, affine=True)
    layer.weight.data, layer.bias.data = gamma, beta
    found = run("instance_norm", x=x, gamma=gamma, beta=beta, epsilon=0.1)
    close(found, layer(x).detach())


@settings(max_examples=15, deadline=None)
@given(axes=st.sets(st.integers(0, 3), min_size=1), negative=st.booleans(), scaled=st.booleans())
def test_layer_norm(axes: set[int], negative: bool, scaled: bool) -> None:
    x, ordered = noise(2, 3, 4, 5) * 3 + 1, sorted(axes)
    array = x.numpy().astype(np.float64)
    over = tuple(ordered)
    expected = array - array.mean(over, keepdims=True)
    expected /= np.sqrt(array.var(over, keepdims=True) + 1e-3)
    given_ = {"axes": [axis - 4 if negative else axis for axis in ordered], "epsilon": 1e-3}
    if scaled:
        gamma = noise(*(x.shape[axis] for axis in ordered), seed=1)
        spread = gamma.numpy()[tuple(slice(None) if a in axes else None for a in range(4))]
        given_["gamma"], given_["beta"] = gamma, gamma + 1
        expected = expected * spread + spread + 1
    close(run("layer_norm", x=x, **given_), expected.astype(np.float32))


def test_layer_norm_defaults_to_all_axes() -> None:
    x = noise(3, 4) + 1
    close(run("layer_norm", x=x), nn.LayerNorm((3, 4))(x).detach())


def test_l2_norm() -> None:
    x = noise(2, 3, 4, 5)
    expected = torch.stack([part / (part.norm() ** 2 + 0.5) ** 0.5 for part in x])
    close(run("l2_norm", x=x, epsilon=0.5), expected)
    close(run("l2_norm", x=x[0]), x[0] / x[0].norm())


def test_local_response_norm() -> None:
    x = noise(2, 7, 3, 3) * 5
    found = run("local_response_norm", x=x, size=3, alpha=0.5, beta=0.6, k=2.0)
    close(found, nn.LocalResponseNorm(3, 0.5, 0.6, 2.0)(x))
    close(run("local_response_norm", x=x, size=5), nn.LocalResponseNorm(5)(x))
    with pytest.raises(UnsupportedError, match="over an even number of channels"):
        run("local_response_norm", x=x, size=4)
