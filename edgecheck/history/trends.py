"""Trends of numbers in the history: their series, and where their level shifted."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.errors import HistoryError
from edgecheck.history.change_points import ChangePoint, find_change_points
from edgecheck.history.database import History, Point
from edgecheck.history.metrics import HIGHER, METRICS, value_text
from edgecheck.history.results import RunResults, fingerprint

# One number a check that people look at; all others are in the database.
FOLLOWED = ("size_bytes", "sqnr_db", "accuracy", "latency_p50_ms", "peak_memory_bytes")
# Fewer points are not a trend.
LEAST_POINTS = 5


@dataclass(frozen=True)
class Shift:
    """A number of a case whose level shifted.

    Attributes:
        worse: whether for the worse.
        point: the first of the new level.
        last_before, first_after: between these points' commits lies the cause.
    """

    key: str
    metric: str
    subject: str
    worse: bool
    found: ChangePoint
    point: Point
    last_before: Point
    first_after: Point

    def lines(self) -> list[str]:
        """For a person: what, by how much, since when."""
        label = f"{self.metric} {self.subject}".strip()
        before, after = (
            value_text(self.metric, value) for value in (self.found.before, self.found.after)
        )
        return [
            f"{'worse ' if self.worse else 'better'} {self.key} {label}: {before} -> {after}",
            f"       since {self.point.run.name}, {self.point.run.started[:16].replace('T', ' ')}; "
            f"commits {_commit(self.last_before)}..{_commit(self.first_after)}; "
            f"p = {self.found.p_value:.2g}",
        ]

    def as_data(self) -> dict[str, Any]:
        """Plain JSON data; ``before`` and ``after`` are in the metric's unit."""
        return {
            "key": self.key,
            "metric": self.metric,
            "subject": self.subject,
            "worse": self.worse,
            "before": self.found.before,
            "after": self.found.after,
            "p_value": self.found.p_value,
            "run": self.point.run.id,
            "started": self.point.run.started,
            "commits": [self.last_before.run.commit, self.first_after.run.commit],
        }


def _commit(point: Point) -> str:
    return point.run.commit[:10] or point.run.id[:8]


def shifts_in(
    history: History, keys: Sequence[str], *, metric: str, branch: str, limit: int
) -> Iterator[Shift]:
    """Where the numbers of cases shifted, each device by itself.

    Args:
        metric: a glob over metrics.
        branch: of the runs; "" for all.
        limit: of runs, the newest.
    """
    for key in keys:
        for name, subject, device in history.metrics_of(key):
            if name not in METRICS or not fnmatch.fnmatchcase(name, metric):
                continue
            if METRICS[name].of_device and not device:
                continue  # of any unknown device: no series
            points = history.series(key, name, subject, device=device, branch=branch, limit=limit)
            for found in find_change_points([item.value for item in points], METRICS[name]):
                higher_is_better = (METRICS[name].better or points[-1].better) == HIGHER
                yield Shift(
                    key,
                    name,
                    subject,
                    (found.after > found.before) != higher_is_better,
                    found,
                    points[found.position],
                    points[found.low],
                    points[found.high],
                )


def trends_in(history: str, results: RunResults) -> list[Trend]:
    """The trends of a run's followed numbers; none where there is no such history."""
    if not history:
        return []
    try:
        with History(history, create=False) as opened:
            return list(trends_of(opened, results))
    except HistoryError:
        return []


def trends_of(history: History, results: RunResults, *, limit: int = 100) -> Iterator[Trend]:
    """The trends of a run's followed numbers on their own device, on all branches.

    Those of time and memory are left out where the device is not known.

    Args:
        limit: of points each.
    """
    for case in results.cases.values():
        device = fingerprint(case.device)
        for reading in case.readings:
            of_device = METRICS[reading.metric].of_device
            # An unknown device would have the numbers of all in one series.
            if reading.metric in FOLLOWED and (device or not of_device):
                points = history.series(
                    case.key,
                    reading.metric,
                    reading.subject,
                    device=device if of_device else "",
                    limit=limit,
                )
                if len(points) >= LEAST_POINTS:
                    yield _trend(case.key, reading.metric, reading.subject, points)


def _trend(key: str, metric: str, subject: str, points: list[Point]) -> Trend:
    shifts = find_change_points([item.value for item in points], METRICS[metric])
    return Trend(
        key,
        metric,
        subject,
        tuple(
            TrendPoint(
                item.run.id, item.run.started, item.run.commit, item.value, item.low, item.high
            )
            for item in points
        ),
        tuple(item.position for item in shifts),
    )


@dataclass(frozen=True)
class TrendPoint:
    """A number in one run.

    Attributes:
        started: ISO 8601, UTC.
        commit: "" where it is not known.
        low, high: the number's confidence interval; None where it is exact or none is known.
    """

    run_id: str
    started: str
    commit: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Trend:
    """A number of a case over runs, the oldest first, all on one device.

    Attributes:
        key: the case's.
        metric: its name with its unit, as in `edgecheck.history.metrics.METRICS`.
        subject: the output that it is of, or "".
        shifts: ascending positions in `points`, each the first point of a new level.

    Raises:
        ValueError: a shift is not at a point that has one before it, or they do not ascend.
    """

    key: str
    metric: str
    subject: str
    points: tuple[TrendPoint, ...]
    shifts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if list(self.shifts) != sorted(set(self.shifts)) or not all(
            0 < position < len(self.points) for position in self.shifts
        ):
            raise ValueError(
                f"trend of {self.key} {self.metric}: shifts {self.shifts} are not ascending "
                f"positions within 1 to {len(self.points) - 1}"
            )

    def levels(self) -> tuple[float, ...]:
        """The median before the first shift, between shifts, and after the last."""
        edges = (0, *self.shifts, len(self.points))
        return tuple(
            _median([point.value for point in self.points[start:end]])
            for start, end in itertools.pairwise(edges)
            if end > start
        )

    def latest(self, count: int) -> Trend:
        """The last so many points; shifts before them are left out."""
        start = max(0, len(self.points) - count)
        shifts = tuple(position - start for position in self.shifts if position > start)
        return Trend(self.key, self.metric, self.subject, self.points[start:], shifts)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
