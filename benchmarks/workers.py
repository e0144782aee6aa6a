"""The bundled matrix by two xdist workers against one process, each with an empty cache.

Not for what edgecheck costs against doing the same by hand: that is `benchmarks.matrix`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import (
    PLUGIN,
    ROOT,
    BenchmarkError,
    Finished,
    Row,
    at_least,
    environment,
    pytest,
    python,
    told,
)

FASTER = 1.6
WORKERS = 2
# A shared machine's speed drifts from minute to minute: the times of several turns are added.
TURNS = 3
QUICK_SUITES = ("test_series.py",)
# Nearly all of their time is conversions; timing, which is one at a time, is not among them.
CONVERSIONS = "export,parity"
_LIBRARIES = "torch, onnxruntime.quantization, onnxscript, litert_torch, ai_edge_quantizer"


@dataclass(frozen=True)
class Judged:
    """A finished run and its verdicts by node id and check."""

    run: Finished
    verdicts: dict[tuple[str, str], str]


def measure(quick: bool) -> list[Row]:
    """Run the suites in one process and by workers; the conversions alone, and all checks."""
    suites = [
        path
        for path in sorted((ROOT / "suites").glob("test_*.py"))
        if not quick or path.name in QUICK_SUITES
    ]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        # Not timed: the first run shall not be the one that reads the libraries from disk.
        python(["-c", f"import {_LIBRARIES}"], cwd=ROOT, env=environment(TMPDIR=directory))
        conversions = [
            _pair(suites, place, f"conversions {turn}", f"--edge-checks={CONVERSIONS}")
            for turn in range(1 if quick else TURNS)
        ]
        everything = _pair(suites, place, "all checks")
    alone, workers = everything
    return [
        at_least(
            f"-n {WORKERS} over -n 0, export and parity: times as fast",
            _speed(conversions),
            FASTER,
            "x",
        ),
        *_times(conversions),
        Row(f"-n {WORKERS} over -n 0, all checks: times as fast", f"{_speed([everything]):.3g} x"),
        *_times([everything]),
        _sameness("latency verdicts", alone, workers, "latency"),
        _sameness("verdicts of other checks", alone, workers, ""),
    ]


def _pair(suites: list[Path], place: Path, what: str, *options: str) -> tuple[Judged, Judged]:
    found = []
    for count in (0, WORKERS):
        with told(f"workers: {what}, -n {count}"):
            found.append(_judge(suites, place, f"{what.replace(' ', '-')}-{count}", count, options))
    alone, workers = found
    if set(alone.verdicts) != set(workers.verdicts):
        raise BenchmarkError("one process and the workers judged different cases")
    return alone, workers


def _judge(
    suites: list[Path], place: Path, name: str, count: int, options: tuple[str, ...]
) -> Judged:
    report = place / f"{name}.json"
    run = pytest(
        [
            *PLUGIN,
            *("-p", "xdist.plugin", "-n", str(count), "-q"),
            *map(str, suites),
            *("--edge-targets=ort,tflite", f"--edge-cache={place / name}"),
            f"--edge-json={report}",
            *options,
        ],
        cwd=ROOT,
        env=environment(TMPDIR=str(place)),
    )
    cases = json.loads(report.read_text())["cases"]
    return Judged(run, {(case["nodeid"], case["check"]): case["verdict"] for case in cases})


def _speed(turns: Sequence[tuple[Judged, Judged]]) -> float:
    return sum(alone.run.wall_s for alone, _ in turns) / sum(
        workers.run.wall_s for _, workers in turns
    )


def _times(turns: Sequence[tuple[Judged, Judged]]) -> list[Row]:
    return [
        Row(
            f"  -n {count}",
            f"{sum(item.run.wall_s for item in runs) / len(runs):.1f} s "
            f"({sum(item.run.cpu_s for item in runs) / len(runs):.1f} s CPU)",
        )
        for count, runs in zip((0, WORKERS), zip(*turns, strict=True), strict=True)
    ]


def _sameness(what: str, alone: Judged, workers: Judged, check: str) -> Row:
    """How many verdicts of a check, or of all but latency, are the same in both runs."""
    cases = [case for case in alone.verdicts if (case[1] == "latency") == (check == "latency")]
    same = sum(alone.verdicts[case] == workers.verdicts[case] for case in cases)
    return Row(f"  {what} that are the same", f"{same} of {len(cases)}", "all", same == len(cases))
