"""Findings of vacuity: each against data that has it, and data that has not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom

from edgecheck.declare.budget import Budget
from edgecheck.declare.limits import Limit
from edgecheck.judge import vacuity
from edgecheck.judge.vacuity import Finding, sort

law = settings(deadline=None, derandomize=True, max_examples=40)
rows = hnp.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32))


def sentences(findings: list[Finding]) -> str:
    return " | ".join(item.sentence for item in findings)


def limits(**stated: Any) -> dict[str, Limit]:
    return Budget(**stated).select(frozenset(), "budget")


# -- outputs


@law
@given(rows)
def test_an_output_that_is_the_same_on_all_inputs_is_grave(array: np.ndarray) -> None:
    (found,) = vacuity.constant_output("y", [[array[0]] * 4])
    assert found.grave
    assert "'y' of the reference does not react" in found.sentence


@law
@given(rows, st.integers(0, 4), st.integers(0, 2))
def test_one_other_value_on_one_input_is_a_reaction(
    array: np.ndarray, row: int, column: int
) -> None:
    same = [array[0].copy() for _ in range(5)]
    same[row][column] += 0.01 + 0.01 * np.abs(array[0]).max()
    assert vacuity.constant_output("y", [same]) == []


def test_rounding_is_no_reaction() -> None:
    base = np.array([1.0, 2.0], np.float32)
    assert vacuity.constant_output("y", [[base, base * np.float32(1 + 2**-22)]])
    assert not vacuity.constant_output("y", [[base, base * np.float32(1 + 1e-4)]])


def test_inputs_of_different_shapes_are_told_apart_within_each() -> None:
    one, two = np.ones(3), np.ones((2, 3))
    assert vacuity.constant_output("y", [[one, one], [two, two]])
    assert not vacuity.constant_output("y", [[one, one], [two, two * 2]])
    assert not vacuity.constant_output("y", [[one], [two]])  # nothing to compare with


def test_class_indices_react_exactly() -> None:
    assert not vacuity.constant_output("y", [[np.array([100_000_000]), np.array([100_000_001])]])
    assert vacuity.constant_output("y", [[np.array([7]), np.array([7])]])


def test_outputs_of_nan_or_nothing_are_left_to_other_checks() -> None:
    nan, empty = np.array([np.nan]), np.zeros((0,), np.float32)
    assert vacuity.constant_output("y", [[nan, nan]]) == []
    assert vacuity.constant_output("y", [[empty, empty]]) == []


def test_an_input_that_changes_nothing_is_told_but_not_grave() -> None:
    before = {"a": np.ones(3), "b": np.zeros(2)}
    (found,) = vacuity.dead_input("mask", before, {name: a.copy() for name, a in before.items()})
    assert not found.grave and "'mask'" in found.sentence
    assert vacuity.dead_input("mask", before, {**before, "b": np.ones(2)}) == []


@pytest.mark.parametrize(
    ("largest", "stated", "says"),
    [
        (1e-9, {}, "nearly zero"),
        (1.0, {}, ""),
        (0.0, {}, ""),  # constant, which is told as that
        (5e-4, {"max_abs_error": 1e-3}, "would pass an output 'y' of zeros"),
        (5e-3, {"max_abs_error": 1e-3}, ""),
        (1.0, {"max_relative_error": 1.0}, "would pass an output 'y' of zeros"),
        (1.0, {"max_relative_error": 0.5}, ""),
    ],
)
def test_outputs_too_small_for_their_limits_are_told(
    largest: float, stated: dict[str, float], says: str
) -> None:
    found = sentences(vacuity.magnitude("y", largest, limits(**stated)))
    assert (says in found) if says else not found


# -- data


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.0, 1.0, ""),
        (0.0, 2.0, ""),
        (0.0, 0.5, "outside its declared domain"),
        (-3.0, -2.0, "100 % of the samples' values"),
        (0.0, 255.0, "take less than 1 %"),
    ],
)
def test_samples_elsewhere_than_the_domain_are_told(low: float, high: float, says: str) -> None:
    samples = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 100)
    found = sentences(vacuity.sample_domain("x", samples, low, high))
    assert (says in found) if says else not found


def test_rounding_at_the_edge_of_the_domain_is_inside() -> None:
    samples = np.full((4, 4), np.float32(0.1))
    assert not vacuity.sample_domain("x", samples, 0.1, 0.1)


@pytest.mark.parametrize(
    ("scale", "offset", "says"),
    [
        (1.0, 0.0, ""),
        (1.5, 0.0, ""),
        (255.0, 0.0, "takes less than 10 %"),
        (0.5, 0.0, "50 % of its values would be clipped"),
        (1.0, -5.0, "100 % of its values would be clipped"),
    ],
)
def test_calibration_of_another_range_is_told(scale: float, offset: float, says: str) -> None:
    evaluation = np.linspace(0, 1, 1000)
    found = sentences(vacuity.calibration_range("x", evaluation * scale + offset, evaluation))
    assert (says in found) if says else not found


# -- chance


@law
@given(st.integers(5, 300), st.integers(2, 8), st.floats(0, 1), st.integers(0, 99))
def test_chance_is_the_exact_binomial_test(
    total: int, classes: int, share: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, total)
    right = round(share * total)
    majority = np.bincount(labels).max() / total
    if majority < 1:
        told = bool(vacuity.at_chance(right / total, labels))
        assert told == (binom.sf(right - 1, total, majority) >= 0.05)


def test_labels_of_one_class_and_labels_that_are_no_classes() -> None:
    assert "same class" in sentences(vacuity.at_chance(1.0, np.zeros(10, int)))
    assert vacuity.at_chance(0.1, np.linspace(0, 1, 10)) == []


def answers(labels: np.ndarray, accuracy: float, classes: int, seed: int) -> np.ndarray:
    """Predictions of a model that is right that often, and else names any class."""
    rng = np.random.default_rng(seed)
    guessed = rng.integers(0, classes, len(labels))
    return np.where(rng.random(len(labels)) < accuracy, labels, guessed)


@law
@given(st.integers(2, 12), st.floats(0.9, 1.0), st.integers(0, 99))
def test_labels_in_another_order_are_grave(classes: int, accuracy: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 40 * classes)
    predicted = answers(labels, accuracy, classes, seed)
    one, two = rng.choice(classes, 2, replace=False)
    order = np.arange(classes)
    order[[one, two]] = two, one
    (found,) = vacuity.class_order(predicted, order[labels])
    assert found.grave
    assert f"label {one} is class {two}" in found.sentence
    (offset,) = vacuity.class_order(predicted, labels + 1)
    assert "label 1 is class 0" in offset.sentence


@law
@given(st.integers(2, 12), st.floats(0.0, 1.0), st.integers(5, 400), st.integers(0, 99))
def test_no_other_order_is_read_into_errors(
    classes: int, accuracy: float, total: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, total)
    assert vacuity.class_order(answers(labels, accuracy, classes, seed), labels) == []
    assert vacuity.class_order(np.full(total, classes - 1), labels) == []


def test_two_classes_that_are_confused_are_not_exchanged() -> None:
    labels = np.arange(200) % 4
    predicted = np.where((labels < 2) & (np.arange(200) % 5 < 3), 1 - labels, labels)
    assert vacuity.class_order(predicted, labels) == []


# -- policy


@pytest.mark.parametrize(
    ("policy", "failures"), [("grave", ["a"]), ("warn", []), ("fail", ["a", "b"])]
)
def test_the_option_says_what_fails(policy: str, failures: list[str]) -> None:
    found = sort([Finding("a", grave=True), Finding("b")], policy)
    assert found[0] == failures
    assert sorted([*found[0], *found[1]]) == ["a", "b"]
