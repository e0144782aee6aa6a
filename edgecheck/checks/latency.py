"""The latency check: time of single inferences against the budget, fp32 and the last release.

Every attempt has a fresh process and the machine to itself (see `edgecheck.process.lock`). A limit
is judged on a confidence interval: while it lies within, more rounds are timed, up to a time limit,
and then anew in another process. A pass stands; a failure must be found twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecheck.declare.budget import Limit
from edgecheck.errors import ArtifactError, ChildError
from edgecheck.judge import operator_profile
from edgecheck.judge.latency_statistics import (
    OWN_WORK,
    Interval,
    Samples,
    quantile_interval,
    ratio_interval,
)
from edgecheck.judge.operator_profile import OperatorProfile
from edgecheck.judge.verdict import Comparison, Outcome, Verdict, conclude
from edgecheck.runtime.results import Profile

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.devices.local import Loadable, Stopwatch
    from edgecheck.workbench import Workbench

Rounds = list[dict[str, Any]]

ATTEMPTS = 3
_QUANTILES = {"latency_p50": 0.5, "latency_p95": 0.95, "latency_p99": 0.99}
_COLD = {"load_time", "first_inference"}
# Rounds of an attempt: short ones, each with a fresh load, then longer ones while a limit is open.
ROUNDS = 3
SHORT_S = 0.05
_LONG_S = 0.25
# A median known to 2 % is enough for what no limit asks about, and so is a second.
_PRECISE = 0.02
_ENOUGH_S = 1.0
# The smallest sample whose extremes bound its median with 95 % confidence: 1 - 2 / 2^6 = 0.97.
COLD_STARTS = 6
_SWEPT_BATCHES = (4, 16)
_SWEPT_S = 5.0
# The first, three to warm up, two samples.
_ROUND_INFERENCES = 6
# Of two candidates: under 2 % is not a regression, and 5 % must be excluded if noise hides
# 2 % for as long as may be measured; see docs/benchmarks.md for the error rates.
RESOLUTION = 0.02
COARSE_RESOLUTION = 0.05
PAIR_ROUNDS = 10
PAIR_ROUND_S = 0.12
PAIR_BLOCKS = 4


@dataclass(frozen=True)
class Timing:
    """What one attempt found."""

    comparisons: tuple[Comparison, ...]
    measurements: dict[str, Any]


def run(workbench: Workbench, case: Case) -> Verdict:
    """Time the candidate on one sample, alone and against what it must not be slower than."""
    limits = case.limits()
    timings = [confirmed(lambda: _time_alone(workbench, case, limits))]
    measurements = dict(timings[0].measurements)
    warnings = _warnings(measurements)
    for name, find in (("latency_vs_fp32", _float_rival), ("latency_vs_baseline", _baseline)):
        if name not in limits:
            continue
        rival = find(workbench, case)
        if isinstance(rival, str):
            warnings += [rival] if rival else []
            continue
        timings.append(confirmed(_duel(workbench, case, limits[name], rival)))
        measurements[name] = timings[-1].measurements
    verdict = conclude(
        comparisons=[item for timing in timings for item in timing.comparisons],
        warnings=warnings,
        measurements=measurements,
        details=_details(measurements),
    )
    if verdict.outcome is not Outcome.FAILED:
        return verdict
    found = _profile(workbench, case)
    return replace(
        verdict,
        measurements={**measurements, "profile": operator_profile.as_data(found)},
        details=f"{verdict.details}\n{operator_profile.table(found)}",
    )


def confirmed(attempt: Callable[[], Timing]) -> Timing:
    """What stands after up to `ATTEMPTS` attempts: the first pass, or a failure found twice."""
    timings: list[Timing] = []
    outcomes: list[Outcome] = []
    while len(timings) < ATTEMPTS:
        timings.append(attempt())
        outcomes.append(conclude(comparisons=timings[-1].comparisons).outcome)
        if outcomes[-1] is Outcome.PASSED or outcomes.count(Outcome.FAILED) == 2:
            break
    else:
        # No two agree that it fails: what is shown is an attempt that could not tell.
        timings.append(timings[outcomes.index(Outcome.INCONCLUSIVE)])
    found = timings[-1]
    tried = {"attempts": [str(outcome) for outcome in outcomes]}
    return replace(found, measurements={**found.measurements, **tried})


def _time_alone(workbench: Workbench, case: Case, limits: Mapping[str, Limit]) -> Timing:
    settings = workbench.settings
    candidate = workbench.loadable(case)
    batch = workbench.binding(case).batch or 1
    rounds: Rounds = []
    processes = COLD_STARTS if _COLD & set(limits) else 1
    for _ in range(processes - 1):
        with workbench.device.stopwatch(case.target) as stopwatch:
            rounds.append(stopwatch.round(candidate, duration_s=SHORT_S))
    with workbench.device.stopwatch(case.target) as stopwatch:
        start = time.monotonic()
        while True:
            duration_s = SHORT_S if len(rounds) < ROUNDS else _LONG_S
            rounds.append(stopwatch.round(candidate, duration_s=duration_s))
            samples = Samples.of(_sides(rounds, 0), settings.threads)
            elapsed_s = time.monotonic() - start
            final = elapsed_s > settings.timing_limit_s
            cold = _sides(rounds[:processes], 0)
            comparisons = judge(samples, cold, limits, batch=batch, final=final)
            if final or (len(rounds) >= ROUNDS and _is_enough(samples, comparisons, elapsed_s)):
                break
        sweep = _sweep(workbench, case, stopwatch, samples.quantile(0.5).value)
    measurements = {
        **_statistics(samples, batch),
        **_cold_statistics(cold),
        "batch": batch,
        "batches": sweep,
        **_conditions(rounds, settings.threads),
        "samples_ns": np.rint(samples.wall_ms * 1e6).astype(int).tolist(),
        "cpu_samples_ns": np.rint(samples.cpu_ms * 1e6).astype(int).tolist(),
    }
    return Timing(tuple(comparisons), measurements)


def _is_enough(samples: Samples, comparisons: Sequence[Comparison], elapsed_s: float) -> bool:
    """More rounds help an open limit, but for those of cold starts, which have only so many."""
    if any(
        item.outcome is Outcome.INCONCLUSIVE and item.limit.name not in _COLD
        for item in comparisons
    ):
        return False
    return elapsed_s > _ENOUGH_S or samples.quantile(0.5).width <= _PRECISE


def judge(
    samples: Samples,
    cold: Rounds,
    limits: Mapping[str, Limit],
    *,
    batch: int,
    final: bool,
) -> list[Comparison]:
    """Hold intervals of the statistics against their limits.

    Args:
        samples: of steady inferences.
        cold: the candidate's first round in each process, for load and first inference.
        final: whether no more samples are to come: a quantile that too few bound from above is
            then judged on the largest of them.
    """
    intervals = {name: samples.quantile(share) for name, share in _QUANTILES.items()}
    if final:
        largest = samples.largest().value
        intervals = {
            name: replace(item, high=min(item.high, largest)) for name, item in intervals.items()
        }
    mean = samples.mean()
    intervals |= {"latency_mean": mean, "latency_max": samples.largest()}
    intervals["throughput"] = Interval(
        *(1e3 * batch / value if value else math.inf for value in (mean.value, mean.high, mean.low))
    )
    intervals["load_time"] = _cold_interval(cold, "load_ns")
    intervals["first_inference"] = _cold_interval(cold, "first_ns", "first_cpu_ns")
    return [
        Comparison(limits[name], item.value, low=item.low, high=item.high)
        for name, item in intervals.items()
        if name in limits
    ]


def _cold_interval(cold: Rounds, wall: str, cpu: str = "") -> Interval:
    """The median over processes; bounded from below by CPU time as steady samples are."""
    wall_ms = np.array([item[wall] for item in cold]) / 1e6
    found = quantile_interval(wall_ms, 0.5)
    told = all(cpu in item for item in cold)
    cpu_ms = np.array([item[cpu] for item in cold]) / 1e6 if told else wall_ms
    if told and cpu_ms.min() > OWN_WORK * wall_ms.min():
        return replace(found, low=min(found.low, float(cpu_ms.min())))
    return found


def _statistics(samples: Samples, batch: int) -> dict[str, Any]:
    times_ms, mean = samples.wall_ms, samples.mean()
    found: dict[str, Any] = {
        "latency_mean_ms": mean.value,
        "latency_std_ms": float(times_ms.std(ddof=1)) if times_ms.size > 1 else 0.0,
        "latency_min_ms": float(times_ms.min()),
        "latency_max_ms": float(times_ms.max()),
        "throughput_per_s": 1e3 * batch / mean.value if mean.value else math.inf,
    }
    for name, share in _QUANTILES.items():
        interval = samples.quantile(share)
        found[f"{name}_ms"] = interval.value
        found[f"{name}_interval_ms"] = [interval.low, interval.high]
    return {**found, "cpu_p50_ms": float(np.median(samples.cpu_ms)) if samples.own_work else None}


def _cold_statistics(cold: Rounds) -> dict[str, Any]:
    return {
        "load_time_ms": float(np.median([item["load_ns"] for item in cold])) / 1e6,
        "first_inference_ms": float(np.median([item["first_ns"] for item in cold])) / 1e6,
        "cold_starts": len(cold),
    }


def _sweep(
    workbench: Workbench, case: Case, stopwatch: Stopwatch, single_ms: float
) -> list[dict[str, Any]]:
    """Throughput at other batch sizes, where the file takes them; reported, not judged.

    Args:
        single_ms: time of one sample; batches whose round would take too long are left out.
    """
    if workbench.binding(case).batch or not case.model.dynamic_batch:
        return []
    found: list[dict[str, Any]] = []
    for batch in _SWEPT_BATCHES:
        round_s = _ROUND_INFERENCES * batch * single_ms / 1e3
        if batch > case.model.dim_range("batch")[1] or round_s > _SWEPT_S:
            continue
        try:
            rounds = [stopwatch.round(workbench.loadable(case, batch), duration_s=SHORT_S)]
        except ChildError as error:
            return [*found, {"batch": batch, "error": str(error)}]
        p50_ms = Samples.of(_sides(rounds, 0), workbench.settings.threads).quantile(0.5).value
        found.append(
            {"batch": batch, "latency_p50_ms": p50_ms, "throughput_per_s": 1e3 * batch / p50_ms}
        )
    return found


def _float_rival(workbench: Workbench, case: Case) -> Loadable | str:
    if case.precision == "fp32":
        return ""
    rival = replace(case, precision="fp32")
    own, other = (workbench.binding(item).batch for item in (case, rival))
    if (other or own or 1) != (own or 1):
        raise ArtifactError(
            f"the fp32 candidate has batch {other or 1} and the {case.precision} one {own or 1}: "
            "their latencies can't be compared"
        )
    return workbench.loadable(rival, own or 1)


def _baseline(workbench: Workbench, case: Case) -> Loadable | str:
    return workbench.baseline(case) or (
        "latency_vs_baseline is not judged: Model.baselines has no file for "
        f"({case.target.name!r}, {case.precision!r})"
    )


def _duel(workbench: Workbench, case: Case, limit: Limit, rival: Loadable) -> Callable[[], Timing]:
    candidate, settings = workbench.loadable(case), workbench.settings

    def attempt() -> Timing:
        with workbench.device.stopwatch(case.target) as stopwatch:
            return duel(
                stopwatch, candidate, rival, limit, settings.threads, settings.timing_limit_s
            )

    return attempt


def duel(
    stopwatch: Stopwatch,
    candidate: Loadable,
    rival: Loadable,
    limit: Limit,
    threads: int,
    limit_s: float,
) -> Timing:
    """Time two candidates in turns until the ratio of their latencies keeps or breaks its limit."""
    rounds: Rounds = []
    start = time.monotonic()
    while True:
        pair = [candidate, rival]
        if len(rounds) % 2:
            pair.reverse()
        found = stopwatch.round(*pair, duration_s=PAIR_ROUND_S, blocks=PAIR_BLOCKS)
        if len(rounds) % 2:
            found["candidates"].reverse()
        rounds.append(found)
        if len(rounds) < PAIR_ROUNDS:
            continue
        interval = ratio_interval([item["candidates"] for item in rounds], threads)
        comparison = Comparison(
            limit, interval.value, low=interval.low, high=interval.high, resolution=RESOLUTION
        )
        if comparison.outcome is not Outcome.INCONCLUSIVE:
            break
        if time.monotonic() - start > limit_s:
            comparison = replace(comparison, resolution=COARSE_RESOLUTION)
            break
    medians = [
        float(np.median(Samples.of(_sides(rounds, side), threads).wall_ms)) for side in (0, 1)
    ]
    return Timing(
        (comparison,),
        {
            "ratio": interval.value,
            "ratio_interval": [interval.low, interval.high],
            "latency_p50_ms": medians[0],
            "rival_latency_p50_ms": medians[1],
            **_conditions(rounds, threads),
        },
    )


def _sides(rounds: Rounds, side: int) -> Rounds:
    """One candidate's part of each round."""
    return [item["candidates"][side] for item in rounds]


