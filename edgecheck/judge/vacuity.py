"""Comparisons that say nothing: what makes agreement worthless, as findings.

Any candidate agrees with a reference whose outputs are the same whatever goes in; a metric at
chance can't drop; a range that was calibrated elsewhere is not a range. Pure; not for agreement
itself: see `edgecheck.judge.agreement`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.declare.budget import Limit

Array = npt.NDArray[Any]
POLICIES = ("grave", "warn", "fail")

# Outputs that differ by no more than this share of the largest one are the same: some roundings of
# float32 (2^-23).
_SAME = 16 * 2.0**-23
# Freshly initialised networks can give outputs of 1e-9; what a model has learned is not that small
# in any unit that people choose.
_NEAR_ZERO = 1e-6
# Shares of values outside a range: normal data leaves a domain of two standard deviations with 5 %,
# and what a calibration cuts off is lost.
_OUTSIDE_DOMAIN, _CLIPPED = 0.1, 0.01
# Below these used shares, a range probably belongs to other data.
_USED_DOMAIN, _USED_CALIBRATION = 0.01, 0.1
# A reference that is no better than the most frequent class at this level is at chance.
_CHANCE = 0.05
# Two classes are taken for each other where so large a share of the one's samples is predicted as
# the other, and of those predictions comes from it; and where that is no accident at this level.
_TAKEN_FOR, _ACCIDENT = 0.8, 1e-6
# Of classes that are listed.
_LISTED = 4


@dataclass(frozen=True)
class Finding:
    """Something that makes a comparison worth less.

    Attributes:
        sentence: what, where, and what to do.
        grave: nothing at all was compared, or with something else.
    """

    sentence: str
    grave: bool = False


def sort(findings: Iterable[Finding], policy: str) -> tuple[list[str], list[str]]:
    """Failures and warnings, as ``--edge-vacuous`` says.

    Args:
        policy: ``"grave"`` fails what is grave; ``"fail"`` and ``"warn"`` treat all alike.
    """
    failures: list[str] = []
    warnings: list[str] = []
    for item in findings:
        fails = policy == "fail" or (policy == "grave" and item.grave)
        (failures if fails else warnings).append(item.sentence)
    return failures, warnings


def same(left: Array, right: Array) -> bool:
    """Whether two arrays hold the same numbers but for rounding; those of two shapes do not."""
    if left.shape != right.shape:
        return False
    if left.dtype.kind not in "fc":
        return bool(np.array_equal(left, right))
    scale = max((float(np.abs(item).max()) for item in (left, right) if item.size), default=0.0)
    # A NaN is like nothing, which other checks are about.
    return bool((np.abs(left - right) <= _SAME * scale).all())


def constant_output(name: str, calls: Sequence[Sequence[Array]]) -> list[Finding]:
    """A finding where an output was the same on all inputs.

    Args:
        calls: for each shape of inputs, what the output was, one array an independent input.
    """
    # An output without elements can't react.
    told = [arrays for arrays in calls if len(arrays) > 1 and any(map(np.size, arrays))]
    if not told or any(not same(arrays[0], item) for arrays in told for item in arrays[1:]):
        return []
    shown = np.asarray(told[0][0]).ravel()
    value = f" ({shown[0]:.4g} ...)" if shown.size else ""
    return [
        Finding(
            f"output {name!r} of the reference does not react to its inputs: it was the same"
            f"{value} on {sum(map(len, told))} different ones, so that agreement with it proves "
            "nothing",
            grave=True,
        )
    ]


def dead_input(name: str, before: Mapping[str, Array], after: Mapping[str, Array]) -> list[Finding]:
    """A finding where another value of one input changed no output."""
    if not all(same(before[output], after[output]) for output in before):
        return []
    return [
        Finding(
            f"no output of the reference reacts to input {name!r}: another value gave the same "
            "outputs, so that a candidate that ignores it or mixes it up would pass"
        )
    ]


def magnitude(name: str, largest: float, limits: Mapping[str, Limit]) -> list[Finding]:
    """Findings where an output is nearly zero, or so small that a limit allows anything."""
    findings = []
    if 0.0 < largest < _NEAR_ZERO:
        findings.append(
            Finding(
                f"output {name!r} of the reference is nearly zero (at most {largest:.2g}), as that "
                "of a model that has learned nothing"
            )
        )
    absolute, relative = limits.get("max_abs_error"), limits.get("max_relative_error")
    if absolute is not None and 0.0 < largest <= absolute.value:
        findings.append(
            Finding(
                f"max_abs_error {absolute.value:g} ({absolute.origin}) would pass an output "
                f"{name!r} of zeros: the reference's largest value is {largest:.2g}"
            )
        )
    if relative is not None and relative.value >= 1.0:
        findings.append(
            Finding(
                f"max_relative_error {relative.value:g} ({relative.origin}) would pass an output "
                f"{name!r} of zeros"
            )
        )
    return findings


def sample_domain(name: str, samples: Array, low: float, high: float) -> list[Finding]:
    """Findings where an input's declared domain is not where the user's samples are."""
    smallest, largest, outside = _place(samples, low, high)
    if outside > _OUTSIDE_DOMAIN:
        return [
            Finding(
                f"{100 * outside:.3g} % of the samples' values of input {name!r} "
                f"({smallest:.4g} .. {largest:.4g}) lie outside its declared domain {low:g} .. "
                f"{high:g}: random inputs are not like yours"
            )
        ]
    if high > low and (largest - smallest) < _USED_DOMAIN * (high - low):
        return [
            Finding(
                f"the samples of input {name!r} ({smallest:.4g} .. {largest:.4g}) take less than "
                f"{100 * _USED_DOMAIN:g} % of its declared domain {low:g} .. {high:g}: random "
                "inputs are not like yours"
            )
        ]
    return []


def calibration_range(name: str, calibration: Array, evaluation: Array) -> list[Finding]:
    """Findings where ranges from calibration data do not suit an input's evaluation data."""
    low, high = float(calibration.min()), float(calibration.max())
    smallest, largest, outside = _place(evaluation, low, high)
    ranges = (
        f"the calibration data of input {name!r} ({low:.4g} .. {high:.4g}) does not suit the "
        f"evaluation data ({smallest:.4g} .. {largest:.4g}): "
    )
    if outside > _CLIPPED:
        return [Finding(f"{ranges}{100 * outside:.3g} % of its values would be clipped")]
    if (largest - smallest) < _USED_CALIBRATION * (high - low):
        return [
            Finding(
                f"{ranges}it takes less than {100 * _USED_CALIBRATION:g} % of the range, and as "
                "few of the levels"
            )
        ]
    return []


