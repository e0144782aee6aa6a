"""Verdicts: how comparisons and failures become an outcome and sentences."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.budget import Limit
from edgecheck.verdict import Comparison, Outcome, Verdict, conclude

law = settings(deadline=None, derandomize=True, max_examples=50)


def limit(value=0.02, bound="max", unit="", name="accuracy_drop", origin="budget"):
    return Limit(name, value, bound, unit, origin)


comparisons = st.builds(
    Comparison,
    st.builds(limit, st.floats(-10, 10), st.sampled_from(["max", "min"])),
    st.floats(-20, 20) | st.just(math.nan),
)


@law
@given(st.lists(st.text("ab", min_size=1), max_size=3), st.lists(comparisons, max_size=4))
def test_a_case_fails_exactly_where_anything_failed_or_a_limit_is_broken(failures, compared):
    verdict = conclude(failures=failures, comparisons=compared)
    broken = [item for item in compared if not item.passed]
    assert (verdict.outcome is Outcome.FAILED) == bool(failures or broken)
    assert verdict.failures == (*failures, *(item.sentence() for item in broken))
    assert verdict.reason == (verdict.failures[0] if verdict.failures else "")
    assert verdict.comparisons == tuple(compared)


def test_iterators_are_taken_whole():
    verdict = conclude(
        failures=iter(["one", "two"]),
        comparisons=iter([Comparison(limit(), 1.0)]),
        warnings=iter(["look"]),
    )
    assert len(verdict.failures) == 3
    assert verdict.warnings == ("look",)
    assert len(verdict.comparisons) == 1


def test_warnings_alone_do_not_fail():
    verdict = conclude(warnings=["look here"], measurements={"a": 0.0}, details="text")
    assert verdict == Verdict(
        Outcome.PASSED, warnings=("look here",), measurements={"a": 0.0}, details="text"
    )


def test_a_measurement_of_nan_fails_whatever_the_bound():
    for bound in ("max", "min"):
        assert conclude(comparisons=[Comparison(limit(0.0, bound), math.nan)]).outcome == "failed"


def test_a_measurement_of_exactly_zero_is_judged():
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
    ],
)
def test_a_comparison_reads_as_a_sentence(comparison, sentence):
    assert comparison.sentence() == sentence


@pytest.mark.parametrize(
    ("unit", "value", "measured"),
    [("bytes", 64e6, 64.04e6), ("ms", 5.0, 5.001), ("", 0.02, 0.020001)],
)
def test_a_broken_limit_is_never_told_with_two_equal_numbers(unit, value, measured):
    sentence = Comparison(limit(value, unit=unit, name="size"), measured).sentence()
    found = re.fullmatch(r"size (.+) is not <= (.+) \(budget\)", sentence)
    assert found is not None
    assert found[1] != found[2]


def test_outcomes_are_the_words_of_the_report():
    assert {str(item) for item in Outcome} == {
        *("passed", "failed", "not_checked", "unsupported", "inconclusive")
    }
