"""Scoring: a metric on the predictions of reference and candidate for the same samples.

Runs where the user's metric runs (`edgecheck.capture.worker`).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecheck.declare.metrics import Metric
from edgecheck.judge import paired

Array = paired.Array
# Of indices that are listed.
LISTED = 20
# A metric of the user's is tried on single samples where that takes no longer than this.
_SINGLES_S = 2.0
_SUBSETS = 5


class NotFiniteError(ValueError):
    """A metric that is NaN or infinite."""


@dataclass(frozen=True)
class Scored:
    """A model's predictions and their metric.

    Attributes:
        select: the predictions to score, of the samples at the given indices.
        value: of all samples.
    """

    select: Callable[[Array], Any]
    predictions: Any
    value: float


def score(
    metric: Metric, postprocess: Callable[[Any], Any] | None, outputs: Any, labels: Array
) -> Scored:
    """Score one model's outputs: one array, or a dict of them by output name.

    Raises:
        NotFiniteError: the metric is not a finite number; besides, all that the user's code raises.
    """
    predictions = outputs if postprocess is None else postprocess(outputs)
    value = float(metric(predictions, labels))
    if not math.isfinite(value):
        raise NotFiniteError(f"the metric returned {value}")

    def select(indices: Array) -> Any:
        if postprocess is None or _rows_of(predictions) == len(labels):
            return _take(predictions, indices)
        return postprocess(_take(outputs, indices))

    return Scored(select, predictions, value)


def _rows_of(values: Any) -> int | None:
    """How many samples there are, where the values have one row for each."""
    if isinstance(values, Mapping):
        counts = {_rows_of(item) for item in values.values()}
        return counts.pop() if len(counts) == 1 else None
    return len(values) if isinstance(values, Sequence) or np.ndim(values) else None


def _take(values: Any, indices: Array) -> Any:
    if isinstance(values, Mapping):
        return {name: _take(item, indices) for name, item in values.items()}
    if isinstance(values, list | tuple):
        return [values[index] for index in indices]
    return values[indices]


def compare(
    metric: Metric,
    reference: Scored,
    candidate: Scored,
    labels: Array,
    *,
    seed: int,
    limit_s: float,
) -> dict[str, Any]:
    """The paired experiment, as plain data.

    Args:
        labels: of every sample, on axis 0.
        seed: of the resamples.
        limit_s: the most that resampling a metric takes that is not a mean over samples.

    Returns:
        ``interval``: [low, high] of the drop in the metric's unit, or None, and
        ``no_interval`` why; ``method``; ``resamples``; ``undefined_resamples``, on which the metric
        has no value; ``detectable_drop``: the smallest that would be told from none, or None;
        ``mcnemar_p`` (None but for scores of 0 and 1); ``changed``, with counts and up to
        `LISTED` indices, or None where the metric has no score of single samples.
    """
    samples = len(labels)
    rows = _rows(metric, reference, candidate, labels)
    sign = 1.0 if metric.higher_is_better else -1.0
    drop = sign * (reference.value - candidate.value)
    found: dict[str, Any] = {
        "interval": None,
        "no_interval": "",
        "method": "",
        "resamples": 0,
        "undefined_resamples": 0,
        "detectable_drop": None,
        "mcnemar_p": None,
        "changed": None,
    }
    if rows is not None and metric.combine is None:
        found["changed"] = _changed(sign * (rows[0] - rows[1]))
        if metric.fraction and _binary(rows[0]) and _binary(rows[1]):
            return found | _binary_experiment(sign * (rows[0] - rows[1]), samples)
    if samples < 2:
        return found | {"no_interval": "one sample has no spread"}
    if rows is None:
        drops, undefined, reason = _resample(
            metric, sign, reference, candidate, labels, seed, limit_s
        )
        if reason:
            return found | {"no_interval": reason, "undefined_resamples": undefined}
        found["undefined_resamples"] = undefined
    else:
        drops = _row_drops(metric, sign, rows, seed)
        finite = np.isfinite(drops)
        found["undefined_resamples"] = int((~finite).sum())
        drops = drops[finite]
    if len(drops) < paired.LEAST_RESAMPLES:
        return found | {"no_interval": "the metric has no value on most resamples"}
    interval = paired.bootstrap_interval(drop, drops, samples)
    return found | _told(interval, interval.half_width or None)


def _told(interval: paired.Interval, detectable: float | None) -> dict[str, Any]:
    return {
        "interval": [interval.low, interval.high],
        "method": interval.method,
        "resamples": interval.resamples,
        "detectable_drop": detectable,
    }


def _binary(scores: Array) -> bool:
    return bool(((scores == 0.0) | (scores == 1.0)).all())


def _binary_experiment(losses: Array, samples: int) -> dict[str, Any]:
    lost, gained = np.flatnonzero(losses > 0), np.flatnonzero(losses < 0)
    counts = len(lost), len(gained)
    return {
        **_told(
            paired.binary_interval(*counts, samples), paired.detectable_share(*counts, samples)
        ),
        "mcnemar_p": paired.mcnemar_p(*counts),
        "changed": {
            "right_to_wrong": counts[0],
            "wrong_to_right": counts[1],
            "right_to_wrong_indices": lost[:LISTED].tolist(),
            "wrong_to_right_indices": gained[:LISTED].tolist(),
        },
    }


def _changed(losses: Array) -> dict[str, Any]:
    """Samples that score worse and better; those that lose most come first."""
    worse = np.flatnonzero(losses > 0)
    return {
        "worse": len(worse),
        "better": int((losses < 0).sum()),
        "worst_indices": worse[np.argsort(-losses[worse], kind="stable")][:LISTED].tolist(),
    }


def _rows(
    metric: Metric, reference: Scored, candidate: Scored, labels: Array
) -> tuple[Array, Array] | None:
    """The scores of each sample, by both models; None for a metric that has none.

    Raises:
        ValueError: the metric's `per_sample` does not give what it says.
    """
    if metric.per_sample is None:
        return _singles(metric, reference, candidate, labels)
    both = []
    for scored in (reference, candidate):
        given = metric.per_sample(scored.predictions, labels)
        if given is None:
            return None
        rows = np.asarray(given, dtype=np.float64)
        if metric.combine is not None and rows.ndim == 1:
            rows = rows[:, None]
        if len(rows) != len(labels) or rows.ndim != (1 if metric.combine is None else 2):
            raise ValueError(f"per_sample gave shape {rows.shape} for {len(labels)} samples")
        mean = rows.mean(axis=0)
        value = float(mean if metric.combine is None else metric.combine(mean))
        if not _same(value, scored.value):
            raise ValueError(f"per_sample makes {value}, but the metric is {scored.value}")
        both.append(rows)
    return both[0], both[1]


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)


def _singles(
    metric: Metric, reference: Scored, candidate: Scored, labels: Array
) -> tuple[Array, Array] | None:
    """The scores of single samples by a function of the user's, if it is the mean of them.

    Whether it is shows on the whole and on subsets: an accuracy is, an AUC is not.
    """
    samples = len(labels)
    rng = np.random.default_rng(0)
    subsets = [rng.permutation(samples)[: max(2, samples // 2)] for _ in range(_SUBSETS)]
    both = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for scored in (reference, candidate):
                rows = np.empty(samples)
                started = time.monotonic()
                for index in range(samples):
                    rows[index] = _value(metric, scored, labels, np.array([index]))
                    if time.monotonic() - started > _SINGLES_S:
                        return None
                if not _same(float(rows.mean()), scored.value) or not all(
                    _same(float(rows[part].mean()), _value(metric, scored, labels, part))
                    for part in subsets
                ):
                    return None
                both.append(rows)
    except Exception:  # it has no value for a single sample
        return None
    return both[0], both[1]


def _value(metric: Metric, scored: Scored, labels: Array, indices: Array) -> float:
    return float(metric(scored.select(indices), labels[indices]))


def _row_drops(metric: Metric, sign: float, rows: tuple[Array, Array], seed: int) -> Array:
    if metric.combine is None:
        return paired.row_mean_resamples(sign * (rows[0] - rows[1])[:, None], seed)[:, 0]
    columns = rows[0].shape[1]
    means = paired.row_mean_resamples(np.hstack(rows), seed)
    combine = metric.combine
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return np.array(
            [sign * (combine(mean[:columns]) - combine(mean[columns:])) for mean in means]
        )


def _resample(
    metric: Metric,
    sign: float,
    reference: Scored,
    candidate: Scored,
    labels: Array,
    seed: int,
    limit_s: float,
) -> tuple[Array, int, str]:
    """The drops on resamples, how many had none, and why there are too few, or ""."""
    samples = len(labels)

    def drop(indices: Array) -> float:
        one, other = (_value(metric, scored, labels, indices) for scored in (reference, candidate))
        return sign * (one - other)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            drop(np.arange(samples))  # what a first call loads is not its cost
            started = time.monotonic()
            drop(np.arange(samples))
            seconds = time.monotonic() - started
        except Exception as error:
            return np.empty(0), 0, f"the metric can't be resampled: {type(error).__name__}: {error}"
        count = paired.affordable_resamples(seconds, limit_s)
        if not count:
            return np.empty(0), 0, f"{seconds:.2g} s a scoring is too long to resample"
        drops, undefined = paired.resampled_drops(drop, samples, count, seed)
    if undefined > count // 10:
        return drops, undefined, f"the metric has no value on {undefined} of {count} resamples"
    return drops, undefined, ""
