"""Timing on the device: loading, the first inference, warm-up until steady, then raw samples.

Self-contained (standard library and NumPy), since it is sent to the device. It judges nothing: how
many rounds are needed is decided where the samples go, see `edgecheck.judge.latency_statistics`.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Infer = Callable[[], object]

# A sample lasts at least so many times what reading the clock costs: 1 % of error at most.
_CLOCK_COSTS = 100
_MAX_SAMPLES = 1000
# Warm-up: windows of this length, until two in a row bring no new minimum. At least so long: a
# processor's clock climbs slowly enough for each window to look like the last one.
_WINDOW_S = 0.002
_WARM_UP_LEAST_S = 0.03
_WARM_UP_LIMIT_S = 1.0
_STEADY = 0.99


def time_round(
    load: Sequence[Callable[[], Infer]], *, duration_s: float, blocks: int
) -> dict[str, Any]:
    """Load candidates afresh, warm them up, and sample them in turns.

    A fresh load gives fresh addresses, whose luck moves the time of one load by some per cent.

    Args:
        load: for each candidate a function that loads it and returns one inference.
        duration_s: of sampling, shared by the candidates; each block has two samples at least.
        blocks: how many turns each candidate gets.

    Returns:
        ``candidates``: for each a dict of ``load_ns``, ``first_ns`` and ``first_cpu_ns`` (the
        first inference after loading), ``warmup_runs``, ``steady``, ``calls_per_sample``, and
        ``blocks``, each with ``wall_ns`` and ``cpu_ns`` (of the calling thread), totals of
        ``calls_per_sample`` calls. Where no clock tells CPU time there is neither of
        ``first_cpu_ns`` and ``cpu_ns``. ``contention``: see `contention`.
    """
    before = contention()
    # Before the warm-up: collecting takes long enough for the processor to cool down again.
    gc.collect()
    gc.disable()
    try:
        timed = [_start(item) for item in load]
        # As many calls for all: reading the clocks is part of a sample, and must not tell two
        # apart.
        calls = max(found["calls_per_sample"] for _, found in timed)
        for _, found in timed:
            found["calls_per_sample"] = calls
        share_s = duration_s / (blocks * len(timed))
        for turn in range(blocks):
            # ABBA: what drifts is shared evenly.
            for infer, found in timed if turn % 2 == 0 else reversed(timed):
                found["blocks"].append(_sample(infer, calls, share_s))
    finally:
        gc.enable()
    return {
        "candidates": [found for _, found in timed],
        "contention": _difference(before, contention()),
    }


def _start(load: Callable[[], Infer]) -> tuple[Infer, dict[str, Any]]:
    start = time.perf_counter_ns()
    infer = load()
    loaded = time.perf_counter_ns()
    cpu = time.thread_time_ns()
    infer()
    first_cpu_ns = time.thread_time_ns() - cpu
    first_ns = time.perf_counter_ns() - loaded
    runs, steady, call_ns = _warm_up(infer, first_ns)
    return infer, {
        "load_ns": loaded - start,
        "first_ns": first_ns,
        "first_cpu_ns": first_cpu_ns,
        "warmup_runs": runs,
        "steady": steady,
        "calls_per_sample": max(1, -(-_CLOCK_COSTS * _clock_cost_ns() // max(1, call_ns))),
        "blocks": [],
    }


def _warm_up(infer: Infer, first_ns: int) -> tuple[int, bool, int]:
    """Run until steady; the number of runs, whether it got steady, and the time of one run."""
    clock = time.perf_counter_ns
    begun = clock()
    least, deadline = (begun + int(1e9 * item) for item in (_WARM_UP_LEAST_S, _WARM_UP_LIMIT_S))
    best, call_ns, runs, level = float("inf"), first_ns, 0, 0
    while level < 2 or clock() < least:
        calls = min(100, max(1, int(_WINDOW_S * 1e9 / max(1, call_ns))))
        window = []
        for _ in range(calls):
            start = clock()
            infer()
            window.append(clock() - start)
        runs += calls
        call_ns = int(np.median(window))
        level = level + 1 if call_ns >= _STEADY * best else 0
        best = min(best, call_ns)
        if clock() > deadline and runs >= 3:
            break
    return runs, level >= 2, call_ns


def _clock_cost_ns() -> int:
    clock = time.perf_counter_ns
    return int(np.median([-clock() + clock() for _ in range(101)]))


def _sample(infer: Infer, calls: int, duration_s: float) -> dict[str, list[int]]:
    wall_ns: list[int] = []
    cpu_ns: list[int] = []
    wall_clock, cpu_clock = time.perf_counter_ns, time.thread_time_ns
    deadline = wall_clock() + int(duration_s * 1e9)
    repeats = range(calls)
    end = 0
    while (end < deadline and len(wall_ns) < _MAX_SAMPLES) or len(wall_ns) < 2:
        cpu_start = cpu_clock()
        start = wall_clock()
        if calls == 1:
            infer()
        else:
            for _ in repeats:
                infer()
        end = wall_clock()
        cpu_ns.append(cpu_clock() - cpu_start)
        wall_ns.append(end - start)
    return {"wall_ns": wall_ns, "cpu_ns": cpu_ns}


def contention() -> dict[str, int]:
    """Counters of what other work does to this process; those that this system has.

    ``run_ns`` and ``wait_ns``: time that this process's threads ran, and waited for a core
    (/proc/PID/task/TID/schedstat); ``involuntary_switches``: getrusage(2), ``ru_nivcsw``;
    ``steal_ticks``: time that a hypervisor took from this machine (/proc/stat, proc(5)).
    """
    counters: dict[str, int] = {}
    try:
        import resource

        counters["involuntary_switches"] = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        stats = [item.read_text().split() for item in Path("/proc/self/task").glob("*/schedstat")]
        counters["run_ns"] = sum(int(item[0]) for item in stats)
        counters["wait_ns"] = sum(int(item[1]) for item in stats)
        counters["steal_ticks"] = int(Path("/proc/stat").read_text().split(maxsplit=9)[8])
    except (ImportError, OSError, IndexError, ValueError):
        pass  # another system, or a container that hides them
    return counters


def _difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after if name in before}


def cpus() -> list[int] | None:
    """The cores that this process may use; None where the system can't say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def frequency_mhz() -> float | None:
    """The cores' mean clock rate as the system states it; None where it does not."""
    files = list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    try:
        if files:
            return float(np.mean([int(item.read_text()) for item in files])) / 1e3
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        stated = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    except (OSError, ValueError):
        return None
    return float(np.mean(stated)) if stated else None
