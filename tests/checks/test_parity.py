"""The parity check's judgement: agreement metrics against direct formulas, and what fails."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecheck.checks.parity import judge
from edgecheck.declare.budget import Budget, Limit
from edgecheck.declare.case import limits_for
from edgecheck.judge.agreement import Agreement, compare_basics
from edgecheck.judge.verdict import Verdict
from edgecheck.names import PRECISIONS

law = settings(deadline=None, derandomize=True, max_examples=50)

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)
elements = st.floats(-1e6, 1e6, width=32)


@st.composite
def pairs(
    draw: st.DrawFn, dtype: type[np.generic] = np.float32, elements: Any = elements
) -> tuple[np.ndarray, np.ndarray]:
    """A candidate and a reference of one shape; often nearly alike."""
    reference = draw(hnp.arrays(dtype, shapes, elements=elements))
    if draw(st.booleans()):
        small = st.floats(-(2**-10), 2**-10, width=32)
        noise = draw(hnp.arrays(dtype, reference.shape, elements=small))
        return (reference + noise).astype(dtype), reference
    return draw(hnp.arrays(dtype, reference.shape, elements=elements)), reference


def agree(*compared: tuple[np.ndarray, np.ndarray], classes: bool = False) -> Agreement:
    agreement = Agreement()
    for position, (candidate, reference) in enumerate(compared):
        agreement.add(candidate, reference, f"feed {position}", classes=classes)
    return agreement


def direct(candidate: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """The metrics of whole arrays as the module's docstring defines them."""
    left = np.asarray(candidate, np.float64).ravel()
    right = np.asarray(reference, np.float64).ravel()
    error = np.abs(left - right)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "max_abs_error": error.max(),
            "max_relative_error": error.max() / np.abs(right).max(),
            "sqnr_db": 10 * np.log10(np.sum(right**2) / np.sum(error**2)),
            "cosine": np.dot(left, right) / (np.linalg.norm(left) * np.linalg.norm(right)),
        }


# -- Agreement


@law
@given(pairs())
def test_metrics_are_those_of_the_direct_formulas(pair: tuple[np.ndarray, np.ndarray]) -> None:
    candidate, reference = pair
    assume(np.abs(reference).max() > 1e-6 and np.abs(candidate).max() > 1e-6)
    expected = direct(candidate, reference)
    assume(expected["max_abs_error"] > 1e-9)
    assert agree(pair).metrics() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@law
