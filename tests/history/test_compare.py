"""Two runs compared: laws of the comparison, and each of its rules by itself."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgecheck.history.compare import (
    LEAST_HISTORY,
    SPREADS,
    Change,
    Direction,
    compare_case,
    compare_reading,
    compare_runs,
    spread_of,
)
from edgecheck.history.metrics import HIGHER, LOWER, METRICS, Metric
from edgecheck.history.results import CaseResult, Reading, RunInfo, RunResults

law = settings(deadline=None)

SIZE = Metric("size_bytes", LOWER, 0.01)
DEVICE = {"cpu": "A", "threads": 1}
WORSE, BETTER, SAME = Direction.REGRESSION, Direction.IMPROVEMENT, Direction.UNCHANGED
OPPOSITE = {WORSE: BETTER, BETTER: WORSE, SAME: SAME}

values = st.floats(-1e300, 1e300, allow_subnormal=False)
betters = st.sampled_from([LOWER, HIGHER])


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    return Metric(
        "m",
        draw(betters),
        draw(st.floats(0, 2)),
        absolute=draw(st.booleans()),
        floor=draw(st.sampled_from([0.0, 1.0, 1e6])),
        spread=draw(st.floats(0, 0.5)),
    )


def judge(
    before: float, after: float, metric: Metric = SIZE, better: str | None = None, **changes: Any
) -> Change:
    """The direction of one number's change; intervals and spreads as in `Reading`."""
    better = better or metric.better
    old = Reading(metric.name, "", before, better, *changes.get("old", (None, None)))
    new = Reading(metric.name, "", after, better, *changes.get("new", (None, None)))
    return compare_reading("k", replace(old, spread=changes.get("spread")), new, metric)


def case(
    key: str = "k",
    verdict: str = "passed",
    device: dict[str, Any] = DEVICE,
    accepted: str = "",
    **numbers: Any,
) -> CaseResult:
    found = tuple(Reading(name, "", value, METRICS[name].better) for name, value in numbers.items())
    return CaseResult(key, verdict, accepted=accepted, device=device, readings=found)


def run(name: str, *cases: CaseResult) -> RunResults:
    info = RunInfo(name * 8, "2026-11-01T10:00:00+00:00")
    return RunResults(info, {item.key: item for item in cases})


# -- laws


@law
@given(metrics(), values)
def test_what_did_not_change_is_unchanged(metric: Metric, value: float) -> None:
    found = judge(value, value, metric)
    assert (found.direction, found.change) == (SAME, 0.0)


@law
@given(metrics(), values, values)
def test_swapped_runs_never_agree_on_the_direction(
    metric: Metric, left: float, right: float
) -> None:
    there, back = (judge(*pair, metric).direction for pair in ((left, right), (right, left)))
    assert SAME in (there, back) or back is OPPOSITE[there]
    if metric.absolute:
        assert back is OPPOSITE[there]


@law
@given(st.floats(0.1, 1e9), st.floats(0.1, 100), st.floats(0, 2), betters)
def test_as_large_a_factor_counts_down_as_up(
    value: float, factor: float, effect: float, better: str
) -> None:
    assume(abs(factor - (1 + effect)) > 1e-6 and abs(1 / factor - (1 + effect)) > 1e-6)
    metric = replace(SIZE, effect=effect, better=better)
    there, back = judge(value, value * factor, metric), judge(value * factor, value, metric)
    assert back.direction is OPPOSITE[there.direction]


@law
@given(values, st.floats(1.02, 100), betters)
def test_a_change_of_more_than_the_effect_is_found_both_ways(
    value: float, factor: float, better: str
) -> None:
    assume(abs(value) > 1e-300 and abs(value * factor) < 1e300)
    metric = replace(SIZE, better=better)
    there, back = judge(value, value * factor, metric), judge(value * factor, value, metric)
    grows = value > 0
    assert there.direction is (BETTER if grows == (better == HIGHER) else WORSE)
    assert back.direction is OPPOSITE[there.direction]


@law
@given(metrics(), values, values)
def test_which_way_is_better_decides_the_direction_only(
    metric: Metric, left: float, right: float
) -> None:
    lower, higher = (judge(left, right, metric, better) for better in (LOWER, HIGHER))
    assert lower.direction is OPPOSITE[higher.direction]
    assert lower.change == higher.change


@law
@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9), st.integers(-40, 40), st.floats(0, 1))
def test_shares_do_not_depend_on_the_unit(
    left: float, right: float, power: int, effect: float
) -> None:
    metric = replace(SIZE, effect=effect)
    scaled = judge(left * 2.0**power, right * 2.0**power, metric)
    assert scaled.direction is judge(left, right, metric).direction


