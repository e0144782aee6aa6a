"""Change points: when the level of a series of values shifted.

Pure. Circular binary segmentation (Olshen, Venkatraman, Lucito & Wigler 2004): the place, or the
two places, where splitting the series explains most are looked for, then again in the parts, until
no split is significant. With three additions for measurements of software:

- Wild points are replaced by the running median (Hampel's identifier): one or two are not a shift.
- Neighbouring runs resemble each other, which makes any series look as if it shifted. Variances
  are those of means of such series, from the lag-1 correlation of what the levels leave; where
  that is much above 0.3, false shifts are more than `LEVEL` says.
- A shift counts if it is large, too: beyond the metric's `effect` and `floor`.

A step of values that otherwise repeat exactly (a file's size) is found once three points hold it. A
slow drift has no moment: it is told as one or more steps once it has gone far enough.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecheck.history.metrics import Metric

Values = NDArray[np.float64]
Edges = tuple[int, ...]

# Series without a shift in which one is seen, about: benchmarks/change_points.py counts them.
LEVEL = 0.01
# Points that hold a level before it counts, and before one that comes and goes does.
LEAST_POINTS = 3
_LEAST_EXCURSION = 5
# The share of LEVEL that is for shifts that stay.
_STAYING = 0.75
# From the running median, in standard deviations: one of 16,000 normal values is as far.
_WILD = 4.0
_WINDOW, _EXACT_WINDOW = 7, 5
# The median of absolute normal values, as a divisor.
_NORMAL_MEDIAN = 0.6745
# A few dozen points hardly tell the correlation, and one taken for too low finds shifts that are
# not there: it counts as if so many more points had shown this one.
_USUAL_CORRELATION, _USUAL_POINTS = 0.25, 100
# 95 % of the likelihood ratios of true change points are below -2 ln(1 - sqrt(0.95)) (Hansen 2000).
_RANGE_RATIO = 7.35
# Of a segment's sum of squares: less can't be told from rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ChangePoint:
    """A shift of a series' level.

    Attributes:
        position: index of the first point of the new level.
        before, after: the levels: medians back to the change point before, and on to the next.
        p_value: how often such noise without a shift looks as if it had one as clear as this.
        low, high: indices of the last point that is surely before the shift and of the first that
            is surely after it (95 %): its cause is a commit after that of `low`, up to `high`'s.
    """

    position: int
    before: float
    after: float
    p_value: float
    low: int
    high: int


def find_change_points(values: Sequence[float] | Values, metric: Metric) -> tuple[ChangePoint, ...]:
    """Where a series shifted, in order; deterministic.

    Args:
        values: the oldest first; of one device, for a metric that depends on it.
        metric: whose `effect`, `absolute` and `floor` say what change matters.

    Raises:
        ValueError: a value is not finite.
    """
    series = np.asarray(values, dtype=np.float64)
    if not np.isfinite(series).all():
        raise ValueError("the series has values that are not finite")
    if len(series) < 2 * LEAST_POINTS:
        return ()
    # Levels of any unit alike: what squares of 1e200 or 1e-200 would lose.
    center, scale = float(np.median(series)), float(np.ptp(series))
    if scale == 0 or not math.isfinite(scale):
        return ()
    tamed = _without_wild((series - center) / scale)
    edges = _search(tamed, inflation=1.0)
    if not edges:
        return ()
    inflation = _inflation(tamed, edges)
    return _weigh(series, tamed, _search(tamed, inflation), inflation, metric)


def _without_wild(values: Values) -> Values:
    """The series with the running median where a point is far from it.

    The noise is known from differences of neighbours, which a few shifts leave as they are. Where
    most are zero there is none, and the running median is all that is left.
    """
    noise = float(np.median(np.abs(np.diff(values)))) / (_NORMAL_MEDIAN * math.sqrt(2))
    width = min(_WINDOW if noise else _EXACT_WINDOW, len(values) - 1 + len(values) % 2)
    inner = np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
    medians = np.pad(inner, width // 2, mode="edge")
    return np.where(np.abs(values - medians) > _WILD * noise, medians, values)


# -- searching ------------------------------------------------------------------------------------


def _search(values: Values, inflation: float) -> list[int]:
    """Edges between levels: splits that are significant, of the whole and of the parts.

    Args:
        inflation: by how much the variance of means exceeds that of independent points.
    """
    edges: list[int] = []
    parts = [(0, len(values))]
    while parts:
        start, end = parts.pop()
        part = values[start:end]
        if len(part) < 2 * LEAST_POINTS or np.ptp(part) == 0:
            continue
        total = _squares(part)
        p_value, split = min(
            (p_of(_z(gain, total, len(part), inflation), len(part)) / share, split)
            for share, p_of, (gain, split) in (
                (_STAYING, _p_of_shift, _best_shift(part)),
                (1 - _STAYING, _p_of_excursion, _best_excursion(part)),
            )
        )
        if p_value <= LEVEL:
            found = [start + position for position in split]
            edges += found
            parts += itertools.pairwise([start, *found, end])
    return sorted(edges)


def _squares(values: Values) -> float:
    """The sum of squared distances from the mean."""
    return float(np.square(values - values.mean()).sum())


def _sums(values: Values) -> Values:
    """Sums of the distances from the mean up to each position, 0 first."""
    return np.concatenate(([0.0], np.cumsum(values - values.mean())))


def _gains(values: Values) -> tuple[NDArray[np.int_], Values]:
    """Positions that a series can be split at, and by how much each lessens its squares."""
    count = len(values)
    positions = np.arange(LEAST_POINTS, count - LEAST_POINTS + 1)
    gains = _sums(values)[positions] ** 2 * count / (positions * (count - positions))
    return positions, gains


def _best_shift(values: Values) -> tuple[float, Edges]:
    """The gain of the best split into two levels, and where it is."""
    positions, gains = _gains(values)
    best = int(np.argmax(gains))
    return float(gains[best]), (int(positions[best]),)


def _best_excursion(values: Values) -> tuple[float, Edges]:
    """The gain of the best stretch apart from what is before and after, and its ends; or zero."""
    count, sums = len(values), _sums(values)[LEAST_POINTS : len(values) - LEAST_POINTS + 1]
    widest = np.zeros(len(sums))
    for width in range(_LEAST_EXCURSION, len(sums)):
        rises = np.abs(sums[width:] - sums[:-width])
        widest[width] = rises.max() ** 2 * count / (width * (count - width))
    width = int(np.argmax(widest))
    if not width:
        return 0.0, ()
    start = LEAST_POINTS + int(np.argmax(np.abs(sums[width:] - sums[:-width])))
    return float(widest[width]), (start, start + width)


# -- significance ---------------------------------------------------------------------------------


def _z(gain: float, total: float, count: int, inflation: float) -> float:
    """A gain as the normal value that is as unlikely (Wallace 1959, for Student's t)."""
    freedom = count - 2
    left = max(total - gain, _ROUNDING * total)
    t_squared = gain / (left / freedom) / inflation
    normal = math.sqrt(freedom * math.log1p(t_squared / freedom))
    return (8 * freedom + 1) / (8 * freedom + 3) * normal


def _p_of_shift(z: float, count: int) -> float:
    """How often the best of all splits of pure noise reaches z (Siegmund 1985, tied-down walk).

    z phi(z) times the integral of nu(z / sqrt(n t (1 - t))) / (t (1 - t)) dt.
    """
    positions = np.arange(LEAST_POINTS, count - LEAST_POINTS + 1)
    weights = positions * (count - positions) / count
    return _tail(z * _density(z) * float((_overshoot(z, weights) / weights).sum()), z)


def _p_of_excursion(z: float, count: int) -> float:
    """How often the best of all stretches of pure noise reaches z.

    Venkatraman & Olshen 2007: z^3 phi(z) / 2 times the integral from the narrowest to one half of
    nu(z / sqrt(n t (1 - t)))^2 / (t (1 - t))^2 dt.
    """
    widths = np.arange(_LEAST_EXCURSION, count // 2 + 1)
    weights = widths * (count - widths) / count
    summed = float((_overshoot(z, weights) ** 2 / weights**2).sum()) * count
    return _tail(z**3 * _density(z) / 2 * summed, z)


def _tail(p_value: float, z: float) -> float:
    # The formulas are for tails: below their peak they would fall towards zero again.
    return min(1.0, p_value) if z > 2.0 else 1.0


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _overshoot(z: float, weights: Values) -> Values:
    """nu(x) = exp(-0.583 x): a walk in steps reaches a bound less often than a continuous one."""
    return np.exp(-0.583 * z / np.sqrt(weights))


def _inflation(values: Values, edges: Sequence[int]) -> float:
    """(1 + r) / (1 - r), of the lag-1 correlation r of what the levels leave.

    Corrected for its bias of -(1 + 3 r) / n (Kendall 1954), once for each level.
    """
    parts = np.split(values, edges)
    left = np.concatenate([part - part.mean() for part in parts])
    squares = float(left @ left)
    if squares <= _ROUNDING * _squares(values):
        return 1.0
    count = len(values)
    measured = float(left[1:] @ left[:-1]) / squares
    unbiased = measured + len(parts) * (1 + 3 * measured) / count
    weighed = (count * unbiased + _USUAL_POINTS * _USUAL_CORRELATION) / (count + _USUAL_POINTS)
    correlation = min(max(weighed, 0.0), 0.9)
    return (1 + correlation) / (1 - correlation)


# -- weighing -------------------------------------------------------------------------------------


def _weigh(
    series: Values, tamed: Values, edges: Sequence[int], inflation: float, metric: Metric
) -> tuple[ChangePoint, ...]:
    """The edges that are significant between their neighbours, and large; without the others.

    What is least goes first, one at a time: the levels beside it become one, and what small steps
    in a row come to is seen.
    """
    cuts = [0, *edges, len(series)]
    while len(cuts) > 2:
        found = [
            _change_point(series, tamed, cuts[number : number + 3], inflation)
            for number in range(len(cuts) - 2)
        ]
        unclear = [item for item in found if item.p_value > LEVEL]
        small = [item for item in found if not _matters(item, metric)]
        if unclear:
            drop = max(unclear, key=lambda item: item.p_value)
        elif small:
            drop = min(small, key=lambda item: abs(item.after - item.before))
        else:
            return tuple(found)
        del cuts[found.index(drop) + 1]
    return ()


def _change_point(
    series: Values, tamed: Values, cuts: Sequence[int], inflation: float
) -> ChangePoint:
    """The change point between two neighbouring levels, from where the first begins."""
    start, edge, end = cuts
    part = tamed[start:end]
    count, total = len(part), _squares(part)
    positions, gains = _gains(part)
    gain = float(gains[positions == edge - start][0])
    left = max(total - gain, _ROUNDING * total)
    near = positions[(gain - gains) / (left / (count - 2)) <= _RANGE_RATIO * inflation]
    return ChangePoint(
        position=edge,
        before=float(np.median(series[start:edge])),
        after=float(np.median(series[edge:end])),
        p_value=_p_of_shift(_z(gain, total, count, inflation), count),
        low=start + int(near[0]) - 1,
        high=start + int(near[-1]),
    )


def _matters(found: ChangePoint, metric: Metric) -> bool:
    change = abs(found.after - found.before)
    needed = metric.effect if metric.absolute else metric.effect * abs(found.before)
    return change > max(needed, metric.floor)
