"""What a run is held against besides its limits: a baseline, and the failures that were accepted.

Plain values, the same in all processes of a run.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgecheck.history.compare import CaseComparison, RunComparison, compare_case, compare_runs
from edgecheck.history.metrics import METRICS, Metric
from edgecheck.history.results import (
    CaseResult,
    Reading,
    RunInfo,
    RunResults,
    case_result,
    case_results,
)
from edgecheck.history.waivers import Waiver


@dataclass(frozen=True)
class Past:
    """The past of a run.

    Attributes:
        baseline: the run to compare with, or None.
        records: of its cases that may be taken over, by key.
        metrics: what is followed, with the least changes that count.
        fail_on: what else fails (see `edgecheck.plugin.options.FAIL_ON`).
        today: the day of waivers, in UTC.
    """

    baseline: RunResults | None = None
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=lambda: METRICS)
    fail_on: frozenset[str] = frozenset()
    waivers: tuple[Waiver, ...] = ()
    today: datetime.date = datetime.date.min

    def compare(self, record: Mapping[str, Any]) -> CaseComparison | None:
        """A case's record against the baseline's; None where that has no such case."""
        before = self.baseline.cases.get(record["key"]) if self.baseline else None
        return compare_case(before, case_result(record), self.metrics) if before else None

    def compare_all(
        self, records: Sequence[Mapping[str, Any]], run: RunInfo
    ) -> RunComparison | None:
        """A run's records against the baseline."""
        if self.baseline is None:
            return None
        return compare_runs(self.baseline, RunResults(run, case_results(records)), self.metrics)


def as_data(past: Past) -> dict[str, Any]:
    """The past as plain data, to be sent to workers; what options say is not part of it."""
    baseline = past.baseline
    return {
        "baseline": baseline
        and {
            "run": asdict(baseline.run),
            "cases": [asdict(item) for item in baseline.cases.values()],
            "earlier": {key: asdict(run) for key, run in baseline.earlier.items()},
        },
        "records": dict(past.records),
        "waivers": [{**asdict(item), "expires": str(item.expires)} for item in past.waivers],
        "today": str(past.today),
    }


def from_data(
    data: Mapping[str, Any], metrics: Mapping[str, Metric], fail_on: frozenset[str]
) -> Past:
    """The past that `as_data` was given."""
    return Past(
        _results(data["baseline"]) if data["baseline"] else None,
        data["records"],
        metrics,
        fail_on,
        tuple(
            Waiver(**{**item, "expires": datetime.date.fromisoformat(item["expires"])})
            for item in data["waivers"]
        ),
        datetime.date.fromisoformat(data["today"]),
    )


def _results(data: Mapping[str, Any]) -> RunResults:
    cases = {}
    for item in data["cases"]:
        readings = tuple(Reading(**reading) for reading in item["readings"])
        cases[item["key"]] = CaseResult(**{**item, "readings": readings})
    earlier = {key: _run(item) for key, item in data["earlier"].items()}
    return RunResults(_run(data["run"]), cases, earlier)


def _run(data: Mapping[str, Any]) -> RunInfo:
    """Of a run in the history its other fields are left out."""
    return RunInfo(**{name: data[name] for name in RunInfo.__dataclass_fields__})
