"""Scoring two models: what is found of a metric, and what the experiment tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.capture import scoring
from edgecheck.declare.metrics import METRICS, Metric, as_metric, mean_absolute_error, top1
from edgecheck.judge import paired

law = settings(deadline=None, derandomize=True, max_examples=25)


def experiment(
    metric: Any,
    reference: dict[str, np.ndarray] | np.ndarray,
    candidate: dict[str, np.ndarray] | np.ndarray,
    labels: np.ndarray,
    *,
    postprocess: Any = None,
    seed: int = 0,
    limit_s: float = 60.0,
) -> dict[str, Any]:
    metric = as_metric(metric)
    one, other = (
        scoring.score(metric, postprocess, item, labels) for item in (reference, candidate)
    )
    return scoring.compare(metric, one, other, labels, seed=seed, limit_s=limit_s)


def hits(right: list[bool] | np.ndarray, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels, where the given samples are right."""
    labels = np.arange(len(right)) % classes
    return np.eye(classes)[(labels + ~np.asarray(right, bool)) % classes], labels


def accuracy(scores: np.ndarray, labels: np.ndarray) -> Any:
    return (scores.argmax(-1) == labels).mean()


def macro_f1(scores: np.ndarray, labels: np.ndarray) -> float:
    return METRICS["f1_macro"](scores, labels)


def first_of_one(scores: np.ndarray, labels: np.ndarray) -> float:
    """The score of the only positive sample, and no value without one: as an AUC has none."""
    return float(scores[labels == 1][0])


def test_samples_that_changed_sides_are_counted_and_named() -> None:
    reference, labels = hits([True] * 20 + [False] * 10)
    candidate, _ = hits([False] * 4 + [True] * 18 + [False] * 8)
    found = experiment(top1, reference, candidate, labels)
    assert found["changed"] == {
        "right_to_wrong": 4,
        "wrong_to_right": 2,
        "right_to_wrong_indices": [0, 1, 2, 3],
        "wrong_to_right_indices": [20, 21],
    }
    assert found["mcnemar_p"] == paired.mcnemar_p(4, 2)
    expected = paired.binary_interval(4, 2, 30)
    assert found["interval"] == [expected.low, expected.high]
    assert found["detectable_drop"] == paired.detectable_share(4, 2, 30)


@law
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_users_accuracy_is_found_to_be_the_same_experiment_as_top1(
    drawn: list[tuple[bool, bool]],
) -> None:
    reference, labels = hits([one for one, _ in drawn])
    candidate, _ = hits([other for _, other in drawn])
    assert experiment(accuracy, reference, candidate, labels) == experiment(
        top1, reference, candidate, labels
    )


def test_lists_of_samples_are_cut_and_their_counts_are_not() -> None:
    reference, labels = hits([True] * 500)
    candidate, _ = hits([False] * 500)
    found = experiment(top1, reference, candidate, labels)
    assert found["changed"]["right_to_wrong"] == 500
    assert found["changed"]["right_to_wrong_indices"] == list(range(scoring.LISTED))
    assert found["interval"][0] > 0.98 and found["interval"][1] == 1.0


def test_of_an_error_rate_the_wrong_are_those_that_score_one() -> None:
    wrong = Metric(lambda scores, labels: 1 - accuracy(scores, labels), "error", False)
    reference, labels = hits([True] * 10)
    candidate, _ = hits([True] * 7 + [False] * 3)
    found = experiment(wrong, reference, candidate, labels)
    assert found["changed"]["right_to_wrong_indices"] == [7, 8, 9]


def test_a_metric_that_is_no_mean_over_samples_is_resampled() -> None:
    rng = np.random.default_rng(0)
    reference, labels = hits(rng.random(300) < 0.95)
    candidate, _ = hits(rng.random(300) < 0.80)
    found = experiment(macro_f1, reference, candidate, labels)
    by_rows = experiment("f1_macro", reference, candidate, labels)
    assert found["changed"] is None and found["mcnemar_p"] is None
    assert found["resamples"] == by_rows["resamples"] == 2000
    low, high = by_rows["interval"]
    assert 0.0 < low < high < 0.3
    assert found["interval"] == pytest.approx(by_rows["interval"], abs=0.1 * (high - low))


def test_resampling_repeats_by_seed() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=200)
    drawn = (labels + rng.normal(size=200), labels + rng.normal(size=200), labels)
    for metric in ("mae", "rmse"):
        assert experiment(metric, *drawn) == experiment(metric, *drawn)
        assert experiment(metric, *drawn) != experiment(metric, *drawn, seed=1)


