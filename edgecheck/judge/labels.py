"""How far labels agree: outputs of integers or booleans, whose distances mean nothing. Pure.

A label that is one too high is as wrong as any other; what counts is the share of entries that are
right, and whether one class became another one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# A class became another one where so large a share of its entries did. That may be rounding where
# there are few, unless the other one became this one.
_RENAMED, _LEAST_RENAMED, _LEAST_SHARE = 0.8, 8, 0.01
# Swaps that are listed.
_LISTED = 3


@dataclass
class Labels:
    """How one output agrees so far; feed it with `add`.

    Attributes:
        entries: compared so far.
        swaps: how often the reference's label (first) was the candidate's other one (second).
        classes: how often each label is the reference's, of those that differ anywhere.
        worst: the first entry that differs: the feed's label and the index in the output.
    """

    entries: int = 0
    differ: int = 0
    swaps: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    worst: dict[str, Any] = field(default_factory=dict)

    def add(self, candidate: Array, reference: Array, label: str, excused: Array | None) -> None:
        """Account for one pair of equal shape.

        Args:
            excused: entries that are right though they differ (see `ties`), as booleans.
        """
        wrong = candidate != reference
        if excused is not None:
            wrong &= ~excused
        self.entries += int(reference.size)
        values, counts = np.unique(reference, return_counts=True)
        self.classes.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if not wrong.any():
            return
        self.differ += int(wrong.sum())
        pairs = np.stack([reference[wrong], candidate[wrong]]).astype(np.int64)
        kinds, counts = np.unique(pairs, axis=1, return_counts=True)
        for (old, new), count in zip(kinds.T.tolist(), counts.tolist(), strict=True):
            self.swaps[old, new] += count
        if not self.worst:
            index = tuple(int(item) for item in np.argwhere(wrong)[0])
            self.worst = {
                "input": label,
                "index": list(index),
                "candidate": int(candidate[index]),
                "reference": int(reference[index]),
            }

    def metrics(self) -> dict[str, float]:
        """``label_agreement``: the share of entries that are equal."""
        return {"label_agreement": 1.0 - self.differ / self.entries} if self.entries else {}

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share that agrees, as of independent entries.

        Clopper and Pearson (1934). Neighbours in an image are not independent: it is wider then.
        """
        from scipy.special import betaincinv

        right, total = self.entries - self.differ, self.entries
        low = float(betaincinv(right, total - right + 1, 0.025)) if right else 0.0
        high = float(betaincinv(right + 1, total - right, 0.975)) if right < total else 1.0
        return low, high

    def renamed(self) -> list[tuple[int, int, float]]:
        """Labels that mostly became another one: the reference's, the candidate's, the share."""
        found = {
            (old, new): count / self.classes[old]
            for (old, new), count in self.swaps.most_common()
            if count >= max(_LEAST_RENAMED, _RENAMED * self.classes[old])
        }
        return [
            (old, new, share)
            for (old, new), share in found.items()
            if (new, old) in found or self.swaps[old, new] >= _LEAST_SHARE * self.entries
        ]

    def sentences(self, name: str) -> list[str]:
        """What is wrong for certain, whatever share may differ."""
        found = self.renamed()
        if not found:
            return []
        told = ", ".join(
            f"{old} is {new} in {share:.0%} of its entries" for old, new, share in found[:_LISTED]
        )
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        return [
            f"output {name!r}: labels are mixed up: the reference's {told}{more}; look at the "
            "order of the classes, and whether it is this model's file"
        ]

    def details(self, name: str) -> str:
        """The share that differs and the most frequent swaps, in a line."""
        low, high = self.interval()
        swaps = ", ".join(
            f"{old} -> {new} ({count})" for (old, new), count in self.swaps.most_common(_LISTED)
        )
        return (
            f"output {name!r}: {self.differ} of {self.entries} labels differ (agreement "
            f"{low:.4g} .. {high:.4g} at 95 %); most often {swaps}"
        )


def ties(candidate: Array, reference: Array, values: Array, expected: Array) -> Array:
    """Entries whose index may be another one, since the values that they stand for are equal.

    As of top-k: two equal values may come in either order.

    Args:
        candidate, reference: indices, (..., k).
        values, expected: the values there, of the candidate and of the reference, of that shape.
    """
    scale = float(np.abs(expected).max()) if expected.size else 0.0
    near = np.abs(values - expected) <= 4 * np.finfo(np.float32).eps * scale
    gaps = np.abs(np.diff(expected, axis=-1)) <= 4 * np.finfo(np.float32).eps * scale
    edge = np.zeros((*expected.shape[:-1], 1), bool)
    tied = np.concatenate([edge, gaps], -1) | np.concatenate([gaps, edge], -1)
    result: Array = near & tied & (candidate != reference)
    return result