@law
@given(metrics(), values, values, st.floats(0, 3))
def test_a_larger_effect_finds_no_more(
    metric: Metric, left: float, right: float, more: float
) -> None:
    wide = replace(metric, effect=metric.effect + more)
    found = judge(left, right, wide).direction
    assert found in (SAME, judge(left, right, metric).direction)


cases = st.builds(
    case,
    st.sampled_from("abcd"),
    st.sampled_from(["passed", "failed", "not_checked", "inconclusive"]),
    st.sampled_from([DEVICE, {}]),
    st.sampled_from(["", "waived"]),
    size_bytes=st.floats(0, 1e9),
    latency_p50_ms=st.floats(0, 1e3),
)
runs = st.builds(lambda found: run("a", *found), st.lists(cases))


@law
@given(runs)
def test_a_run_compared_with_itself_has_nothing_to_tell(found: RunResults) -> None:
    told = compare_runs(found, found, METRICS)
    assert not told.is_regression
    assert not told.improvements
    assert (told.vanished, told.new) == ([], [])
    assert set(told.cases) == set(found.cases)


@law
@given(runs, runs)
def test_every_case_is_compared_or_vanished_or_new(before: RunResults, after: RunResults) -> None:
    told = compare_runs(before, after, METRICS)
    assert sorted([*told.cases, *told.vanished]) == sorted(before.cases)
    assert sorted([*told.cases, *told.new]) == sorted(after.cases)
    back = compare_runs(after, before, METRICS)
    assert (back.vanished, back.new) == (told.new, told.vanished)


@law
@given(cases, cases)
def test_numbers_of_other_or_unknown_devices_are_left_out_and_told(
    before: CaseResult, after: CaseResult
) -> None:
    found = compare_case(before, after, METRICS)
    compared = {item.metric for item in found.changes}
    assert "size_bytes" in compared
    same = before.device == after.device != {}
    assert ("latency_p50_ms" in compared) == same
    assert bool(found.incomparable) == (not same)


# -- rules


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"accuracy"}))
def test_each_metric_has_its_direction(name: str) -> None:
    metric = METRICS[name]
    up, down = judge(1e8, 1e9, metric).direction, judge(1e9, 1e8, metric).direction
    assert up is (WORSE if metric.better == LOWER else BETTER)
    assert down is OPPOSITE[up]


def test_an_effect_must_be_exceeded() -> None:
    assert judge(1000, 1010).direction is SAME
    assert judge(1000, 1011).direction is WORSE
    assert judge(1000, 989).direction is BETTER


def test_an_absolute_metric_counts_differences() -> None:
    sqnr = METRICS["sqnr_db"]
    assert judge(2.0, -1.0, sqnr).direction is SAME
    found = judge(40.0, 36.5, sqnr)
    assert (found.direction, found.change, found.needed, found.share) == (WORSE, -3.5, 3.0, False)


def test_a_change_within_the_spread_between_runs_does_not_count() -> None:
    latency = METRICS["latency_p50_ms"]
    above = 10.0 * (1 + SPREADS * latency.spread)
    assert judge(10.0, above - 0.1, latency).direction is SAME
    assert judge(10.0, above + 0.1, latency).direction is WORSE
    assert judge(above + 0.1, 10.0, latency).direction is BETTER
    # What the history shows stands for the table's guess, whether it is less or more.
    assert judge(10.0, 11.0, latency, spread=0.02).direction is WORSE
    assert judge(10.0, 10.4, latency, spread=0.0).direction is SAME
    assert judge(10.0, 15.0, latency, spread=0.2).direction is SAME
    assert judge(10.0, 10.0, latency, spread=0.2).needed == pytest.approx(SPREADS * 0.2)


def test_a_change_below_the_floor_never_counts() -> None:
    load = METRICS["load_time_ms"]
    assert judge(1.0, 5.9, load).direction is SAME
    assert judge(1.0, 6.1, load).direction is WORSE
    assert judge(6.1, 1.0, load).direction is BETTER
    assert judge(5.9, 1.0, load).direction is SAME


def test_intervals_that_touch_hide_a_change_and_half_of_one_does_not() -> None:
    pair: dict[str, Any] = {"old": (90.0, 120.0), "new": (120.0, 150.0)}
    assert judge(100, 140, **pair).direction is SAME
    assert judge(140, 100, old=pair["new"], new=pair["old"]).direction is SAME
    assert judge(100, 140, old=(90.0, 119.9), new=(120.0, 150.0)).direction is WORSE
    assert judge(100, 140, old=(None, 120.0), new=(120.0, 150.0)).direction is WORSE


