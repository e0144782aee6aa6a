"""The memory check's judgement: the peak above an empty runtime against its limit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.budget import Budget
from edgecheck.checks.memory import judge

law = settings(deadline=None, derandomize=True, max_examples=50)
counts = st.integers(0, 10**8)  # a byte is less than what a limit forgives beyond


def stated(**limits):
    return Budget(**limits).select(frozenset(), "budget")


def weighed(peak=0, load=0, runtime=0):
    return {"peak_bytes": peak, "load_bytes": load, "runtime_bytes": runtime}


@law
@given(counts, counts, counts, counts)
def test_only_the_peak_above_the_runtime_is_judged(peak, load, runtime, limit):
    found = judge(weighed(peak, load, runtime), stated(peak_memory=f"{limit} B"))
    assert (found.outcome == "passed") == (peak <= limit)


def test_a_peak_one_byte_above_the_limit_fails():
    limits = stated(peak_memory="64 MB")
    assert judge(weighed(64_000_000), limits).outcome == "passed"
    assert judge(weighed(64_000_001), limits).outcome == "failed"


def test_a_limit_of_zero_is_a_limit():
    assert judge(weighed(1), stated(peak_memory="0 B")).outcome == "failed"


@pytest.mark.parametrize("limits", [{}, stated(size="1 B", latency_max="1 ns")])
def test_without_a_limit_on_memory_it_passes_and_is_reported(limits):
    found = judge(weighed(3, 2, 1_500_000), limits)
    assert found.outcome == "passed"
    assert found.comparisons == ()
    assert found.measurements == {
        "peak_memory_bytes": 3,
        "load_memory_bytes": 2,
        "runtime_memory_bytes": 1_500_000,
    }
    assert found.details == "the empty runtime takes 1.5 MB besides"


def test_a_broken_limit_is_told_in_megabytes():
    found = judge(weighed(80_000_000), stated(peak_memory="64 MB"))
    assert found.reason == "peak_memory 80 MB is not <= 64 MB (budget)"
