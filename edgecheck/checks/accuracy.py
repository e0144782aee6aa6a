"""The accuracy check: the metric on the evaluation data, against the reference and the floor.

The same samples go through both. An improvement never fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.budget import Limit
from edgecheck.errors import ChildError
from edgecheck.metrics import Metric, as_metric
from edgecheck.verdict import Comparison, Verdict, conclude

if TYPE_CHECKING:
    from edgecheck.case import Case
    from edgecheck.workbench import Workbench


def run(workbench: Workbench, case: Case) -> Verdict:
    """Score candidate and reference on the evaluation data."""
    evaluation = case.model.evaluation
    assert evaluation is not None
    files = workbench.data(case, "evaluation")
    with tempfile.TemporaryDirectory() as directory:
        outputs, expected = workbench.evaluation_outputs(case, Path(directory))
        reference = workbench.sources.score(evaluation, expected, files["labels"])
        try:
            candidate = workbench.sources.score(evaluation, outputs, files["labels"])
        except ChildError as error:
            raise ChildError(
                f"on the candidate's predictions {error}", kind=error.kind, log_tail=error.log_tail
            ) from error
    return judge(
        candidate, reference, as_metric(evaluation.metric), case.limits(), samples=files["count"]
    )


def judge(
    candidate: float, reference: float, metric: Metric, limits: Mapping[str, Limit], *, samples: int
) -> Verdict:
    """Hold the drop against its limit, and the value against the floor.

    The drop is positive where the candidate is worse. For a metric that is no fraction a default
    limit counts relative to the reference's value; for one that is, a default limit is no less than
    what a single sample weighs: rounding may turn a near-tie, and that is no finding.
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
    comparisons = []
    limit = limits.get("accuracy_drop")
    if limit is not None:
        judged = drop
        if limit.origin == "default" and metric.fraction:
            limit = replace(limit, value=max(limit.value, 1.0 / samples))
        elif limit.origin == "default" and reference != 0.0:
            judged = drop / abs(reference)
            measurements["relative_drop"] = judged
        comparisons.append(Comparison(limit, judged))
    floor = limits.get("accuracy_floor")
    if floor is not None:
        # A floor of a metric where lower is better is a ceiling.
        bound = (
            floor
            if metric.higher_is_better
            else Limit(floor.name, floor.value, "max", floor.unit, floor.origin)
        )
        comparisons.append(Comparison(bound, candidate))
    return conclude(
        comparisons=comparisons,
        measurements=measurements,
        details=f"{metric.name} {candidate:.6g}, reference {reference:.6g}, {samples} samples",
    )
