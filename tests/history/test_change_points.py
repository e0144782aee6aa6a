"""Change points: what is found in series of which the truth is known, and what is not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.history import change_points
from edgecheck.history.change_points import LEAST_POINTS, LEVEL, find_change_points
from edgecheck.history.metrics import LOWER, METRICS, Metric

law = settings(deadline=None, derandomize=True, max_examples=50)
ANY = Metric("any", LOWER, effect=0.0)
seeds = st.integers(0, 10**6)


def noisy(*levels: float, points: int = 40, share: float = 0.03, seed: int = 0) -> np.ndarray:
    """So many points of each level."""
    random = np.random.default_rng(seed)
    return np.concatenate([level + share * random.normal(size=points) for level in levels])


def positions(values: Sequence[float] | np.ndarray, metric: Metric = ANY) -> list[int]:
    return [item.position for item in find_change_points(values, metric)]


# -- values that repeat exactly


@law
@given(st.floats(-1e300, 1e300), st.integers(0, 300))
def test_a_constant_series_has_no_change_point(value: float, count: int) -> None:
    assert find_change_points([value] * count, ANY) == ()


@law
@given(
    st.lists(st.integers(1, 10**9), min_size=2, max_size=4).filter(
        lambda levels: all(a != b for a, b in itertools.pairwise(levels))
    ),
    st.integers(8, 30),
)
def test_exact_steps_are_found_where_they_are(levels: list[int], length: int) -> None:
    values = [float(level) for level in levels for _ in range(length)]
    found = find_change_points(values, ANY)
    assert [item.position for item in found] == [length * n for n in range(1, len(levels))]
    assert [found[0].before, *(item.after for item in found)] == levels
    assert all(item.low == item.position - 1 and item.high == item.position for item in found)
    assert all(item.p_value < 1e-6 for item in found)


def test_an_exact_step_is_seen_once_three_points_hold_it() -> None:
    before = [202_000.0] * 20
    assert [positions([*before, *[209_000.0] * n]) for n in range(5)] == [[], [], [], [20], [20]]


@law
@given(st.integers(0, 39), st.integers(1, 2), st.floats(1.01, 100))
def test_one_or_two_odd_points_among_equal_ones_are_no_shift(
    place: int, count: int, factor: float
) -> None:
    values = [1000.0] * 40
    values[place : place + count] = [1000.0 * factor] * len(values[place : place + count])
    assert positions(values) == []


# -- values with noise


@law
@given(seeds, st.sampled_from([0.8, 1.2]))
def test_a_clear_shift_is_found_near_where_it_is(seed: int, level: float) -> None:
    found = find_change_points(noisy(1.0, level, seed=seed), ANY)
    nearest = min(found, key=lambda item: abs(item.position - 40))
    assert abs(nearest.position - 40) <= 1
    assert nearest.low < 40 <= nearest.high
    assert nearest.before == pytest.approx(1.0, abs=0.06)
    assert nearest.after == pytest.approx(level, abs=0.06)
    assert nearest.p_value <= LEVEL


def test_noise_alone_shifts_in_about_as_many_series_as_it_may() -> None:
    false = sum(bool(positions(noisy(1.0, points=80, seed=seed))) for seed in range(300))
    assert false <= 0.03 * 300


def test_shifts_up_and_down_and_up_again_are_all_found() -> None:
    values = noisy(1.0, 1.2, 1.0, 1.3, seed=3)
    assert positions(values) == pytest.approx([40, 80, 120], abs=2)


def test_a_level_that_comes_and_goes_has_two_ends() -> None:
    values = noisy(1.0, points=100, seed=4)
    values[50:60] += 0.15
    assert positions(values) == pytest.approx([50, 60], abs=2)


@law
@given(seeds, st.integers(0, 80), st.integers(1, 2), st.floats(3, 100))
def test_wild_points_change_nothing(seed: int, place: int, count: int, factor: float) -> None:
    values = noisy(1.0, 1.2, seed=seed)
    wild = values.copy()
    # Not at the shift itself, where they make it harder to see which point is the first.
    place += 8 * (36 <= place <= 44)
    wild[place : place + count] *= factor
    assert positions(wild) == pytest.approx(positions(values), abs=1)


def test_a_drift_is_told_as_steps_that_all_go_its_way() -> None:
    values = noisy(1.0, points=200) + np.linspace(0, 0.5, 200)
    found = find_change_points(values, ANY)
    assert found
    assert all(item.after > item.before for item in found)


# -- what matters


@pytest.mark.parametrize(
    ("metric", "count"),
    [
        (Metric("share", LOWER, effect=0.15), 1),
        (Metric("share", LOWER, effect=0.25), 0),
        (Metric("unit", LOWER, effect=15.0, absolute=True), 1),
        (Metric("unit", LOWER, effect=25.0, absolute=True), 0),
        (Metric("floor", LOWER, effect=0.0, floor=15.0), 1),
        (Metric("floor", LOWER, effect=0.0, floor=25.0), 0),
    ],
)
def test_a_shift_counts_from_the_metric_s_effect_and_floor_on(metric: Metric, count: int) -> None:
    assert len(find_change_points(100 * noisy(1.0, 1.2), metric)) == count


def test_small_steps_one_way_add_up() -> None:
    levels = [100.0 * 1.007**n for n in range(6)]
    values = [level for level in levels for _ in range(10)]
    found = find_change_points(values, METRICS["size_bytes"])
    assert found
    assert all(item.after > 1.01 * item.before for item in found)
    assert positions(values[:20], METRICS["size_bytes"]) == []


# -- laws


@law
@given(
    seeds,
    st.floats(0.001, 1000),
    st.floats(-1000, 1000),
    st.sampled_from([-1, 1]),
    st.sampled_from([1.0, 1.1, 1.3]),
)
def test_unit_offset_and_sign_do_not_matter(
    seed: int, scale: float, offset: float, sign: int, level: float
) -> None:
    values = noisy(1.0, level, seed=seed)
    moved = sign * scale * values + offset
    assert positions(moved) == positions(values)


@law
@given(seeds, st.sampled_from([1.0, 1.1, 1.3]))
def test_backwards_the_same_shifts_are_found(seed: int, level: float) -> None:
    values = noisy(1.0, level, seed=seed)
    assert sorted(len(values) - item for item in positions(values[::-1])) == positions(values)


@law
@given(st.lists(st.floats(-1e6, 1e6), max_size=80))
def test_any_series_gives_ordered_positions_with_room_between(values: list[float]) -> None:
    found = find_change_points(values, ANY)
    edges = [0, *(item.position for item in found), len(values)]
    assert not found or min(np.diff(edges)) >= LEAST_POINTS
    for item in found:
        assert 0 <= item.low < item.position <= item.high < len(values)
        assert 0 <= item.p_value <= LEVEL
        assert item.before != item.after
    assert find_change_points(values, ANY) == found


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        find_change_points([1.0] * 10 + [bad], ANY)


# -- the formulas for significance, against pure noise


@pytest.mark.parametrize(
    ("best", "p_of"),
    [
        (change_points._best_shift, change_points._p_of_shift),
        (change_points._best_excursion, change_points._p_of_excursion),
    ],
)
def test_p_values_are_how_often_noise_gets_there(
    best: Callable[..., Any], p_of: Callable[..., Any]
) -> None:
    random = np.random.default_rng(7)
    count, series = 60, 2000
    found = []
    for _ in range(series):
        values = random.normal(size=count)
        gain, _ = best(values)
        z = change_points._z(gain, change_points._squares(values), count, 1.0)
        found.append(p_of(z, count))
    for level in (0.05, 0.02):
        share = np.mean(np.array(found) <= level)
        # 2000 series tell 0.02 to 0.003 (a standard deviation); the formulas are approximations.
        assert 0.4 * level <= share <= 1.4 * level
