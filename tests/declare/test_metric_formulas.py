"""The bundled metrics: against scikit-learn and jiwer, and rows of samples against the whole."""

from __future__ import annotations

import sys

import jiwer
import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.declare.metrics import METRICS, Metric, as_metric
from edgecheck.errors import EdgecheckError

law = settings(deadline=None, derandomize=True, max_examples=25)
seeds = st.integers(0, 2**32 - 1)


def classified(seed: int, classes: int = 4, samples: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, classes)), rng.integers(0, classes, samples)


def segmented(seed: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.moveaxis(rng.normal(size=(6, 8, 10, 3)), -1, channels)
    return scores, rng.integers(-1, 3, (6, 8, 10))


def drawn_for(metric: Metric, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if metric.name == "mean_iou":
        return segmented(seed)
    if metric.name in ("f1_binary", "roc_auc", "average_precision"):
        return classified(seed, classes=2)
    if metric.classifier or metric.name.startswith("f1"):
        return classified(seed, classes=7)
    if metric.name == "wer":
        return rng.integers(-1, 4, (12, 5)), rng.integers(0, 4, (12, 5))
    return rng.random((12, 3, 4)), rng.random((12, 3, 4))


@law
@given(seeds, st.integers(2, 6))
def test_f1_is_scikit_learns(seed: int, classes: int) -> None:
    scores, labels = classified(seed, classes)
    found = scores.argmax(-1)
    for average in ("macro", "micro"):
        expected = sk.f1_score(labels, found, average=average)
        assert METRICS[f"f1_{average}"](scores, labels) == pytest.approx(expected)
        assert METRICS[f"f1_{average}"](found, labels) == pytest.approx(expected)


@law
@given(seeds)
def test_binary_f1_takes_scores_of_both_classes_or_probabilities_of_the_second(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.random(40), rng.integers(0, 2, 40)
    expected = pytest.approx(sk.f1_score(labels, probabilities > 0.5))
    binary = METRICS["f1_binary"]
    assert binary(probabilities, labels) == expected
    assert binary(probabilities[:, None], labels) == expected
    assert binary(np.stack([1 - probabilities, probabilities], -1), labels) == expected


@pytest.mark.parametrize(
    ("name", "scores", "labels", "says"),
    [
        ("f1_binary", np.array([-3.0, 4.0]), np.array([0, 1]), "outside 0..1"),
        ("f1_binary", np.eye(3), np.arange(3), "of two classes, and there are 3"),
        ("f1_macro", np.eye(3), np.array([0, 1, 3]), "label 3, but there are 3 classes"),
        ("f1_macro", np.eye(3), np.arange(4), "labels of shape"),
        ("roc_auc", np.ones((4, 3)), np.zeros((4, 2)), "labels of shape"),
        ("mean_iou", np.zeros((2, 3, 3, 3)), np.zeros((2, 3, 3), int), "must be clear"),
        ("mean_iou", np.zeros((2, 5, 5)), np.zeros((2, 5, 5), int), "must be integers"),
        ("mean_iou", np.zeros((2, 3, 5, 5)), np.full((2, 5, 5), 255), "label 255 of 3 classes"),
    ],
)
def test_predictions_that_can_be_read_two_ways_or_none_are_refused(
    name: str, scores: np.ndarray, labels: np.ndarray, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        METRICS[name](scores, labels)


@law
@given(seeds, st.integers(3, 5))
def test_areas_are_scikit_learns_and_logits_go_through_a_softmax(seed: int, classes: int) -> None:
    scores, _ = classified(seed, classes)
    labels = np.arange(len(scores)) % classes
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    area = sk.roc_auc_score(labels, probabilities, multi_class="ovr")
    precision = sk.average_precision_score(labels, probabilities)
    for given_scores in (scores, probabilities):
        assert METRICS["roc_auc"](given_scores, labels) == pytest.approx(area)
        assert METRICS["average_precision"](given_scores, labels) == pytest.approx(precision)


@law
@given(seeds)
def test_binary_areas_take_one_score_or_two(seed: int) -> None:
    scores, _ = classified(seed, 2)
    labels = np.arange(len(scores)) % 2
    margin = scores[:, 1] - scores[:, 0]
    for name, expected in (
        ("roc_auc", sk.roc_auc_score(labels, margin)),
        ("average_precision", sk.average_precision_score(labels, margin)),
    ):
        for given_scores in (scores, margin, margin[:, None]):
            assert METRICS[name](given_scores, labels) == pytest.approx(expected)


@law
@given(seeds)
def test_mean_iou_is_scikit_learns_over_labelled_pixels_in_every_layout(seed: int) -> None:
    scores, labels = segmented(seed)
    found, known = scores.argmax(1), labels >= 0
    expected = pytest.approx(sk.jaccard_score(labels[known], found[known], average="macro"))
    metric = METRICS["mean_iou"]
    assert metric(scores, labels) == expected
    assert metric(np.moveaxis(scores, 1, -1), labels) == expected
    assert metric(found, labels) == expected


@law
@given(seeds)
def test_regression_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, labels = rng.normal(size=(2, 30))
    column = found[:, None].astype(np.float32)
    for name, expected in (
        ("mae", sk.mean_absolute_error(labels, found)),
        ("mse", sk.mean_squared_error(labels, found)),
        ("rmse", sk.root_mean_squared_error(labels, found)),
        ("r2", sk.r2_score(labels, found)),
    ):
        assert as_metric(name)(found, labels) == pytest.approx(expected)
        assert as_metric(name)(column, labels) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_cosine_of_equal_opposite_orthogonal_and_empty_vectors() -> None:
    found = np.array([[1.0, 2.0], [1.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    labels = np.array([[2.0, 4.0], [0.0, 1.0], [1.0, 1.0], [-3.0, -4.0]])
    per_sample = METRICS["cosine"].per_sample
    assert per_sample is not None
    assert per_sample(found, labels) == pytest.approx([1.0, 0.0, 0.0, -1.0])


def test_psnr_is_the_mean_over_images_and_has_a_top() -> None:
    labels = np.zeros((2, 1, 4, 4))
    found = labels + np.array([0.1, 0.01]).reshape(2, 1, 1, 1)
    assert METRICS["psnr"](found, labels) == pytest.approx(30.0)  # of 20 dB and 40 dB
    assert METRICS["psnr"](labels, labels) == 100.0


def test_word_errors_are_jiwers_for_texts_and_for_ids_with_padding() -> None:
    truth = ["the cat sat down", "yes", "no way"]
    found = ["the cat sat sat up", "yes", "way"]
    expected = jiwer.wer(truth, found)
    assert METRICS["wer"](found, truth) == pytest.approx(expected) == pytest.approx(3 / 7)
    truth_ids = np.array([[1, 2, 3, 4, -1], [5, -1, -1, -1, -1], [6, 7, -1, -1, -1]])
    found_ids = np.array([[1, 2, 3, 3, 8], [5, -1, -1, -1, -1], [7, -1, -1, -1, -1]])
    assert METRICS["wer"](found_ids, truth_ids) == pytest.approx(expected)


@pytest.mark.parametrize(
    "metric", [item for item in METRICS.values() if item.per_sample], ids=lambda item: item.name
)
def test_the_rows_of_samples_make_the_metric(metric: Metric) -> None:
    assert metric.per_sample is not None
    for seed in range(3):
        predictions, labels = drawn_for(metric, seed)
        rows = np.asarray(metric.per_sample(predictions, labels))
        assert len(rows) == len(labels)
        mean = rows.mean(axis=0, keepdims=rows.ndim == 1)
        value = float(mean[0]) if metric.combine is None else metric.combine(mean)
        assert value == pytest.approx(metric(predictions, labels))


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda item: item.name)
def test_the_direction_is_that_of_better_predictions(metric: Metric) -> None:
    """The labels themselves, as predictions, are the best that there can be."""
    predictions, labels = drawn_for(metric, 0)
    if metric.name == "mean_iou":
        best = np.maximum(labels, 0)
    elif metric.classifier or predictions.shape[:-1] == labels.shape:
        best = np.eye(predictions.shape[-1])[labels] * 9
    else:
        best = labels
    one, other = metric(best, labels), metric(predictions, labels)
    assert one > other if metric.higher_is_better else one < other


@pytest.mark.parametrize(("name", "module"), [("wer", "jiwer"), ("r2", "sklearn.metrics")])
def test_a_missing_package_is_named(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    predictions, labels = drawn_for(METRICS[name], 0)
    package = {"jiwer": "jiwer", "sklearn.metrics": "scikit-learn"}[module]
    with pytest.raises(EdgecheckError, match=f"{name} needs {package}: pip install {package}"):
        METRICS[name](predictions, labels)
