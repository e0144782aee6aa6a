"""The latency check: time of single inferences after warm-up, against the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecheck.budget import Limit
from edgecheck.devices.local import THREADS
from edgecheck.verdict import Comparison, Verdict, conclude

if TYPE_CHECKING:
    from edgecheck.case import Case
    from edgecheck.workbench import Workbench

WARMUP_RUNS = 20
RUNS = 200
# Slow models stop after this long; ten runs are made in any case.
LIMIT_S = 10.0


def run(workbench: Workbench, case: Case) -> Verdict:
    """Time the candidate on one sample."""
    session = workbench.session(case)
    assert session.binding is not None
    samples_ns = session.measure_latency(
        workbench.single_feed(case), warmup=WARMUP_RUNS, runs=RUNS, limit_s=LIMIT_S
    )
    return judge(samples_ns, case.limits(), batch=session.binding.batch or 1)


def judge(samples_ns: Sequence[int], limits: Mapping[str, Limit], *, batch: int) -> Verdict:
    """Hold the statistics of wall times in nanoseconds against their limits."""
    times_ms = np.asarray(samples_ns, dtype=np.float64) / 1e6
    statistics: dict[str, float] = {
        "latency_mean": float(times_ms.mean()),
        "latency_std": float(times_ms.std(ddof=1)) if times_ms.size > 1 else 0.0,
        "latency_min": float(times_ms.min()),
        "latency_max": float(times_ms.max()),
        "latency_p50": float(np.percentile(times_ms, 50)),
        "latency_p95": float(np.percentile(times_ms, 95)),
        "latency_p99": float(np.percentile(times_ms, 99)),
    }
    mean_ms = statistics["latency_mean"]
    throughput = 1e3 * batch / mean_ms if mean_ms else math.inf
    measurements: dict[str, Any] = {
        **{f"{name}_ms": value for name, value in statistics.items()},
        "throughput_per_s": throughput,
        "batch": batch,
        "threads": THREADS,
        "warmup_runs": WARMUP_RUNS,
        "samples_ns": list(samples_ns),
    }
    measured = {**statistics, "throughput": throughput}
    return conclude(
        comparisons=[
            Comparison(limits[name], value) for name, value in measured.items() if name in limits
        ],
        measurements=measurements,
        details=f"{len(samples_ns)} runs after {WARMUP_RUNS} warm-up runs, {THREADS} thread",
    )
