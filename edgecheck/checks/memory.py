"""The memory check: peak resident memory of a fresh process that loads and runs the model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgecheck.budget import Limit
from edgecheck.verdict import Comparison, Outcome, Verdict, conclude

if TYPE_CHECKING:
    from edgecheck.case import Case
    from edgecheck.workbench import Workbench

RUNS = 3


def run(workbench: Workbench, case: Case) -> Verdict:
    """Weigh the candidate on one sample."""
    if sys.platform != "linux":
        return Verdict(
            Outcome.NOT_CHECKED,
            reason=f"peak memory is read from Linux's /proc, which {sys.platform} has not",
        )
    session = workbench.session(case)
    assert session.binding is not None
    measured = workbench.device.measure_memory(
        case.target,
        workbench.built(case).path,
        session.binding,
        workbench.single_feed(case),
        RUNS,
    )
    return judge(measured, case.limits())


def judge(measured: Mapping[str, int], limits: Mapping[str, Limit]) -> Verdict:
    """Hold the peak above the empty runtime against its limit, in bytes."""
    peak = measured["peak_bytes"]
    comparisons = [Comparison(limits["peak_memory"], peak)] if "peak_memory" in limits else []
    return conclude(
        comparisons=comparisons,
        measurements={
            "peak_memory_bytes": peak,
            "load_memory_bytes": measured["load_bytes"],
            "runtime_memory_bytes": measured["runtime_bytes"],
        },
        details=f"the empty runtime takes {measured['runtime_bytes'] / 1e6:.1f} MB besides",
    )
