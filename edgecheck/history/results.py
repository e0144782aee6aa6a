"""What is kept of a run: the numbers of its records that are followed, beside its verdicts.

The same values come from a JSON report and from the database.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgecheck.history.metrics import HIGHER, LOWER, METRICS

# A higher SQNR is not followed: errors of 1e-5 come and go with a runtime's order of summation.
ENOUGH_DB = 100.0


@dataclass(frozen=True)
class Reading:
    """One number of a case.

    Attributes:
        metric: its name with its unit (see `edgecheck.history.metrics.METRICS`).
        subject: the output that it is of, or "".
        better: "lower" or "higher".
        low, high: its confidence interval; None where it is exact or none is known.
        spread: how far it varied between past runs (standard deviation as a share of the value);
            None where that is not known.
    """

    metric: str
    subject: str
    value: float
    better: str
    low: float | None = None
    high: float | None = None
    spread: float | None = None

    @property
    def place(self) -> tuple[str, str]:
        """What is measured: metric and subject."""
        return self.metric, self.subject


@dataclass(frozen=True)
class CaseResult:
    """What became of a case.

    Attributes:
        key: stable, see `edgecheck.report.record.identity`.
        accepted: why it does not close the gate though it did not pass, or "".
        device: what times and memory depend on (see `edgecheck.report.record.device`); {} where
            unknown.
        reused: whether its numbers were taken over from another run.
    """

    key: str
    verdict: str
    reason: str = ""
    accepted: str = ""
    artifact_sha256: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)
    readings: tuple[Reading, ...] = ()
    reused: bool = False


@dataclass(frozen=True)
class RunInfo:
    """Which run it was.

    Attributes:
        id: unique.
        started: ISO 8601, UTC.
        commit, branch: of the repository; "" outside one.
        dirty: whether files differed from the commit.
        gate: "passed" or "closed".
    """

    id: str
    started: str
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    gate: str = "passed"

    @property
    def name(self) -> str:
        """What people call it: id and commit, cut short."""
        commit = f", commit {self.commit[:10]}{'+' if self.dirty else ''}" if self.commit else ""
        return f"run {self.id[:8]}{commit}"


@dataclass(frozen=True)
class RunResults:
    """A run and its cases by key.

    Attributes:
        earlier: by key, the runs of those cases that the run itself did not judge.
    """

    run: RunInfo
    cases: Mapping[str, CaseResult]
    earlier: Mapping[str, RunInfo] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call it."""
        others = len({run.id for run in self.earlier.values()})
        plural = "s" if others > 1 else ""
        return self.run.name + (f" and {others} earlier run{plural}" if others else "")

    def run_of(self, key: str) -> RunInfo:
        """The run that judged a case."""
        return self.earlier.get(key, self.run)


def results_of(document: Mapping[str, Any]) -> RunResults:
    """The results in a JSON report (see `edgecheck.report.read`)."""
    return RunResults(run_info(document), case_results(document["cases"]))


def case_results(records: Iterable[Mapping[str, Any]]) -> dict[str, CaseResult]:
    """What is kept of records, by key; of those that share one, of the worst verdict.

    A test of the user's own may have parameters, and so several results of one key.
    """
    found: dict[str, CaseResult] = {}
    for item in records:
        known, result = found.get(item["key"]), case_result(item)
        if known is None or _badness(result) > _badness(known):
            found[result.key] = result
    return found


def _badness(result: CaseResult) -> int:
    return 0 if result.verdict == "passed" else 1 if result.accepted else 2


def run_info(document: Mapping[str, Any]) -> RunInfo:
    """Which run a JSON report is of."""
    run = document["run"]
    git = run["git"] or {}
    return RunInfo(
        run["id"],
        run["started"],
        git.get("commit") or "",
        git.get("branch") or "",
        bool(git.get("dirty")),
        document["gate"]["verdict"],
    )


def case_result(record: Mapping[str, Any]) -> CaseResult:
    """What is kept of a case's record."""
    artifact, device = record["artifact"] or {}, record.get("device")
    return CaseResult(
        key=record["key"],
        verdict=record["verdict"],
        reason=record["reason"],
        accepted=record["expected_failure"] or "",
        artifact_sha256=artifact.get("sha256", ""),
        reused=record.get("reused") is not None,
        device=device if isinstance(device, Mapping) else {},
        readings=tuple(sorted(_readings(record["measurements"]), key=lambda item: item.place)),
    )


def _readings(measurements: Mapping[str, Any]) -> Iterator[Reading]:
    for name, metric in METRICS.items():
        value = number(measurements.get(name))
        if value is not None:
            low, high = _interval(measurements, name)
            yield Reading(name, "", value, metric.better, low, high)
    outputs = measurements.get("outputs")  # the export check has a list of its own
    for output, values in outputs.items() if isinstance(outputs, Mapping) else ():
        if isinstance(values, Mapping):
            for name in ("sqnr_db", "top1_agreement"):
                value = number(values.get(name))
                if value is not None:
                    value = min(value, ENOUGH_DB) if name == "sqnr_db" else value
                    yield Reading(name, output, value, METRICS[name].better)
    value = number(measurements.get("candidate"))
    if value is not None and "higher_is_better" in measurements:
        better = HIGHER if measurements["higher_is_better"] else LOWER
        yield Reading("accuracy", str(measurements.get("metric", "")), value, better)


def _interval(measurements: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    """``latency_p50_ms`` has ``latency_p50_interval_ms``."""
    stem, _, unit = name.rpartition("_")
    bounds = measurements.get(f"{stem}_interval_{unit}")
    if not isinstance(bounds, list) or len(bounds) != 2:
        return None, None
    return number(bounds[0]), number(bounds[1])


def number(value: Any) -> float | None:
    """A finite number, or None: reports write infinities and NaN as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # JSON has integers of any length
        return None


def fingerprint(device: Mapping[str, Any]) -> str:
    """What tells devices apart whose numbers must not be mixed; "" where nothing is known."""
    if not device:
        return ""
    text = json.dumps(dict(device), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
