"""The parity check: the candidate's outputs agree with the reference's.

Shape, dtype, NaN and infinity come first; then, per output and over all inputs, the metrics of
`edgecheck.judge.agreement`. The model's own noise and findings of vacuity show how much they prove
(`edgecheck.checks.reference_baselines`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.checks import (
    boundary,
    first_layer,
    fuzz,
    rebuild,
    reference_baselines,
    rerun,
    weight_audit,
)
from edgecheck.declare.budget import KINDS, Limit
from edgecheck.judge.agreement import Agreement, compare_basics, without_nonfinite
from edgecheck.judge.labels import LabelAgreement, label_comparisons, without_ties
from edgecheck.judge.part_limits import judge_parts
from edgecheck.judge.parts import PartAgreement
from edgecheck.judge.verdict import Comparison, Outcome, Verdict, conclude, extended

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Feeds, Workbench

Array = npt.NDArray[Any]

# The limits that hold if the model's own noise can't be measured.
_INSTEAD_OF_NOISE = ("max_relative_error", "sqnr_db")


def run(workbench: Workbench, case: Case) -> Verdict:
    """Compare the candidate's outputs with the reference's on random inputs and user samples."""
    feeds = workbench.feeds(case)
    results = workbench.feed_outputs(case)
    reference = workbench.reference_outputs(case, feeds.feeds, "parity", main=False)
    compared = _compare(case, feeds, results, reference)
    limits = {name: case.limits(name) for name in case.model.outputs}
    baselines = reference_baselines.measure(workbench, case, feeds, reference, results, limits)
    verdict = judge(
        {name: agreement for name, agreement in compared.judged.items() if agreement.worst},
        limits,
        [*compared.failures, *_unmeasured_parts(compared.parts)],
        {
            name: agreement.metrics()
            for name, agreement in compared.reported.items()
            if agreement.worst
        },
        seed=case.model.seed,
        inputs=[feeds.labels[index] for index in results],
        baselines=baselines,
        parts=compared.parts,
        part_limits={
            name: {part: case.limits(name, part) for part in agreement.slices}
            for name, agreement in compared.parts.items()
        },
    )
    if case.variant:
        original = _against_original(workbench, case, feeds, reference)
        verdict = replace(
            verdict, measurements={**verdict.measurements, "variant_against_original": original}
        )
    return _beyond(workbench, case, verdict, baselines, limits)


AnyAgreement = Agreement | LabelAgreement


@dataclass(frozen=True)
class _Compared:
    """The agreement of a case's outputs with the reference's, by output, over all inputs.

    Attributes:
        judged: on the inputs that the limits hold for.
        reported: on the other inputs.
        failures: sentences about outputs that can't be compared.
        parts: the agreement of parts on the inputs that are judged, of outputs that have any.
    """

    judged: Mapping[str, AnyAgreement]
    reported: Mapping[str, AnyAgreement]
    failures: list[str]
    parts: Mapping[str, PartAgreement]


def _compare(
    case: Case,
    feeds: Feeds,
    results: Mapping[int, Mapping[str, str]],
    reference: Sequence[Mapping[str, str]],
) -> _Compared:
    """Compare all outputs.

    A quantizer is made for the data, not for noise: if there are samples, random inputs must only
    come out finite, and their agreement is reported without being judged.

    Args:
        results: .npy path of the candidate's outputs by name, by position of the feed.
        reference: those of the reference, for each feed.
    """
    outputs = case.model.outputs
    kinds = {
        name: LabelAgreement if _holds_labels(case, name, reference) else Agreement
        for name in outputs
    }
    compared = _Compared(
        {name: kind() for name, kind in kinds.items()},
        {name: kind() for name, kind in kinds.items()},
        [],
        {
            name: PartAgreement(case.model.output(name).parts, case.model.output(name).axis)
            for name, kind in kinds.items()
            if kind is Agreement and _has_parts(case, name)
        },
    )
    samples_only = case.precision not in ("fp32", "fp16") and any(
        feeds.labels[index] == "samples" for index in results
    )
    for index, paths in results.items():
        label = feeds.labels[index]
        judged = not samples_only or label == "samples"
        agreements = compared.judged if judged else compared.reported
        for name in outputs:
            candidate, expected = _load(paths[name]), _load(reference[index][name])
            match = case.model.output(name).matches_nonfinite
            problem = compare_basics(candidate, expected, name, label, match_nonfinite=match)
            if problem:
                compared.failures.append(problem)
                continue
            if judged and name in compared.parts and expected.dtype.kind == "f":
                compared.parts[name].add(candidate, expected)
            agreement = agreements[name]
            if isinstance(agreement, LabelAgreement):
                pairs = [(_load(paths[key]), _load(reference[index][key])) for key in outputs]
                candidate = without_ties(candidate, expected, pairs)
            elif match:
                expected, candidate = without_nonfinite(expected, candidate)
            classes = name == case.model.classifier_output
            agreement.add(candidate, expected, label, classes=classes)
    return compared


def _load(path: str) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _holds_labels(case: Case, name: str, reference: Sequence[Mapping[str, str]]) -> bool:
    """Whether an output is of integers or booleans that are not declared to be magnitudes."""
    labels = bool(reference) and _load(reference[0][name]).dtype.kind in "iub"
    return labels and not case.model.output(name).magnitudes


def _has_parts(case: Case, name: str) -> bool:
    """Whether parts of an output are judged: where any has a limit, or is named."""
    return bool(case.model.output(name).parts) or "part_sqnr_db" in case.limits(name)


def _unmeasured_parts(parts: Mapping[str, PartAgreement]) -> list[str]:
    """A sentence for each named part that nothing judged."""
    return [line for name, agreement in parts.items() for line in agreement.missing(name)]


def _beyond(
    workbench: Workbench,
    case: Case,
    verdict: Verdict,
    baselines: reference_baselines.Baselines,
    limits: Mapping[str, Mapping[str, Limit]],
) -> Verdict:
    """The verdict with the evidence of adversarial inputs, and of inputs that are run again."""
    passed = verdict.outcome is Outcome.PASSED
    audited = weight_audit.measure(workbench, case, baselines.metrics, limits)
    verdict = extended(verdict, audited)
    if passed and not audited.failures:
        verdict = extended(verdict, first_layer.look_inside(workbench, case, baselines.metrics))
    if passed:
        verdict = extended(verdict, boundary.measure(workbench, case))
    if passed or workbench.settings.replay is not None:
        verdict = extended(verdict, fuzz.measure(workbench, case))
    noise = {
        name: values["noise_max"]
        for name, values in baselines.metrics.items()
        if "noise_max" in values
    }
    verdict = extended(verdict, rerun.measure(workbench, case, noise))
    return extended(verdict, rebuild.measure(workbench, case, noise))


def _against_original(
    workbench: Workbench, case: Case, feeds: Feeds, own: list[dict[str, str]]
) -> dict[str, dict[str, float]]:
    """How far a variant's own program is from the model's reference, which is not judged.

    A pruned or distilled model differs by design; the accuracy check judges its cost.
    """
    original = workbench.reference_outputs(case, feeds.feeds, "parity", main=True)
    agreements = {name: Agreement() for name in case.model.outputs}
    for label, theirs, ours in zip(feeds.labels, original, own, strict=True):
        for name, agreement in agreements.items():
            left = np.load(ours[name], mmap_mode="r", allow_pickle=False)
            right = np.load(theirs[name], mmap_mode="r", allow_pickle=False)
            if not compare_basics(left, right, name, label):
                classes = name == case.model.classifier_output
                agreement.add(left, right, label, classes=classes)
    return {name: agreement.metrics() for name, agreement in agreements.items()}


def judge(
    judged: Mapping[str, AnyAgreement],
    limits: Mapping[str, Mapping[str, Limit]],
    failures: list[str],
    reported: Mapping[str, Mapping[str, float]],
    *,
    seed: int,
    inputs: list[str],
    baselines: reference_baselines.Baselines = reference_baselines.NONE,
    parts: Mapping[str, PartAgreement] = MappingProxyType({}),
    part_limits: Mapping[str, Mapping[str, Mapping[str, Limit]]] = MappingProxyType({}),
) -> Verdict:
    """Hold each output's agreement against its limits.

    Default limits on the error give way if the model's own noise was measured.

    Args:
        judged: by output.
        limits: by output and metric.
        failures: sentences about outputs that could not be compared.
        reported: metrics by output on inputs that are not judged.
        seed: of the random inputs.
        inputs: a label for each input.
        baselines: further metrics of the outputs, and evidence.
        parts: the agreement of the outputs' parts.
        part_limits: by output, named part and metric.
    """
    if not judged and not failures:
        failures = ["no output was compared with the reference"]
    comparisons: list[Comparison] = []
    lines: list[str] = []
    outputs: dict[str, Any] = {}
    for name, agreement in judged.items():
        metrics: dict[str, Any] = {**agreement.metrics(), **baselines.metrics.get(name, {})}
        if isinstance(agreement, LabelAgreement):
            by_metric = {
                **_comparisons(name, baselines.metrics.get(name, {}), limits[name]),
                **label_comparisons(name, agreement, limits[name]),
            }
            failures = [*failures, *agreement.failures(name)]
            metrics |= agreement.record()
        else:
            by_metric = _comparisons(name, metrics, limits[name])
        comparisons += by_metric.values()
        broken = [metric for metric, comparison in by_metric.items() if not comparison.passed]
        lines += _broken_lines(name, agreement.worst, {key: metrics[key] for key in broken})
        if isinstance(agreement, LabelAgreement) and agreement.swaps:
            lines.append(f"output {name!r}: most frequent swaps: {agreement.swaps_text()}")
        if name in parts:
            judged_parts = judge_parts(name, parts[name], limits[name], part_limits.get(name, {}))
            failures = [*failures, *judged_parts.failures]
            comparisons += judged_parts.comparisons
            metrics |= judged_parts.record
        outputs[name] = {
            **metrics,
            "worst": agreement.worst,
            "error_histogram": agreement.histogram(),
        }
    lines.append(f"seed {seed}; inputs: {'; '.join(_counted(inputs))}")
    measurements: dict[str, Any] = {"outputs": outputs, "seed": seed, "inputs": inputs}
    measurements |= baselines.measurements
    if reported:
        measurements["random_inputs"] = {name: dict(values) for name, values in reported.items()}
    return conclude(
        failures=[*failures, *baselines.failures],
        comparisons=comparisons,
        warnings=baselines.warnings,
        measurements=measurements,
        details="\n".join(lines),
    )


def _counted(labels: list[str]) -> list[str]:
    """Labels, equal neighbours told once with their number."""
    groups = ((label, len(list(group))) for label, group in groupby(labels))
    return [f"{label} ({count} inputs)" if count > 1 else label for label, count in groups]


def _comparisons(
    name: str, metrics: Mapping[str, float], limits: Mapping[str, Limit]
) -> dict[str, Comparison]:
    """The metrics of an output that have a limit, beside it."""
    noise_is_known = "noise_ratio" in metrics
    replaced = {
        metric
        for metric in _INSTEAD_OF_NOISE
        if noise_is_known and metric in limits and limits[metric].origin == "default"
    }
    return {
        metric: Comparison(limits[metric], value, name)
        for metric, value in metrics.items()
        if metric in limits and metric not in replaced
    }


def _broken_lines(name: str, worst: Mapping[str, Any], broken: Mapping[str, float]) -> list[str]:
    """The worst element of an output that breaks a limit, and the budget that it would keep."""
    if not broken:
        return []
    lines = [
        f"output {name!r}: worst at {worst['index']} of {worst['input']}: candidate "
        f"{worst['candidate']:.9g}, reference {worst['reference']:.9g}"
    ]
    needed = ", ".join(f"{metric}={_round(value, metric)}" for metric, value in broken.items())
    if "inf" not in needed:
        lines.append(f"would have passed with Budget({needed})")
    return lines


def _round(value: float, metric: str) -> str:
    """Two digits, rounded to the side that would pass."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    up = KINDS[metric].bound == "max"
    return f"{(math.ceil if up else math.floor)(value / step) * step:.2g}"
