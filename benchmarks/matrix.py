"""The bundled matrix by edgecheck against the same work by hand, and a second run of it.

All three runs are made one after another on the same machine, so that their ratios mean something.
Edgecheck runs with its isolation as always: whatever it costs is in the ratio.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import (
    PLUGIN,
    ROOT,
    BenchmarkError,
    Finished,
    Row,
    at_most,
    environment,
    pytest,
    python,
    told,
)

COLD_LIMIT = 1.25
WARM_LIMIT_PERCENT = 25.0
QUICK_SUITES = ("test_series.py",)
_LIBRARIES = "torch, onnxruntime.quantization, onnxscript, litert_torch, ai_edge_quantizer"


def measure(quick: bool) -> list[Row]:
    """Run the script, edgecheck with an empty cache, and edgecheck again."""
    suites = [
        path
        for path in sorted((ROOT / "suites").glob("test_*.py"))
        if not quick or path.name in QUICK_SUITES
    ]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        env = environment(TMPDIR=directory)
        # Not timed: neither of the two shall be the one that reads the libraries from disk.
        python(["-c", f"import {_LIBRARIES}"], cwd=ROOT, env=env)
        with told("matrix by the plain script"):
            script, by_script = _script(suites, place, env)
        with told("matrix by edgecheck, cold"):
            cold, by_edgecheck = _edgecheck(suites, place, env, "cold")
        with told("matrix by edgecheck, warm"):
            warm, _ = _edgecheck(suites, place, env, "warm", "--edge-checks=export,parity,accuracy")
    return [
        at_most(
            "bundled matrix, edgecheck cold over plain script",
            cold.wall_s / script.wall_s,
            COLD_LIMIT,
            "x",
        ),
        Row("  edgecheck cold", _times(cold)),
        Row("  plain script", _times(script)),
        *_sameness(by_script["judged"], by_edgecheck),
        *(
            Row(f"  plain script: {phase}", f"{seconds:.1f} s")
            for phase, seconds in by_script["seconds"].items()
        ),
        *(
            Row(f"  edgecheck: {check} checks", f"{seconds:.1f} s")
            for check, seconds in _seconds_by_check(by_edgecheck).items()
        ),
        at_most(
            "second run, three checks, over the cold one",
            100 * warm.wall_s / cold.wall_s,
            WARM_LIMIT_PERCENT,
            "%",
        ),
        Row("  edgecheck warm", _times(warm)),
    ]


def _script(
    suites: list[Path], place: Path, env: dict[str, str]
) -> tuple[Finished, dict[str, Any]]:
    result = place / "script.json"
    done = python(
        ["-m", "benchmarks.plain_script", str(result), *map(str, suites)], cwd=ROOT, env=env
    )
    return done, json.loads(result.read_text())


def _edgecheck(
    suites: list[Path], place: Path, env: dict[str, str], name: str, *options: str
) -> tuple[Finished, list[dict[str, Any]]]:
    report = place / f"{name}.json"
    done = pytest(
        [
            *PLUGIN,
            "-q",
            *map(str, suites),
            *("--edge-targets=ort,tflite", f"--edge-cache={place / 'cache'}"),
            f"--edge-json={report}",
            *options,
        ],
        cwd=ROOT,
        env=env,
    )
    return done, json.loads(report.read_text())["cases"]


def _times(run: Finished) -> str:
    return f"{run.wall_s:.1f} s ({run.cpu_s:.1f} s CPU)"


def _sameness(by_script: dict[str, Any], cases: list[dict[str, Any]]) -> list[Row]:
    """How many candidates both judged, and how many of their files are the same to the byte."""
    by_edgecheck = {
        case["nodeid"].partition("::")[2].replace("::test_export", ""): case["artifact"]["sha256"]
        for case in cases
        if case["check"] == "export"
    }
    if set(by_edgecheck) != set(by_script):
        raise BenchmarkError(
            "edgecheck and the script judged different candidates: "
            f"{sorted(set(by_edgecheck) ^ set(by_script))}"
        )
    same = sum(
        digest == by_script[candidate]["sha256"] for candidate, digest in by_edgecheck.items()
    )
    return [Row("  byte-identical model files", f"{same} of {len(by_edgecheck)}")]


def _seconds_by_check(cases: list[dict[str, Any]]) -> dict[str, float]:
    seconds: Counter[str] = Counter()
    for case in cases:
        seconds[case["check"]] += case["timings"]["duration_s"]
    return dict(seconds)
