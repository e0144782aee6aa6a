"""The formulas of the bundled metrics, on NumPy arrays of predictions and labels.

Plain functions; those that end in ``_of`` give the value from the mean of the rows of samples (see
`edgecheck.metrics.Metric.combine`).
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.errors import EdgecheckError

Array = npt.NDArray[Any]
# Rows of more values than this are not kept for each sample (160 MB as float64).
_MOST_VALUES = 20_000_000


def library(module: str, package: str, metric: str) -> Any:
    """A module of a package that only some metrics need.

    Raises:
        EdgecheckError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise EdgecheckError(
            f"the metric {metric} needs {package}: pip install {package}"
        ) from None


# -- classification: scores of shape (..., classes), labels of shape (...) with class indices


def _hits(k: int, scores: Any, labels: Any) -> Array:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if labels.shape != scores.shape[:-1]:
        raise ValueError(f"labels of shape {labels.shape} for scores of shape {scores.shape}")
    # A stable sort makes a tie go to the lower class index, as argmax does.
    best = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    hits: Array = (best == labels[..., None]).any(axis=-1)
    return hits


def top1(scores: Any, labels: Any) -> float:
    return float(_hits(1, scores, labels).mean())


def top5(scores: Any, labels: Any) -> float:
    return float(_hits(5, scores, labels).mean())


def top1_hits(scores: Any, labels: Any) -> Array:
    return _per_sample_mean(_hits(1, scores, labels))


def top5_hits(scores: Any, labels: Any) -> Array:
    return _per_sample_mean(_hits(5, scores, labels))


def _per_sample_mean(values: Array) -> Array:
    means: Array = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    return means


def _classes(scores: Any, labels: Any) -> tuple[Array, Array, int]:
    """Predicted and true classes, and how many there are, from class scores or from decisions."""
    scores, labels = np.asarray(scores), np.asarray(labels).astype(np.int64)
    if scores.shape == (*labels.shape, 1):
        scores = scores[..., 0]
    if scores.shape[:-1] == labels.shape and scores.ndim == labels.ndim + 1:
        found, count = scores.argmax(axis=-1), scores.shape[-1]
    elif scores.shape != labels.shape:
        raise ValueError(f"labels of shape {labels.shape} for scores of shape {scores.shape}")
    elif scores.dtype.kind != "f":
        found, count = scores.astype(np.int64), int(max(scores.max(), labels.max())) + 1
    elif scores.min() < 0.0 or scores.max() > 1.0:
        raise ValueError("single scores outside 0..1: give probabilities, or two classes' scores")
    else:
        found, count = (scores > 0.5).astype(np.int64), 2
    if labels.size and labels.max() >= count:
        raise ValueError(f"label {labels.max()}, but there are {count} classes")
    return found, labels, count


def _overlaps(found: Array, truth: Array, count: int) -> Array:
    """Of each sample and class: elements in both, in the prediction, in the truth.

    Of shape (samples, 3, classes). Elements with a negative label count for nothing.
    """
    samples = len(truth)
    found, truth = found.reshape(samples, -1), truth.reshape(samples, -1)
    first = np.arange(samples)[:, None] * count
    known = truth >= 0

    def counted(which: Array, values: Array) -> Array:
        places = (first + values)[which]
        return np.bincount(places, minlength=samples * count).reshape(samples, count)

    return np.stack(
        [counted(known & (found == truth), truth), counted(known, found), counted(known, truth)],
        axis=1,
    ).astype(np.float64)


def class_rows(scores: Any, labels: Any) -> Array | None:
    found, truth, count = _classes(scores, labels)
    if len(truth) * count * 3 > _MOST_VALUES:
        return None
    return _overlaps(found, truth, count).reshape(len(truth), -1)


def _class_sums(scores: Any, labels: Any) -> Array:
    found, truth, count = _classes(scores, labels)
    sums: Array = _overlaps(found.reshape(1, -1), truth.reshape(1, -1), count)[0]
    return sums


def _f1_of(overlaps: Array) -> Array:
    """F1 of each class that occurs: 2 TP / (2 TP + FP + FN), which is 2 TP over both counts."""
    both, predicted, true = overlaps.reshape(3, -1)
    occurs = predicted + true > 0
    found: Array = 2.0 * both[occurs] / (predicted + true)[occurs]
    return found


def f1_macro_of(overlaps: Array) -> float:
    return float(_f1_of(overlaps).mean())


def f1_micro_of(overlaps: Array) -> float:
    return f1_macro_of(overlaps.reshape(3, -1).sum(axis=1))


def f1_binary_of(overlaps: Array) -> float:
    both, predicted, true = overlaps.reshape(3, -1)
    if len(true) != 2:
        raise ValueError(f"f1_binary is of two classes, and there are {len(true)}")
    return float(2.0 * both[1] / (predicted[1] + true[1])) if predicted[1] + true[1] else 0.0


def f1_macro(scores: Any, labels: Any) -> float:
    return f1_macro_of(_class_sums(scores, labels))


def f1_micro(scores: Any, labels: Any) -> float:
    return f1_micro_of(_class_sums(scores, labels))


def f1_binary(scores: Any, labels: Any) -> float:
    return f1_binary_of(_class_sums(scores, labels))


