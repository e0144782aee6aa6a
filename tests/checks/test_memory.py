"""The memory check's judgement: what was weighed against its limits, and what counts as a leak."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.checks.memory import growth, judge
from edgecheck.declare.budget import DEFAULTS, Budget

law = settings(deadline=None, derandomize=True, max_examples=50)
counts = st.integers(0, 10**8)  # a byte is less than what a limit forgives beyond
PAGE = 4096
STEP = 132 * 1024  # by how much glibc's heap grows
LIMIT = 1000


def stated(**limits: Any) -> Any:
    return Budget(**limits).select(frozenset(), "budget")


def weighed(
    peak: int = 0,
    load: int = 0,
    runtime: int = 0,
    steady: int = 0,
    held: list[int] | tuple[int, ...] = (0,) * 41,
    per_reading: int = 5,
    mapped: int = 0,
) -> dict[str, Any]:
    return {
        "peak_bytes": peak,
        "load_bytes": load,
        "loaded_bytes": load,
        "steady_bytes": steady,
        "runtime_bytes": runtime,
        "mapped_bytes": mapped,
        "mapped_resident_bytes": mapped // 2,
        "inferences": [per_reading * place for place in range(len(held))],
        "held_bytes": list(held),
        "reported": {},
    }


def sustained(held: Any, per_reading: int = 5) -> float:
    return growth([per_reading * place for place in range(len(held))], held).sustained


@law
@given(counts, counts, counts, counts)
def test_only_the_peak_above_the_runtime_is_judged(
    peak: int, load: int, runtime: int, limit: int
) -> None:
    found = judge(weighed(peak, load, runtime), stated(peak_memory=f"{limit} B"))
    assert (found.outcome == "passed") == (peak <= limit)


def test_a_peak_one_byte_above_the_limit_fails() -> None:
    limits = stated(peak_memory="64 MB")
    assert judge(weighed(64_000_000), limits).outcome == "passed"
    assert judge(weighed(64_000_001), limits).outcome == "failed"


@pytest.mark.parametrize(
    ("limit", "names"),
    [("load_memory", {"load"}), ("steady_memory", {"steady"}), ("peak_memory", {"peak"})],
)
def test_each_limit_holds_its_own_figure(limit: str, names: set[str]) -> None:
    for name in ("peak", "load", "steady", "runtime"):
        high: dict[str, Any] = {name: 2_000_000}
        found = judge(weighed(**high), stated(**{limit: "1 MB"}))
        assert (found.outcome == "failed") == (name in names)


def test_a_limit_of_zero_is_a_limit() -> None:
    assert judge(weighed(1), stated(peak_memory="0 B")).outcome == "failed"


@pytest.mark.parametrize("limits", [{}, stated(size="1 B", latency_max="1 ns")])
def test_without_a_limit_on_memory_it_passes_and_is_reported(limits: dict[str, Any]) -> None:
    found = judge(weighed(3, 2, 1_500_000, 1, mapped=10), limits)
    assert found.outcome == "passed"
    assert found.comparisons == ()
    assert found.measurements == {
        "peak_memory_bytes": 3,
        "load_memory_bytes": 2,
        "loaded_memory_bytes": 2,
        "steady_memory_bytes": 1,
        "runtime_memory_bytes": 1_500_000,
        "memory_growth_bytes_per_inference": 0.0,
        "memory_growth_interval_bytes_per_inference": [0.0, 0.0],
        "sustained_memory_growth_bytes_per_inference": 0.0,
        "weights_mapped": True,
        "mapped_bytes": 10,
        "mapped_resident_bytes": 5,
        "runtime_reported": {},
        "growth_inferences": [5 * place for place in range(41)],
        "growth_held_bytes": [0] * 41,
    }
    assert found.details.startswith("the empty runtime takes 1.5 MB besides")


def test_a_broken_limit_is_told_in_megabytes() -> None:
    found = judge(weighed(80_000_000), stated(peak_memory="64 MB"))
    assert found.reason == "peak_memory 80 MB is not <= 64 MB (budget)"


@law
@given(st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_noise_around_a_level_is_no_growth(seed: int, pages: int) -> None:
    noise = np.random.default_rng(seed).integers(-pages, pages + 1, 41) * PAGE
    assert sustained(10**8 + noise) <= LIMIT


@law
@given(st.integers(1, 40), st.integers(1, 10**8))
def test_one_step_is_no_growth_wherever_it_is(place: int, size: int) -> None:
    assert sustained([0] * place + [size] * (41 - place)) == 0


@law
@given(st.integers(1, 26), st.integers(1, 10**6))
def test_growth_that_ends_is_none(end: int, size: int) -> None:
    assert sustained([size * min(place, end) for place in range(41)]) == 0


@law
@given(st.floats(0.1, 10))
def test_memory_that_is_given_back_is_no_growth(size: float) -> None:
    assert sustained([1e7 - size * PAGE * place for place in range(41)]) == 0


@law
@given(st.integers(2 * LIMIT, 10**6), st.integers(1, 50))
def test_a_leak_is_found_at_its_size(leak: int, per_reading: int) -> None:
    held = [leak * per_reading * place // PAGE * PAGE for place in range(41)]
    found = growth([per_reading * place for place in range(41)], held)
    assert found.low <= leak * 1.01 + PAGE / per_reading / 20
    assert abs(found.slope - leak) <= 0.02 * leak + PAGE / per_reading / 20
    assert found.sustained >= 0.8 * leak - PAGE / per_reading / 5


@law
@given(st.integers(5, 50), st.integers(0, STEP))
def test_a_leak_that_shows_in_steps_is_found(per_reading: int, offset: int) -> None:
    held = [(10_000 * per_reading * place + offset) // STEP * STEP for place in range(41)]
    assert sustained(held, per_reading) > LIMIT


@law
@given(st.integers(0, 2**32 - 1))
def test_a_leak_is_found_through_noise(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(-10, 11, 41) * PAGE
    assert sustained(10_000 * 25 * np.arange(41) + noise, 25) > LIMIT


def test_a_leak_says_how_large_and_how_sure() -> None:
    leak = weighed(held=[place * 51_200 for place in range(41)])
    found = judge(leak, DEFAULTS["fp32"].select(frozenset(), "default"))
    assert found.outcome == "failed"
    assert found.reason == (
        "memory_growth 10.2 kB per inference is not <= 1 kB per inference (default): memory grows "
        "by 10.2 kB per inference (99% interval 10.2 kB to 10.2 kB) over 200 inferences"
    )
    assert judge(leak, stated(memory_growth="11 kB")).outcome == "passed"


@pytest.mark.parametrize("precision", DEFAULTS)
def test_a_leak_fails_at_every_precision_by_default(precision: str) -> None:
    limits = DEFAULTS[precision].select(frozenset(), "default")
    assert judge(weighed(held=[place * 51_200 for place in range(41)]), limits).failures
    assert not judge(weighed(), limits).failures


def test_too_few_readings_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 readings are too few"):
        growth([0, 1, 2], [0, 0, 0])
