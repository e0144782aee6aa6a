"""The statistics of a paired experiment: against SciPy, brute force and simulated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgecheck.judge import paired

law = settings(deadline=None, derandomize=True, max_examples=50)
counts = st.integers(0, 300)


@law
@given(counts, counts)
def test_mcnemars_p_is_that_of_the_binomial_test_on_the_samples_that_changed(
    lost: int, gained: int
) -> None:
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert paired.mcnemar_p(lost, gained) == pytest.approx(expected, rel=1e-9)


@law
@given(counts, counts, counts)
def test_the_interval_of_a_share_holds_the_drop_and_stays_in_range(
    lost: int, gained: int, same: int
) -> None:
    samples = max(1, lost + gained + same)
    found = paired.binary_interval(lost, gained, samples)
    assert -1.0 <= found.low <= (lost - gained) / samples <= found.high <= 1.0
    assert found.low < found.high


@law
@given(counts, counts, counts)
def test_swapping_the_models_mirrors_the_interval(lost: int, gained: int, same: int) -> None:
    samples = max(1, lost + gained + same)
    one = paired.binary_interval(lost, gained, samples)
    other = paired.binary_interval(gained, lost, samples)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


@law
@given(st.integers(0, 20), st.integers(0, 20), st.integers(40, 500), st.integers(2, 10))
def test_more_samples_of_the_same_kind_narrow_the_interval(
    lost: int, gained: int, samples: int, times: int
) -> None:
    one = paired.binary_interval(lost, gained, samples)
    more = paired.binary_interval(times * lost, times * gained, times * samples)
    assert more.half_width < one.half_width


@pytest.mark.parametrize("samples", [20, 100, 540])
@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.1, 0.02), (0.3, 0.1), (0.01, 0.0)])
def test_the_interval_of_a_share_covers_the_true_drop(
    samples: int, lost: float, gained: float
) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(samples, [lost, gained, 1 - lost - gained], 2000)
    tables, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    covered = [
        found.low <= lost - gained <= found.high
        for found in (paired.binary_interval(int(b), int(c), samples) for b, c in tables)
    ]
    assert np.average(covered, weights=times) > 0.93


@law
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 200))
def test_the_detectable_share_is_the_smallest_that_mcnemar_tells_from_chance(
    lost: int, gained: int, same: int
) -> None:
    samples = max(1, lost + gained + same)
    changed = max(lost + gained, 6)
    significant = [
        (b - (changed - b)) / samples
        for b in range(changed + 1)
        if 2 * b > changed and stats.binomtest(b, changed).pvalue <= 0.05
    ]
    expected = min(significant) if changed <= samples else None
    assert paired.detectable_share(lost, gained, samples) == (
        None if expected is None else pytest.approx(expected)
    )


def test_five_samples_can_not_show_a_drop_and_six_can() -> None:
    assert paired.detectable_share(5, 0, 5) is None
    assert paired.detectable_share(6, 0, 6) == 1.0
    assert paired.mcnemar_p(5, 0) > 0.05 > paired.mcnemar_p(6, 0)


# -- the bootstrap


@law
@given(st.integers(1, 400), st.integers(0, 2**32))
def test_resamples_repeat_by_seed(samples: int, seed: int) -> None:
    rows = np.random.default_rng(1).normal(size=(samples, 2))
    found = paired.row_mean_resamples(rows, seed)
    assert found.shape == (2000, 2)
    assert np.array_equal(found, paired.row_mean_resamples(rows, seed))
    if samples > 5:
        assert not np.array_equal(found, paired.row_mean_resamples(rows, seed + 1))


def test_both_columns_are_resampled_alike() -> None:
    """The pairing: what is the same in both models cancels out in every resample."""
    common = np.random.default_rng(0).normal(size=(500, 1)) * 100
    found = paired.row_mean_resamples(np.hstack([common, common + 1]), 0)
    assert np.allclose(found[:, 1] - found[:, 0], 1.0)
    assert found[:, 0].std() > 1.0


def test_resamples_vary_as_the_standard_error_says_also_in_chunks() -> None:
    values = np.random.default_rng(0).exponential(size=(5000, 1))
    found = paired.row_mean_resamples(values, 0)[:, 0]
    assert found.mean() == pytest.approx(values.mean(), abs=0.002)
    assert found.std() == pytest.approx(values.std() / math.sqrt(5000), rel=0.1)


def test_a_million_samples_get_fewer_resamples_and_an_interval() -> None:
    values = np.random.default_rng(0).normal(size=(1_000_000, 1))
    found = paired.row_mean_resamples(values, 0)[:, 0]
    assert paired.LEAST_RESAMPLES <= len(found) < 1000
    interval = paired.bootstrap_interval(float(values.mean()), found, len(values))
    assert interval.half_width == pytest.approx(1.96e-3, rel=0.5)


@pytest.mark.parametrize("samples", [8, 30])
@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_the_bootstrap_interval_covers_the_true_mean(samples: int, draw: str) -> None:
    rng = np.random.default_rng(0)
    truth = {"normal": 0.0, "exponential": 1.0}[draw]
    covered = 0
    for seed in range(300):
        losses = getattr(rng, draw)(size=(samples, 1))
        drops = paired.row_mean_resamples(losses, seed)[:, 0]
        found = paired.bootstrap_interval(float(losses.mean()), drops, samples)
        covered += found.low <= truth <= found.high
    least = {"normal": 0.91, "exponential": 0.88}[draw]
    assert least <= covered / 300 <= 0.99


def test_few_resamples_give_the_interval_of_the_standard_error() -> None:
    losses = np.random.default_rng(0).normal(size=(400, 1))
    drops = paired.row_mean_resamples(losses, 0)[:, 0]
    value = float(losses.mean())
    many, few = (paired.bootstrap_interval(value, drops[:n], 400) for n in (2000, 200))
    assert (many.method, few.method) == ("bootstrap percentile", "bootstrap standard error")
    assert few.half_width == pytest.approx(many.half_width, rel=0.2)


@law
@given(st.floats(-1e3, 1e3), st.integers(2, 50))
def test_losses_that_are_all_alike_leave_no_width(loss: float, samples: int) -> None:
    drops = paired.row_mean_resamples(np.full((samples, 1), loss), 0)[:, 0]
    found = paired.bootstrap_interval(loss, drops, samples)
    assert (found.low, found.high) == pytest.approx((loss, loss))
    assert found.low <= loss <= found.high


# -- any metric


def test_resamples_without_a_value_are_counted_and_left_out() -> None:
    def drop(indices: np.ndarray) -> float:
        if indices[0] % 3 == 0:
            raise ValueError("one class only")
        return math.nan if indices[0] % 3 == 1 else float(indices.mean())

    drops, undefined = paired.resampled_drops(drop, 30, 200, 0)
    assert len(drops) + undefined == 200
    assert 20 < len(drops) < 120
    again, _ = paired.resampled_drops(drop, 30, 200, 0)
    assert np.array_equal(drops, again)


@law
@given(st.floats(1e-6, 10), st.floats(1e-6, 10), st.floats(0.1, 100))
def test_a_slower_metric_is_not_resampled_more(one: float, other: float, limit_s: float) -> None:
    fast, slow = sorted([one, other])
    assert paired.affordable_resamples(slow, limit_s) <= paired.affordable_resamples(fast, limit_s)
    count = paired.affordable_resamples(slow, limit_s)
    assert count == 0 or (count >= paired.LEAST_RESAMPLES and count * slow <= limit_s)
