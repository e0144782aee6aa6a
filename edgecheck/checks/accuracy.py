"""The accuracy check: the metric on the evaluation data, against the reference and the floor.

A paired experiment: the same samples go through both. The drop comes with a 95 % confidence
interval (`edgecheck.judge.paired`), the samples that changed, and what so many samples can show. An
improvement never fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.checks import outliers
from edgecheck.declare.budget import Limit
from edgecheck.declare.metrics import Metric, as_metric
from edgecheck.judge import vacuity
from edgecheck.judge.paired import CONFIDENCE
from edgecheck.judge.verdict import Comparison, Evidence, Verdict, conclude, extended

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

UPPER_BOUND = "upper-bound"
# How long a metric may be resampled for the interval, by policy: where the verdict hangs on it,
# more is worth waiting for.
_RESAMPLING_S = {"point": 2.0, UPPER_BOUND: 60.0}
_NAMED = 8
_PERCENT = f"{100 * CONFIDENCE:g} %"


def run(workbench: Workbench, case: Case) -> Verdict:
    """Score candidate and reference on the evaluation data."""
    evaluation = case.model.evaluation
    assert evaluation is not None
    files = workbench.data(case, "evaluation")
    with tempfile.TemporaryDirectory() as directory:
        outputs, expected = workbench.evaluation_outputs(case, Path(directory))
        unlike = outliers.measure(workbench, case, outputs, expected)
        found = workbench.sources.compare(
            evaluation,
            expected,
            outputs,
            files["labels"],
            seed=case.model.seed,
            limit_s=min(_RESAMPLING_S[evaluation.drop_policy], workbench.settings.timeout_s / 4),
        )
    verdict = judge(
        found["candidate"],
        found["reference"],
        as_metric(evaluation.metric),
        case.limits(),
        samples=files["count"],
        paired=found["paired"],
        policy=evaluation.drop_policy,
    )
    verdict = extended(verdict, unlike)
    if as_metric(evaluation.metric).name != "top1":
        return verdict
    labels = np.load(files["labels"], allow_pickle=False)
    findings = _class_order(case, expected, labels)
    findings = findings or vacuity.at_chance(found["reference"], labels)
    failures, warnings = vacuity.sort(findings, workbench.settings.vacuous)
    return extended(verdict, Evidence(tuple(failures), tuple(warnings)))


def _class_order(
    case: Case, expected: Mapping[str, str], labels: npt.NDArray[Any]
) -> list[vacuity.Finding]:
    """Whether the labels are in the order of the scores of the reference's outputs.

    Args:
        expected: .npy path of the reference's outputs by name.
    """
    evaluation, name = case.model.evaluation, case.model.classifier_output
    if name is None or evaluation is None or evaluation.postprocess is not None:
        return []
    scores = np.load(expected[name], mmap_mode="r", allow_pickle=False)
    return vacuity.class_order(scores.argmax(-1), labels)


def judge(
    candidate: float,
    reference: float,
    metric: Metric,
    limits: Mapping[str, Limit],
    *,
    samples: int,
    paired: Mapping[str, Any] | None = None,
    policy: str = "point",
) -> Verdict:
    """Hold the drop against its limit, and the value against the floor.

    The drop is positive where the candidate is worse. For a metric that is no fraction a default
    limit counts relative to the reference's value; for one that is, a default limit is no less than
    what a single sample weighs: rounding may turn a near-tie, and that is no finding.

    Args:
        paired: of `edgecheck.capture.scoring.compare`.
        policy: ``"point"`` judges the drop; ``"upper-bound"`` the upper end of its interval, and
            without an interval it fails.
    """
    drop = reference - candidate if metric.higher_is_better else candidate - reference
    measurements: dict[str, Any] = {
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "candidate": candidate,
        "reference": reference,
        "accuracy_drop": drop,
        "samples": samples,
    }
    details = [f"{metric.name} {candidate:.6g}, reference {reference:.6g}, {samples} samples"]
    comparisons, failures = [], []
    limit, scale = limits.get("accuracy_drop"), 1.0
    if limit is not None:
        if limit.origin == "default" and metric.fraction:
            limit = replace(limit, value=max(limit.value, 1.0 / samples))
        elif limit.origin == "default" and reference != 0.0:
            scale = 1.0 / abs(reference)
            measurements["relative_drop"] = drop * scale
        point = Comparison(limit, drop * scale)
        upper = None
        interval = paired and paired["interval"]
        if interval:
            upper = Comparison(limit, interval[1] * scale, f"{_PERCENT} upper bound")
        if policy != UPPER_BOUND:
            comparisons.append(point)
        elif upper is not None:
            comparisons.append(upper)
        else:
            why = paired["no_interval"] if paired else "it was not measured"
            failures.append(f"accuracy_drop {drop:.3g} has no upper bound: {why}")
    if paired is not None:
        measurements |= _measurements(paired, policy)
        if limit is not None:
            measurements["by_policy"] = {
                "point": str(point.outcome),
                UPPER_BOUND: "failed" if upper is None else str(upper.outcome),
            }
        details += _told(paired, drop, metric, samples)
        if limit is not None and interval and interval[0] * scale < limit.value:
            bound = limit.value / scale
            if not limit.allows(interval[1] * scale):
                details.append(
                    f"the limit, a drop of {bound:.3g}, lies within the interval: these samples "
                    "can't tell on which side the model is"
                )
    floor = limits.get("accuracy_floor")
    if floor is not None:
        # A floor of a metric where lower is better is a ceiling.
        held = floor if metric.higher_is_better else replace(floor, bound="max")
        comparisons.append(Comparison(held, candidate))
    return conclude(
        failures=failures,
        comparisons=comparisons,
        measurements=measurements,
        details="\n".join(details),
    )


def _measurements(paired: Mapping[str, Any], policy: str) -> dict[str, Any]:
    return {
        "accuracy_drop_interval": paired["interval"],
        "confidence": CONFIDENCE,
        "interval_method": paired["method"],
        "resamples": paired["resamples"],
        "undefined_resamples": paired["undefined_resamples"],
        "no_interval": paired["no_interval"],
        "mcnemar_p": paired["mcnemar_p"],
        "detectable_drop": paired["detectable_drop"],
        "changed_samples": paired["changed"],
        "drop_policy": policy,
    }


def _told(paired: Mapping[str, Any], drop: float, metric: Metric, samples: int) -> list[str]:
    """The experiment in a few lines."""
    if paired["interval"] is None:
        lines = [f"drop {drop:.3g}, without an interval: {paired['no_interval']}"]
    else:
        low, high = paired["interval"]
        resamples = f", {paired['resamples']} resamples" if paired["resamples"] else ""
        lines = [
            f"drop {drop:.3g}, {_PERCENT} interval {low:.3g} to {high:.3g} "
            f"({paired['method']}{resamples})"
        ]
    changed = paired["changed"]
    if changed and "right_to_wrong" in changed:
        lost, gained = changed["right_to_wrong"], changed["wrong_to_right"]
        lines.append(
            f"{lost} right to wrong{_indices(changed['right_to_wrong_indices'], lost)}, "
            f"{gained} wrong to right{_indices(changed['wrong_to_right_indices'], gained)}; "
            f"McNemar's exact p {paired['mcnemar_p']:.2g}"
        )
    elif changed:
        worse = changed["worse"]
        lines.append(
            f"{worse} samples score worse{_indices(changed['worst_indices'], worse)}, "
            f"{changed['better']} better"
        )
    detectable = paired["detectable_drop"]
    if detectable is not None:
        lines.append(f"{samples} samples can show a drop of {_amount(detectable, metric)} or more")
    elif paired["mcnemar_p"] is not None:
        lines.append(f"{samples} samples are too few to show any drop")
    return lines


def _amount(value: float, metric: Metric) -> str:
    if metric.fraction:
        return f"{100 * value:.2g} points"
    return f"{value:.3g}{' ' if metric.unit else ''}{metric.unit}"


def _indices(listed: Sequence[int], count: int) -> str:
    """The first few indices in brackets, worst or lowest first."""
    if not count:
        return ""
    more = ", ..." if count > min(_NAMED, len(listed)) else ""
    return f" ({', '.join(map(str, listed[:_NAMED]))}{more})"
