"""Palettes against scikit-learn's k-means."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgecheck.capture.palette import palettized  # noqa: E402


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform"])
def test_a_palette_is_as_good_as_that_of_scikit_learn(draw: str) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    weight = getattr(np.random.default_rng(0), draw)(size=(60, 50)).astype(np.float32)
    best = cluster.KMeans(16, n_init=4, random_state=0).fit(weight.reshape(-1, 1)).inertia_
    found = palettized(torch.from_numpy(weight), 16).numpy()
    assert len(np.unique(found)) <= 16
    assert ((found - weight) ** 2).sum() < 1.25 * best


def test_few_values_are_their_own_palette() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0] * 20])
    assert torch.equal(palettized(weight, 16), weight)
    assert torch.equal(palettized(torch.zeros(3, 4), 16), torch.zeros(3, 4))