def _place(values: Array, low: float, high: float) -> tuple[float, float, float]:
    """Smallest and largest value, and the share outside a range, rounding forgiven."""
    slack = _SAME * max(abs(low), abs(high))
    outside = (values < low - slack) | (values > high + slack)
    return float(values.min()), float(values.max()), float(outside.mean())


def at_chance(accuracy: float, labels: Array) -> list[Finding]:
    """A finding where a reference's top-1 accuracy is not above the most frequent class's share.

    The exact one-sided binomial test: how likely so many right answers are for who always names
    that class.

    Args:
        accuracy: share of right answers.
        labels: class indices of the evaluation samples.
    """
    from scipy.special import bdtrc

    total = labels.size
    if total == 0 or labels.dtype.kind not in "iub":
        return []
    _, counts = np.unique(labels, return_counts=True)
    majority = float(counts.max()) / total
    right = round(accuracy * total)
    if majority >= 1.0:
        return [
            Finding(
                f"all {total} evaluation labels are the same class: a model that always names it "
                "would have full marks"
            )
        ]
    chance = 1.0 if right <= 0 else float(bdtrc(right - 1, total, majority))
    if not math.isfinite(chance) or chance < _CHANCE:
        return []
    return [
        Finding(
            f"the reference is at chance on the evaluation data: {right} of {total} right, and "
            f"{int(counts.max())} of them are the most frequent class (p = {chance:.2g}); an "
            "accuracy drop can't show there"
        )
    ]


def class_order(predicted: Array, labels: Array) -> list[Finding]:
    """A finding where the labels are in another order than the reference's classes.

    That is where the reference tells classes apart, and calls them by each other's numbers. A
    model that is weak, or always names the same class, does not.

    Args:
        predicted: the class that the reference names for each sample.
        labels: class indices of the same samples.
    """
    from scipy.special import bdtrc

    if labels.ndim != 1 or labels.shape != predicted.shape or labels.dtype.kind not in "iub":
        return []
    pairs, counts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    own = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    named = dict(zip(*np.unique(predicted, return_counts=True), strict=True))
    renamed = {
        int(label): int(other)
        for (label, other), count in zip(pairs.T, counts, strict=True)
        if label != other and count >= _TAKEN_FOR * max(own[label], named[other])
    }
    concerned = np.isin(labels, list(renamed))
    meant = np.array([renamed.get(int(label), label) for label in labels])
    moved = int((concerned & (predicted == meant)).sum())
    kept = int((concerned & (predicted == labels)).sum())
    if len(renamed) < 2 or bdtrc(moved - 1, moved + kept, 0.5) > _ACCIDENT:
        return []
    listed = [f"label {label} is class {other}" for label, other in sorted(renamed.items())]
    more = ", ..." if len(listed) > _LISTED else ""
    return [
        Finding(
            "the evaluation labels are in another order than the reference's classes: "
            f"{', '.join(listed[:_LISTED])}{more}; so read, {np.mean(predicted == meant):.3g} of "
            f"its answers are right instead of {np.mean(predicted == labels):.3g}",
            grave=True,
        )
    ]
