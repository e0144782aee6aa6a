"""Accuracy metrics: what they compute, which direction is better, and their scale.

Those of the table `METRICS` go by name too: ``Evaluation(..., metric="top1")``. What they compute
is `edgecheck.declare.metric_formulas`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from edgecheck.declare import metric_formulas as formulas
from edgecheck.errors import DeclarationError, SelectionError
from edgecheck.names import resolve

Array = npt.NDArray[Any]


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
        per_sample: ``per_sample(predictions, labels)``: the score of each sample, of shape
            (samples,), whose mean is the value; None for a metric that is no such mean. With it
            the drop's confidence interval is quick and exact, and changed samples are named.
        combine: where `per_sample` gives rows, of shape (samples, columns): the value from the
            mean of the rows, of shape (columns,) (a ratio of two sums, a root of a mean).
        unit: of the value, as in ``"dB"``.
    """

    function: Callable[[Any, Any], float]
    name: str
    higher_is_better: bool = True
    fraction: bool = True
    classifier: bool = False
    per_sample: Callable[[Any, Any], Array | None] | None = None
    combine: Callable[[Array], float] | None = None
    unit: str = ""

    def __call__(self, predictions: Any, labels: Any) -> float:
        return float(self.function(predictions, labels))


def as_metric(metric: Metric | str | Callable[[Any, Any], float]) -> Metric:
    """A Metric by its name, or from any callable, which counts as a fraction, higher being better.

    Raises:
        DeclarationError: no metric has that name.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        try:
            return METRICS[resolve(metric, METRICS, "metric", _ALIASES)]
        except SelectionError as error:
            raise DeclarationError(f"{error}; any function of yours will do as well") from None
    return Metric(metric, getattr(metric, "__name__", type(metric).__name__))


top1 = Metric(formulas.top1, "top1", classifier=True, per_sample=formulas.top1_hits)
top5 = Metric(formulas.top5, "top5", classifier=True, per_sample=formulas.top5_hits)
mean_absolute_error = Metric(
    formulas.mean_absolute_error,
    "mean_absolute_error",
    higher_is_better=False,
    fraction=False,
    per_sample=formulas.absolute_errors,
)
_BUNDLED = (
    top1,
    top5,
    Metric(
        formulas.f1_binary,
        "f1_binary",
        per_sample=formulas.class_rows,
        combine=formulas.f1_binary_of,
    ),
    Metric(
        formulas.f1_macro, "f1_macro", per_sample=formulas.class_rows, combine=formulas.f1_macro_of
    ),
    Metric(
        formulas.f1_micro, "f1_micro", per_sample=formulas.class_rows, combine=formulas.f1_micro_of
    ),
    Metric(formulas.roc_auc, "roc_auc"),
    Metric(formulas.average_precision, "average_precision"),
    Metric(
        formulas.mean_iou,
        "mean_iou",
        per_sample=formulas.segment_rows,
        combine=formulas.mean_iou_of,
    ),
    mean_absolute_error,
    Metric(
        formulas.mean_squared_error,
        "mean_squared_error",
        False,
        False,
        per_sample=formulas.squared_errors,
    ),
    Metric(
        *(formulas.root_mean_squared_error, "root_mean_squared_error", False, False),
        per_sample=formulas.squared_errors,
        combine=formulas.root,
    ),
    Metric(formulas.r2, "r2"),
    Metric(formulas.cosine, "cosine", per_sample=formulas.cosines),
    Metric(formulas.psnr, "psnr", fraction=False, per_sample=formulas.decibels, unit="dB"),
    Metric(
        formulas.word_error_rate,
        "wer",
        False,
        per_sample=formulas.word_errors,
        combine=formulas.word_error_rate_of,
    ),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _BUNDLED})
_ALIASES = {
    "top-1": "top1",
    "top-5": "top5",
    "auc": "roc_auc",
    "iou": "mean_iou",
    "map": "average_precision",
    "mae": "mean_absolute_error",
    "mse": "mean_squared_error",
    "rmse": "root_mean_squared_error",
}
