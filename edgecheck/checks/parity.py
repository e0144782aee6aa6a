"""The parity check: the candidate's outputs agree with the reference's.

Shape, dtype, NaN and infinity first; then, per output, over all inputs:

- max_abs_error: max |candidate - reference|;
- max_relative_error: the same over max |reference| (pointwise relative error is useless near zero);
- sqnr_db: 10 log10(sum reference^2 / sum (candidate - reference)^2), the signal-to-quantization-
  noise ratio;
- cosine: of the two outputs as vectors;
- top1_agreement: share of rows with the same largest entry, where the output holds class scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.budget import Limit
from edgecheck.verdict import Comparison, Verdict, conclude

if TYPE_CHECKING:
    from edgecheck.case import Case
    from edgecheck.workbench import Feeds, Workbench

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


def compare_basics(candidate: Array, reference: Array, name: str, label: str) -> str:
    """What makes a comparison of numbers pointless, or ""."""
    where = f"output {name!r} on {label}"
    if candidate.shape != reference.shape:
        return f"{where} has shape {candidate.shape}, the reference {reference.shape}"
    if not _same_dtype(candidate.dtype, reference.dtype):
        return f"{where} is {candidate.dtype}, the reference {reference.dtype}"
    for who, array in (("the reference's", reference), ("the candidate's", candidate)):
        if array.dtype.kind in "fc":
            bad = ~np.isfinite(array)
            if bad.any():
                index = tuple(int(item) for item in np.argwhere(bad)[0])
                return (
                    f"{who} {where} has {int(bad.sum())} NaN or infinite values, "
                    f"the first is {array[index]} at {index}"
                )
    return ""


def _same_dtype(candidate: np.dtype[Any], reference: np.dtype[Any]) -> bool:
    """Equal, or the same kind where runtimes have only the narrower (int32 for int64)."""
    if candidate == reference:
        return True
    kinds = {"i": "integer", "u": "integer", "f": "float", "b": "bool"}
    same_kind = kinds.get(candidate.kind) == kinds.get(reference.kind)
    return same_kind and candidate.itemsize >= min(reference.itemsize, 4)


def run(workbench: Workbench, case: Case) -> Verdict:
    """Compare the candidate's outputs with the reference's on random inputs and user samples."""
    feeds = workbench.feeds(case)
    results = workbench.feed_outputs(case)
    usable = list(results)
    reference = workbench.reference_outputs(case, feeds.feeds, "parity", main=False)
    failures: list[str] = []
    judged: dict[str, Agreement] = {name: Agreement() for name in case.model.outputs}
    reported: dict[str, Agreement] = {name: Agreement() for name in case.model.outputs}
    # A quantizer is made for the data, not for noise: where there are samples, random inputs must
    # only come out finite, and their agreement is reported without being judged.
    samples_only = case.precision not in ("fp32", "fp16") and any(
        feeds.labels[index] == "samples" for index in usable
    )
    for index, outputs in results.items():
        label = feeds.labels[index]
        for name in case.model.outputs:
            candidate = np.load(outputs[name], mmap_mode="r", allow_pickle=False)
            expected = np.load(reference[index][name], mmap_mode="r", allow_pickle=False)
            if problem := compare_basics(candidate, expected, name, label):
                failures.append(problem)
                continue
            into = reported if samples_only and label != "samples" else judged
            classes = name == case.model.classifier_output
            into[name].add(candidate, expected, label, classes=classes)
    verdict = judge(
        {name: agreement for name, agreement in judged.items() if agreement.worst},
        {name: case.limits(name) for name in case.model.outputs},
        failures,
        {name: agreement.metrics() for name, agreement in reported.items() if agreement.worst},
        seed=case.model.seed,
        inputs=[feeds.labels[index] for index in usable],
    )
    if not case.variant:
        return verdict
    original = _against_original(workbench, case, feeds, reference)
    return replace(
        verdict, measurements={**verdict.measurements, "variant_against_original": original}
    )


def _against_original(
    workbench: Workbench, case: Case, feeds: Feeds, own: list[dict[str, str]]
) -> dict[str, dict[str, float]]:
    """How far a variant's own program is from the model's reference: for people, not judged.

    A pruned or distilled model differs by design; what it may cost is the accuracy check's.
    """
    original = workbench.reference_outputs(case, feeds.feeds, "parity", main=True)
    found = {name: Agreement() for name in case.model.outputs}
    for label, theirs, ours in zip(feeds.labels, original, own, strict=True):
        for name, agreement in found.items():
            left = np.load(ours[name], mmap_mode="r", allow_pickle=False)
            right = np.load(theirs[name], mmap_mode="r", allow_pickle=False)
            if not compare_basics(left, right, name, label):
                classes = name == case.model.classifier_output
                agreement.add(left, right, label, classes=classes)
    return {name: agreement.metrics() for name, agreement in found.items()}


def judge(
    judged: Mapping[str, Agreement],
    limits: Mapping[str, Mapping[str, Limit]],
    failures: list[str],
    reported: Mapping[str, Mapping[str, float]],
    *,
    seed: int,
    inputs: list[str],
) -> Verdict:
    """Hold each output's agreement against its limits."""
    if not judged and not failures:
        failures = ["no output was compared with the reference"]
    comparisons = []
    lines = []
    outputs: dict[str, Any] = {}
    for name, agreement in judged.items():
        metrics = agreement.metrics()
        outputs[name] = {
            **metrics,
            "worst": agreement.worst,
            "error_histogram": agreement.histogram(),
        }
        broken = []
        for metric, value in metrics.items():
            if metric in limits[name]:
                comparison = Comparison(limits[name][metric], value, name)
                comparisons.append(comparison)
                broken += [] if comparison.passed else [metric]
        if broken:
            worst = agreement.worst
            lines.append(
                f"output {name!r}: worst at {worst['index']} of {worst['input']}: candidate "
                f"{worst['candidate']:.9g}, reference {worst['reference']:.9g}"
            )
            needed = ", ".join(f"{metric}={_round(metrics[metric], metric)}" for metric in broken)
            if "inf" not in needed:
                lines.append(f"would have passed with Budget({needed})")
    lines.append(f"seed {seed}; inputs: {'; '.join(inputs)}")
    measurements: dict[str, Any] = {"outputs": outputs, "seed": seed, "inputs": inputs}
    if reported:
        measurements["random_inputs"] = {name: dict(values) for name, values in reported.items()}
    return conclude(
        failures=failures,
        comparisons=comparisons,
        measurements=measurements,
        details="\n".join(lines),
    )


def _round(value: float, metric: str) -> str:
    """Two digits, rounded to the side that would pass."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    up = metric in ("max_abs_error", "max_relative_error")
    return f"{(math.ceil if up else math.floor)(value / step) * step:.2g}"
