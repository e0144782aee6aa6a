"""The statistics of a paired experiment: two models on the same samples, and how sure their
difference is.

Pure functions of counts and scores; a loss is positive where the candidate is worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
CONFIDENCE = 0.95
RESAMPLES = 2000
# Quantiles in the tails need 1000 resamples, a standard error 25 (Efron and Tibshirani 1993, An
# Introduction to the Bootstrap, sections 6.4 and 13.3).
PERCENTILE_RESAMPLES = 1000
LEAST_RESAMPLES = 25
# Of each chunk of resamples, and of all of them (draws and products): about a second.
_CHUNK_DRAWS = 1 << 22
_MOST_WORK = 1_000_000_000
# Fewer samples that all change to one side are not evidence: McNemar's p of five is 0.0625.
LEAST_CHANGED = 6


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of the drop, in the metric's unit.

    Attributes:
        method: how it was made.
        resamples: of the bootstrap; 0 where it has a closed form.
    """

    low: float
    high: float
    method: str
    resamples: int = 0

    @property
    def half_width(self) -> float:
        """Half its width: the smallest drop that such an interval would tell from none."""
        return (self.high - self.low) / 2


def mcnemar_p(lost: int, gained: int) -> float:
    """McNemar's exact two-sided p-value: that the changes go either way by chance alone.

    Under the null hypothesis the number lost is binomial with one half, given how many changed
    (McNemar 1947; the same as SciPy's ``binomtest(lost, lost + gained)``).

    Args:
        lost: samples that the reference has right and the candidate wrong.
        gained: the reverse.
    """
    changed = lost + gained
    return float(min(1.0, 2.0 * _tail(min(lost, gained), changed))) if changed else 1.0


def _tail(count: int, changed: int) -> float:
    """P(X <= count) where X is binomial with one half."""
    from scipy.special import bdtr

    return float(bdtr(count, changed, 0.5))


def binary_interval(lost: int, gained: int, samples: int) -> Interval:
    """The interval of (lost - gained) / samples, the drop of a share of samples.

    Bonett and Price 2012 (J. Educational and Behavioral Statistics 37, 479), which Fagerland,
    Lydersen and Laake 2014 (Statistics in Medicine 33, 2850) recommend: Wald's interval after
    one more sample on either side. It has a width also where nothing changed.
    """
    one, other = (lost + 1) / (samples + 2), (gained + 1) / (samples + 2)
    centre = one - other
    half = _normal_quantile() * math.sqrt((one + other - centre**2) / (samples + 2))
    return Interval(max(-1.0, centre - half), min(1.0, centre + half), "Bonett and Price")


def _normal_quantile() -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + CONFIDENCE / 2))


def detectable_share(lost: int, gained: int, samples: int) -> float | None:
    """The smallest drop of a share of samples that would be significant.

    It is (b - c) / samples for the most even split of as many changed samples as were seen, and of
    no fewer than `LEAST_CHANGED`, that McNemar's exact test tells from chance at 0.05. None where
    there are too few samples for any.
    """
    changed = max(lost + gained, LEAST_CHANGED)
    if changed > samples:
        return None
    low, high = 0, changed // 2  # of the smaller side: the largest that is still significant
    while low < high:
        middle = (low + high + 1) // 2
        if 2.0 * _tail(middle, changed) <= 1.0 - CONFIDENCE:
            low = middle
        else:
            high = middle - 1
    return (changed - 2 * low) / samples


def row_mean_resamples(rows: Array, seed: int) -> Array:
    """Means over samples drawn with replacement.

    Args:
        rows: (samples, columns), of floats.

    Returns:
        (resamples, columns) of float64: 2000 resamples, and fewer only where that is over a second.
    """
    samples, columns = rows.shape
    count = min(RESAMPLES, max(LEAST_RESAMPLES, _MOST_WORK // (samples * (10 + columns))))
    rng = np.random.default_rng(seed)
    found = np.empty((count, columns))
    step = max(1, _CHUNK_DRAWS // samples)
    for start in range(0, count, step):
        size = min(step, count - start)
        drawn = rng.integers(0, samples, (size, samples), dtype=np.int64)
        drawn += np.arange(size)[:, None] * samples
        times = np.bincount(drawn.reshape(-1), minlength=size * samples)
        found[start : start + size] = times.reshape(size, samples) @ rows / samples
    return found


def affordable_resamples(seconds_each: float, limit_s: float) -> int:
    """How many resamples of a metric fit into a time; 0 where too few for any interval.

    In steps, so that two runs on one machine mostly make as many.
    """
    steps = (RESAMPLES, PERCENTILE_RESAMPLES, 200, 100, 50, LEAST_RESAMPLES)
    return next((count for count in steps if count * seconds_each <= limit_s), 0)


def resampled_drops(
    drop: Callable[[Array], float], samples: int, count: int, seed: int
) -> tuple[Array, int]:
    """A drop on samples drawn with replacement, for any metric.

    Args:
        drop: of the samples at the given indices; what it raises, or a value that is not finite,
            means that the metric has no value there (an AUC of one class).

    Returns:
        The drops as float64, and how many resamples had none.
    """
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(count):
        try:
            value = drop(rng.integers(0, samples, samples))
        except Exception:
            value = math.nan
        found.append(value)
    drops = np.asarray(found, dtype=np.float64)
    finite = np.isfinite(drops)
    return drops[finite], int((~finite).sum())


def bootstrap_interval(drop: float, drops: Sequence[float] | Array, samples: int) -> Interval:
    """The interval of a drop from its values on resamples.

    With 1000 resamples or more, the expanded percentile interval of Hesterberg 2015 (What Teachers
    Should Know About the Bootstrap, The American Statistician 69, 371), with tails of
    Phi(-sqrt(n / (n - 1)) t): it corrects that few samples vary too little. With fewer, the drop
    and its bootstrap standard error, with the same correction.

    Args:
        samples: n, at least two.
    """
    from scipy.special import ndtr, stdtrit

    values = np.asarray(drops, dtype=np.float64)
    factor = math.sqrt(samples / (samples - 1)) * float(stdtrit(samples - 1, 0.5 + CONFIDENCE / 2))
    if len(values) < PERCENTILE_RESAMPLES:
        half = factor * float(values.std(ddof=1))
        return Interval(drop - half, drop + half, "bootstrap standard error", len(values))
    tail = float(ndtr(-factor))
    low, high = (float(item) for item in np.quantile(values, [tail, 1.0 - tail]))
    # Rounding must not put the drop outside of an interval without width.
    return Interval(min(low, drop), max(high, drop), "bootstrap percentile", len(values))
