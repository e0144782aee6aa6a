"""Verdicts: how comparisons and failures become an outcome and sentences."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.declare.budget import Limit
from edgecheck.declare.limits import Bound
from edgecheck.judge.verdict import Comparison, Evidence, Outcome, Verdict, conclude, extended

law = settings(deadline=None, derandomize=True, max_examples=50)


def limit(
    value: float = 0.02,
    bound: Bound = "max",
    unit: str = "",
    name: str = "accuracy_drop",
    origin: str = "budget",
) -> Limit:
    return Limit(name, value, bound, unit, origin)


BOUNDS: st.SearchStrategy[Bound] = st.sampled_from(["max", "min"])
comparisons = st.builds(
    Comparison,
    st.builds(limit, st.floats(-10, 10), BOUNDS),
    st.floats(-20, 20) | st.just(math.nan),
)


@st.composite
def intervals(draw: st.DrawFn) -> Comparison:
    """A comparison of a value that is known to lie within an interval."""
    low, measured, high = sorted(draw(st.tuples(*[st.floats(-20, 20)] * 3)))
    bound = draw(BOUNDS)
    held = limit(draw(st.floats(-10, 10)), bound)
    return Comparison(held, measured, low=low, high=high, resolution=draw(st.floats(0, 0.2)))


def ends(comparison: Comparison) -> tuple[float, float]:
    """Of an interval that there is."""
    assert comparison.low is not None
    assert comparison.high is not None
    return comparison.low, comparison.high


@law
@given(
    st.lists(st.text("ab", min_size=1), max_size=3),
    st.lists(comparisons | intervals(), max_size=4),
)
def test_a_case_fails_exactly_where_anything_failed_or_a_limit_is_broken(
    failures: list[str], compared: list[Comparison]
) -> None:
    verdict = conclude(failures=failures, comparisons=compared)
    broken = [item for item in compared if item.outcome is Outcome.FAILED]
    unclear = [item for item in compared if item.outcome is Outcome.INCONCLUSIVE]
    assert (verdict.outcome is Outcome.FAILED) == bool(failures or broken)
    assert (verdict.outcome is Outcome.INCONCLUSIVE) == bool(
        unclear and not failures and not broken
    )
    told = (*failures, *(item.sentence() for item in (*broken, *unclear)))
    assert verdict.failures == told
    assert verdict.reason == (told[0] if told else "")
    assert verdict.comparisons == tuple(compared)


# -- intervals


@law
@given(intervals())
def test_an_interval_fails_only_where_no_value_of_it_keeps_the_limit(
    comparison: Comparison,
) -> None:
    low, high = ends(comparison)
    allowed = [comparison.limit.allows(low), comparison.limit.allows(high)]
    if comparison.outcome is Outcome.FAILED:
        assert not any(allowed)
        assert not comparison.limit.allows(comparison.measured)
    if all(allowed):
        assert comparison.outcome is Outcome.PASSED
    if comparison.resolution == 0 and any(allowed) and not all(allowed):
        assert comparison.outcome is Outcome.INCONCLUSIVE


@law
@given(intervals(), st.floats(0, 5))
def test_a_narrower_interval_never_turns_a_verdict_round(
    comparison: Comparison, margin: float
) -> None:
    low, high = ends(comparison)
    wider = replace(comparison, low=low - margin, high=high + margin)
    if wider.outcome is not Outcome.INCONCLUSIVE:
        assert comparison.outcome is wider.outcome


@law
@given(intervals(), st.floats(0, 0.2))
def test_a_coarser_resolution_never_fails_what_passed(comparison: Comparison, more: float) -> None:
    order = [Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED]
    coarser = replace(comparison, resolution=comparison.resolution + more)
    assert order.index(comparison.outcome) <= order.index(coarser.outcome)


@law
@given(comparisons)
def test_an_exact_value_is_an_interval_without_width(comparison: Comparison) -> None:
    measured = comparison.measured
    assert replace(comparison, low=measured, high=measured).outcome is comparison.outcome


@pytest.mark.parametrize(
    ("low", "measured", "high", "outcome"),
    [
        (0.90, 0.95, 1.00, "passed"),
        (0.98, 1.00, 1.02, "passed"),  # what is over by less than 2 % does not matter
        (0.98, 1.00, 1.03, "inconclusive"),
        (1.005, 1.01, 1.015, "passed"),  # slower for certain, and by too little
        (1.005, 1.015, 1.03, "inconclusive"),
        (1.01, 1.03, 1.05, "failed"),  # significance and magnitude
        (0.99, 1.03, 1.07, "inconclusive"),  # magnitude alone
        (1.5, 1.6, math.inf, "failed"),
        (0.0, 1.0, math.inf, "inconclusive"),
    ],
)
def test_a_regression_needs_significance_and_magnitude(
    low: float, measured: float, high: float, outcome: str
) -> None:
    held = limit(1.0, unit="x", name="latency_vs_baseline")
    assert Comparison(held, measured, low=low, high=high, resolution=0.02).outcome == outcome


def test_a_lower_bound_is_held_against_the_other_end() -> None:
    held = limit(100.0, "min", "/s", "throughput")
    outcomes = [
        Comparison(held, middle, low=middle - 5, high=middle + 5).outcome
        for middle in (90, 98, 102, 106)
    ]
    assert outcomes == ["failed", "inconclusive", "inconclusive", "passed"]


def test_an_interval_of_nan_fails() -> None:
    nan = math.nan
    for bound in ("max", "min"):
        assert Comparison(limit(1.0, bound), nan, low=nan, high=nan).outcome is Outcome.FAILED


def test_iterators_are_taken_whole() -> None:
    verdict = conclude(
        failures=iter(["one", "two"]),
        comparisons=iter([Comparison(limit(), 1.0)]),
        warnings=iter(["look"]),
    )
    assert len(verdict.failures) == 3
    assert verdict.warnings == ("look",)
    assert len(verdict.comparisons) == 1


def test_warnings_alone_do_not_fail() -> None:
    verdict = conclude(warnings=["look here"], measurements={"a": 0.0}, details="text")
    assert verdict == Verdict(
        Outcome.PASSED, warnings=("look here",), measurements={"a": 0.0}, details="text"
    )


def test_a_measurement_of_nan_fails_whatever_the_bound() -> None:
    for bound in ("max", "min"):
        assert conclude(comparisons=[Comparison(limit(0.0, bound), math.nan)]).outcome == "failed"


def test_a_measurement_of_exactly_zero_is_judged() -> None:
    assert not Comparison(limit(-0.5), 0.0).passed
    assert Comparison(limit(0.0), 0.0).passed
    assert not Comparison(limit(0.5, "min"), 0.0).passed


@pytest.mark.parametrize(
    ("comparison", "sentence"),
    [
        (Comparison(limit(), 0.05), "accuracy_drop 0.05 is not <= 0.02 (budget)"),
        (Comparison(limit(), 0.01), "accuracy_drop 0.01 is <= 0.02 (budget)"),
        (
            Comparison(limit(30.0, "min", "dB", "sqnr_db", "default"), 12.0, "logits"),
            "sqnr_db[logits] 12 dB is not >= 30 dB (default)",
        ),
        (
            Comparison(limit(5.0, "max", "ms", "latency_p95", "profile mcu"), 7.5),
            "latency_p95 7.5 ms is not <= 5 ms (profile mcu)",
        ),
        (
            Comparison(limit(2**21, "max", "bytes", "size"), 3e6),
            "size 3 MB is not <= 2.1 MB (budget)",
        ),
        (
            Comparison(limit(5.0, "max", "ms", "latency_p95"), 5.2, low=4.9, high=6.1),
            "latency_p95 5.2 ms can't be told from <= 5 ms (budget): "
            "it is somewhere in 4.9 ms .. 6.1 ms",
        ),
        (
            Comparison(limit(5.0, "max", "ms", "latency_p95"), 7.0, low=6.0, high=8.0),
            "latency_p95 7 ms is not <= 5 ms (budget)",
        ),
        (
            Comparison(limit(200.0, "min", "/s", "throughput"), 210.0, low=190.0, high=230.0),
            "throughput 210 /s can't be told from >= 200 /s (budget): "
            "it is somewhere in 190 /s .. 230 /s",
        ),
        (
            Comparison(limit(1.0, "max", "x", "latency_vs_fp32"), 1.234, low=1.2, high=1.3),
            "latency_vs_fp32 1.23 x is not <= 1 x (budget)",
        ),
    ],
)
def test_a_comparison_reads_as_a_sentence(comparison: Comparison, sentence: str) -> None:
    assert comparison.sentence() == sentence


@pytest.mark.parametrize(
    ("unit", "value", "measured"),
    [("bytes", 64e6, 64.04e6), ("ms", 5.0, 5.001), ("", 0.02, 0.020001)],
)
def test_a_broken_limit_is_never_told_with_two_equal_numbers(
    unit: str, value: float, measured: float
) -> None:
    sentence = Comparison(limit(value, unit=unit, name="size"), measured).sentence()
    found = re.fullmatch(r"size (.+) is not <= (.+) \(budget\)", sentence)
    assert found is not None
    assert found[1] != found[2]


def test_outcomes_are_the_words_of_the_report() -> None:
    assert {str(item) for item in Outcome} == {
        *("passed", "failed", "not_checked", "unsupported", "inconclusive")
    }


@law
@given(st.lists(comparisons | intervals(), max_size=3), st.lists(st.text(), max_size=2))
def test_further_evidence_fails_what_passed_and_never_passes_what_failed(
    held: list[Comparison], failures: list[str]
) -> None:
    before = conclude(comparisons=held, measurements={"a": 1}, details="seed 0")
    evidence = Evidence(tuple(failures), ("look",), {"b": 2}, "as it was")
    after = extended(before, evidence)
    assert after.outcome is (Outcome.FAILED if failures else before.outcome)
    assert sorted(after.failures) == sorted((*before.failures, *failures))
    assert after.comparisons == before.comparisons
    assert (after.warnings, after.measurements) == (("look",), {"a": 1, "b": 2})
    assert after.details == "seed 0\nas it was"
    assert after.reason == (after.failures[0] if after.failures else "")


def test_no_evidence_changes_nothing() -> None:
    before = conclude(failures=["broken"], details="seed 0")
    assert extended(before, Evidence()) == before
