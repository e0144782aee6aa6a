"""The latency check's judgement: statistics of raw times, held against limits."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.budget import KINDS, Budget
from edgecheck.checks.latency import judge

law = settings(deadline=None, derandomize=True, max_examples=50)
samples = st.lists(st.integers(1, 10**10), min_size=1, max_size=60)

TIMES = [name for name in KINDS if name.startswith("latency_")]


def stated(**limits):
    return Budget(**limits).select(frozenset(), "budget")


def measured(times_ns, batch=1):
    return judge(times_ns, {}, batch=batch).measurements


@law
@given(samples)
def test_statistics_are_those_of_the_samples_in_milliseconds(times_ns):
    found = measured(times_ns)
    times = [item / 1e6 for item in times_ns]
    assert found["latency_mean_ms"] == pytest.approx(statistics.fmean(times))
    assert found["latency_min_ms"] == pytest.approx(min(times))
    assert found["latency_max_ms"] == pytest.approx(max(times))
    assert found["latency_p50_ms"] == pytest.approx(statistics.median(times))
    deviation = statistics.stdev(times) if len(times) > 1 else 0.0
    assert found["latency_std_ms"] == pytest.approx(deviation, rel=1e-6, abs=1e-9)


@law
@given(samples)
def test_statistics_are_in_order(times_ns):
    found = measured(times_ns)
    names = ("min", "p50", "p95", "p99", "max")
    ordered = [found[f"latency_{name}_ms"] for name in names]
    assert ordered == pytest.approx(sorted(ordered))


@law
@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(times_ns, random):
    shuffled = random.sample(times_ns, len(times_ns))
    one, other = measured(times_ns), measured(shuffled)
    del one["samples_ns"], other["samples_ns"]
    assert one == pytest.approx(other)


def test_percentiles_are_interpolated():
    found = measured([item * 1_000_000 for item in range(1, 102)])
    assert found["latency_p95_ms"] == pytest.approx(96.0)
    assert found["latency_p99_ms"] == pytest.approx(100.0)


@law
@given(samples, st.integers(1, 64))
def test_throughput_counts_every_sample_of_a_batch(times_ns, batch):
    found = measured(times_ns, batch)
    assert found["throughput_per_s"] == pytest.approx(batch * 1000 / found["latency_mean_ms"])


def test_raw_samples_are_kept():
    assert measured([3_000_000, 1_000_000])["samples_ns"] == [3_000_000, 1_000_000]


@pytest.mark.parametrize("name", TIMES)
def test_every_time_limit_is_held_and_exactly_at_the_limit_passes(name):
    times = [5_000_000] * 10
    assert judge(times, stated(**{name: "5 ms"}), batch=1).outcome == "passed"
    found = judge(times, stated(**{name: "4.999 ms"}), batch=1)
    assert found.outcome == "failed"
    assert [item.limit.name for item in found.comparisons] == [name]


def test_one_outlier_breaks_the_maximum_but_not_the_median():
    times = [1_000_000] * 199 + [500_000_000]
    assert judge(times, stated(latency_p50="2 ms"), batch=1).outcome == "passed"
    assert judge(times, stated(latency_p95="2 ms"), batch=1).outcome == "passed"
    assert judge(times, stated(latency_max="2 ms"), batch=1).outcome == "failed"


def test_a_throughput_limit_is_a_lower_bound():
    times = [10_000_000] * 5
    assert judge(times, stated(throughput="100 /s"), batch=1).outcome == "passed"
    assert judge(times, stated(throughput="101 /s"), batch=1).outcome == "failed"
    assert judge(times, stated(throughput="101 /s"), batch=2).outcome == "passed"


def test_every_broken_limit_is_told():
    limits = stated(latency_p50="1 ms", latency_max="1 ms", throughput="1 /s")
    found = judge([5_000_000, 6_000_000], limits, batch=1)
    assert len(found.failures) == 2
    assert len(found.comparisons) == 3


def test_limits_of_other_checks_are_left_alone():
    found = judge([1_000_000], stated(size="1 B", accuracy_drop=0.0), batch=1)
    assert found.outcome == "passed"
    assert found.comparisons == ()


def test_a_clock_too_coarse_for_the_model_does_not_divide_by_zero():
    assert judge([0, 0, 0], stated(latency_p95="1 ms"), batch=1).outcome == "passed"