def test_the_samples_that_lose_most_are_named() -> None:
    labels = np.zeros(50)
    reference, candidate = np.ones(50), np.ones(50)
    candidate[[7, 3, 40]] = [5.0, 9.0, 2.0]
    candidate[[1, 2]] = 0.5
    found = experiment(mean_absolute_error, reference, candidate, labels)
    assert found["changed"] == {"worse": 3, "better": 2, "worst_indices": [3, 7, 40]}
    assert found["interval"][0] < (4 + 8 + 1 - 1) / 50 < found["interval"][1]


@pytest.mark.parametrize("metric", ["top1", "f1_macro", "mae"])
def test_models_that_agree_have_no_drop(metric: str) -> None:
    scores, labels = hits([True, False] * 20)
    if metric == "mae":
        scores = labels + 1.0
    low, high = experiment(metric, scores, scores, labels)["interval"]
    assert low <= 0.0 <= high
    assert high == (pytest.approx(0.06, abs=0.02) if metric == "top1" else 0.0)


def test_one_sample_has_no_interval_but_for_a_share() -> None:
    found = experiment("mae", np.zeros(1), np.ones(1), np.zeros(1))
    assert found["interval"] is None and found["no_interval"]
    found = experiment("top1", *(hits([True])[0], hits([False])[0], hits([True])[1]))
    assert found["interval"][0] < 0 < found["interval"][1] == 1.0
    assert found["detectable_drop"] is None


def test_nan_and_infinity_are_refused() -> None:
    for metric in (lambda scores, labels: math.nan, lambda scores, labels: math.inf):
        with pytest.raises(scoring.NotFiniteError, match="the metric returned"):
            scoring.score(as_metric(metric), None, np.zeros(3), np.zeros(3))


def test_a_metric_without_a_value_on_many_resamples_has_no_interval() -> None:
    labels = (np.arange(100) == 5).astype(int)
    scores = np.linspace(0, 1, 100)
    found = experiment(first_of_one, scores, scores[::-1], labels)
    assert found["interval"] is None
    assert "has no value on" in found["no_interval"]
    # Each resample lacks the one sample with a chance of (1 - 1/100)^100.
    assert found["undefined_resamples"] / 2000 == pytest.approx(0.366, abs=0.05)


def test_a_metric_that_is_too_slow_has_no_interval_and_says_so() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 50)
    scores = np.eye(2)[rng.permutation(labels)]
    found = experiment(macro_f1, scores, scores, labels, limit_s=0.0)
    assert found["interval"] is None and "too long to resample" in found["no_interval"]


def test_a_per_sample_score_that_does_not_make_the_metric_is_refused() -> None:
    lying = Metric(accuracy, "lying", per_sample=lambda scores, labels: np.ones(len(labels)))
    scores, labels = hits([True, False])
    with pytest.raises(ValueError, match=r"per_sample makes 1\.0, but the metric is 0\.5"):
        experiment(lying, scores, scores, labels)
    short = Metric(accuracy, "short", per_sample=lambda scores, labels: np.ones(1))
    with pytest.raises(ValueError, match="for 2 samples"):
        experiment(short, scores, scores, labels)


def test_post_processing_that_keeps_the_samples_or_does_not_gives_the_same() -> None:
    scores, labels = hits([True, False, True] * 30)
    other, _ = hits([True, True, False] * 30)

    def f1_of_all(values: np.ndarray, labels: np.ndarray) -> float:
        return macro_f1(np.asarray(values).reshape(-1, 3), labels)

    kept = experiment(f1_of_all, scores, other, labels, postprocess=lambda item: item * 2)
    flat = experiment(f1_of_all, scores, other, labels, postprocess=np.ravel)
    assert kept["interval"] == flat["interval"] is not None


def test_predictions_of_several_outputs_are_resampled_together() -> None:
    scores, labels = hits([True, False, True] * 30)

    def both(outputs: dict[str, np.ndarray], labels: np.ndarray) -> Any:
        return accuracy(outputs["a"] + outputs["b"], labels)

    outputs = {"a": scores, "b": np.zeros_like(scores)}
    found = experiment(both, outputs, outputs, labels)
    assert found["mcnemar_p"] == 1.0


def test_what_crosses_the_process_is_plain() -> None:
    scores, labels = hits([True, False, True] * 30)
    found = experiment(top1, scores, scores, labels)

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(map(plain, value.values()))
        if isinstance(value, list):
            return all(map(plain, value))
        return type(value) in (int, float, str, bool, type(None))

    assert plain(found) and plain(experiment(METRICS["f1_macro"], scores, scores, labels))