def test_from_nothing_to_something_is_a_change_without_a_share() -> None:
    found = judge(0.0, 5.0)
    assert (found.direction, found.change) == (WORSE, math.inf)
    assert judge(0.0, 0.5, METRICS["load_time_ms"]).direction is SAME
    found = judge(5.0, 0.0)
    assert (found.direction, found.change) == (BETTER, -1.0)
    assert judge(0.0, -0.0).direction is SAME


def test_a_number_that_one_run_lacks_is_no_change() -> None:
    found = compare_case(case(size_bytes=1), case(latency_p50_ms=9.0), METRICS)
    assert (found.changes, found.incomparable) == ((), "")


def test_a_metric_that_is_not_followed_any_more_is_left_alone() -> None:
    found = compare_case(case(size_bytes=1), case(size_bytes=9), {})
    assert found.changes == ()


def test_numbers_of_several_outputs_are_not_mixed() -> None:
    def outputs(**decibels: Any) -> CaseResult:
        found = (Reading("sqnr_db", name, value, HIGHER) for name, value in decibels.items())
        return replace(case(), readings=tuple(found))

    found = compare_case(outputs(a=40.0, b=20.0), outputs(b=20.0, a=30.0), METRICS)
    assert {item.subject: item.direction for item in found.changes} == {"a": WORSE, "b": SAME}


def test_the_same_file_is_not_slower_than_itself() -> None:
    before = replace(case(latency_p50_ms=1.0, size_bytes=5), artifact_sha256="1" * 64)
    after = replace(case(latency_p50_ms=9.0, size_bytes=50), artifact_sha256="1" * 64)
    found = compare_case(before, after, METRICS)
    # Its size is measured without noise: that would be told.
    assert {item.metric: item.direction for item in found.changes} == {
        "latency_p50_ms": SAME,
        "size_bytes": WORSE,
    }
    other = compare_case(before, replace(after, artifact_sha256="2" * 64), METRICS)
    assert len(other.regressions) == 2
    before, after = (replace(item, artifact_sha256="") for item in (before, after))
    unknown = compare_case(before, after, METRICS)
    assert len(unknown.regressions) == 2


def test_what_differs_between_devices_is_named() -> None:
    before = case(latency_p50_ms=1.0, size_bytes=5)
    after = replace(before, device={**DEVICE, "cpu": "B"})
    told = compare_case(before, after, METRICS)
    assert told.incomparable == "another device: cpu A -> B"
    assert [item.metric for item in told.changes] == ["size_bytes"]
    unknown = compare_case(before, replace(before, device={}), METRICS)
    assert unknown.incomparable == "the device is not known"
    found = compare_runs(run("a", before), run("b", after), METRICS)
    assert found.incomparable == {"another device: cpu A -> B": ["k"]}


@pytest.mark.parametrize("verdict", ["failed", "inconclusive", "unsupported", "not_checked"])
def test_a_case_that_passed_and_does_not_any_more_is_worse(verdict: str) -> None:
    after = case(verdict=verdict)
    assert compare_case(case(), after, METRICS).worse == ("passed", verdict)
    assert compare_runs(run("a", case()), run("b", after), METRICS).is_regression
    assert compare_case(case(), replace(after, accepted="waived"), METRICS).worse is None
    assert compare_case(after, after, METRICS).worse is None
    assert compare_case(after, case(), METRICS).worse is None


# -- spreads


@given(st.lists(st.floats(1.0, 1e6), min_size=LEAST_HISTORY), st.floats(0.1, 10), st.randoms())
def test_the_spread_is_a_share_and_does_not_depend_on_order(
    series: list[float], scale: float, random: Any
) -> None:
    found = spread_of(series)
    assert found is not None
    assert found >= 0
    assert spread_of([scale * item for item in series]) == pytest.approx(found, abs=1e-9)
    random.shuffle(series)
    assert spread_of(series) == found


def test_one_odd_run_does_not_widen_the_spread() -> None:
    calm = [10.0, 10.2, 9.8, 10.1, 9.9, 10.0, 10.1, 9.9]
    spread = spread_of([*calm, 1000.0])
    assert spread is not None
    assert spread < 0.03
    assert spread_of(calm) == pytest.approx(1.4826 * 0.01)


def test_few_values_have_no_spread_and_equal_ones_none_at_all() -> None:
    assert spread_of([1.0] * (LEAST_HISTORY - 1)) is None
    assert spread_of([1.0] * LEAST_HISTORY) == 0.0
    assert spread_of([0.0] * LEAST_HISTORY) is None
