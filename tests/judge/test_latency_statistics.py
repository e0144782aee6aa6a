"""The statistics of timing: intervals that hold what they promise, on series of known truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.judge.latency_statistics import (
    Interval,
    Samples,
    center_interval,
    effective_size,
    mean_interval,
    quantile_interval,
    ratio_interval,
)

law = settings(deadline=None, derandomize=True, max_examples=50)
series = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200).map(np.array)
shares = st.sampled_from([0.5, 0.95, 0.99])
RUNS = 400
# With 400 runs, 95 % is found as 93 % to 97 % (two standard errors); the intervals of quantiles are
# wider than they need to be, since ranks are whole numbers.
NEARLY = 0.93


def coverage(
    draw: Callable[[np.random.Generator], np.ndarray],
    interval: Callable[[np.ndarray], Interval],
    truth: float,
    runs: int = RUNS,
) -> float:
    """How often the interval of a drawn series holds the true value."""
    held = 0
    for seed in range(runs):
        found = interval(draw(np.random.default_rng(seed)))
        held += found.low <= truth <= found.high
    return held / runs


def alike(rng: np.random.Generator, size: int, memory: float) -> np.ndarray:
    """A stationary series of standard normal values, of which each resembles the one before."""
    noise = rng.standard_normal(size) * math.sqrt(1 - memory**2)
    values = np.empty(size)
    value = rng.standard_normal()
    for place in range(size):
        value = values[place] = memory * value + noise[place]
    return values


# -- one series


@law
@given(series, shares)
def test_a_quantile_lies_in_its_interval(times: np.ndarray, share: float) -> None:
    found = quantile_interval(times, share)
    assert 0.0 <= found.low <= found.value <= found.high
    assert found.value == pytest.approx(np.quantile(times, share))
    assert found.low == 0.0 or found.low in times or found.low == found.value
    assert math.isinf(found.high) or found.high in times or found.high == found.value


@law
@given(series)
def test_a_mean_lies_in_its_interval(times: np.ndarray) -> None:
    found = mean_interval(times)
    assert 0.0 <= found.low <= found.value <= found.high
    assert found.value == pytest.approx(times.mean())


@law
@given(series, shares, st.floats(1e-3, 1e3))
def test_a_quantile_knows_no_units(times: np.ndarray, share: float, factor: float) -> None:
    one, other = quantile_interval(times, share), quantile_interval(times * factor, share)
    assert [other.low, other.high] == pytest.approx([one.low * factor, one.high * factor])


@law
@given(series, shares)
def test_more_confidence_takes_a_wider_interval(times: np.ndarray, share: float) -> None:
    narrow, wide = (quantile_interval(times, share, confidence) for confidence in (0.9, 0.99))
    assert wide.low <= narrow.low <= narrow.high <= wide.high


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_the_interval_of_a_quantile_holds_it_as_often_as_it_says(share: float) -> None:
    truth = -math.log(1 - share)  # of the exponential distribution
    found = coverage(
        lambda rng: rng.exponential(size=400),
        lambda times: quantile_interval(times, share),
        truth,
    )
    assert NEARLY <= found <= 0.995


def test_the_interval_of_a_mean_holds_it_as_often_as_it_says() -> None:
    found = coverage(lambda rng: rng.normal(10, 1, size=200), mean_interval, 10.0)
    assert NEARLY <= found <= 0.995


@pytest.mark.parametrize("memory", [0.5, 0.9])
def test_intervals_hold_on_series_whose_neighbours_are_alike(memory: float) -> None:
    """Noise of a machine comes in bursts. Taken for independent, half and two thirds would not."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        return 10 + alike(rng, 1000, memory)

    for interval in (mean_interval, lambda times: quantile_interval(times, 0.5)):
        assert coverage(draw, interval, 10.0, runs=200) >= 0.85


def test_an_interval_halves_with_four_times_the_samples() -> None:
    rng = np.random.default_rng(0)
    for interval in (mean_interval, lambda times: quantile_interval(times, 0.5)):
        widths = [
            np.mean([interval(rng.normal(10, 1, size)).width for _ in range(50)])
            for size in (200, 800)
        ]
        assert widths[0] / widths[1] == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize(("share", "least"), [(0.5, 6), (0.95, 72), (0.99, 368)])
def test_too_few_samples_do_not_bound_a_quantile_from_above(share: float, least: int) -> None:
    """The largest of n is below a quantile q with a chance of q^n: at most 2.5 % is asked for."""
    times = np.arange(1.0, least + 1)
    assert quantile_interval(times, share).high == least
    assert quantile_interval(times[: least - 1], share).high == math.inf


def test_a_single_sample_bounds_nothing() -> None:
    assert mean_interval(np.array([5.0])) == Interval(5.0, 0.0, math.inf)
    assert quantile_interval(np.array([5.0]), 0.5) == Interval(5.0, 0.0, math.inf)


def test_samples_that_are_all_the_same_have_no_width() -> None:
    times = np.full(400, 5.0)
    assert mean_interval(times) == Interval(5.0, 5.0, 5.0)
    assert quantile_interval(times, 0.99) == Interval(5.0, 5.0, 5.0)


