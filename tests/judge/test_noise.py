"""The noise yardstick: ratios against direct formulas, what luck and overflow do to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from edgecheck.judge.noise import EPSILON, Noise, arithmetic_of, luck_factor, rows_needed
from edgecheck.names import PRECISIONS

law = settings(deadline=None, derandomize=True, max_examples=40)


def noise_of(
    candidate: np.ndarray, own: np.ndarray, exact: np.ndarray, precision: str = "fp32"
) -> Noise:
    found = Noise(precision)
    found.add(np.asarray(candidate), np.asarray(own), np.asarray(exact))
    return found


def drawn(
    seed: int, count: int, *, noise: float, error: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float64 values, the reference with noise and a candidate with an error, as RMS."""
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=count)
    return (
        exact + error * rng.normal(size=count),
        exact + noise * rng.normal(size=count),
        exact,
    )


@law
@given(st.integers(0, 1000), st.floats(0.1, 100), st.floats(1e-6, 1e-3))
def test_the_ratio_is_that_of_the_errors(seed: int, times: float, noise: float) -> None:
    found = noise_of(*drawn(seed, 2000, noise=noise, error=times * noise)).metrics()
    assert found["noise_ratio_rms"] == pytest.approx(times, rel=0.2)
    assert found["noise_ratio_max"] == pytest.approx(times, rel=0.5)
    assert found["noise_rms"] == pytest.approx(noise, rel=0.1)


@law
@given(st.integers(0, 1000), st.integers(1, 200))
def test_no_candidate_with_the_same_noise_fails_however_few_the_values(
    seed: int, count: int
) -> None:
    found = noise_of(*drawn(seed, count, noise=1e-5, error=1e-5)).metrics()
    assert found["noise_ratio"] < 10


@law
@given(st.integers(0, 1000), st.integers(40, 200))
def test_one_value_off_by_a_thousandth_is_far_beyond_the_noise(seed: int, count: int) -> None:
    candidate, own, exact = drawn(seed, count, noise=1e-6, error=1e-6)
    candidate[seed % count] += 1e-3
    assert noise_of(candidate, own, exact).metrics()["noise_ratio"] > 100


@law
@given(st.integers(0, 1000), st.integers(-20, 20))
def test_the_ratio_does_not_change_with_scale(seed: int, exponent: int) -> None:
    arrays = drawn(seed, 50, noise=1e-5, error=3e-5)
    plain = noise_of(*arrays).metrics()
    candidate, own, exact = (item * 2.0**exponent for item in arrays)
    scaled = noise_of(candidate, own, exact).metrics()
    assert scaled["noise_ratio"] == pytest.approx(plain["noise_ratio"])


def test_several_feeds_count_as_one_long_output() -> None:
    arrays = drawn(3, 60, noise=1e-5, error=2e-5)
    parts = Noise("fp32")
    for start in (0, 20, 40):
        parts.add(*(item[start : start + 20] for item in arrays))
    assert parts.metrics() == pytest.approx(noise_of(*arrays).metrics())


def test_an_exact_reference_leaves_a_candidate_some_roundings() -> None:
    exact = np.linspace(0.5, 1.0, 100)
    step = EPSILON["fp32"]
    assert noise_of(exact, exact, exact).metrics()["noise_ratio"] == 0.0
    assert noise_of(exact + step, exact, exact).metrics()["noise_ratio"] == pytest.approx(1.0)
    assert noise_of(exact + 1e-4, exact, exact).metrics()["noise_ratio"] > 100


def test_outputs_of_zeros_allow_nothing_else() -> None:
    zeros = np.zeros(4)
    assert noise_of(zeros, zeros, zeros).metrics()["noise_ratio"] == 0.0
    assert noise_of(zeros + 1e-9, zeros, zeros).metrics()["noise_ratio"] == math.inf


@pytest.mark.parametrize("values", [1, 2, 10, 100, 10_000])
def test_the_luck_factor_is_the_chi_square_bound(values: int) -> None:
    assert luck_factor(values) == pytest.approx(math.sqrt(values / chi2.ppf(1e-4, values)))


