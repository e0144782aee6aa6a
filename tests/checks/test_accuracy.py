"""The accuracy check's judgement: the drop has a direction, and an improvement never fails."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.checks.accuracy import judge
from edgecheck.declare.budget import DEFAULTS, Budget
from edgecheck.declare.limits import Limit
from edgecheck.declare.metrics import Metric
from edgecheck.judge.verdict import Verdict

law = settings(deadline=None, derandomize=True, max_examples=50)

shares = st.floats(0, 1)
values = st.floats(-1e6, 1e6)
limits_of_drop = st.floats(0, 10)
HIGHER = Metric(max, "top1")
LOWER = Metric(max, "error_rate", higher_is_better=False)
AMOUNT = Metric(max, "mean_absolute_error", higher_is_better=False, fraction=False)
SCORE = Metric(max, "score", fraction=False)
METRICS = [HIGHER, LOWER, AMOUNT, SCORE]


def stated(origin: str = "budget", **limits: Any) -> dict[str, Limit]:
    return Budget(**limits).select(frozenset(), origin)


def outcome(
    candidate: float,
    reference: float,
    metric: Metric = HIGHER,
    limits: dict[str, Limit] | None = None,
) -> str:
    found = judge(candidate, reference, metric, stated() if limits is None else limits, samples=9)
    return str(found.outcome)


@law
@given(
    st.sampled_from(METRICS),
    values,
    st.floats(0, 1e6),
    limits_of_drop,
    st.sampled_from(["budget", "default"]),
)
def test_an_improvement_never_fails(
    metric: Metric, reference: float, gain: float, drop: float, origin: str
) -> None:
    if metric.fraction:
        reference, gain = abs(reference) / 1e6, (1 - abs(reference) / 1e6) * gain / 1e6
        reference = reference if metric.higher_is_better else 1 - reference
    candidate = reference + gain if metric.higher_is_better else reference - gain
    assert outcome(candidate, reference, metric, stated(origin, accuracy_drop=drop)) == "passed"


@pytest.mark.parametrize(
    ("name", "value", "bad"),
    [
        ("top1", 93.1, True),
        ("top1", -0.01, True),
        ("top1", 1 + 1e-7, False),
        ("mine", 5.1, True),
        ("wer", 1.4, False),
        ("wer", -0.1, True),
        ("cosine", -0.9, False),
        ("r2", -30.0, False),
        ("r2", 1.1, True),
    ],
)
def test_a_fraction_that_is_none_fails_whatever_the_limits(
    name: str, value: float, bad: bool
) -> None:
    metric = Metric(max, name, higher_is_better=name != "wer")
    for pair in ((value, value), (value, 0.5), (0.5, value)):
        failures = judge(*pair, metric, {}, samples=9).failures
        assert [text.startswith(f"{name} is {value:.6g}, where") for text in failures] == [
            True
        ] * bad
    assert not judge(value, value, replace(metric, fraction=False), {}, samples=9).failures


@law
@given(values, values, limits_of_drop)
def test_direction_decides_which_way_is_a_drop(one: float, other: float, drop: float) -> None:
    """Swapping the values and the direction together changes nothing."""
    limits = stated(accuracy_drop=drop)
    assert outcome(one, other, SCORE, limits) == outcome(other, one, AMOUNT, limits)


@law
@given(shares, shares, st.floats(0, 1), st.floats(0, 1), st.sampled_from([HIGHER, LOWER]))
def test_a_wider_limit_never_fails_what_a_narrower_one_passes(
    one: float, other: float, first: float, second: float, metric: Metric
) -> None:
    narrow, wide = (stated(accuracy_drop=value) for value in sorted([first, second]))
    if outcome(one, other, metric, narrow) == "passed":
        assert outcome(one, other, metric, wide) == "passed"


@law
@given(st.integers(0, 1000), st.data())
def test_a_drop_exactly_at_the_limit_passes(reference: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, reference))
    candidate = (reference - lost) / 1000
    assert (
        outcome(candidate, reference / 1000, HIGHER, stated(accuracy_drop=lost / 1000)) == "passed"
    )


@law
@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 1000))
def test_a_drop_of_one_sample_beyond_the_limit_fails(
    reference: int, beyond: int, allowed: int
) -> None:
    candidate = (reference - allowed - beyond) / 1000
    limits = stated(accuracy_drop=allowed / 1000)
    assert outcome(candidate, reference / 1000, HIGHER, limits) == "failed"


def test_points_are_compared_not_shares_of_the_reference() -> None:
    limits = stated("default", accuracy_drop=0.02)
    assert outcome(0.49, 0.50, HIGHER, limits) == "passed"
    assert outcome(0.09, 0.10, HIGHER, limits) == "passed"


def test_a_reference_of_exactly_zero_is_a_reference() -> None:
    limits = stated(accuracy_drop=0.1)
    assert outcome(0.0, 0.0, HIGHER, limits) == "passed"
    assert outcome(0.5, 0.0, HIGHER, limits) == "passed"
    assert outcome(0.05, 0.0, LOWER, limits) == "passed"
    assert outcome(0.2, 0.0, LOWER, limits) == "failed"


def test_a_candidate_of_exactly_zero_is_a_candidate() -> None:
    assert outcome(0.0, 0.9, HIGHER, stated(accuracy_drop=0.1)) == "failed"
    assert outcome(0.0, 0.9, LOWER, stated(accuracy_drop=0.1)) == "passed"
    assert outcome(0.0, 0.0, HIGHER, stated(accuracy_floor=0.1)) == "failed"


def test_a_limit_of_exactly_zero_is_a_limit() -> None:
    assert outcome(0.5, 0.5, HIGHER, stated(accuracy_drop=0.0)) == "passed"
    assert outcome(0.499, 0.5, HIGHER, stated(accuracy_drop=0.0)) == "failed"
    assert outcome(-0.1, 0.0, SCORE, stated(accuracy_floor=0.0)) == "failed"
    assert outcome(0.0, 0.0, SCORE, stated(accuracy_floor=0.0)) == "passed"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("origin", ["budget", "default"])
@pytest.mark.parametrize(
    ("candidate", "reference"), [(math.nan, 0.5), (0.5, math.nan), (math.nan, math.nan)]
)
def test_nan_never_keeps_a_limit(
    candidate: float, reference: float, metric: Metric, origin: str
) -> None:
    limits = stated(origin, accuracy_drop=1e9)
    assert outcome(candidate, reference, metric, limits) == "failed"


def test_nan_never_keeps_a_floor() -> None:
    for metric in METRICS:
        assert outcome(math.nan, 0.5, metric, stated(accuracy_floor=0.0)) == "failed"


# -- metrics that are not fractions


@law
@given(st.floats(1e-3, 1e6), st.floats(0, 10), st.floats(0.01, 1), st.floats(1e-3, 1e3))
def test_a_default_limit_of_an_amount_is_relative_so_that_units_do_not_matter(
    reference: float, growth: float, drop: float, unit: float
) -> None:
    limits = stated("default", accuracy_drop=drop)
    if math.isclose(growth, drop, rel_tol=1e-6):
        return
    candidate = reference * (1 + growth)
    expected = "passed" if growth < drop else "failed"
    assert outcome(candidate, reference, AMOUNT, limits) == expected
    assert outcome(candidate * unit, reference * unit, AMOUNT, limits) == expected


def test_a_relative_drop_takes_the_size_of_a_negative_reference() -> None:
    limits = stated("default", accuracy_drop=0.1)
    assert outcome(-105.0, -100.0, SCORE, limits) == "passed"
    assert outcome(-120.0, -100.0, SCORE, limits) == "failed"
    assert outcome(-50.0, -100.0, SCORE, limits) == "passed"


def test_a_limit_of_the_users_own_is_in_the_metrics_unit() -> None:
    limits = stated(accuracy_drop=5.0)
    assert outcome(104.0, 100.0, AMOUNT, limits) == "passed"
    assert outcome(106.0, 100.0, AMOUNT, limits) == "failed"


def test_an_amount_whose_reference_is_exactly_zero_is_judged_as_it_is() -> None:
    limits = DEFAULTS["int8"].select(frozenset(), "default")
    assert outcome(0.0, 0.0, AMOUNT, limits) == "passed"
    assert outcome(1e-3, 0.0, AMOUNT, limits) == "passed"
    assert outcome(1.0, 0.0, AMOUNT, limits) == "failed"


def test_a_relative_drop_is_reported_beside_the_absolute_one() -> None:
    found = judge(110.0, 100.0, AMOUNT, stated("default", accuracy_drop=0.2), samples=9)
    assert found.measurements["accuracy_drop"] == pytest.approx(10.0)
    assert found.measurements["relative_drop"] == pytest.approx(0.1)
    found = judge(0.8, 0.9, HIGHER, stated("default", accuracy_drop=0.2), samples=9)
    assert "relative_drop" not in found.measurements


# -- the floor


@law
@given(shares, shares, shares)
def test_a_floor_holds_whatever_the_reference(
    candidate: float, reference: float, floor: float
) -> None:
    if math.isclose(candidate, floor, abs_tol=1e-6):
        return
    limits = stated(accuracy_floor=floor)
    assert (outcome(candidate, reference, HIGHER, limits) == "passed") == (candidate > floor)
    assert (outcome(candidate, reference, LOWER, limits) == "passed") == (candidate < floor)


@pytest.mark.parametrize("metric", METRICS)
def test_a_value_exactly_at_the_floor_passes(metric: Metric) -> None:
    assert outcome(0.9, 0.9, metric, stated(accuracy_floor=0.9)) == "passed"


def test_the_floor_of_an_error_is_told_as_a_ceiling() -> None:
    found = judge(0.3, 0.3, LOWER, stated(accuracy_floor=0.2), samples=9)
    assert found.reason == "accuracy_floor 0.3 is not <= 0.2 (budget)"


def test_drop_and_floor_are_both_held() -> None:
    limits = stated(accuracy_drop=0.05, accuracy_floor=0.9)
    assert outcome(0.96, 1.0, HIGHER, limits) == "passed"
    assert outcome(0.89, 0.9, HIGHER, limits) == "failed"
    assert outcome(0.92, 1.0, HIGHER, limits) == "failed"
    assert len(judge(0.5, 1.0, HIGHER, limits, samples=9).failures) == 2


# -- what is told


def test_the_evidence_is_told() -> None:
    found = judge(0.93, 0.95, HIGHER, stated(), samples=400)
    assert found.outcome == "passed"
    assert found.measurements == {
        "metric": "top1",
        "higher_is_better": True,
        "candidate": 0.93,
        "reference": 0.95,
        "accuracy_drop": pytest.approx(0.02),
        "samples": 400,
    }
    assert found.details == "top1 0.93, reference 0.95, 400 samples"


# -- the paired experiment


def experiment(low: float = 0.005, high: float = 0.045, **changes: Any) -> dict[str, Any]:
    """What `edgecheck.capture.scoring.compare` returns."""
    return {
        "interval": [low, high],
        "no_interval": "",
        "method": "Bonett and Price",
        "resamples": 0,
        "undefined_resamples": 0,
        "detectable_drop": 0.0111,
        "mcnemar_p": 0.076,
        "changed": {
            "right_to_wrong": 12,
            "wrong_to_right": 1,
            "right_to_wrong_indices": list(range(10, 22)),
            "wrong_to_right_indices": [4],
        },
        **changes,
    }


NO_INTERVAL: dict[str, Any] = {
    "interval": None,
    "no_interval": "one sample has no spread",
    "mcnemar_p": None,
    "changed": None,
}


def paired(
    policy: str = "point",
    limit: float = 0.03,
    candidate: float = 0.93,
    metric: Metric = HIGHER,
    origin: str = "budget",
    **changes: Any,
) -> Verdict:
    limits = stated(origin, accuracy_drop=limit)
    return judge(
        *(candidate, 0.95, metric, limits),
        samples=540,
        paired=experiment(**changes),
        policy=policy,
    )


@law
@given(st.floats(0.0, 0.1), st.floats(0.0, 0.1), st.floats(-0.1, 0.02))
def test_the_upper_bound_passes_nothing_that_the_point_fails(
    limit: float, above: float, low: float
) -> None:
    point = paired("point", limit, low=low, high=0.02 + above)
    upper = paired("upper-bound", limit, low=low, high=0.02 + above)
    assert point.outcome == "passed" or upper.outcome == "failed"
    assert (upper.outcome == "passed") == stated(accuracy_drop=limit)["accuracy_drop"].allows(
        0.02 + above
    )
    for found in (point, upper):
        assert found.measurements["by_policy"] == {
            "point": str(point.outcome),
            "upper-bound": str(upper.outcome),
        }


def test_a_limit_within_the_interval_fails_by_the_upper_bound_only() -> None:
    point, upper = paired("point"), paired("upper-bound")
    assert (point.outcome, upper.outcome) == ("passed", "failed")
    assert upper.reason == "accuracy_drop[95 % upper bound] 0.045 is not <= 0.03 (budget)"
    for found in (point, upper):
        assert "the limit, a drop of 0.03, lies within the interval" in found.details
        assert not found.warnings
        assert found.measurements["accuracy_drop"] == pytest.approx(0.02)
        assert found.measurements["accuracy_drop_interval"] == [0.005, 0.045]
    assert "lies within" not in paired("point", 0.05).details


def test_without_an_interval_there_is_no_upper_bound() -> None:
    point, upper = paired("point", **NO_INTERVAL), paired("upper-bound", **NO_INTERVAL)
    assert (point.outcome, upper.outcome) == ("passed", "failed")
    assert upper.reason == "accuracy_drop 0.02 has no upper bound: one sample has no spread"


def test_the_bound_of_an_amount_is_relative_where_the_default_limit_is() -> None:
    changes: dict[str, Any] = {
        "candidate": 1.0,
        "metric": AMOUNT,
        "origin": "default",
        "low": 0.0,
        "high": 0.095,
    }
    assert paired("upper-bound", 0.1001, **changes).outcome == "passed"  # 0.095 / 0.95
    assert paired("upper-bound", 0.0999, **changes).outcome == "failed"


def test_the_experiment_is_told_in_a_few_lines() -> None:
    assert paired(limit=0.05).details.splitlines() == [
        "top1 0.93, reference 0.95, 540 samples",
        "drop 0.02, 95 % interval 0.005 to 0.045 (Bonett and Price)",
        "12 right to wrong (10, 11, 12, 13, 14, 15, 16, 17, ...), 1 wrong to right (4); "
        "McNemar's exact p 0.076",
        "540 samples can show a drop of 1.1 points or more",
    ]


def test_scores_and_units_are_told() -> None:
    decibels = Metric(max, "psnr", fraction=False, unit="dB")
    changed = {"worse": 3, "better": 0, "worst_indices": [7, 2, 9]}
    lines = paired(
        metric=decibels, changed=changed, mcnemar_p=None, method="bootstrap", resamples=2000
    ).details.splitlines()
    assert lines[1].endswith("(bootstrap, 2000 resamples)")
    assert lines[2:4] == [
        "3 samples score worse (7, 2, 9), 0 better",
        "540 samples can show a drop of 0.0111 dB or more",
    ]


def test_too_few_samples_to_show_anything_are_told() -> None:
    assert "540 samples are too few to show any drop" in paired(detectable_drop=None).details
