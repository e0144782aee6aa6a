"""The memory check: what loading and running the model takes, and whether inferences leak.

Weighed in a fresh process by `edgecheck.runtime.memory`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecheck.declare.budget import Limit
from edgecheck.judge.verdict import Comparison, Outcome, Verdict, conclude
from edgecheck.units import format_bytes

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

# ONNX Runtime allocates by a plan from the second inference on, beside what the first took.
RUNS = 3
# A small leak shows through the steps of allocators only over many inferences.
GROWTH_RUNS = (20, 1000)
GROWTH_LIMIT_S = 3.0
CONFIDENCE = 0.99
_PARTS = 3


@dataclass(frozen=True)
class Growth:
    """How memory grows over repeated inference.

    Attributes:
        slope: bytes per inference, the median over all pairs of readings (Theil 1950, Sen 1968).
        low, high: its interval at `CONFIDENCE`, after Sen.
        sustained: bytes per inference that all the evidence supports: the interval's lower end, or
            the growth in a third of the series where that is less, but not below 0. Readings of
            memory stay where a step put them, which Sen's interval does not know of; a step that
            happens once (an allocator or a table that grew) is in one third only, a leak in all.
        inferences: that the series spans.
    """

    slope: float
    low: float
    high: float
    sustained: float
    inferences: int

    def sentence(self) -> str:
        """The evidence in words."""
        low, high = format_bytes(self.low), format_bytes(self.high)
        return (
            f"memory grows by {format_bytes(self.slope)} per inference ({CONFIDENCE:.0%} interval "
            f"{low} to {high}) over {self.inferences} inferences"
        )


def run(workbench: Workbench, case: Case) -> Verdict:
    """Weigh the candidate on one sample."""
    if sys.platform != "linux":
        return Verdict(
            Outcome.NOT_CHECKED,
            reason=f"memory is read from Linux's /proc, which {sys.platform} has not",
        )
    measured = workbench.device.measure_memory(
        case.target,
        workbench.loadable(case),
        runs=RUNS,
        growth_runs=GROWTH_RUNS,
        growth_limit_s=GROWTH_LIMIT_S,
    )
    return judge(measured, case.limits())


def growth(inferences: Sequence[int], held_bytes: Sequence[int]) -> Growth:
    """The growth of a series: memory held, in bytes, after so many inferences (increasing).

    Raises:
        ValueError: there are too few readings to cut into thirds.
    """
    from scipy.stats import theilslopes

    if len(held_bytes) <= _PARTS:
        raise ValueError(f"{len(held_bytes)} readings are too few to tell growth")
    counts, held = np.asarray(inferences, np.float64), np.asarray(held_bytes, np.float64)
    slope, _, low, high = (float(value) for value in theilslopes(held, counts, CONFIDENCE))
    borders = np.linspace(0, len(held) - 1, _PARTS + 1).round().astype(int)
    parts = [
        (held[end] - held[start]) / (counts[end] - counts[start])
        for start, end in itertools.pairwise(borders)
    ]
    sustained = max(0.0, float(min(low, *parts)))
    return Growth(slope, low, high, sustained, int(counts[-1] - counts[0]))


def judge(measured: Mapping[str, Any], limits: Mapping[str, Limit]) -> Verdict:
    """Hold what was weighed (see `edgecheck.runtime.memory.measure`) against limits in bytes."""
    grown = growth(measured["inferences"], measured["held_bytes"])
    values = {
        "peak_memory": measured["peak_bytes"],
        "load_memory": measured["load_bytes"],
        "steady_memory": measured["steady_bytes"],
        "memory_growth": grown.sustained,
    }
    comparisons = [
        Comparison(limits[name], value) for name, value in values.items() if name in limits
    ]
    mapped = measured["mapped_bytes"]
    verdict = conclude(
        comparisons=comparisons,
        measurements={
            "peak_memory_bytes": measured["peak_bytes"],
            "load_memory_bytes": measured["load_bytes"],
            "loaded_memory_bytes": measured["loaded_bytes"],
            "steady_memory_bytes": measured["steady_bytes"],
            "runtime_memory_bytes": measured["runtime_bytes"],
            "memory_growth_bytes_per_inference": grown.slope,
            "memory_growth_interval_bytes_per_inference": [grown.low, grown.high],
            "sustained_memory_growth_bytes_per_inference": grown.sustained,
            "weights_mapped": mapped > 0,
            "mapped_bytes": mapped,
            "mapped_resident_bytes": measured["mapped_resident_bytes"],
            "runtime_reported": dict(measured["reported"]),
            "growth_inferences": list(measured["inferences"]),
            "growth_held_bytes": list(measured["held_bytes"]),
        },
        details=f"the empty runtime takes {measured['runtime_bytes'] / 1e6:.1f} MB besides; "
        f"{grown.sentence()}",
    )
    failures = tuple(
        f"{line}: {grown.sentence()}" if line.startswith("memory_growth") else line
        for line in verdict.failures
    )
    return replace(verdict, failures=failures, reason=failures[0] if failures else "")
