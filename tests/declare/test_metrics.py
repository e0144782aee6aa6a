"""Metrics: top-k and mean absolute error against direct formulas, ties, dtypes and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecheck.declare.metrics import METRICS, Metric, as_metric, mean_absolute_error, top1, top5
from edgecheck.errors import DeclarationError

law = settings(deadline=None, derandomize=True, max_examples=50)


@st.composite
def scores_and_labels(
    draw: st.DrawFn, dtype: type[np.generic] = np.float32, elements: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    rows, classes = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    if elements is None:
        # Few distinct values, so that ties are common.
        elements = st.integers(-3, 3).map(float)
    scores = draw(hnp.arrays(dtype, (rows, classes), elements=elements))
    labels = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    return scores, labels


@law
@given(scores_and_labels())
def test_top1_is_the_share_of_rows_whose_argmax_is_the_label(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = drawn
    assert top1(scores, labels) == (scores.argmax(axis=-1) == labels).mean()


@law
@given(scores_and_labels())
def test_top5_counts_the_rows_with_fewer_than_five_better_classes(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = drawn
    hits = 0
    for row, label in zip(scores, labels, strict=True):
        better = sum(
            value > row[label] or (value == row[label] and index < label)
            for index, value in enumerate(row)
        )
        hits += better < 5
    assert top5(scores, labels) == hits / len(labels)


@law
@given(scores_and_labels())
def test_top5_is_never_below_top1(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    assert top5(*drawn) >= top1(*drawn)


def test_top_k_works_on_scores_with_more_axes() -> None:
    scores = np.array([[[0.1, 0.9], [0.8, 0.2]]])
    assert top1(scores, np.array([[1, 1]])) == 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_integer_scores_rank_by_value(dtype: type[np.integer]) -> None:
    info = np.iinfo(dtype)
    scores = np.array([[info.min, 5, info.max], [info.min, 9, 5]], dtype=dtype)
    assert top1(scores, np.array([2, 1])) == 1.0


def test_boolean_scores_are_scored() -> None:
    assert top1(np.array([[False, True], [True, False]]), np.array([1, 1])) == 0.5


def test_labels_of_a_shape_that_only_broadcasts_do_not_give_a_number() -> None:
    scores = np.eye(4)
    column = np.arange(4)[:, None]
    try:
        value = top1(scores, column)
    except ValueError:
        return
    assert value == 1.0  # reading (n, 1) labels as (n,) would be right as well


@law
@given(
    hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e3, 1e3, width=32)),
    st.floats(-1e3, 1e3),
)
def test_mean_absolute_error_of_a_shifted_copy_is_the_shift(
    labels: np.ndarray, shift: float
) -> None:
    predictions = labels.astype(np.float64) + shift
    assert mean_absolute_error(predictions, labels) == pytest.approx(abs(shift), abs=1e-9)


def test_mean_absolute_error_takes_predictions_with_an_extra_axis_of_one() -> None:
    predictions = np.array([[1.0], [2.0], [4.0]], np.float32)
    assert mean_absolute_error(predictions, np.array([1, 2, 3])) == pytest.approx(1 / 3)


def test_mean_absolute_error_does_not_wrap_with_unsigned_labels() -> None:
    labels = np.array([5, 5], np.uint8)
    assert mean_absolute_error(np.array([0, 10], np.uint8), labels) == 5.0


def test_mean_absolute_error_refuses_predictions_of_another_length() -> None:
    with pytest.raises(ValueError, match="reshape"):
        mean_absolute_error(np.zeros(4), np.zeros(3))


def test_a_bare_function_becomes_a_metric_under_its_own_name() -> None:
    def recall(predictions: Any, labels: Any) -> Any:
        return np.float32(0.5)

    metric = as_metric(recall)
    assert (metric.name, metric.higher_is_better, metric.fraction) == ("recall", True, True)
    value = metric(None, None)
    assert value == 0.5 and type(value) is float


def test_a_callable_object_is_named_by_its_class() -> None:
    class Scorer:
        def __call__(self, predictions: Any, labels: Any) -> float:
            return 1

    assert as_metric(Scorer()).name == "Scorer"


def test_a_metric_stays_the_same_object() -> None:
    metric = Metric(max, "max", higher_is_better=False)
    assert as_metric(metric) is metric


def test_the_bundled_metrics_state_their_direction_and_scale() -> None:
    assert top1.higher_is_better and top1.fraction and top1.classifier
    assert top5.higher_is_better and top5.fraction and top5.classifier
    assert not mean_absolute_error.higher_is_better
    assert not mean_absolute_error.fraction and not mean_absolute_error.classifier


def test_names_short_and_long_mean_the_same_metric() -> None:
    assert as_metric("top1") is as_metric("top-1") is top1
    assert as_metric("mae") is as_metric("mean_absolute_error") is mean_absolute_error
    assert as_metric("auc").name == "roc_auc"
    assert as_metric("map").name == "average_precision"


def test_an_unknown_name_is_told_with_what_there_is() -> None:
    with pytest.raises(DeclarationError, match=r"did you mean 'f1_macro'.*any function of yours"):
        as_metric("f1_makro")


def test_every_name_in_the_table_is_its_metrics_own() -> None:
    assert all(metric.name == name for name, metric in METRICS.items())
