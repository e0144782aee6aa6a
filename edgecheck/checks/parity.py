"""The parity check: the candidate's outputs agree with the reference's.

Shape, dtype, NaN and infinity come first; then, per output and over all inputs, the metrics of
`edgecheck.judge.agreement`. The model's own noise and findings of vacuity show how much they prove
(`edgecheck.checks.reference_baselines`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

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
from edgecheck.judge import labels
from edgecheck.judge.agreement import Agreement, Array, compare_basics
from edgecheck.judge.labels import Labels
from edgecheck.judge.parts import Parts
from edgecheck.judge.verdict import Comparison, Outcome, Verdict, conclude, extended

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Feeds, Workbench

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
        compared.failures,
        {
            name: agreement.metrics()
            for name, agreement in compared.reported.items()
            if agreement.worst
        },
        seed=case.model.seed,
        labelled=compared.labels,
        parts=compared.parts,
        inputs=[feeds.labels[index] for index in results],
        baselines=baselines,
    )
    if case.variant:
        original = _against_original(workbench, case, feeds, reference)
        verdict = replace(
            verdict, measurements={**verdict.measurements, "variant_against_original": original}
        )
    return _beyond(workbench, case, verdict, baselines, limits)


@dataclass(frozen=True)
class _Compared:
    """The agreement of a case's outputs with the reference's, by output, over all inputs.

    Attributes:
        judged: on the inputs that the limits hold for.
        reported: on the other inputs.
        labels: of outputs that are labels, instead of `judged`.
        parts: of the other outputs of a quantized candidate, on the inputs that are judged.
        failures: sentences about outputs that can't be compared.
    """

    judged: Mapping[str, Agreement]
    reported: Mapping[str, Agreement]
    labels: dict[str, Labels]
    parts: dict[str, Parts]
    failures: list[str]


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
    compared = _Compared(
        {name: Agreement() for name in outputs}, {name: Agreement() for name in outputs}, {}, {}, []
    )
    quantized = case.precision not in ("fp32", "fp16")
    samples_only = quantized and any(feeds.labels[index] == "samples" for index in results)
    for index, paths in results.items():
        label = feeds.labels[index]
        aside = samples_only and label != "samples"
        agreements = compared.reported if aside else compared.judged
        for name in outputs:
            candidate = np.load(paths[name], mmap_mode="r", allow_pickle=False)
            expected = np.load(reference[index][name], mmap_mode="r", allow_pickle=False)
            if problem := compare_basics(candidate, expected, name, label):
                compared.failures.append(problem)
            elif expected.dtype.kind in "iub":
                if not aside:
                    excused = _ties(name, candidate, expected, paths, reference[index])
                    found = compared.labels.setdefault(name, Labels())
                    found.add(candidate, expected, label, excused)
            else:
                classes = name == case.model.classifier_output
                agreements[name].add(candidate, expected, label, classes=classes)
                if quantized and not aside:
                    compared.parts.setdefault(name, Parts()).add(candidate, expected)
    return compared


def _ties(
    name: str,
    candidate: Array,
    expected: Array,
    outputs: Mapping[str, str],
    reference: Mapping[str, str],
) -> Array | None:
    """Entries of an output of indices that another output proves right, or None."""
    if expected.ndim == 0 or expected.dtype.kind == "b":
        return None
    for other, path in outputs.items():
        values, own = (np.load(item, mmap_mode="r") for item in (path, reference[other]))
        if other != name and own.dtype.kind == "f" and own.shape == values.shape == expected.shape:
            return labels.ties(candidate, expected, values, own)
    return None


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
    judged: Mapping[str, Agreement],
    limits: Mapping[str, Mapping[str, Limit]],
    failures: list[str],
    reported: Mapping[str, Mapping[str, float]],
    *,
    seed: int,
    inputs: list[str],
    labelled: Mapping[str, Labels] = MappingProxyType({}),
    parts: Mapping[str, Parts] = MappingProxyType({}),
    baselines: reference_baselines.Baselines = reference_baselines.NONE,
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
        labelled: by output that holds labels.
        parts: by output of a quantized candidate.
        baselines: further metrics of the outputs, and evidence.
    """
    if not judged and not labelled and not failures:
        failures = ["no output was compared with the reference"]
    comparisons: list[Comparison] = []
    lines: list[str] = []
    outputs: dict[str, Any] = {}
    for name, agreement in judged.items():
        metrics = {**agreement.metrics(), **baselines.metrics.get(name, {})}
        by_metric = _comparisons(name, metrics, limits[name])
        comparisons += by_metric.values()
        broken = [metric for metric, comparison in by_metric.items() if not comparison.passed]
        lines += _broken_lines(name, agreement.worst, {key: metrics[key] for key in broken})
        outputs[name] = {
            **metrics,
            "worst": agreement.worst,
            "error_histogram": agreement.histogram(),
        }
    warnings = [*baselines.warnings]
    for name, item in parts.items():
        lost, faint = item.sentences(name)
        failures, warnings = [*failures, *lost], [*warnings, *faint]
        if found_parts := item.lost():
            outputs[name]["lost_parts"] = [asdict(part) for part in found_parts]
    for name, found in labelled.items():
        by_metric = _comparisons(name, found.metrics(), limits[name])
        comparisons += by_metric.values()
        failures = [*failures, *found.sentences(name)]
        if found.differ:
            lines.append(found.details(name))
        outputs[name] = {
            **found.metrics(),
            **({"worst": found.worst} if found.worst else {}),
            "labels": found.entries,
            "labels_that_differ": found.differ,
        }
    lines.append(f"seed {seed}; inputs: {'; '.join(_counted(inputs))}")
    measurements: dict[str, Any] = {"outputs": outputs, "seed": seed, "inputs": inputs}
    measurements |= baselines.measurements
    if reported:
        measurements["random_inputs"] = {name: dict(values) for name, values in reported.items()}
    return conclude(
        failures=[*failures, *baselines.failures],
        comparisons=comparisons,
        warnings=warnings,
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
