"""How far integers and booleans agree, which are labels: equal or not, at no distance. Pure.

- label_agreement: share of entries that are the reference's. The entries of a sample (the pixels of
  an image) are not independent, so its interval rests on the number of samples alone.
- Systematic confusions: labels that are taken for one another, as where two classes of a label map
  changed places. They can be rare enough to leave the share high.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.declare.budget import Limit
from edgecheck.judge.verdict import Comparison

Array = npt.NDArray[Any]

# Rounding moves entries of near-ties, one way for each pair of labels: it does not exchange more
# than half of one label for a second and more than half of the second for the first.
_EXCHANGED, _EXCHANGED_ENTRIES = 0.5, 8
# Nor does it take nearly all entries of a label that is in common use. Labels rarer than this may
# owe all of their entries to near-ties.
_TAKEN, _TAKEN_ENTRIES, _TAKEN_SAMPLES, _COMMON = 0.9, 30, 5, 0.01
_LISTED = 5
_CONFIDENCE = 0.95
# Of each of the two bounds, one of which must be wrong for an excess over a plain quantization that
# is none; and what is added to samples that happen to be alike.
_CHANCE, _LEAST_VARIANCE = 0.0005, 1e-8


@dataclass
class LabelAgreement:
    """How one output of labels agrees so far; feed it with `add`.

    Attributes:
        samples: independent ones: entries along axis 0 of all calls.
        worst: the first entry that differs, or the first of all.
        labels: entries of the reference by label.
        label_samples: samples that hold a label, by label.
        swaps: entries by (reference's label, candidate's label), where they differ.
    """

    entries: int = 0
    same: int = 0
    samples: int = 0
    worst: dict[str, Any] = field(default_factory=dict)
    labels: Counter[int] = field(default_factory=Counter)
    label_samples: Counter[int] = field(default_factory=Counter)
    swaps: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, candidate: Array, reference: Array, label: str, *, classes: bool) -> None:
        """Account for one pair of arrays of one shape."""
        if not reference.size:
            return
        left, right = np.atleast_1d(candidate), np.atleast_1d(reference)
        differ = left != right
        if not self.worst or (self.same == self.entries and differ.any()):
            index = np.unravel_index(int(differ.argmax()), differ.shape)
            self.worst = {
                "input": label,
                "index": [int(item) for item in index] if reference.ndim else [],
                "candidate": int(left[index]),
                "reference": int(right[index]),
            }
        self.entries += differ.size
        self.same += int(differ.size - differ.sum())
        self.samples += len(right)
        self.labels.update(_counted(right))
        for sample in right:
            self.label_samples.update(int(item) for item in np.unique(sample))
        pairs = np.stack([right[differ], left[differ]], axis=-1).astype(np.int64)
        values, counts = np.unique(pairs, axis=0, return_counts=True)
        for (old, new), count in zip(values.tolist(), counts.tolist(), strict=True):
            self.swaps[old, new] += count

    def metrics(self) -> dict[str, float]:
        """The metrics by name."""
        return {"label_agreement": self.same / self.entries}

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share (Clopper-Pearson), as if a sample were one entry."""
        from scipy.stats import beta

        count = self.samples
        same = self.same / self.entries * count
        tail = (1.0 - _CONFIDENCE) / 2.0
        low = float(beta.ppf(tail, same, count - same + 1.0)) if same > 0.0 else 0.0
        high = float(beta.ppf(1.0 - tail, same + 1.0, count - same)) if same < count else 1.0
        return low, high

    def record(self) -> dict[str, Any]:
        """What a report shows besides the metrics, as plain data."""
        low, high = self.interval()
        return {
            "label_interval": [low, high],
            "label_entries": self.entries,
            "label_samples": self.samples,
            "label_swaps": [
                {"reference": old, "candidate": new, "entries": count, "of": self.labels[old]}
                for (old, new), count in self.swaps.most_common(_LISTED)
            ],
        }

    def histogram(self) -> None:
        """None: labels have no distances."""

    def failures(self, name: str) -> list[str]:
        """A sentence for each systematic confusion of labels."""
        sentences = []
        exchanged = {pair for pair in self.swaps if self._is_exchange(*pair)}
        for old, new in sorted(exchanged):
            if old < new or (new, old) not in exchanged:
                sentences.append(
                    f"output {name!r}: labels {old} and {new} are exchanged: "
                    f"{self._text(old, new)}, {self._text(new, old)}: look at the label map, and "
                    "whether it is this model's file"
                )
        for (old, new), count in sorted(self.swaps.items()):
            if (old, new) not in exchanged and self._is_taken(old, count):
                sentences.append(
                    f"output {name!r}: label {old} is lost: {self._text(old, new)}: look at the "
                    "label map, the calibration data, and whether it is this model's file"
                )
        return sentences[:_LISTED]

    def swaps_text(self) -> str:
        """The most frequent swaps in words, or ""."""
        return ", ".join(self._text(*pair) for pair, _ in self.swaps.most_common(_LISTED))

    def _text(self, old: int, new: int) -> str:
        return f"{self.swaps[old, new]} of {self.labels[old]} entries {old} became {new}"

    def _is_exchange(self, old: int, new: int) -> bool:
        return all(
            self.labels[one] >= _EXCHANGED_ENTRIES
            and self.swaps[one, other] > _EXCHANGED * self.labels[one]
            for one, other in ((old, new), (new, old))
        )

    def _is_taken(self, old: int, count: int) -> bool:
        entries = self.labels[old]
        return (
            entries >= max(_TAKEN_ENTRIES, _COMMON * self.entries)
            and self.label_samples[old] >= _TAKEN_SAMPLES
            and count >= _TAKEN * entries
        )