def test_luck_wears_off_and_without_values_nothing_is_known() -> None:
    factors = [luck_factor(count) for count in (1, 2, 8, 64, 1000)]
    assert factors == sorted(factors, reverse=True)
    assert 1.0 < factors[-1] < 1.1
    assert luck_factor(0) == math.inf


@pytest.mark.parametrize("gone", [np.inf, -np.inf, np.nan])
def test_overflow_in_half_is_counted_and_left_out_of_the_noise(gone: float) -> None:
    candidate, own, exact = drawn(0, 100, noise=1e-3, error=1e-3)
    plain = noise_of(candidate[2:], own[2:], exact[2:], "fp16").metrics()
    own[:2] = gone
    found = noise_of(candidate, own, exact, "fp16")
    assert found.overflowed == 2
    assert found.metrics() == pytest.approx(plain)


def test_values_that_need_an_overflowing_sum_are_counted_once_and_stay_in_the_noise() -> None:
    candidate, own, exact = drawn(0, 100, noise=1e-3, error=1e-3)
    own[0], candidate[1] = np.inf, np.nan
    half_sums = own.copy()
    half_sums[:4] = np.nan
    found = Noise("fp16")
    found.add(candidate, own, exact, half_sums)
    assert (found.overflowed, found.overflowed_sums) == (1, 2)
    assert found.own.values == 98


def test_overflow_that_the_candidate_shows_is_not_hidden() -> None:
    candidate, own, exact = drawn(0, 100, noise=1e-3, error=1e-3)
    candidate[0] = own[0] = np.inf
    assert noise_of(candidate, own, exact, "fp16").overflowed == 0


def test_noise_as_large_as_the_output_is_no_yardstick() -> None:
    assert not noise_of(*drawn(0, 100, noise=1e-4, error=1)).reason
    assert (
        "rounding in fp32 alone moves it by" in noise_of(*drawn(0, 100, noise=0.1, error=1)).reason
    )
    assert not noise_of(*drawn(0, 100, noise=0.1, error=1), "fp16").reason
    overflowed = noise_of(np.ones(3), np.full(3, np.inf), np.ones(3), "fp16")
    assert "no value is finite" in overflowed.reason


def test_samples_without_a_float64_run_count_by_their_own_scale() -> None:
    candidate, own, exact = drawn(0, 200, noise=1e-5, error=1e-5)
    found = noise_of(candidate, own, exact)
    before = found.metrics()["noise_ratio"]
    found.add_rest(own * 100 + 1e-3, own * 100)  # as good, at a hundred times the scale
    assert found.metrics()["noise_ratio"] < 2 * before
    found.add_rest(own * 100 + 1.0, own * 100)
    assert found.metrics()["noise_ratio"] > 100
    assert found.metrics()["noise_ratio"] == found.metrics()["noise_ratio_max"]


@pytest.mark.parametrize(
    ("batch", "row_values", "rows"),
    [(32, 1000, 2), (32, 10, 7), (32, 1, 32), (100, 1, 64), (2, 10, 2), (1, 1, 1), (8, 0, 8)],
)
def test_as_many_samples_as_it_takes_for_enough_values(
    batch: int, row_values: int, rows: int
) -> None:
    assert rows_needed(batch, row_values) == rows


@pytest.mark.parametrize(("row_values", "rows"), [(1000, 2), (10, 26), (1, 32)])
def test_a_quantized_precision_takes_more(row_values: int, rows: int) -> None:
    assert rows_needed(32, row_values, "int8") == rows


def test_what_each_precision_is_simulated_by() -> None:
    kinds = {name: (arithmetic_of(name) or {"kind": ""})["kind"] for name in PRECISIONS}
    assert kinds["fp16"] == "float16"
    assert {kinds[name] for name in ("fp32", "int8-qat")} == {""}
    assert {kinds[name] for name in ("int8", "int8-dynamic", "int4", "int16x8")} == {"quantized"}
