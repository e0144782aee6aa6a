"""Parts of an output that one scale can't hold: what is large hides that they are lost. Pure.

One figure of an output is weighted by energy: beside boxes in pixels, probabilities may be rounded
to nothing without a trace in it. And a simulated quantizer of the whole output makes the same
mistake. So each index of an axis is also held against its own spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# An index is lost where the error is more than half of its own spread (6 dB) and it has fewer than
# four of the output's levels: a uniform quantizer of L levels reaches 20 log10(L) dB of what is
# spread evenly (Widrow and Kollar, Quantization Noise, 2008), so that these are one and the same.
_LOST_DB, _FEW_LEVELS = 6.0, 4.0
# Single lost indices among many are rare classes or units that hardly work; a tenth is a quantity
# of its own.
_SHARE = 0.1
# An index that varies by less than this share of its own size is a constant.
_CONSTANT = 0.02
# Enough values for a spread.
_LEAST_VALUES = 16
# Axes of more indices are positions rather than quantities.
_LARGEST_AXIS = 4096
# More distinct values than that are not those of an 8-bit or smaller output.
_MOST_LEVELS = 4096
_LOOKED_AT = 1 << 16


@dataclass(frozen=True)
class Part:
    """Neighbouring indices of an axis whose values are lost.

    Attributes:
        axis: of the output, the batch being 0.
        first, last: indices, both included.
        sqnr_db: of the part's spread over its error.
        levels: how many of the output's steps its range has, at most.
    """

    axis: int
    first: int
    last: int
    sqnr_db: float
    levels: float


@dataclass
class _Axis:
    """Sums by index of one axis."""

    values: int
    total: Array
    square: Array
    error: Array
    low: Array
    high: Array


@dataclass
class Parts:
    """The parts of one output so far; feed it with `add`."""

    axes: dict[int, _Axis] = field(default_factory=dict)
    step: float = math.inf
    levels: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, candidate: Array, reference: Array) -> None:
        """Account for one pair of equal shape, finite, samples on axis 0."""
        if reference.ndim < 2 or reference.size == 0:
            return
        self.low = min(self.low, float(reference.min()))
        self.high = max(self.high, float(reference.max()))
        self._look_for_step(candidate)
        for axis in {1, reference.ndim - 1}:
            count = reference.shape[axis]
            if 2 <= count <= _LARGEST_AXIS:
                self._add_axis(axis, candidate, reference)

    def _look_for_step(self, candidate: Array) -> None:
        """The spacing of the candidate's values: the scale of a quantized output."""
        flat = candidate.reshape(-1)
        found = np.unique(flat[:: max(1, flat.size // _LOOKED_AT)].astype(np.float64))
        self.levels = max(self.levels, found.size)
        if found.size > 1:
            gaps = np.diff(found)
            # Dequantized values are a few roundings off their grid.
            gaps = gaps[gaps > 1e-5 * np.abs(found).max()]
            self.step = min(self.step, float(gaps.min())) if gaps.size else self.step

    def _add_axis(self, axis: int, candidate: Array, reference: Array) -> None:
        rest = tuple(item for item in range(reference.ndim) if item != axis)
        right = reference.astype(np.float64)
        error = candidate.astype(np.float64) - right
        count = reference.shape[axis]
        if axis not in self.axes or len(self.axes[axis].total) != count:
            zeros = np.zeros(count)
            self.axes[axis] = _Axis(
                0, zeros, zeros, zeros, np.full(count, np.inf), np.full(count, -np.inf)
            )
        own = self.axes[axis]
        self.axes[axis] = _Axis(
            own.values + reference.size // count,
            own.total + right.sum(rest),
            own.square + np.square(right).sum(rest),
            own.error + np.square(error).sum(rest),
            np.minimum(own.low, right.min(rest)),
            np.maximum(own.high, right.max(rest)),
        )

    def lost(self) -> list[Part]:
        """The parts that are lost, by axis."""
        if not math.isfinite(self.step) or self.levels > _MOST_LEVELS or self._probabilities:
            return []
        return [part for axis, own in sorted(self.axes.items()) for part in self._lost(axis, own)]

    @property
    def _probabilities(self) -> bool:
        """Whether all values may be probabilities: one that stays near 0 is a rare class then."""
        return self.low >= 0.0 and self.high <= 1.0

    def _lost(self, axis: int, own: _Axis) -> Iterator[Part]:
        if own.values < _LEAST_VALUES:
            return
        mean = own.total / own.values
        variance = np.maximum(own.square / own.values - mean**2, 0.0)
        noise = own.error / own.values
        levels = (own.high - own.low) / self.step
        varies = np.sqrt(variance) > _CONSTANT * np.abs(mean) + 1e-12 * abs(self.high - self.low)
        gone = varies & (levels < _FEW_LEVELS) & (noise > variance / 10 ** (_LOST_DB / 10))
        for first, last in _runs(gone):
            chosen = slice(first, last + 1)
            ratio = float(variance[chosen].sum() / noise[chosen].sum())
            yield Part(axis, first, last, 10 * math.log10(ratio), float(levels[chosen].max()))

    def sentences(self, name: str) -> tuple[list[str], list[str]]:
        """Failures and warnings about what is lost."""
        failures: list[str] = []
        warnings: list[str] = []
        found = self.lost()
        for axis in sorted({part.axis for part in found}):
            parts = [part for part in found if part.axis == axis]
            count = len(self.axes[axis].total)
            lost = sum(part.last - part.first + 1 for part in parts)
            if lost == count:
                continue  # not a part, but all of it: what the output's own figures are about
            told = failures if lost >= _SHARE * count else warnings
            told.append(self._sentence(name, parts, count))
        # The same values may be lost along two axes; the first one says enough.
        return failures[:1], warnings[:1] if not failures else []

    def _sentence(self, name: str, parts: Sequence[Part], count: int) -> str:
        shown = ", ".join(
            f"{part.first}" if part.first == part.last else f"{part.first} to {part.last}"
            for part in parts[:3]
        )
        more = f" and {len(parts) - 3} more ranges" if len(parts) > 3 else ""
        return (
            f"output {name!r}: indices {shown}{more} of axis {parts[0].axis} (of {count}) are "
            f"lost: {min(part.sqnr_db for part in parts):.2g} dB of their own spread, with "
            f"{max(part.levels for part in parts):.2g} of the levels that the output's step of "
            f"{self.step:.3g} leaves: the output holds quantities of different scale; give them "
            "outputs of their own, scale them alike, or keep its last layer in float"
        )


def _runs(chosen: Array) -> Iterator[tuple[int, int]]:
    """First and last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield int(start), int(stop) - 1
