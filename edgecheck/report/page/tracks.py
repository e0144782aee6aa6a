"""Trends as the page embeds them: runs told once, numbers short, and shifts in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.history.metrics import HIGHER, METRICS
from edgecheck.history.trends import Trend
from edgecheck.report.page import figures

# Points of a series that are drawn; older ones are left out, which the page says.
POINTS = 100


@dataclass(frozen=True)
class Shift:
    """A change of level, as the page lists it.

    Attributes:
        commits: the range in which it happened: the last before and the first after.
        size: the change as a share of the level before; infinite from zero.
        direction: "worse", "better", or "" where the metric does not say.
    """

    key: str
    metric: str
    started: str
    commits: str
    before: str
    after: str
    change: str
    size: float
    direction: str


def shifts_of(trends: Sequence[Trend]) -> list[Shift]:
    """All shifts, the newest first."""
    found: list[Shift] = []
    for trend in trends:
        levels = trend.levels()
        for number, position in enumerate(trend.shifts):
            before, after = levels[number : number + 2]
            last, first = trend.points[position - 1 : position + 1]
            found.append(
                Shift(
                    key=trend.key,
                    metric=named(trend),
                    started=first.started,
                    commits=f"{_commit(last.commit)}..{_commit(first.commit)}",
                    before=figures.quantity(trend.metric, before),
                    after=figures.quantity(trend.metric, after),
                    change=_change(before, after),
                    size=_share(before, after),
                    direction=_direction(trend.metric, before, after),
                )
            )
    return sorted(found, key=lambda item: (item.started, abs(item.size)), reverse=True)


def _commit(commit: str) -> str:
    return commit[:10] or "?"


def _share(before: float, after: float) -> float:
    return (after - before) / abs(before) if before else math.copysign(math.inf, after - before)


def _change(before: float, after: float) -> str:
    share = _share(before, after)
    return f"{100 * share:+.3g} %" if math.isfinite(share) else "from zero"


def _direction(metric: str, before: float, after: float) -> str:
    better = METRICS[metric].better if metric in METRICS else ""
    if not better or before == after:
        return ""
    return "better" if (after > before) == (better == HIGHER) else "worse"


def named(trend: Trend) -> str:
    """The metric in words, with the output that it is of."""
    name = figures.label(trend.metric)
    return f"{name} of {trend.subject}" if trend.subject else name


def embedded(trends: Sequence[Trend]) -> dict[str, Any]:
    """Runs by position, and series that refer to them; those with shifts first."""
    runs: dict[str, list[Any]] = {}
    numbers: dict[str, int] = {}
    series = []
    for trend in sorted(trends, key=lambda item: (not item.shifts, item.key, item.metric)):
        shown = trend.latest(POINTS)
        for point in shown.points:
            if point.run_id not in runs:
                numbers[point.run_id] = len(runs)
                runs[point.run_id] = [point.run_id[:12], point.started, point.commit[:10]]
        levels = shown.levels()
        unit, factor = figures.scale(trend.metric, levels[-1] if levels else 0.0)
        series.append(
            {
                "key": trend.key,
                "metric": named(trend),
                "unit": unit,
                "left_out": len(trend.points) - len(shown.points),
                "runs": [numbers[point.run_id] for point in shown.points],
                "values": [_short(point.value, factor) for point in shown.points],
                "low": [_short(point.low, factor) for point in shown.points],
                "high": [_short(point.high, factor) for point in shown.points],
                "shifts": list(shown.shifts),
                "levels": [_short(level, factor) for level in levels],
            }
        )
    return {"runs": list(runs.values()), "series": series}


def _short(value: float | None, factor: float) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value / factor:.4g}")
