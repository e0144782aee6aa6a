"""The accuracy check: the metric on the evaluation data, against the reference and the floor.

It is a paired experiment: the same samples go through both. The drop comes with a 95 % confidence
interval (`edgecheck.judge.paired`), the samples that changed, and the smallest drop that so many
samples can show. An improvement never fails.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
# Seconds for which a metric may be resampled for the interval, by policy: a longer wait is worth it
# if the verdict depends on the interval.
_RESAMPLING_S = {"point": 2.0, UPPER_BOUND: 60.0}
_NAMED = 8
# Lowest and highest value of the fractions that are no shares: worse than the mean, opposed, or
# with more words inserted than there are.
_RANGES = {"r2": (-math.inf, 1.0), "cosine": (-1.0, 1.0), "wer": (0.0, math.inf)}
_ROUNDING = 1e-5  # of sums in float32
_PERCENT = f"{100 * CONFIDENCE:g} %"


def run(workbench: Workbench, case: Case) -> Verdict:
    """Score candidate and reference on the evaluation data."""
    evaluation = case.model.evaluation
    assert evaluation is not None
    files = workbench.data(case, "evaluation")
    with tempfile.TemporaryDirectory() as directory:
        outputs, expected = workbench.evaluation_outputs(case, Path(directory))
        unlike = outliers.measure(workbench, case, outputs, expected)
        scores = workbench.sources.compare(
            evaluation,
            expected,
            outputs,
            files["labels"],
            seed=case.model.seed,
            limit_s=min(_RESAMPLING_S[evaluation.drop_policy], workbench.settings.timeout_s / 4),
        )
    verdict = judge(
        scores["candidate"],
        scores["reference"],
        as_metric(evaluation.metric),
        case.limits(),
        samples=files["count"],
        paired=scores["paired"],
        policy=evaluation.drop_policy,
    )
    verdict = extended(verdict, unlike)
    if as_metric(evaluation.metric).name != "top1":
        return verdict
    labels = np.load(files["labels"], allow_pickle=False)
    findings = _class_order(case, expected, labels)
    findings = findings or vacuity.at_chance(scores["reference"], labels)
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

    The drop is positive if the candidate is worse. If the metric is not a fraction, a default limit
    counts relative to the reference's value. If it is one, a default limit is at least the weight
    of a single sample: rounding may turn a near-tie, and that is not a finding.

    Args:
        candidate, reference: values of the metric, in its unit.
        samples: the number of samples that both were scored on.
        paired: of `edgecheck.capture.scoring.compare`.
        policy: ``"point"`` judges the drop; ``"upper-bound"`` the upper end of its interval, and
            without an interval it fails.
    """
    drop = reference - candidate if metric.higher_is_better else candidate - reference
    limit = limits.get("accuracy_drop")
    interval = paired["interval"] if paired else None
    limited = limit and _limited_drop(limit, drop, interval, metric, reference, samples)
    comparisons, failures = _by_policy(limited, policy, paired) if limited else ([], [])
    return conclude(
        failures=[*_out_of_range(metric, candidate, reference), *failures],
        comparisons=[*comparisons, *_floor(limits.get("accuracy_floor"), candidate, metric)],
        measurements={
            "metric": metric.name,
            "higher_is_better": metric.higher_is_better,
            "candidate": candidate,
            "reference": reference,
            "accuracy_drop": drop,
            "samples": samples,
            **({"relative_drop": limited.point.measured} if limited and limited.relative else {}),
            **(_measurements(paired, policy) if paired else {}),
            **({"by_policy": _outcomes(limited)} if paired and limited else {}),
        },
        details="\n".join(
            [
                f"{metric.name} {candidate:.6g}, reference {reference:.6g}, {samples} samples",
                *(_experiment_lines(paired, drop, metric, samples) if paired else []),
                *(_undecided_lines(limited, interval) if limited and interval else []),
            ]
        ),
    )


def _out_of_range(metric: Metric, candidate: float, reference: float) -> list[str]:
    """That a metric is not the fraction it is taken for: its limits would mean something else."""
    low, high = _RANGES.get(metric.name, (0.0, 1.0))
    for value in (candidate, reference) if metric.fraction else ():
        if not low - _ROUNDING <= value <= high + _ROUNDING:
            return [
                f"{metric.name} is {value:.6g}, where a fraction lies between {low:g} and {high:g}:"
                " return a fraction, or declare "
                f"Metric(function, {metric.name!r}, fraction=False), whose limits are in its unit"
            ]
    return []


@dataclass(frozen=True)
class _LimitedDrop:
    """The drop beside its limit, both in the limit's unit.

    Attributes:
        drop: in the metric's unit.
        scale: limit's unit per metric's unit.
        relative: whether the limit counts relative to the reference's value.
        point: the drop that was measured.
        upper: the upper end of its interval; None without one.
    """

    drop: float
    scale: float
    relative: bool
    point: Comparison
    upper: Comparison | None


def _limited_drop(
    limit: Limit,
    drop: float,
    interval: Sequence[float] | None,
    metric: Metric,
    reference: float,
    samples: int,
) -> _LimitedDrop:
    """The drop and its interval in the unit of the limit, which may be relaxed or relative."""
    relative = limit.origin == "default" and not metric.fraction and reference != 0.0
    scale = 1.0 / abs(reference) if relative else 1.0
    if limit.origin == "default" and metric.fraction:
        limit = replace(limit, value=max(limit.value, 1.0 / samples))
    upper = Comparison(limit, interval[1] * scale, f"{_PERCENT} upper bound") if interval else None
    return _LimitedDrop(drop, scale, relative, Comparison(limit, drop * scale), upper)


def _by_policy(
    limited: _LimitedDrop, policy: str, paired: Mapping[str, Any] | None
) -> tuple[list[Comparison], list[str]]:
    """The comparison that the policy judges by, or the failure that it can't be made."""
    if policy != UPPER_BOUND:
        return [limited.point], []
    if limited.upper is not None:
        return [limited.upper], []
    why = paired["no_interval"] if paired else "it was not measured"
    return [], [f"accuracy_drop {limited.drop:.3g} has no upper bound: {why}"]


def _outcomes(limited: _LimitedDrop) -> dict[str, str]:
    """The outcome by each policy; without an interval there is no upper bound, which fails."""
    upper = limited.upper
    return {
        "point": str(limited.point.outcome),
        UPPER_BOUND: "failed" if upper is None else str(upper.outcome),
    }


def _floor(floor: Limit | None, candidate: float, metric: Metric) -> list[Comparison]:
    """The value beside the floor, which is a ceiling of a metric whose lower values are better."""
    if floor is None:
        return []
    return [
        Comparison(floor if metric.higher_is_better else replace(floor, bound="max"), candidate)
    ]


def _undecided_lines(limited: _LimitedDrop, interval: Sequence[float]) -> list[str]:
    """A line about a limit that lies within the interval, so that it decides nothing."""
    limit, scale = limited.point.limit, limited.scale
    if not interval[0] * scale < limit.value or limit.allows(interval[1] * scale):
        return []
    return [
        f"the limit, a drop of {limit.value / scale:.3g}, lies within the interval: these samples "
        "can't tell on which side the model is"
    ]


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


def _experiment_lines(
    paired: Mapping[str, Any], drop: float, metric: Metric, samples: int
) -> list[str]:
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
