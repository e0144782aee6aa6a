"""False and missed regressions: the same file against itself, and against planted slowdowns.

Each comparison is the latency check's own, with its confirmation, in fresh processes; a slowdown is
a chain with one or two layers more. Once with the other cores idle, once with all of them busy.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import chain
from benchmarks.common import Row, told
from edgecheck.checks.latency import Timing, confirmed, duel
from edgecheck.declare.budget import Limit
from edgecheck.devices.local import Loadable, LocalDevice
from edgecheck.judge.verdict import Outcome
from edgecheck.process.lock import MachineLock, default_path
from edgecheck.process.parent import Pool
from edgecheck.targets.registry import find_target

# Comparisons with so many layers more, of chain.LAYERS, and how many of them may or must be found.
AA_COMPARISONS, AA_ALLOWED = 200, 1
PLANTED = {2: (100, 95), 1: (100, 70)}
LIMIT_S = 10.0
_COMBINATIONS = tuple(itertools.product(("ort", "tflite"), ("0.05 ms", "0.5 ms", "5 ms")))
_LIMIT = Limit("latency_vs_baseline", 1.0, "max", "x", "budget")
_BUSY = "import numpy\na = numpy.random.rand(1000, 1000)\nwhile True: a @ a"


@dataclass(frozen=True)
class Tally:
    """Outcomes of many comparisons of the same kind."""

    failed: int
    inconclusive: int
    count: int
    longest_s: float


def measure(quick: bool) -> list[Row]:
    """Count regressions that are found where there are none, and that are missed."""
    share = 0.03 if quick else 1.0
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        pool = Pool(place, 1)
        device = LocalDevice(pool, 300, MachineLock(default_path()), threads=1, cpus=())
        try:
            for busy in (False, True):
                state = "busy" if busy else "idle"
                with busy_cores() if busy else contextlib.nullcontext():
                    for layers, count, allowed, required in _plan(share):
                        with told(f"{count} comparisons, +{layers} layers, {state}"):
                            tally = _compare(device, place, layers, count)
                        rows += _rows(tally, layers, state, allowed, required)
        finally:
            pool.close()
    return rows


def _plan(share: float) -> Iterator[tuple[int, int, int | None, int]]:
    """Layers planted, comparisons, at most and at least so many of them found."""
    yield 0, round(AA_COMPARISONS * share), AA_ALLOWED, 0
    for layers, (count, required) in PLANTED.items():
        yield layers, round(count * share), None, round(required * share)


def _rows(tally: Tally, layers: int, state: str, allowed: int | None, required: int) -> list[Row]:
    found = f"{tally.failed} of {tally.count}"
    if allowed is not None:
        what = f"false regressions of a file against itself, other cores {state}"
        rows = [Row(what, found, f"<= {allowed}", tally.failed <= allowed)]
    else:
        what = f"planted slowdowns of {layers / chain.LAYERS:.0%} found, other cores {state}"
        rows = [Row(what, found, f">= {required}", tally.failed >= required)]
    what = f"- longest measuring of one attempt ({tally.inconclusive} inconclusive)"
    return [
        *rows,
        Row(what, f"{tally.longest_s:.1f} s", f"<= {LIMIT_S:g} s", tally.longest_s <= LIMIT_S),
    ]


def _compare(device: LocalDevice, place: Path, layers: int, count: int) -> Tally:
    outcomes: list[Outcome] = []
    longest_s = 0.0
    for (target, size), _ in zip(itertools.cycle(_COMBINATIONS), range(count)):
        candidate = chain.save(place, size, target, layers)
        baseline = chain.save(place, size, target)

        def attempt(
            target: str = target, candidate: Loadable = candidate, baseline: Loadable = baseline
        ) -> Timing:
            nonlocal longest_s
            with device.stopwatch(find_target(target)) as stopwatch:
                start = time.monotonic()
                timing = duel(stopwatch, candidate, baseline, _LIMIT, 1, LIMIT_S - 1)
                longest_s = max(longest_s, time.monotonic() - start)
            return timing

        timing = confirmed(attempt)
        outcomes.append(timing.comparisons[0].outcome)
        if outcomes[-1] is not (Outcome.FAILED if layers else Outcome.PASSED):
            figures = {key: timing.measurements[key] for key in ("ratio", "ratio_interval")}
            print(f"  {target} {size} +{layers}: {outcomes[-1]} {figures}", file=sys.stderr)
    return Tally(
        outcomes.count(Outcome.FAILED),
        outcomes.count(Outcome.INCONCLUSIVE),
        len(outcomes),
        longest_s,
    )


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Keep all cores but one busy with matrix products."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    hogs = [
        subprocess.Popen([sys.executable, "-c", _BUSY], env=environment)
        for _ in range(max(1, (os.cpu_count() or 1) - 1))
    ]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
