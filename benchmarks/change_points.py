"""Change points: false ones and missed ones, on made-up series of which the truth is known.

Noise of 2 to 10 % of the level, of four kinds: normal; lognormal; normal with 2 % of the points
three to five times as high; and normal with neighbours correlated by 0.3. All from fixed seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Row, at_least, at_most, told
from edgecheck.history.change_points import ChangePoint, find_change_points
from edgecheck.history.metrics import METRICS, Metric

LENGTHS = (60, 100, 200)
# Of each kind and length, with a shift and without.
SERIES, QUICK_SERIES = 1000, 100
# Shifts lie at least so far from both ends; are so large, in standard deviations of the noise; and
# count as found within so many points.
MARGIN, SHIFT, NEAR = 10, 2.0, 5
FOUND, FALSE = 95.0, 2.0
SPEED_SERIES, SPEED_LIMIT_S = 2000, 10.0
# Any change matters: what is missed or false here is the statistics' doing alone.
ANY = Metric("any", "lower", effect=0.0)

Values = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int, float], Values]


def _normal(random: np.random.Generator, count: int, share: float) -> Values:
    return 1 + share * random.normal(size=count)


def _lognormal(random: np.random.Generator, count: int, share: float) -> Values:
    sigma = np.sqrt(np.log1p(share**2))
    return np.exp(random.normal(-(sigma**2) / 2, sigma, count))


def _correlated(random: np.random.Generator, count: int, share: float) -> Values:
    steps = random.normal(size=count)
    for place in range(1, count):
        steps[place] = 0.3 * steps[place - 1] + np.sqrt(1 - 0.3**2) * steps[place]
    return 1 + share * steps


KINDS: dict[str, Noise] = {
    "normal": _normal,
    "lognormal": _lognormal,
    "normal with 2 % outliers": _normal,
    "correlated (AR 0.3)": _correlated,
}


@dataclass(frozen=True)
class Drawn:
    """A series, and where it shifts; None for nowhere."""

    values: Values
    shift: int | None


def _draw(random: np.random.Generator, kind: str, count: int, *, shifted: bool) -> Drawn:
    share = random.uniform(0.02, 0.10)
    values = KINDS[kind](random, count, share)
    shift = None
    if shifted:
        shift = int(random.integers(MARGIN, count - MARGIN + 1))
        values[shift:] += random.choice([-1, 1]) * SHIFT * share
    if "outliers" in kind:
        wild = random.random(count) < 0.02
        values[wild] *= random.uniform(3, 5, wild.sum())
    return Drawn(values, shift)


def _many(kind: str, count: int, series: int, *, shifted: bool) -> Iterator[Drawn]:
    seed = [count, list(KINDS).index(kind), shifted]
    random = np.random.default_rng(seed)
    return (_draw(random, kind, count, shifted=shifted) for _ in range(series))


@dataclass(frozen=True)
class Tally:
    """What was found in many series of a kind; shares in percent."""

    found: float
    false: float
    more: float
    covered: float


def measure(quick: bool) -> list[Row]:
    """Count shifts that are found, found where there are none, and how long it takes to see one."""
    series = QUICK_SERIES if quick else SERIES
    tallies: dict[str, list[Tally]] = {}
    with told(f"change points in {2 * series} series of each kind and length"):
        for kind in KINDS:
            tallies[kind] = [_tally(kind, count, series) for count in LENGTHS]
    everything = [tally for found in tallies.values() for tally in found]
    lengths = ", ".join(map(str, LENGTHS))
    rows = [
        at_least(
            f"shifts of {SHIFT:g} x the noise found within {NEAR} points, series of {lengths}",
            _mean(everything, "found"),
            FOUND,
            "%",
        )
    ]
    for kind, found in tallies.items():
        # Of correlated series the true moment is often not the likeliest one.
        share = _mean(found, "found")
        is_held = "correlated" not in kind
        rows.append(
            at_least(f"  {kind}", share, FOUND, "%")
            if is_held
            else Row(f"  {kind}", f"{share:.3g} %")
        )
    for number, count in enumerate(LENGTHS):
        share = _mean([found[number] for found in tallies.values()], "found")
        rows.append(Row(f"  of {count} points", f"{share:.3g} %"))
    rows.append(
        at_most(
            "series without a shift in which one is found",
            _mean(everything, "false"),
            FALSE,
            "%",
        )
    )
    rows += [
        at_most(f"  {kind}", _mean(found, "false"), FALSE, "%") for kind, found in tallies.items()
    ]
    return [
        *rows,
        Row(
            "  series with one shift in which more are found", f"{_mean(everything, 'more'):.2g} %"
        ),
        Row("  ranges that hold the true moment", f"{_mean(everything, 'covered'):.3g} %"),
        *_effect_rows(series),
        *_delay_rows(series),
        *_passing_rows(series),
        *_speed_rows(quick),
    ]


def _mean(tallies: list[Tally], name: str) -> float:
    return float(np.mean([getattr(tally, name) for tally in tallies]))


def _tally(kind: str, count: int, series: int) -> Tally:
    found = more = seen = covered = 0
    for drawn in _many(kind, count, series, shifted=True):
        points = find_change_points(drawn.values, ANY)
        if points and drawn.shift is not None:
            nearest = _nearest(points, drawn.shift)
            found += abs(nearest.position - drawn.shift) <= NEAR
            more += len(points) > 1
            seen += 1
            covered += nearest.low < drawn.shift <= nearest.high
    false = sum(
        bool(find_change_points(drawn.values, ANY))
        for drawn in _many(kind, count, series, shifted=False)
    )
    return Tally(
        100 * found / series,
        100 * false / series,
        100 * more / series,
        100 * covered / max(seen, 1),
    )


def _nearest(points: tuple[ChangePoint, ...], place: int) -> ChangePoint:
    return min(points, key=lambda item: abs(item.position - place))


def _effect_rows(series: int) -> list[Row]:
    """The same series as latencies, of which small shifts do not matter."""
    metric = METRICS["latency_p50_ms"]
    false = [
        bool(find_change_points(drawn.values, metric))
        for kind in KINDS
        for drawn in _many(kind, 100, series, shifted=False)
    ]
    return [
        Row(
            f"  false ones of 100 points where {metric.effect:.0%} matters",
            f"{100 * np.mean(false):.2g} %",
        )
    ]


def _delay_rows(series: int) -> list[Row]:
    """How many points after a shift it takes to see it, after 60 before it."""
    rows = []
    for shift in (SHIFT, 4.0):
        random = np.random.default_rng(1)
        delays = []
        for _ in range(series):
            share = random.uniform(0.02, 0.10)
            values = _normal(random, 100, share)
            values[60:] += shift * share
            delays.append(_delay(values, 60))
        median, most = np.quantile(delays, (0.5, 0.95), method="higher")
        rows.append(
            Row(
                f"  points of a shift of {shift:g} x the noise until it is seen",
                f"{median:.0f}, 95 % in {most:.0f}",
            )
        )
    return rows


def _delay(values: Values, shift: int) -> int:
    for end in range(shift + 1, len(values) + 1):
        points = find_change_points(values[:end], ANY)
        if points and abs(_nearest(points, shift).position - shift) <= NEAR:
            return end - shift
    return len(values) - shift


def _passing_rows(series: int) -> list[Row]:
    """A level that comes and goes: ten points of a hundred."""
    random = np.random.default_rng(2)
    both = 0
    for _ in range(series):
        share = random.uniform(0.02, 0.10)
        values = _normal(random, 100, share)
        start = int(random.integers(MARGIN, 100 - MARGIN - 10))
        values[start : start + 10] += 3 * share
        points = find_change_points(values, ANY)
        both += bool(points) and all(
            abs(_nearest(points, place).position - place) <= NEAR for place in (start, start + 10)
        )
    return [
        Row(
            "  shifts of 3 x the noise for 10 points: both ends",
            f"{100 * both / series:.3g} %",
        )
    ]


def _speed_rows(quick: bool) -> list[Row]:
    count = SPEED_SERIES // 10 if quick else SPEED_SERIES
    share = count / SPEED_SERIES
    drawn = [
        item.values
        for kind in KINDS
        for item in _many(kind, 100, count // (2 * len(KINDS)), shifted=True)
    ]
    drawn += [
        item.values
        for kind in KINDS
        for item in _many(kind, 100, count // (2 * len(KINDS)), shifted=False)
    ]
    start = time.process_time()
    for values in drawn:
        find_change_points(values, ANY)
    took_s = time.process_time() - start
    return [
        at_most(
            f"CPU time for {count:,} series of 100 points, half of them with a shift",
            took_s,
            SPEED_LIMIT_S * share,
            "s",
        )
    ]
