"""The statistics of timing: intervals of quantiles and means, and of the ratio of two candidates.

Pure functions of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
CONFIDENCE = 0.95
# Of a regression against another file: a hundred gates a day must not cry wolf.
RATIO_CONFIDENCE = 0.99
# A thread that used nearly all of the wall time of its quickest sample does the work itself, so
# that what its CPU clock does not count is waiting, not inference.
OWN_WORK = 0.9
_BATCHES = 20


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        high: infinite where there are too few samples to bound the value.
    """

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Half the interval relative to the estimate."""
        return (self.high - self.low) / 2 / self.value if self.value > 0 else math.inf


@dataclass(frozen=True)
class Samples:
    """Times of single inferences of one candidate, in the order they were taken.

    Attributes:
        wall_ms: as a clock on the wall sees them.
        cpu_ms: of the calling thread only; empty where the runtime can't tell.
        own_work: whether the calling thread does all the work, so that `cpu_ms` is the time of an
            inference that nothing interrupts.
    """

    wall_ms: Times
    cpu_ms: Times
    own_work: bool

    @classmethod
    def of(cls, rounds: Sequence[dict[str, Any]], threads: int) -> Samples:
        """The samples of one candidate's rounds (see `edgecheck.runtime.timing.time_round`)."""

        def times_ms(clock: str) -> Times:
            return np.concatenate(
                [
                    np.asarray(block[clock], dtype=np.float64) / item["calls_per_sample"] / 1e6
                    for item in rounds
                    for block in item["blocks"]
                ]
            )

        wall_ms = times_ms("wall_ns")
        if any("cpu_ns" not in block for item in rounds for block in item["blocks"]):
            return cls(wall_ms, np.empty(0), own_work=False)
        cpu_ms = times_ms("cpu_ns")
        return cls(wall_ms, cpu_ms, threads == 1 and cpu_ms.min() > OWN_WORK * wall_ms.min())

    def quantile(self, share: float) -> Interval:
        """A quantile of the wall time.

        Other work on the machine only adds to the wall time. So the upper bound is the wall
        time's, and the lower one that of the CPU time, where that is the inference's own.
        """
        wall = quantile_interval(self.wall_ms, share)
        low = quantile_interval(self.cpu_ms, share).low if self.own_work else wall.low
        return Interval(wall.value, min(wall.low, low), wall.high)

    def mean(self) -> Interval:
        """The mean wall time, bounded in the same way."""
        wall = mean_interval(self.wall_ms)
        low = mean_interval(self.cpu_ms).low if self.own_work else wall.low
        return Interval(wall.value, min(wall.low, low), wall.high)

    def largest(self) -> Interval:
        """The largest wall time that was seen; nothing bounds those that were not."""
        largest = float(self.wall_ms.max())
        low = float(self.cpu_ms.max()) if self.own_work else largest
        return Interval(largest, min(low, largest), largest)


def quantile_interval(times: Times, share: float, confidence: float = CONFIDENCE) -> Interval:
    """A quantile with a distribution-free interval from order statistics.

    The ranks are the binomial ones (Hahn & Meeker, Statistical Intervals, 5.2), of as many
    independent samples as the series is worth (see `effective_size`).
    """
    from scipy import stats

    ordered = np.sort(times)
    value = float(np.quantile(ordered, share))
    size = effective_size(times <= value)
    tail = (1 - confidence) / 2
    below = stats.binom.ppf(tail, int(size), share) / size
    above = (stats.binom.ppf(1 - tail, int(size), share) + 1) / size
    low = ordered[math.floor(below * len(ordered)) - 1] if below * len(ordered) >= 1 else 0.0
    rank = math.ceil(above * len(ordered))
    high = ordered[rank - 1] if rank <= len(ordered) else math.inf
    return Interval(value, min(float(low), value), max(float(high), value))


def effective_size(series: npt.NDArray[Any]) -> float:
    """How many independent samples a series is worth.

    From batch means: where the means of consecutive batches vary more than those of independent
    samples would, neighbours are alike (Law, Simulation Modeling and Analysis, 9.5.3).
    """
    batch = len(series) // _BATCHES
    spread = float(np.var(series))
    if batch < 2 or spread == 0:
        return float(len(series))
    means = np.mean(np.reshape(series[: batch * _BATCHES], (_BATCHES, batch)), axis=1)
    inflation = max(1.0, float(np.var(means, ddof=1)) * batch / spread)
    return max(1.0, len(series) / inflation)


def mean_interval(times: Times, confidence: float = CONFIDENCE) -> Interval:
    """The mean with Student's interval, at the series' effective size."""
    from scipy import stats

    value = float(np.mean(times))
    if len(times) < 2:
        return Interval(value, 0.0, math.inf)
    size = effective_size(times)
    half = stats.t.ppf((1 + confidence) / 2, max(1.0, size - 1)) * np.std(times, ddof=1)
    half = float(half / math.sqrt(size))
    return Interval(value, max(0.0, value - half), value + half)


def ratio_interval(
    rounds: Sequence[Sequence[dict[str, Any]]], threads: int, confidence: float = RATIO_CONFIDENCE
) -> Interval:
    """How much longer the first candidate takes than the second, from rounds that timed both.

    In each round the medians of neighbouring blocks are compared. Rounds differ by where loading
    put things in memory, and by other work on the machine, so the interval is one over rounds (see
    `center_interval`). At one thread CPU times are compared, which other work hardly touches.

    Args:
        rounds: for each round the two candidates' dicts (see
            `edgecheck.runtime.timing.time_round`).
    """
    own_work = all(Samples.of([item[side] for item in rounds], threads).own_work for side in (0, 1))
    clock = "cpu_ns" if own_work else "wall_ns"
    logs = []
    for pair in rounds:
        medians = [
            np.array([np.median(block[clock]) for block in side["blocks"]])
            / side["calls_per_sample"]
            for side in pair
        ]
        logs.append(float(np.median(np.log(medians[0] / medians[1]))))
    center = center_interval(np.array(logs), confidence)
    return Interval(math.exp(center.value), math.exp(center.low), math.exp(center.high))


def center_interval(values: Times, confidence: float) -> Interval:
    """The centre of values, with an interval that a few wild ones do not widen.

    Hodges and Lehmann's estimate, the median of all pairwise means, and the exact interval that
    belongs to Wilcoxon's signed-rank test (Hollander, Wolfe & Chicken, Nonparametric Statistical
    Methods, 3.3). Infinite where there are too few values: under 8 at 99 % confidence.
    """
    rows, columns = np.triu_indices(len(values))
    means = np.sort((values[rows] + values[columns]) / 2)
    # The null distribution of the rank sum: each rank counts or does not, with equal chances.
    chances = np.ones(1)
    for rank in range(1, len(values) + 1):
        coin = np.zeros(rank + 1)
        coin[0] = coin[-1] = 0.5
        chances = np.convolve(chances, coin)
    cut = int(np.searchsorted(np.cumsum(chances), (1 - confidence) / 2, side="right"))
    value = float(np.median(means))
    if cut == 0:
        return Interval(value, -math.inf, math.inf)
    return Interval(value, float(means[cut - 1]), float(means[-cut]))
