"""Tensors are paired by their values, whatever the layout and whatever lies between."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.localization import matching


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4).filter(lambda s: math.prod(s) >= 8),
    seed=st.integers(0, 2**16),
    noise=st.sampled_from([0.0, 1e-6, 1e-2]),
    data=st.data(),
)
def test_a_tensor_is_found_in_another_layout_among_others(
    shape: list[int], seed: int, noise: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    left = [rng.normal(size=(2, *shape)).astype(np.float32) for _ in range(3)]
    orders = [data.draw(st.sampled_from(matching.axis_orders(shape))) for _ in left]
    right = []
    for values, order in zip(left, orders, strict=True):
        moved = np.transpose(values, (0, *(axis + 1 for axis in order)))
        # In whatever shape: converters drop and merge axes.
        right.append((moved + noise * rng.normal(size=moved.shape)).reshape(2, -1))
    places = list(rng.permutation(3))
    pairs = matching.refined(
        matching.find_pairs(left, [right[place] for place in places]),
        left,
        [right[place] for place in places],
    )
    for index, found in enumerate(pairs):
        best = min(found, key=lambda pair: pair.error)
        assert places[best.tensor] == index
        assert best.error <= 3 * noise + 1e-6
        assert not best.taken


def test_what_fits_another_output_better_is_taken() -> None:
    rng = np.random.default_rng(0)
    stream = rng.normal(size=(1, 64))
    after = stream + 0.05 * rng.normal(size=(1, 64))
    first, second = matching.find_pairs([stream, after], [stream])
    assert not first[0].taken
    assert second[0].taken
    assert second[0].error < 0.1


def test_what_is_not_finite_or_constant_zero_pairs_with_nothing() -> None:
    ones = np.ones((1, 8))
    broken = np.where(np.arange(8) == 3, np.nan, 1.0)[None]
    zero, infinite, fine = matching.find_pairs([0 * ones, broken, ones], [broken, ones])
    assert zero == []
    assert infinite == []
    assert [pair.tensor for pair in fine] == [1, 0]
    assert math.isinf(fine[1].error)


def test_the_error_is_over_all_elements() -> None:
    values = np.ones((1, 2, 100_000))
    changed = values.copy()
    changed[0, 1, 77_777] = 301.0
    ((pair,),) = matching.refined(matching.find_pairs([values], [changed]), [values], [changed])
    assert math.isclose(pair.error, math.sqrt(300**2 / 200_000))
