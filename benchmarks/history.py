"""The history with a million measurements: two runs compared, and a long series.

On SQLite and PostgreSQL. Whether many writers lose nothing is no matter of time: the tests show it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import BenchmarkError, Row, at_most, environment, python
from edgecheck.history.database import History
from tests.history import postgresql

CASES = 2000
MEASURED = (
    *("latency_p50_ms", "latency_p95_ms", "latency_p99_ms"),
    *("first_inference_ms", "throughput_per_s"),
)
RUNS, QUICK_RUNS = 100, 24
# Earlier ones of few cases, so that some have a series of more than POINTS.
SMALL_RUNS, SMALL_CASES = 490, 10
POINTS = 500
COMPARE_LIMIT_S, SERIES_LIMIT_MS = 1.0, 100.0
POSTGRESQL_RATIO = 2.0
REPEATS, QUICK_REPEATS = 7, 3
DEVICE = {"system": "Linux", "machine": "x86_64", "cpu": "A CPU", "cores": 4, "threads": 1}
# What a command does, in a process that has opened nothing yet.
_COMMAND = """
import json, sys, time
start = time.perf_counter()
from edgecheck.history.database import History
from edgecheck.history.baseline import find_run
from edgecheck.history.compare import compare_runs
from edgecheck.history.metrics import METRICS
from pathlib import Path
url, before, after, key, points = sys.argv[1:]
imported = time.perf_counter()
with History(url, create=False) as history:
    first, last = (find_run(f"run:{name}", history, Path.cwd()) for name in (before, after))
    results = history.results(first), history.results(last, spreads=False)
    found = compare_runs(*results, METRICS)
    compared = time.perf_counter()
    series = history.series(key, "latency_p50_ms", limit=int(points))
    drawn = time.perf_counter()
print(json.dumps({
    "import_s": imported - start, "compare_s": compared - imported, "series_s": drawn - compared,
    "cases": len(found.cases), "points": len(series), "regressions": len(found.regressions),
}))
"""


def measure(quick: bool) -> list[Row]:
    """Fill each database, then time commands in new processes."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        local = _timed(str(place / "history.db"), place, quick)
        rows = _rows("SQLite", local)
        if reason := postgresql.missing():
            return [*rows, Row("the history on PostgreSQL", reason, "measured", ok=False)]
        with postgresql.server() as server:
            remote = _timed(server.new_database(), place, quick)
    rows += _rows("PostgreSQL", remote)
    for what, value in _figures(local).items():
        ratio = _figures(remote)[what] / value
        rows.append(at_most(f"  {what}: PostgreSQL over SQLite", ratio, POSTGRESQL_RATIO, "x"))
    return rows


@dataclass(frozen=True)
class _Timed:
    """What was stored, and the median times of commands, in seconds."""

    measurements: int
    fill_s: float
    command_s: float
    import_s: float
    compare_s: float
    series_s: float


def _figures(timed: _Timed) -> dict[str, float]:
    return {"compare": timed.compare_s, "series": timed.series_s}


def _rows(name: str, timed: _Timed) -> list[Row]:
    title = f"{name}, {timed.measurements:,} measurements"
    return [
        Row(f"{title}: storing them", f"{timed.measurements / timed.fill_s:,.0f} /s"),
        at_most(
            f"{title}: compare two runs of {CASES:,} cases",
            timed.compare_s,
            COMPARE_LIMIT_S,
            "s",
        ),
        Row("  importing the history before that", f"{timed.import_s:.3g} s"),
        Row("  the whole process", f"{timed.command_s:.3g} s"),
        at_most(f"{title}: series of {POINTS} points", 1e3 * timed.series_s, SERIES_LIMIT_MS, "ms"),
    ]


def _timed(url: str, place: Path, quick: bool) -> _Timed:
    start = time.perf_counter()
    names, key, stored = _fill(url, QUICK_RUNS if quick else RUNS)
    fill_s = time.perf_counter() - start
    arguments = ["-c", _COMMAND, url, *names, key, str(POINTS)]
    found, walls = [], []
    for _ in range(QUICK_REPEATS if quick else REPEATS):
        finished = python(arguments, cwd=place, env=environment())
        found.append(json.loads(finished.output))
        walls.append(finished.wall_s)
    for item in found:
        if (item["cases"], item["points"]) != (CASES, POINTS):
            raise BenchmarkError(f"{item} has not {CASES} cases and {POINTS} points")
    medians = [
        statistics.median(item[name] for item in found)
        for name in ("import_s", "compare_s", "series_s")
    ]
    return _Timed(stored, fill_s, statistics.median(walls), *medians)


def _fill(url: str, runs: int) -> tuple[list[str], str, int]:
    """Store the runs; the ids of two, the key of a case with a long series, all measurements."""
    rng = np.random.default_rng(0)
    keys = [f"model{number}/ort/fp32/latency" for number in range(CASES)]
    levels = rng.uniform(0.1, 50.0, (CASES, len(MEASURED)))
    stored = 0
    with History(url) as history:
        for number in range(SMALL_RUNS + runs):
            count = SMALL_CASES if number < SMALL_RUNS else CASES
            values = levels[:count] * rng.normal(1.0, 0.05, (count, len(MEASURED)))
            history.add(_document(number, keys[:count], values))
            stored += values.size
    last = SMALL_RUNS + runs - 1
    return [_run_id(last - 1), _run_id(last)], keys[0], stored


def _run_id(number: int) -> str:
    return f"{number:016x}"


def _document(number: int, keys: list[str], values: npt.NDArray[np.float64]) -> dict[str, Any]:
    started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    return {
        "run": {
            "id": _run_id(number),
            "started": started.isoformat(),
            "git": {"commit": f"{number:040x}", "branch": "main", "dirty": False},
        },
        "gate": {"verdict": "passed"},
        "cases": [
            {
                "key": key,
                "verdict": "passed",
                "reason": "",
                "expected_failure": None,
                "artifact": {"sha256": f"{number:064x}"},
                "device": DEVICE,
                "measurements": dict(zip(MEASURED, row, strict=True)),
            }
            for key, row in zip(keys, values.tolist(), strict=True)
        ],
    }
