"""Accuracy metrics: what they compute, which direction is better, and their scale.

Not for judging a drop: that is `edgecheck.checks.accuracy`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A function from predictions and labels to one number.

    Attributes:
        function: ``function(predictions, labels) -> float``. Predictions are one array, samples on
            axis 0, or a dict of arrays by output name where the model has several outputs and the
            evaluation names none.
        name: what reports call it.
        higher_is_better: the direction in which the model improves.
        fraction: True where the value lies in [0, 1]; default limits on its drop then are in
            points of that scale, else relative to the reference's value.
        classifier: True where predictions are class scores on the last axis; parity then reports
            top-1 agreement.
    """

    function: Callable[[Any, Any], float]
    name: str
    higher_is_better: bool = True
    fraction: bool = True
    classifier: bool = False

    def __call__(self, predictions: Any, labels: Any) -> float:
        return float(self.function(predictions, labels))


def as_metric(metric: Metric | Callable[[Any, Any], float]) -> Metric:
    """A Metric from any callable; a bare callable counts as a fraction, higher being better."""
    if isinstance(metric, Metric):
        return metric
    return Metric(metric, getattr(metric, "__name__", type(metric).__name__))


def _top_k(k: int, scores: Any, labels: Any) -> float:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if labels.shape != scores.shape[:-1]:
        raise ValueError(f"labels of shape {labels.shape} for scores of shape {scores.shape}")
    # A stable sort makes a tie go to the lower class index, as argmax does.
    best = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return float((best == labels[..., None]).any(axis=-1).mean())


def _top1(scores: Any, labels: Any) -> float:
    return _top_k(1, scores, labels)


def _top5(scores: Any, labels: Any) -> float:
    return _top_k(5, scores, labels)


def _mean_absolute_error(predictions: Any, labels: Any) -> float:
    predictions = np.asarray(predictions, dtype=np.float64)
    return float(np.abs(predictions.reshape(np.shape(labels)) - labels).mean())


top1 = Metric(_top1, "top1", classifier=True)
top5 = Metric(_top5, "top5", classifier=True)
mean_absolute_error = Metric(
    _mean_absolute_error, "mean_absolute_error", higher_is_better=False, fraction=False
)
