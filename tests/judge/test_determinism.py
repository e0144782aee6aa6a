"""What another output for the same input means: silence, a warning or a failure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecheck.judge.determinism import difference, judge
from edgecheck.names import PRECISIONS

law = settings(deadline=None, derandomize=True, max_examples=50)
outputs = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=3, max_side=5),
    elements=st.floats(-1e6, 1e6, width=32),
)
WAYS = ("twice", "after_others", "batch", "threads")


def told(way: str, error: float, precision: str = "fp32", **noise: float) -> str:
    """What an error on an output whose largest value is 1 becomes."""
    first = np.array([1.0, 0.5])
    found = {way: {"y": difference(first, first - [0.0, error])}}
    failures, warnings = judge(precision, found, noise)
    assert len(failures) + len(warnings) <= 1
    return "failure" if failures else "warning" if warnings else ""


# -- difference


@law
@given(outputs)
def test_the_same_output_does_not_differ(array: Any) -> None:
    found = difference(array, array.copy())
    assert (found.max_abs_error, found.differing, found.share) == (0.0, 0, 0.0)


@law
@given(outputs, st.data())
def test_a_changed_value_is_counted_and_measured(array: Any, data: Any) -> None:
    position = data.draw(st.integers(0, array.size - 1))
    other = array.copy()
    other.flat[position] += data.draw(st.floats(0.0, 1e6, width=32))
    assume(other.flat[position] != array.flat[position])
    found = difference(array, other)
    assert found.differing == 1
    assert found.max_abs_error == abs(float(other.flat[position]) - float(array.flat[position]))
    assert found.largest == np.abs(array).max()


def test_nan_is_like_nan_and_like_nothing_else() -> None:
    array = np.array([1.0, math.nan, math.inf])
    assert difference(array, array.copy()).differing == 0
    assert difference(array, np.array([1.0, 2.0, math.inf])).max_abs_error == math.inf
    assert difference(array, np.array([math.nan, math.nan, math.inf])).differing == 1
    assert difference(array, np.array([1.0, math.nan, -math.inf])).max_abs_error == math.inf


def test_another_shape_differs_altogether() -> None:
    found = difference(np.zeros((2, 3)), np.zeros((3, 2)))
    assert (found.max_abs_error, found.differing) == (math.inf, 6)


# -- judge


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("way", WAYS)
def test_bits_that_are_the_same_are_never_told(way: str, precision: str) -> None:
    assert told(way, 0.0, precision) == ""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("way", ["twice", "after_others"])
def test_the_same_run_must_give_the_same_bits(way: str, precision: str) -> None:
    assert told(way, 1e-7, precision) == "warning"
    assert told(way, 0.1, precision) == "failure"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_runtime_that_repeats_itself_does_so_in_any_precision(precision: str) -> None:
    first = np.array([1.0, 0.5])
    for error, expected in ((1e-3, 1), (1e-7, 0)):
        found = {"twice": {"y": difference(first, first - [0.0, error])}}
        failures, _ = judge(precision, found, {"y": 1e-2}, repeats=True)
        assert len(failures) == expected


@pytest.mark.parametrize("way", ["batch", "threads"])
def test_another_order_of_sums_may_round_otherwise(way: str) -> None:
    assert told(way, 5e-6) == ""
    assert told(way, 5e-5) == "warning"
    assert told(way, 5e-4) == "failure"
    assert told(way, 2e-3, "fp16") == ""
    assert told(way, 1e-2, "fp16") == "warning"
    assert told(way, 1e-1, "fp16") == "failure"
    assert told(way, 1e-2, "int8") == ""
    assert told(way, 5e-2, "int8") == "warning"
    assert told(way, 0.5, "int8") == "failure"


def test_a_model_that_rounds_more_may_differ_more() -> None:
    assert told("threads", 5e-4, y=1e-4) == "warning"
    assert told("threads", 5e-5, y=1e-4) == ""
    assert told("twice", 5e-5, y=1e-4) == "warning"
    assert told("threads", 5e-4, another=1e-4) == "failure"


def test_a_scale_that_is_taken_from_the_batch_is_a_warning() -> None:
    assert told("batch", 0.5, "int8-dynamic") == "warning"
    assert told("threads", 0.5, "int8-dynamic") == "failure"


def test_a_near_tie_of_indices_may_turn_but_not_on_the_same_run() -> None:
    item = difference(np.array([3, 7]), np.array([3, 2]))
    for way, fails in (("batch", False), ("threads", False), ("twice", True)):
        failures, warnings = judge("fp32", {way: {"y": item}}, {})
        assert (len(failures), len(warnings)) == ((1, 0) if fails else (0, 1))


def test_one_cause_is_named_once_for_each_output_and_with_its_size() -> None:
    item, same = difference(np.ones(4), np.full(4, 0.75)), difference(np.ones(4), np.ones(4))
    found = {way: {"y": item, "z": same if way == "twice" else item} for way in WAYS}
    failures, warnings = judge("fp32", found, {})
    assert warnings == []
    assert [text.partition(",")[0] for text in failures] == [
        "output 'y' differs on the same input twice",
        "output 'z' differs on the same input after another one",
    ]
    assert "in 4 of 4 values by up to 0.25 (25 % of the largest)" in failures[0]


def test_an_output_of_zeros_that_does_not_stay_so_fails() -> None:
    item = difference(np.zeros(2), np.array([0.0, 1e-20]))
    assert judge("fp32", {"twice": {"y": item}}, {})[0] != []
