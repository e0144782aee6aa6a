"""Runs that are killed or cancelled at a random moment: what they leave, and what they claim."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from edgecheck.history.database import History
from tests.conftest import write_tiny
from tests.hostile.mutants import left_in

ROOT = Path(__file__).parents[2]
SUITE = """
from tiny_models import *


class TestTiny(Conformance):
    model = file_model(calibration=inputs, evaluation=FILE_EVALUATION)
"""
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_GRACE_S = 30.0


def run(count: int, seed: int, folder: Path) -> list[str]:
    """Stop that many runs, which share a cache and a history; return what must not be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny(folder)
    (folder / "test_suite.py").write_text(SUITE)
    temporary = folder / "temporary"
    temporary.mkdir()
    started = time.monotonic()
    process = _start(folder, temporary, workers=0)
    output, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        return [f"the run that nobody stopped fails: {output[-1000:]}"]
    whole_s, rng = time.monotonic() - started, random.Random(seed)
    problems = []
    for number in range(count):
        stop, workers = rng.choice(_STOPS), rng.choice((0, 2))
        group, moment_s = rng.random() < 0.5, rng.uniform(0.1, 1.1 * whole_s)
        name = f"{number}: {stop.name} after {moment_s:.2f} s" + " over workers" * bool(workers)
        problems += [
            f"{name}: {text}"
            for text in _stopped(folder, temporary, stop, moment_s, workers, group=group)
        ]
        if sys.stderr.isatty() or number % 10 == 9:
            print(f"{number + 1} of {count} runs stopped", file=sys.stderr, flush=True)
    return [*problems, *_aftermath(folder, temporary)]


def _start(folder: Path, temporary: Path, workers: int) -> subprocess.Popen[str]:
    (folder / "edge.json").unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("--edge-targets=ort", "--edge-precisions=fp32,int8", "--edge-checks=export,parity"),
        *("--edge-json=edge.json", "--edge-history=history.db", "--edge-cache=cache"),
        *(f"--edge-lock={folder / 'lock'}", *(["-n", str(workers)] if workers else [])),
    ]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        **{"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
    }
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _stopped(
    folder: Path,
    temporary: Path,
    stop: signal.Signals,
    moment_s: float,
    workers: int,
    *,
    group: bool,
) -> list[str]:
    before = {*left_in(temporary)}  # of runs that SIGKILL ended; those of the last minute stay
    process = _start(folder, temporary, workers)
    try:
        output, _ = process.communicate(timeout=moment_s)
    except subprocess.TimeoutExpired:
        (os.killpg if group else os.kill)(process.pid, stop)
        try:
            output, _ = process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return [f"it hangs: no end within {_GRACE_S:g} s"]
    found = [*_claims(folder, process.returncode, output)]
    if "INTERNALERROR" in output:
        found.append(f"internal error: {output[-800:]}")
    if alive := _alive(temporary):
        found.append(f"{len(alive)} processes live on: {alive}")
    # SIGKILL and a Python that does not yet listen die at once: the next run cleans up after them.
    left = {*left_in(temporary)} - before
    if left and process.returncode != -stop:
        found.append(f"left behind: {sorted(left)}")
    return found


def _claims(folder: Path, status: int, output: str) -> list[str]:
    """What the run says of itself that is not so."""
    path = folder / "edge.json"
    report = json.loads(path.read_text()) if path.exists() else None
    cases = report["cases"] if report is not None else []
    whole = bool(cases) and all(item["verdict"] == "passed" for item in cases)
    if status == 0 and not whole:
        return [f"it says that all is well: {output[-500:]}"]
    if report is not None and report["gate"]["verdict"] == "passed" and not whole:
        return ["its report says that the gate passed"]
    return []


def _alive(temporary: Path) -> list[int]:
    """The processes whose temporary files lie there, after a second to end."""
    mark = f"TMPDIR={temporary}".encode()
    for _ in range(20):
        alive = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes():
                    alive.append(int(path.parent.name))
            except OSError:
                continue
        if not alive:
            return []
        time.sleep(0.1)
    return alive


def _aftermath(folder: Path, temporary: Path) -> list[str]:
    """What is wrong after all of them: the next run passes, cleans up, and the history is whole."""
    old = time.time() - 3600
    for item in temporary.iterdir():
        os.utime(item, (old, old))
    process = _start(folder, temporary, workers=0)
    output, _ = process.communicate(timeout=300)
    problems = [] if process.returncode == 0 else [f"the next run fails: {output[-1000:]}"]
    if left := left_in(temporary):
        problems.append(f"the next run leaves behind: {left[:5]}")
    with History(str(folder / "history.db"), create=False) as history:
        for run in history.runs():
            if len(history.results(run).cases) != len(history.document(run.id)["cases"]):
                problems.append(f"run {run.id} is not whole in the history")
    return problems