def _ranked(scores: Any, labels: Any) -> tuple[Array, Array]:
    """Scores to rank by and binary truth, both of shape (samples,) or (samples, classes)."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.shape == (*labels.shape, 1):
        scores = scores[..., 0]
    if scores.shape == labels.shape:  # one score, or several labels, a sample
        return scores, labels
    if labels.ndim != 1 or scores.shape[:-1] != labels.shape:
        raise ValueError(f"labels of shape {labels.shape} for scores of shape {scores.shape}")
    if scores.min() < 0.0 or not np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    if scores.shape[1] == 2:
        return scores[:, 1], labels
    return scores, labels[:, None] == np.arange(scores.shape[1])


def roc_auc(scores: Any, labels: Any) -> float:
    module = library("sklearn.metrics", "scikit-learn", "roc_auc")
    ranked, truth = _ranked(scores, labels)
    return float(module.roc_auc_score(truth, ranked))


def average_precision(scores: Any, labels: Any) -> float:
    module = library("sklearn.metrics", "scikit-learn", "average_precision")
    ranked, truth = _ranked(scores, labels)
    return float(module.average_precision_score(truth, ranked))


# -- semantic segmentation


def _segments(scores: Any, labels: Any) -> tuple[Array, Array, int]:
    """Predicted and true class of each pixel, from scores or from a map of classes."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.shape == labels.shape:
        if scores.dtype.kind == "f":
            raise ValueError("maps of classes must be integers: apply an argmax or a threshold")
        return scores.astype(np.int64), labels.astype(np.int64), _most(scores, labels) + 1
    first = scores.shape[:1] + scores.shape[2:] == labels.shape
    last = scores.shape[:-1] == labels.shape
    if scores.ndim != labels.ndim + 1 or first == last:
        raise ValueError(
            f"labels of shape {labels.shape} for scores of shape {scores.shape}: one axis, the "
            "second or the last, must hold the classes, and which one must be clear"
        )
    axis = 1 if first else -1
    count = scores.shape[axis]
    if labels.size and labels.max() >= count:
        raise ValueError(f"label {labels.max()} of {count} classes: mark unlabelled pixels with -1")
    return scores.argmax(axis=axis), labels.astype(np.int64), count


def _most(*arrays: Array) -> int:
    return max((int(item.max()) for item in arrays if item.size), default=0)


def segment_rows(scores: Any, labels: Any) -> Array | None:
    found, truth, count = _segments(scores, labels)
    if len(truth) * count * 3 > _MOST_VALUES:
        return None
    return _overlaps(found, truth, count).reshape(len(truth), -1)


def mean_iou_of(overlaps: Array) -> float:
    """The mean over classes that occur of intersection over union."""
    both, predicted, true = overlaps.reshape(3, -1)
    union = predicted + true - both
    occurs = union > 0
    return float((both[occurs] / union[occurs]).mean())


def mean_iou(scores: Any, labels: Any) -> float:
    found, truth, count = _segments(scores, labels)
    return mean_iou_of(_overlaps(found.reshape(1, -1), truth.reshape(1, -1), count))


# -- regression and images: predictions and labels of one shape


def _aligned(predictions: Any, labels: Any) -> tuple[Array, Array]:
    labels = np.asarray(labels).astype(np.float64)
    return np.asarray(predictions, dtype=np.float64).reshape(labels.shape), labels


def mean_absolute_error(predictions: Any, labels: Any) -> float:
    found, truth = _aligned(predictions, labels)
    return float(np.abs(found - truth).mean())


def absolute_errors(predictions: Any, labels: Any) -> Array:
    found, truth = _aligned(predictions, labels)
    return _per_sample_mean(np.abs(found - truth))


def squared_errors(predictions: Any, labels: Any) -> Array:
    found, truth = _aligned(predictions, labels)
    return _per_sample_mean((found - truth) ** 2)


def mean_squared_error(predictions: Any, labels: Any) -> float:
    return float(squared_errors(predictions, labels).mean())


def root_mean_squared_error(predictions: Any, labels: Any) -> float:
    return math.sqrt(mean_squared_error(predictions, labels))


def root(mean: Array) -> float:
    return math.sqrt(float(mean[0]))


def r2(predictions: Any, labels: Any) -> float:
    module = library("sklearn.metrics", "scikit-learn", "r2")
    found, truth = _aligned(predictions, labels)
    return float(module.r2_score(truth.reshape(len(truth), -1), found.reshape(len(found), -1)))


def cosines(predictions: Any, labels: Any) -> Array:
    found, truth = (item.reshape(len(item), -1) for item in _aligned(predictions, labels))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(truth, axis=1)
    products = (found * truth).sum(axis=1)
    each: Array = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return each


def cosine(predictions: Any, labels: Any) -> float:
    return float(cosines(predictions, labels).mean())


def decibels(predictions: Any, labels: Any) -> Array:
    """PSNR of each image: 10 log10(range^2 / MSE), at most 100 dB; the range is that of 0..1."""
    errors = np.maximum(squared_errors(predictions, labels), 1e-10)
    decibels: Array = -10.0 * np.log10(errors)
    return decibels


def psnr(predictions: Any, labels: Any) -> float:
    return float(decibels(predictions, labels).mean())


# -- transcription: texts, or arrays of word ids in which negative ones are padding


def _texts(sequences: Any) -> list[str]:
    return [
        item if isinstance(item, str) else " ".join(str(int(word)) for word in item if word >= 0)
        for item in sequences
    ]


def word_errors(predictions: Any, labels: Any) -> Array:
    """Of each sample: substitutions, deletions and insertions together, and the truth's words."""
    module = library("jiwer", "jiwer", "wer")
    rows = []
    for found, truth in zip(_texts(predictions), _texts(labels), strict=True):
        done = module.process_words(truth, found)
        errors = done.substitutions + done.deletions + done.insertions
        rows.append((errors, done.hits + done.substitutions + done.deletions))
    return np.asarray(rows, dtype=np.float64)


def word_error_rate_of(mean: Array) -> float:
    errors, words = (float(item) for item in mean)
    return errors / words if words else math.nan


def word_error_rate(predictions: Any, labels: Any) -> float:
    return word_error_rate_of(word_errors(predictions, labels).sum(axis=0))
