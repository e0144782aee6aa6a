"""Trends: a case's number over runs, with the places where its level shifted, as plain values.

Not for finding shifts, nor for reading a history: whoever shows a report brings both.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


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
                f"trend of {self.key} {self.metric}: shifts {self.shifts} are no ascending "
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