def _conditions(rounds: Rounds, threads: int) -> dict[str, Any]:
    """How it was measured, and what other work did to it."""
    first = _sides(rounds, 0)
    counters = [item["contention"] for item in rounds]
    totals = {
        name: sum(item[name] for item in counters)
        for name in counters[0]
        if all(name in item for item in counters)
    }
    busy_ns = totals.get("run_ns", 0) + totals.get("wait_ns", 0)
    return {
        "threads": threads,
        "cpus": rounds[0]["cpus"],
        "frequency_mhz": rounds[-1]["frequency_mhz"],
        "rounds": len(rounds),
        "warmup_runs": sum(item["warmup_runs"] for item in first),
        "steady": all(item["steady"] for item in first),
        "calls_per_sample": max(item["calls_per_sample"] for item in first),
        "wait_share": totals["wait_ns"] / busy_ns if busy_ns else None,
        "involuntary_switches": totals.get("involuntary_switches"),
        "steal_ticks": totals.get("steal_ticks"),
    }


def _warnings(measurements: Mapping[str, Any]) -> list[str]:
    if measurements["steady"]:
        return []
    return ["latency still fell after a second of warm-up: it may be lower than measured"]


def _details(measurements: Mapping[str, Any]) -> str:
    cpus = measurements["cpus"]
    lines = [
        f"{len(measurements['samples_ns'])} samples in {measurements['rounds']} rounds, each with "
        f"a fresh load; {measurements['threads']} thread(s)"
        + (f" on cores {', '.join(map(str, cpus))}" if cpus else "")
    ]
    if measurements["wait_share"] is not None:
        lines.append(
            f"it waited for a core {measurements['wait_share']:.1%} of its time and was put off "
            f"{measurements['involuntary_switches']} times"
        )
    if len(measurements["attempts"]) > 1:
        lines.append(f"attempts: {', '.join(measurements['attempts'])}")
    return "\n".join(lines)


def _profile(workbench: Workbench, case: Case) -> OperatorProfile:
    """Where the time goes, from a run of its own: a profiler slows what it watches."""
    try:
        profile = workbench.session(case).profile(workbench.single_feed(case))
    except ChildError as error:
        profile = Profile(note=str(error))
    return operator_profile.summarize(profile)
