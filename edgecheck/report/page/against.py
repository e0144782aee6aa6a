"""The comparison with a baseline run, as the page lists it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.history.compare import CaseComparison, Change, Direction, RunComparison
from edgecheck.history.metrics import value_text
from edgecheck.report.comparison import change_text, needed_text
from edgecheck.report.page import figures

_RECORDED = (("regressions", Direction.REGRESSION), ("improvements", Direction.IMPROVEMENT))
# Of each list; all changes are with their cases.
_LISTED = 200


@dataclass(frozen=True)
class Line:
    """A number that changed."""

    key: str
    metric: str
    before: str
    after: str
    change: str
    needed: str


@dataclass(frozen=True)
class Against:
    """What the page shows of a comparison.

    Attributes:
        worse: key, verdict before and verdict now.
        incomparable: a reason and how many cases have it.
        regressed: keys of all cases that got worse.
    """

    baseline: str
    started: str
    branch: str
    regressions: Sequence[Line]
    regression_count: int
    improvements: Sequence[Line]
    improvement_count: int
    worse: Sequence[tuple[str, str, str]]
    vanished: Sequence[str]
    new: Sequence[str]
    incomparable: Sequence[tuple[str, int]]
    regressed: frozenset[str]
    compared: int


def view(comparison: RunComparison) -> Against:
    """The comparison in words, the largest changes first."""
    regressions, improvements = comparison.regressions, comparison.improvements
    return Against(
        baseline=comparison.before.name,
        started=comparison.before.started,
        branch=comparison.before.branch,
        regressions=_lines(regressions),
        regression_count=len(regressions),
        improvements=_lines(improvements),
        improvement_count=len(improvements),
        worse=comparison.worse_verdicts,
        vanished=comparison.vanished,
        new=comparison.new,
        incomparable=[(why, len(keys)) for why, keys in comparison.incomparable.items()],
        regressed=frozenset(
            key for key, case in comparison.cases.items() if case.regressions or case.worse
        ),
        compared=sum(len(case.changes) for case in comparison.cases.values()),
    )


def recorded(record: Mapping[str, Any]) -> CaseComparison | None:
    """What a case's own record says of the baseline, where the whole comparison is not at hand."""
    found = record.get("regression")
    if not found:
        return None
    changes = [
        Change(
            key=record["key"],
            metric=item["metric"],
            subject=item["subject"],
            before=float(item["before"]),
            after=float(item["after"]),
            direction=direction,
            needed=item["needed"],
            share=item["share"],
        )
        for name, direction in _RECORDED
        for item in found.get(name, ())
    ]
    return CaseComparison(record["key"], tuple(changes))


def _lines(changes: Iterable[Change]) -> list[Line]:
    # How many times the least that counts: it makes shares and differences comparable.
    ordered = sorted(changes, key=lambda item: -abs(item.change) / max(item.needed, 1e-12))
    return [
        Line(
            item.key,
            figures.label(item.metric) + (f" of {item.subject}" if item.subject else ""),
            value_text(item.metric, item.before),
            value_text(item.metric, item.after),
            change_text(item),
            needed_text(item),
        )
        for item in ordered[:_LISTED]
    ]