def test_the_width_is_relative_and_half() -> None:
    assert Interval(10.0, 9.0, 12.0).width == pytest.approx(0.15)
    assert Interval(0.0, 0.0, 0.0).width == math.inf


# -- how much a series is worth


@law
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300).map(np.array))
def test_a_series_is_worth_from_one_to_all_of_its_samples(times: np.ndarray) -> None:
    assert 1.0 <= effective_size(times) <= len(times)


def test_independent_samples_are_worth_nearly_all_of_them() -> None:
    sizes = [effective_size(np.random.default_rng(seed).normal(size=1000)) for seed in range(50)]
    assert np.median(sizes) > 700


@pytest.mark.parametrize("memory", [0.7, 0.9])
def test_samples_that_are_alike_are_worth_what_theory_says(memory: float) -> None:
    """(1 - r) / (1 + r) of them, for a series of first order (Box & Jenkins)."""
    sizes = [effective_size(alike(np.random.default_rng(seed), 4000, memory)) for seed in range(50)]
    assert np.median(sizes) / 4000 == pytest.approx((1 - memory) / (1 + memory), rel=0.3)


def test_a_series_that_changes_its_level_once_is_worth_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    assert effective_size(np.concatenate([rng.normal(1, 0.01, 500), rng.normal(2, 0.01, 500)])) < 40


# -- wall and CPU time


def one_round(wall_ns: list[list[int]], cpu_ns: list[list[int]], calls: int = 1) -> dict[str, Any]:
    """One candidate's part of a round."""
    blocks = [{"wall_ns": wall, "cpu_ns": cpu} for wall, cpu in zip(wall_ns, cpu_ns, strict=True)]
    return {"calls_per_sample": calls, "blocks": blocks}


def test_samples_are_of_single_inferences_in_milliseconds_and_in_order() -> None:
    rounds = [
        one_round([[2_000_000], [4_000_000]], [[1_000_000], [3_000_000]], calls=2),
        one_round([[5_000_000]], [[6_000_000]]),
    ]
    found = Samples.of(rounds, threads=1)
    assert found.wall_ms.tolist() == [1.0, 2.0, 5.0]
    assert found.cpu_ms.tolist() == [0.5, 1.5, 6.0]


@pytest.mark.parametrize(
    ("cpu_ns", "threads", "own"),
    [(1_000_000, 1, True), (950_000, 1, True), (800_000, 1, False), (1_000_000, 2, False)],
)
def test_the_cpu_time_counts_where_the_one_thread_does_the_work(
    cpu_ns: int, threads: int, own: bool
) -> None:
    found = Samples.of([one_round([[1_000_000] * 3], [[cpu_ns] * 3])], threads)
    assert found.own_work == own


def disturbed(own_work: bool) -> Samples:
    """Ten milliseconds of work, to which other work adds up to forty."""
    rng = np.random.default_rng(0)
    cpu_ms = rng.normal(10, 0.01, 400)
    return Samples(cpu_ms + rng.uniform(0, 40, 400), cpu_ms, own_work)


def test_other_work_widens_an_interval_to_the_cpu_time_and_not_beyond() -> None:
    with_cpu, without = disturbed(True), disturbed(False)
    intervals: list[Callable[[Samples], Interval]] = [
        lambda s: s.quantile(0.5),
        lambda s: s.quantile(0.95),
        lambda s: s.mean(),
    ]
    for interval in intervals:
        wide, narrow = interval(with_cpu), interval(without)
        assert (wide.value, wide.high) == (narrow.value, narrow.high)
        assert 9.9 < wide.low < 10.1 < narrow.low
    assert with_cpu.largest().low < 10.1
    assert without.largest() == Interval(*[float(without.wall_ms.max())] * 3)


times_ms = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(0.5, 1.2)), min_size=1, max_size=60)


@law
@given(times_ms, st.booleans(), shares)
def test_what_was_measured_lies_between_its_bounds(
    times: list[tuple[float, float]], own_work: bool, share: float
) -> None:
    """Also where the CPU's clock, which is read around the wall's, tells more than that one."""
    wall_ms = np.array([wall for wall, _ in times])
    samples = Samples(wall_ms, wall_ms * np.array([part for _, part in times]), own_work)
    for found in (samples.quantile(share), samples.mean(), samples.largest()):
        assert found.low <= found.value <= found.high


# -- two candidates


