"""The parity check: the candidate's outputs agree with the reference's.

Shape, dtype, NaN and infinity first; then per output, over all inputs, the metrics of
`edgecheck.judge.agreement`; then what they are worth: the model's own noise and findings of vacuity
(`edgecheck.checks.reference_baselines`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
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
from edgecheck.judge.agreement import Agreement, compare_basics
from edgecheck.judge.verdict import Comparison, Outcome, Verdict, conclude, extended

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Feeds, Workbench

# What holds where the model's own noise can't be measured.
_INSTEAD_OF_NOISE = ("max_relative_error", "sqnr_db")


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
    limits = {name: case.limits(name) for name in case.model.outputs}
    found = reference_baselines.measure(workbench, case, feeds, reference, results, limits)
    verdict = judge(
        {name: agreement for name, agreement in judged.items() if agreement.worst},
        limits,
        failures,
        {name: agreement.metrics() for name, agreement in reported.items() if agreement.worst},
        seed=case.model.seed,
        inputs=[feeds.labels[index] for index in usable],
        found=found,
    )
    if case.variant:
        original = _against_original(workbench, case, feeds, reference)
        verdict = replace(
            verdict, measurements={**verdict.measurements, "variant_against_original": original}
        )
    return _beyond(workbench, case, verdict, found, limits)


def _beyond(
    workbench: Workbench,
    case: Case,
    verdict: Verdict,
    found: reference_baselines.Baselines,
    limits: Mapping[str, Mapping[str, Limit]],
) -> Verdict:
    """The verdict with what shows on inputs that are adversarial, or run again."""
    passed = verdict.outcome is Outcome.PASSED
    audited = weight_audit.measure(workbench, case, found.metrics, limits)
    verdict = extended(verdict, audited)
    if passed and not audited.failures:
        verdict = extended(verdict, first_layer.look_inside(workbench, case, found.metrics))
    if passed:
        verdict = extended(verdict, boundary.measure(workbench, case))
    if passed or workbench.settings.replay is not None:
        verdict = extended(verdict, fuzz.measure(workbench, case))
    noise = {
        name: values["noise_max"] for name, values in found.metrics.items() if "noise_max" in values
    }
    verdict = extended(verdict, rerun.measure(workbench, case, noise))
    return extended(verdict, rebuild.measure(workbench, case, noise))


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
    found: reference_baselines.Baselines = reference_baselines.NONE,
) -> Verdict:
    """Hold each output's agreement against its limits.

    Default limits on the error give way where the model's own noise was measured.
    """
    if not judged and not failures:
        failures = ["no output was compared with the reference"]
    failures = [*failures, *found.failures]
    comparisons = []
    lines = []
    outputs: dict[str, Any] = {}
    for name, agreement in judged.items():
        metrics = {**agreement.metrics(), **found.metrics.get(name, {})}
        held = dict(limits[name])
        if "noise_ratio" in metrics:
            for metric in _INSTEAD_OF_NOISE:
                if metric in held and held[metric].origin == "default":
                    del held[metric]
        outputs[name] = {
            **metrics,
            "worst": agreement.worst,
            "error_histogram": agreement.histogram(),
        }
        broken = []
        for metric, value in metrics.items():
            if metric in held:
                comparison = Comparison(held[metric], value, name)
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
    measurements |= found.measurements
    if reported:
        measurements["random_inputs"] = {name: dict(values) for name, values in reported.items()}
    return conclude(
        failures=failures,
        comparisons=comparisons,
        warnings=found.warnings,
        measurements=measurements,
        details="\n".join(lines),
    )


def _round(value: float, metric: str) -> str:
    """Two digits, rounded to the side that would pass."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    up = KINDS[metric].bound == "max"
    return f"{(math.ceil if up else math.floor)(value / step) * step:.2g}"
