"""How far two arrays of an output agree: the metrics of parity. Pure; no limits are known here.

- max_abs_error: max |candidate - reference|;
- max_relative_error: the same over max |reference| (pointwise relative error is useless near zero);
- sqnr_db: 10 log10(sum reference^2 / sum (candidate - reference)^2), the signal-to-quantization-
  noise ratio;
- cosine: of the two outputs as vectors;
- top1_agreement: share of rows with the same largest entry, where the output holds class scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# Rows that are compared at a time; whole outputs may not fit in memory.
_CHUNK_ELEMENTS = 1 << 20
# Of a histogram of errors, from so many elements of each chunk at most.
_BINS = 60
_PICTURED_ELEMENTS = 4096
# SQNR of a candidate without any error, which has no logarithm: beyond what float64 can resolve.
_EXACT_DB = 400.0


@dataclass
class Agreement:
    """How one output agrees so far; feed it with `add`.

    Attributes:
        worst: where the largest error is: the feed's label and the index in the output.
    """

    max_abs_error: float = 0.0
    max_reference: float = 0.0
    error_power: float = 0.0
    reference_power: float = 0.0
    candidate_power: float = 0.0
    product: float = 0.0
    rows: int = 0
    same_top1: int = 0
    worst: dict[str, Any] = field(default_factory=dict)
    errors: list[Array] = field(default_factory=list)

    def add(self, candidate: Array, reference: Array, label: str, *, classes: bool) -> None:
        """Account for one pair of equal, finite arrays, in float64."""
        flat_candidate, flat_reference = candidate.reshape(-1), reference.reshape(-1)
        for start in range(0, flat_reference.size, _CHUNK_ELEMENTS):
            left = flat_candidate[start : start + _CHUNK_ELEMENTS].astype(np.float64)
            right = flat_reference[start : start + _CHUNK_ELEMENTS].astype(np.float64)
            signed = left - right
            # Evenly spread elements, enough for a picture.
            self.errors.append(signed[:: max(1, signed.size // _PICTURED_ELEMENTS)])
            error = np.abs(signed)
            position = int(error.argmax())
            if error[position] > self.max_abs_error or not self.worst:
                self.max_abs_error = float(error[position])
                self.worst = {
                    "input": label,
                    "index": [
                        int(item) for item in np.unravel_index(start + position, reference.shape)
                    ],
                    "candidate": float(left[position]),
                    "reference": float(right[position]),
                }
            self.max_reference = max(self.max_reference, float(np.abs(right).max()))
            self.error_power += float(error @ error)
            self.reference_power += float(right @ right)
            self.candidate_power += float(left @ left)
            self.product += float(left @ right)
        if classes and reference.ndim >= 1 and reference.size:
            self.rows += reference[..., 0].size
            self.same_top1 += int((candidate.argmax(axis=-1) == reference.argmax(axis=-1)).sum())

    def metrics(self) -> dict[str, float]:
        """The metrics by name."""
        found = {
            "max_abs_error": self.max_abs_error,
            "max_relative_error": _ratio(self.max_abs_error, self.max_reference),
            "sqnr_db": self._sqnr_db(),
            "cosine": self._cosine(),
        }
        if self.rows:
            found["top1_agreement"] = self.same_top1 / self.rows
        return found

    def histogram(self) -> dict[str, list[float]] | None:
        """Errors, candidate less reference: ``edges``, one more than ``counts``.

        None where they lie too close together, or too far apart, for bins in float64.
        """
        try:
            with np.errstate(over="raise"):
                counts, edges = np.histogram(np.concatenate(self.errors), bins=_BINS)
        except (ValueError, FloatingPointError):
            return None
        return {"edges": edges.tolist(), "counts": counts.tolist()}

    def _sqnr_db(self) -> float:
        if self.max_abs_error == 0.0:
            return _EXACT_DB
        if self.max_reference == 0.0:
            return -_EXACT_DB
        if all(0.0 < power < math.inf for power in (self.error_power, self.reference_power)):
            ratio = 10.0 * (math.log10(self.reference_power) - math.log10(self.error_power))
        else:  # squares leave the range of float64
            ratio = 20.0 * (math.log10(self.max_reference) - math.log10(self.max_abs_error))
        return min(_EXACT_DB, ratio)

    def _cosine(self) -> float:
        if self.max_abs_error == 0.0:
            return 1.0
        powers = (self.reference_power, self.candidate_power)
        if not all(0.0 < power < math.inf for power in powers):
            return 0.0
        return self.product / (math.sqrt(powers[0]) * math.sqrt(powers[1]))


def _ratio(error: float, scale: float) -> float:
    if error == 0.0:
        return 0.0
    return error / scale if scale > 0.0 else math.inf


def divergences(candidate: Array, reference: Array) -> Array:
    """Kullback-Leibler divergence of each row's classes in nats: sum p log(p / q).

    p are the reference's probabilities, q the candidate's: softmax of scores that are none.
    """
    scores = [np.asarray(item, np.float64) for item in (reference, candidate)]
    # Probabilities are known by their sum; rounding to 8 bits moves it by up to half a step each.
    given = all(
        (item >= 0.0).all() and (abs(item.sum(axis=-1) - 1.0) < 0.02).all() for item in scores
    )
    logs = []
    for item in scores:
        if given:
            item = np.log(np.maximum(item, 1e-12))
        item = item - item.max(axis=-1, keepdims=True)
        logs.append(item - np.log(np.exp(item).sum(axis=-1, keepdims=True)))
    found: Array = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=-1)
    return np.maximum(found, 0.0)


def stopped(candidate: Array, reference: Array) -> int:
    """How many values stand at an end of the candidate's range where the reference goes on.

    By more than 1 % of its own range.
    """
    if candidate.size < 2:
        return 0
    slack = 0.01 * float(reference.max() - reference.min())
    top, bottom = candidate.max(), candidate.min()
    above = (candidate == top) & (reference > top + slack)
    below = (candidate == bottom) & (reference < bottom - slack)
    # One value alone is an error of that value, not the end of a range.
    return sum(count for count in (int(above.sum()), int(below.sum())) if count > 1)


def compare_basics(
    candidate: Array, reference: Array, name: str, label: str, *, match_nonfinite: bool = False
) -> str:
    """What makes a comparison of numbers pointless, or "".

    Args:
        match_nonfinite: whether NaN and infinite values only have to stand in the same places.
    """
    where = f"output {name!r} on {label}"
    if candidate.shape != reference.shape:
        return f"{where} has shape {candidate.shape}, the reference {reference.shape}"
    if not _same_dtype(candidate.dtype, reference.dtype):
        return f"{where} is {candidate.dtype}, the reference {reference.dtype}"
    if match_nonfinite:
        return _unmatched(candidate, reference, where)
    for who, array in (("the reference's", reference), ("the candidate's", candidate)):
        if array.dtype.kind in "fc":
            bad = ~np.isfinite(array)
            if bad.any():
                index = tuple(int(item) for item in np.argwhere(bad)[0])
                return (
                    f"{who} {where} has {int(bad.sum())} NaN or infinite values, "
                    f"the first is {array[index]} at {index}{_by_design(name, reference, bad)}"
                )
    return ""


def _by_design(name: str, reference: Array, bad: Array) -> str:
    """How to declare values that the reference has in the same places, or ""."""
    if reference.dtype.kind not in "fc" or np.isfinite(reference[bad]).any():
        return ""
    return (
        f": the model itself gives them; if it does by design, declare Output({name!r}, "
        'nonfinite="match")'
    )


def _unmatched(candidate: Array, reference: Array, where: str) -> str:
    """The first place where one side is NaN or infinite and the other differs, or ""."""
    if reference.dtype.kind not in "fc":
        return ""
    either = ~(np.isfinite(candidate) & np.isfinite(reference))
    alike = (np.isnan(candidate) & np.isnan(reference)) | (candidate == reference)
    differ = np.atleast_1d(either & ~alike)
    if not differ.any():
        return ""
    index = tuple(int(item) for item in np.argwhere(differ)[0])
    values = [np.atleast_1d(item)[index] for item in (candidate, reference)]
    return (
        f"{where} is NaN or infinite in other places than the reference: {int(differ.sum())} "
        f"values, the first at {index}: candidate {values[0]}, reference {values[1]}"
    )


def without_nonfinite(*arrays: Array) -> tuple[Array, ...]:
    """The arrays with zero wherever the first is NaN or infinite: no error remains there."""
    finite = np.isfinite(arrays[0])
    return tuple(np.where(finite, item, item.dtype.type(0)) for item in arrays)


def _same_dtype(candidate: np.dtype[Any], reference: np.dtype[Any]) -> bool:
    """Equal, or the same kind where runtimes have only the narrower (int32 for int64)."""
    if candidate == reference:
        return True
    kinds = {"i": "integer", "u": "integer", "f": "float", "b": "bool"}
    same_kind = kinds.get(candidate.kind) == kinds.get(reference.kind)
    return same_kind and candidate.itemsize >= min(reference.itemsize, 4)