def paired(
    rng: np.random.Generator,
    ratio: float,
    *,
    rounds: int = 12,
    noise: float = 0.01,
    wild: int = 0,
    calls: tuple[int, int] = (1, 1),
    waiting: bool = False,
) -> list[list[dict[str, Any]]]:
    """Rounds of two candidates, the first so many times as slow; in each its own luck of loading.

    Args:
        noise: of a load, relative.
        wild: so many rounds in which the first candidate takes three times as long.
        waiting: whether other work doubles some wall times, of which CPU times know nothing.
    """
    found = []
    for place in range(rounds):
        pair: list[Any] = []
        for base_ns, count in zip((1e6 * ratio, 1e6), calls, strict=True):
            luck = math.exp(rng.normal(0, noise))
            spike = 3.0 if place < wild and not pair else 1.0
            cpu = base_ns * luck * spike * (1 + 0.005 * rng.random((4, 20))) * count
            wall = cpu * (1 + (rng.random((4, 20)) < 0.6 * waiting) * rng.random())
            pair.append(one_round(wall.astype(int).tolist(), cpu.astype(int).tolist(), count))
        found.append(pair)
    return found


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.05, 3.0])
@pytest.mark.parametrize("calls", [(1, 1), (7, 3)])
def test_a_known_ratio_is_found(ratio: float, calls: tuple[int, int]) -> None:
    found = ratio_interval(paired(np.random.default_rng(0), ratio, calls=calls), 1)
    assert found.low < ratio < found.high
    assert found.value == pytest.approx(ratio, rel=0.01)
    assert found.high / found.low < 1.05


def test_a_wild_round_moves_a_ratio_little() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        found = ratio_interval(paired(rng, 1.1, rounds=10, wild=1), 1)
        assert 1.07 < found.low < 1.1 < found.high
        assert found.value == pytest.approx(1.1, rel=0.02)


def test_wild_rounds_among_many_do_not_widen_a_ratio() -> None:
    found = ratio_interval(paired(np.random.default_rng(0), 1.1, rounds=40, wild=3), 1)
    assert 1.09 < found.low < 1.1 < found.high < 1.12


@law
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5.0), st.integers(8, 14), st.booleans())
def test_swapping_the_candidates_inverts_the_ratio(
    seed: int, ratio: float, rounds: int, waiting: bool
) -> None:
    pairs = paired(np.random.default_rng(seed), ratio, rounds=rounds, waiting=waiting)
    one = ratio_interval(pairs, 1)
    other = ratio_interval([pair[::-1] for pair in pairs], 1)
    assert [other.value, other.low, other.high] == pytest.approx(
        [1 / one.value, 1 / one.high, 1 / one.low]
    )


def test_waiting_for_other_work_does_not_count_at_one_thread() -> None:
    pairs = paired(np.random.default_rng(0), 1.1, waiting=True)
    at_one, at_two = (ratio_interval(pairs, threads) for threads in (1, 2))
    assert at_one.value == pytest.approx(1.1, rel=0.01)
    assert at_two.high / at_two.low > 1.1 > at_one.high / at_one.low


def test_a_file_against_itself_seldom_looks_slower() -> None:
    runs = [
        ratio_interval(paired(np.random.default_rng(seed), 1.0, rounds=10, noise=0.02), 1)
        for seed in range(200)
    ]
    assert sum(found.low > 1.0 for found in runs) <= 4
    assert all(found.value < 1.04 for found in runs)


# -- the centre of a few values


@law
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=15).map(np.array))
def test_a_centre_is_turned_with_its_values(values: np.ndarray) -> None:
    one, other = center_interval(values, 0.9), center_interval(-values, 0.9)
    assert one.low <= one.value <= one.high
    assert [other.low, other.value, other.high] == pytest.approx([-one.high, -one.value, -one.low])


def test_the_interval_of_a_centre_holds_it_as_often_as_it_says() -> None:
    found = coverage(
        lambda rng: rng.standard_t(3, size=10), lambda values: center_interval(values, 0.99), 0.0
    )
    assert found >= 0.98
    found = coverage(lambda rng: rng.normal(size=10), lambda v: center_interval(v, 0.8), 0.0)
    assert 0.76 <= found <= 0.86


def test_too_few_values_do_not_bound_a_centre() -> None:
    """The 2^n sums of signed ranks are alike likely; 99 % leave 0.5 % at each end: 2^8 > 200."""
    rng = np.random.default_rng(0)
    assert center_interval(rng.normal(size=7), 0.99).high == math.inf
    assert math.isfinite(center_interval(rng.normal(size=8), 0.99).high)


def test_the_interval_of_a_centre_is_the_tabulated_one() -> None:
    """Hollander, Wolfe & Chicken, table A.4: at n = 10 a sum of at most 3 has a chance of 0.5 %."""
    values = np.random.default_rng(0).normal(size=10)
    rows, columns = np.triu_indices(10)
    means = np.sort((values[rows] + values[columns]) / 2)
    found = center_interval(values, 0.99)
    assert (found.low, found.high) == (means[3], means[-4])


def test_without_a_cpu_clock_wall_times_alone_count() -> None:
    block = {"wall_ns": [10_000, 20_000, 30_000]}
    rounds = [{"calls_per_sample": 10, "blocks": [block]}]
    samples = Samples.of(rounds, threads=1)
    assert not samples.own_work
    assert samples.wall_ms.tolist() == [0.001, 0.002, 0.003]
    assert samples.largest() == Interval(0.003, 0.003, 0.003)
    pair = [rounds[0], {"calls_per_sample": 10, "blocks": [{"wall_ns": [5_000, 10_000, 15_000]}]}]
    assert ratio_interval([pair] * 10, threads=1).value == pytest.approx(2.0)
