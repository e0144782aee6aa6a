"""Small runs for tests of the history, and processes that write them. Light to import."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

from edgecheck.history import report_file
from edgecheck.history.database import History
from edgecheck.history.results import RunInfo
from edgecheck.names import SCHEMA

DEVICE = {"system": "Linux", "cpu": "A CPU", "cores": 4, "threads": 1, "runtime": "ort 1.23"}
OTHER_DEVICE = {**DEVICE, "cpu": "Another CPU"}
LATENCY = {
    "latency_p50_ms": 2.0,
    "latency_p50_interval_ms": [1.9, 2.1],
    "latency_p95_ms": 3.0,
    "throughput_per_s": 500.0,
}


def case(key: str = "digits/ort/fp32/latency", **changes: Any) -> dict[str, Any]:
    """What the history reads of a case's record."""
    return {
        "key": key,
        "verdict": "passed",
        "reason": "",
        "expected_failure": None,
        "artifact": {"sha256": "a" * 64},
        "device": DEVICE,
        "measurements": LATENCY,
        **changes,
    }


def document(
    name: str = "run-0",
    cases: Sequence[dict[str, Any]] | None = None,
    *,
    hour: int = 0,
    branch: str = "main",
    commit: str = "c" * 40,
    gate: str = "passed",
) -> dict[str, Any]:
    """What the history reads of a run's report, started some hours after a fixed moment."""
    started = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=hour)
    git = {"commit": commit, "branch": branch, "dirty": False}
    return {
        "schema": SCHEMA,
        "run": {"id": name, "started": started.isoformat(timespec="seconds"), "git": git},
        "gate": {"verdict": gate},
        "cases": [case()] if cases is None else list(cases),
    }


def of_id(name: str) -> RunInfo:
    """A run to ask for by its id."""
    return RunInfo(name, "")


def many_cases(name: str, count: int) -> dict[str, Any]:
    """A run of so many cases, whose keys are half its own and half those of all runs."""
    owners = ("shared", name)
    return document(name, [case(f"{owners[n % 2]}-{n}/ort/fp32/latency") for n in range(count)])


def write_each(url: str, names: Sequence[str], barrier: Barrier, cases: int) -> None:
    """Write runs one by one, as so many commands of their own would, once all are ready."""
    barrier.wait(60)
    for name in names:
        with History(url) as history:
            history.add(many_cases(name, cases))


def write_for_ever(url: str, path: Path, name: str, cases: int) -> None:
    """Write runs to a JSON file and the history until someone ends this process."""
    number = 0
    while True:
        found = many_cases(f"{name}-{number}", cases)
        report_file.write(path, found)
        with History(url) as history:
            history.add(found)
        number += 1