def _counted(labels: Array) -> Mapping[int, int]:
    values, counts = np.unique(labels, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def tied(candidate: Array, reference: Array, scores: Array, other_scores: Array) -> Array:
    """Which labels differ only among ties of the scores that a model gives beside them.

    An index is as good as the reference's if the reference's scores at the two differ by no more
    than the two sides' scores at these places do, which are judged as an output of their own.

    Args:
        candidate, reference: labels of one shape, indices along one axis of the scores.
        scores, other_scores: of the reference and of the candidate, with that axis besides.

    Returns:
        True where labels differ among ties; all False if the shapes tell of no such axis.
    """
    none = np.zeros(reference.shape, bool)
    axes = [
        axis
        for axis in range(1, scores.ndim)
        if scores.shape[:axis] + scores.shape[axis + 1 :] == reference.shape
    ]
    if not axes or scores.shape != other_scores.shape:
        return none
    axis = axes[0]
    limit = scores.shape[axis]
    inside = (candidate >= 0) & (candidate < limit) & (reference >= 0) & (reference < limit)

    def at(values: Array, labels: Array) -> Array:
        places = np.expand_dims(np.where(inside, labels, 0).astype(np.int64), axis)
        taken: Array = np.take_along_axis(values, places, axis).squeeze(axis)
        return taken.astype(np.float64)

    gap = at(scores, reference) - at(scores, candidate)
    slack = sum(
        np.abs(at(scores, item) - at(other_scores, item)) for item in (candidate, reference)
    )
    found: Array = (candidate != reference) & inside & (np.abs(gap) <= slack)
    return found


def without_ties(candidate: Array, expected: Array, pairs: Sequence[tuple[Array, Array]]) -> Array:
    """Labels with the reference's in the place of those that differ only among ties.

    Args:
        pairs: all outputs of both sides, among them the scores that prove a tie.
    """
    for other, scores in pairs:
        if scores.dtype.kind == "f":
            ties = tied(candidate, expected, scores, other)
            candidate = np.where(ties, expected, candidate)
    return candidate


def over_honest(
    candidate: Sequence[float], honest: Sequence[float], most: float
) -> tuple[float, bool]:
    """How many times as many labels of a candidate differ as of a plain quantization.

    Args:
        candidate, honest: share of the labels that differ from the reference's, by sample.
        most: the ratio that is allowed.

    Returns:
        The ratio, and whether it is proven to be larger than `most`: the lower bound of the one
        share is above so many times the upper bound of the other.
    """
    own, plain = float(np.mean(candidate)), float(np.mean(honest))
    ratio = own / plain if plain > 0.0 else np.inf if own > 0.0 else 0.0
    low, _ = _bounds(candidate)
    _, high = _bounds(honest)
    return ratio, low > most * high


def _bounds(shares: Sequence[float]) -> tuple[float, float]:
    """One-sided bounds of a mean of shares of independent samples, whose entries are not.

    Clopper and Pearson's for the number of independent entries that has the variance which is seen
    between samples (Korn and Graubard, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", Survey Methodology 24, 1998).
    """
    from scipy.stats import beta, norm, t

    count, mean = len(shares), float(np.mean(shares))
    entries = float(count)
    if count > 1 and 0.0 < mean < 1.0:
        variance = max(float(np.var(shares, ddof=1)), _LEAST_VARIANCE) / count
        penalty = norm.ppf(1.0 - _CHANCE) / t.ppf(1.0 - _CHANCE, count - 1)
        entries = mean * (1.0 - mean) / variance * float(penalty) ** 2
    hits = mean * entries
    low = float(beta.ppf(_CHANCE, hits, entries - hits + 1.0)) if hits > 0.0 else 0.0
    high = float(beta.ppf(1.0 - _CHANCE, hits + 1.0, entries - hits)) if hits < entries else 1.0
    return low, high


def label_comparisons(
    name: str, agreement: LabelAgreement, limits: Mapping[str, Limit]
) -> dict[str, Comparison]:
    """The share of equal labels beside its limit, if it has one.

    A default limit is broken if the whole interval of the share is beyond it, a stated one if the
    share is.
    """
    limit = limits.get("label_agreement")
    if limit is None:
        return {}
    share = agreement.metrics()["label_agreement"]
    _, high = agreement.interval()
    unproven = limit.origin == "default" and limit.allows(high)
    if unproven and not limit.allows(share):
        return {}
    return {"label_agreement": Comparison(limit, share, name)}