@given(st.lists(pairs(), min_size=1, max_size=4))
def test_several_feeds_count_as_one_long_output(
    compared: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    whole = [np.concatenate([pair[side].ravel() for pair in compared]) for side in (0, 1)]
    assert agree(*compared).metrics() == pytest.approx(
        agree((whole[0], whole[1])).metrics(), rel=1e-9, abs=1e-9
    )


@law
@given(pairs(), st.integers(1, 20))
def test_metrics_and_worst_element_do_not_depend_on_the_chunk_size(
    pair: tuple[np.ndarray, np.ndarray], chunk: int
) -> None:
    whole = agree(pair)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgecheck.judge.agreement._CHUNK_ELEMENTS", chunk)
        parts = agree(pair)
    assert parts.metrics() == pytest.approx(whole.metrics(), rel=1e-9, abs=1e-12)
    assert parts.worst == whole.worst


@law
@given(pairs(elements=st.integers(-(10**5), 10**5).map(float)), st.integers(-20, 20))
def test_relative_metrics_do_not_change_with_scale(
    pair: tuple[np.ndarray, np.ndarray], exponent: int
) -> None:
    scale = np.float32(2.0) ** exponent  # a power of two scales without rounding
    candidate, reference = pair
    plain, scaled = agree(pair).metrics(), agree((candidate * scale, reference * scale)).metrics()
    for name in ("max_relative_error", "sqnr_db", "cosine"):
        assert scaled[name] == pytest.approx(plain[name], rel=1e-9)
    assert scaled["max_abs_error"] == pytest.approx(plain["max_abs_error"] * float(scale), rel=1e-9)


@law
@given(pairs())
def test_the_worst_element_is_where_the_largest_error_is(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    candidate, reference = pair
    agreement = agree(pair)
    index = tuple(agreement.worst["index"])
    assert agreement.worst["candidate"] == candidate[index]
    assert agreement.worst["reference"] == reference[index]
    error = abs(float(candidate[index]) - float(reference[index]))
    assert error == agreement.max_abs_error == direct(candidate, reference)["max_abs_error"]


def test_the_worst_element_names_the_feed_that_it_is_in() -> None:
    zeros = np.zeros((2, 3), np.float32)
    broken = zeros.copy()
    broken[1, 2] = 5.0
    agreement = agree((zeros, zeros), (broken, zeros), (zeros + 1, zeros))
    assert agreement.worst == {
        "input": "feed 1",
        "index": [1, 2],
        "candidate": 5.0,
        "reference": 0.0,
    }


@law
@given(hnp.arrays(np.float32, shapes, elements=elements))
def test_equal_outputs_agree_exactly(array: np.ndarray) -> None:
    metrics = agree((array.copy(), array), classes=True).metrics()
    assert metrics["max_abs_error"] == 0.0
    assert metrics["max_relative_error"] == 0.0
    assert metrics["sqnr_db"] == 400.0
    assert metrics["cosine"] == pytest.approx(1.0)
    assert metrics["top1_agreement"] == 1.0


@law
@given(pairs())
def test_metrics_are_finite_or_infinite_but_never_nan(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert not any(math.isnan(value) for value in agree(pair, classes=True).metrics().values())


def test_outputs_of_zeros_agree_and_anything_else_is_infinitely_far_from_zero() -> None:
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert agree((zeros, zeros)).metrics() == {
        **{"max_abs_error": 0.0, "max_relative_error": 0.0},
        **{"sqnr_db": 400.0, "cosine": 1.0},
    }
    assert agree((ones, zeros)).metrics() == {
        **{"max_abs_error": 1.0, "max_relative_error": math.inf},
        **{"sqnr_db": -400.0, "cosine": 0.0},
    }
    assert agree((zeros, ones)).metrics()["cosine"] == 0.0
    assert agree((zeros, ones)).metrics()["sqnr_db"] == 0.0


def test_opposite_outputs_have_a_cosine_of_minus_one() -> None:
    ones = np.ones(4, np.float32)
    assert agree((-ones, ones)).metrics()["cosine"] == pytest.approx(-1.0)


def test_one_part_in_ten_is_twenty_decibels() -> None:
    reference = np.full(10, 10.0, np.float32)
    assert agree((reference + 1, reference)).metrics()["sqnr_db"] == pytest.approx(20.0)


@law
@given(
    st.integers(1, 8).flatmap(
        lambda classes: st.tuples(
            *[hnp.arrays(np.float32, (6, classes), elements=st.integers(-2, 2).map(float))] * 2
        )
    )
)
def test_top1_agreement_is_the_share_of_rows_with_the_same_argmax(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    candidate, reference = pair
    expected = (candidate.argmax(axis=-1) == reference.argmax(axis=-1)).mean()
    assert agree(pair, classes=True).metrics()["top1_agreement"] == expected
    assert "top1_agreement" not in agree(pair).metrics()


def test_top1_agreement_weighs_rows_alike_over_feeds_of_different_sizes() -> None:
    one, three = np.eye(3)[:1], np.eye(3)
    agreement = agree((one[:, ::-1], one), (three, three), classes=True)
    assert agreement.metrics()["top1_agreement"] == 0.75


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int64", "bool"])
def test_outputs_of_any_dtype_are_compared_in_float64(dtype: str) -> None:
    reference = np.array([0, 1, 0, 1]).astype(dtype)
    candidate = np.array([1, 1, 0, 1]).astype(dtype)
    assert agree((candidate, reference)).metrics()["max_abs_error"] == 1.0


def test_unsigned_outputs_do_not_wrap() -> None:
    metrics = agree((np.array([0], np.uint8), np.array([255], np.uint8))).metrics()
    assert metrics["max_abs_error"] == 255.0


def test_half_precision_outputs_do_not_overflow() -> None:
    reference = np.full(100, 60000, np.float16)
    metrics = agree((-reference, reference)).metrics()
    assert metrics["max_abs_error"] == 120000.0
    assert metrics["sqnr_db"] == pytest.approx(-20 * math.log10(2))


def test_a_scalar_output_is_compared() -> None:
    agreement = agree((np.array(2.0, np.float32), np.array(1.0, np.float32)), classes=True)
    assert agreement.metrics()["max_abs_error"] == 1.0
    assert agreement.worst["index"] == []


def test_an_empty_output_adds_nothing() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert agree((empty, empty), classes=True) == Agreement()


def test_memory_mapped_and_strided_outputs_are_compared(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    agreement = agree((mapped.T, array.T), (mapped[::2, ::-1], array[::2, ::-1]), classes=True)
    assert agreement.metrics()["max_abs_error"] == 0.0
    assert agreement.metrics()["top1_agreement"] == 1.0


def test_the_worst_element_is_plain_data() -> None:
    agreement = agree((np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)))
    assert json.loads(json.dumps(agreement.worst)) == agreement.worst


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_outputs_whose_square_leaves_float64_are_not_taken_as_exact(scale: float) -> None:
    reference = np.array([1.0, 2.0, 3.0]) * scale
    assert agree((-reference, reference)).metrics()["sqnr_db"] < 10.0


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
@pytest.mark.parametrize(
    "scale",
    [
        1e200,
        pytest.param(
            1e-200,
        ),
    ],
)
def test_opposite_outputs_whose_square_leaves_float64_do_not_point_the_same_way(
    scale: float,
) -> None:
    reference = np.array([1.0, 2.0, 3.0]) * scale
    assert not agree((-reference, reference)).metrics()["cosine"] > 0.0


def test_nothing_agrees_better_than_equal_outputs() -> None:
    reference = np.array([1e30, 1e-30], np.float32)
    nearly = np.array([1e30, 2e-30], np.float32)
    exact = agree((reference, reference)).metrics()["sqnr_db"]
    assert agree((nearly, reference)).metrics()["sqnr_db"] <= exact


# -- compare_basics


@law
@given(hnp.arrays(np.float32, shapes, elements=elements))
def test_finite_arrays_of_one_shape_and_dtype_can_be_compared(array: np.ndarray) -> None:
    assert compare_basics(array, array.copy(), "y", "feed") == ""


@law
@given(shapes, shapes)
def test_another_shape_is_told_even_where_it_would_broadcast(
    one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    assume(one != other)
    problem = compare_basics(np.zeros(one), np.zeros(other), "y", "feed 3")
    assert problem == f"output 'y' on feed 3 has shape {one}, the reference {other}"


def test_a_scalar_is_no_array_of_one() -> None:
    assert "has shape ()" in compare_basics(np.zeros(()), np.zeros(1), "y", "feed")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("whose", ["candidate", "reference"])
def test_nan_and_infinity_are_told_with_their_place_and_owner(bad: float, whose: str) -> None:
    arrays = {"candidate": np.zeros((2, 3), np.float32), "reference": np.zeros((2, 3), np.float32)}
    arrays[whose][1, 1:] = bad
    problem = compare_basics(arrays["candidate"], arrays["reference"], "y", "feed")
    assert problem.startswith(f"the {whose}'s output 'y' on feed has 2 NaN or infinite values")
    assert f"the first is {bad} at (1, 1)" in problem
    assert ('nonfinite="match"' in problem) == (whose == "reference")


def test_nan_in_both_at_the_same_place_is_still_a_failure() -> None:
    array = np.array([np.nan])
    assert "the reference's" in compare_basics(array, array, "y", "feed")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_nan_is_found_in_floats_of_any_width(dtype: str) -> None:
    array = np.array([np.nan], dtype)
    assert compare_basics(array, np.zeros(1, dtype), "y", "feed")


def test_nan_is_found_in_complex_outputs() -> None:
    array = np.array([complex(0, math.nan)])
    assert compare_basics(array, np.zeros(1, complex), "y", "feed")


@pytest.mark.parametrize(
    ("candidate", "reference", "same"),
    [
        ("float32", "float32", True),
        ("float32", "float64", True),
        ("float64", "float32", True),
        ("float32", "float16", True),
        ("int32", "int64", True),
        ("int64", "int32", True),
        ("uint8", "uint8", True),
        ("float16", "float32", False),
        ("int8", "int64", False),
        ("int16", "int32", False),
        ("float32", "int32", False),
        ("int32", "float32", False),
        ("int32", "bool", False),
        ("bool", "float32", False),
        ("uint8", "bool", False),
    ],
)
def test_dtypes_must_be_of_one_kind_and_as_wide_as_runtimes_have_them(
    candidate: str, reference: str, same: bool
) -> None:
    problem = compare_basics(np.zeros(1, candidate), np.zeros(1, reference), "y", "feed")
    expected = f"output 'y' on feed is {candidate}, the reference {reference}"
    assert problem == ("" if same else expected)


# -- judge


def verdict_of(
    agreements: dict[str, Agreement],
    limits: dict[str, Limit] | None = None,
    failures: Sequence[str] = (),
    **reported: Any,
) -> Verdict:
    limits = limits or {}
    return judge(
        agreements,
        dict.fromkeys(agreements, limits),
        list(failures),
        reported,
        seed=7,
        inputs=["random, batch 1", "samples"],
    )


def limits_of(**stated: Any) -> dict[str, Limit]:
    return Budget(**stated).select(frozenset(), "budget")


OFF_BY_TENTH = (np.full((2, 5), 1.1, np.float64), np.ones((2, 5), np.float64))


@pytest.mark.parametrize(
    ("limit", "passes"),
    [
        ({"max_abs_error": 0.11}, True),
        ({"max_abs_error": 0.09}, False),
        ({"max_relative_error": 0.11}, True),
        ({"max_relative_error": 0.09}, False),
        ({"sqnr_db": 19.9}, True),
        ({"sqnr_db": 20.1}, False),
        ({"cosine": 0.999}, True),
        ({"top1_agreement": 1.0}, True),
        ({}, True),
    ],
)
def test_each_metric_is_held_against_its_limit(limit: dict[str, float], passes: bool) -> None:
    verdict = verdict_of({"y": agree(OFF_BY_TENTH, classes=True)}, limits_of(**limit))
    assert verdict.outcome == ("passed" if passes else "failed")
    assert [item.limit.name for item in verdict.comparisons] == list(limit)


def test_a_limit_exactly_met_passes() -> None:
    agreement = agree((np.array([1.5]), np.array([1.0])))
    assert verdict_of({"y": agreement}, limits_of(max_abs_error=0.5)).outcome == "passed"


def test_an_error_limit_of_zero_asks_for_equality() -> None:
    limits = limits_of(max_abs_error=0.0)
    equal = agree((np.ones(3), np.ones(3)))
    assert verdict_of({"y": equal}, limits).outcome == "passed"
    other = agree((np.ones(3) + 1e-3, np.ones(3)))
    assert verdict_of({"y": other}, limits).outcome == "failed"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_output_of_zeros_fails_the_defaults_of_every_precision(precision: str) -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(8, 10))
    limits = limits_for(precision, frozenset({precision}), Budget(), None)
    zeros = agree((np.zeros_like(reference), reference))
    assert verdict_of({"y": zeros}, limits).outcome == "failed"
    equal = agree((reference.copy(), reference))
    assert verdict_of({"y": equal}, limits).outcome == "passed"


def test_outputs_are_judged_by_their_own_limits() -> None:
    bad, good = agree(OFF_BY_TENTH), agree((np.ones(3), np.ones(3)))
    verdict = judge(
        {"bad": bad, "good": good},
        {"bad": limits_of(max_abs_error=0.2), "good": limits_of(max_abs_error=1e-6)},
        [],
        {},
        seed=0,
        inputs=[],
    )
    assert verdict.outcome == "passed"
    assert [(item.subject, item.limit.value) for item in verdict.comparisons] == [
        ("bad", 0.2),
        ("good", 1e-6),
    ]


def test_one_bad_output_fails_the_case_and_is_named() -> None:
    agreements = {"good": agree((np.ones(3), np.ones(3))), "bad": agree(OFF_BY_TENTH)}
    verdict = verdict_of(agreements, limits_of(max_abs_error=0.01))
    assert verdict.outcome == "failed"
    assert verdict.reason == "max_abs_error[bad] 0.1 is not <= 0.01 (budget)"
    assert "output 'bad': worst at [0, 0] of feed 0" in verdict.details
    assert "'good'" not in verdict.details


def test_failures_come_before_limits() -> None:
    verdict = verdict_of(
        {"y": agree(OFF_BY_TENTH)}, limits_of(max_abs_error=0.01), ["output 'z' has NaN"]
    )
    assert verdict.reason == "output 'z' has NaN"
    assert len(verdict.failures) == 2


def test_failures_alone_fail() -> None:
    assert verdict_of({}, failures=["output 'z' has NaN"]).outcome == "failed"


def test_a_case_of_which_nothing_was_compared_does_not_pass() -> None:
    assert verdict_of({}).outcome != "passed"


def test_agreement_on_random_inputs_is_reported_without_being_judged() -> None:
    far: dict[str, Any] = {"y": {"sqnr_db": -5.0}}
    equal = agree((np.ones(3), np.ones(3)))
    verdict = verdict_of({"y": equal}, limits_of(sqnr_db=20), **far)
    assert verdict.outcome == "passed"
    assert verdict.measurements["random_inputs"] == far


def test_the_seed_and_inputs_are_told_also_where_it_passed() -> None:
    verdict = verdict_of({"y": agree(OFF_BY_TENTH)})
    assert verdict.details == "seed 7; inputs: random, batch 1; samples"
    assert verdict.measurements["seed"] == 7
    assert verdict.measurements["outputs"]["y"]["max_abs_error"] == pytest.approx(0.1)


METRICS = ("max_abs_error", "max_relative_error", "sqnr_db", "cosine")
# Limits that nothing keeps, so that every metric is told with the limit it needs.
IMPOSSIBLE = {
    name: Limit(name, -1e9, "max", "", "budget")
    if name.startswith("max")
    else Limit(name, 1e9, "min", "", "budget")
    for name in METRICS
}


def needed(verdict: Verdict) -> Budget:
    """The Budget that the details say would have passed."""
    found = re.search(r"would have passed with (Budget\(.*\))$", verdict.details, re.MULTILINE)
    assert found is not None
    return eval(found[1], {"Budget": Budget})


@law
@given(pairs())
def test_the_budget_that_would_have_passed_does_pass(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assume(pair[1].any())
    agreement = agree(pair)
    limits = needed(verdict_of({"y": agreement}, IMPOSSIBLE)).select(frozenset(), "budget")
    assert set(limits) == set(METRICS)
    assert verdict_of({"y": agreement}, limits).outcome == "passed"


@law
@given(pairs())
def test_the_budget_that_would_have_passed_is_no_wider_than_two_digits_need(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    assume(pair[1].any() and pair[0].any())
    agreement = agree(pair)
    measured = agreement.metrics()
    limits = needed(verdict_of({"y": agreement}, IMPOSSIBLE)).select(frozenset(), "budget")
    for name, limit in limits.items():
        assert abs(limit.value - measured[name]) <= 0.11 * abs(measured[name]) + 1e-12


def test_no_infinite_budget_is_suggested_against_zeros() -> None:
    agreement = agree((np.ones(3), np.zeros(3)))
    limits = limits_of(max_abs_error=0.5, max_relative_error=0.5, sqnr_db=10, cosine=0.5)
    verdict = verdict_of({"y": agreement}, limits)
    assert verdict.outcome == "failed"
    assert "inf" not in verdict.details
