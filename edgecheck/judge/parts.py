"""How far the parts of an output agree, each against its own spread. Pure.

One figure of an output is weighted by energy: four channels of pixels (0..640) hide that every
probability (0..1) beside them is lost, since one step of an output of 8 bits is then 2.5. A part is
an index of axis 1 or of the last axis, or a slice that the user named. Of each are measured:

- sqnr_db: variance of the reference around its mean over the power of the error;
- levels: range of the reference over the step of the candidate's output, the smallest distance of
  two of its values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# A part of fewer values says little of its spread.
_VALUES = 32
# Parts of a whole output by index are measured up to this number: positions of a sequence are not
# channels.
_INDICES = 4096
# SQNR in dB that 256 levels over a part's own range must give it: twice the 10 dB of the default
# limit. It excludes parts that are constant but for a few values.
_OWN_DB = 20.0
# Values that are summed at a time; whole outputs may not fit in memory.
_CHUNK_ELEMENTS = 1 << 20
# Distinct values that are kept to find the step.
_DISTINCT = 4096
# What makes a lost part another quantity than its neighbours, and not a weak channel of the same
# one: its values lie within this many steps of zero, where the parts that are kept spread this many
# times as far.
_STEPS, _GAP = 4.0, 16.0
# An output within these bounds holds one kind of quantity (probabilities, unit vectors), in which a
# class that no sample shows is rightly near zero.
_UNIT = 1.0
_EXACT_DB = 400.0


@dataclass(frozen=True)
class Part:
    """One part of an output.

    Attributes:
        name: of a named slice; "" for an index.
        index: on its axis; the slice's first for a named one.
        sqnr_db, levels: see the module.
        spread: the reference's standard deviation.
        largest: the reference's largest magnitude.
        own_db: the SQNR that 256 levels over the part's own range give.
    """

    name: str
    index: int
    sqnr_db: float
    levels: float
    spread: float
    largest: float
    own_db: float

    @property
    def alive(self) -> bool:
        """Whether an 8-bit quantizer of the part's own would keep it."""
        return self.own_db >= _OWN_DB


@dataclass
class _Sums:
    """Sums over the values of each part; all arrays have one entry a part."""

    count: Array
    total: Array
    squares: Array
    error: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, candidate: Array, reference: Array) -> _Sums:
        """Of values with one row a part, NaN where there is none to compare."""
        errors = candidate - reference
        with np.errstate(over="ignore"):
            return cls(
                np.isfinite(reference).sum(axis=1).astype(np.float64),
                np.nansum(reference, axis=1),
                np.nansum(reference * reference, axis=1),
                np.nansum(errors * errors, axis=1),
                np.nanmin(reference, axis=1, initial=math.inf),
                np.nanmax(reference, axis=1, initial=-math.inf),
            )

    def plus(self, other: _Sums) -> _Sums:
        """Of both."""
        return _Sums(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.error + other.error,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )


@dataclass
class PartAgreement:
    """How the parts of one output agree so far; feed it with `add`.

    Attributes:
        slices: named parts.
        axis: that of `slices`.
    """

    slices: Mapping[str, slice] = field(default_factory=dict)
    axis: int = 1
    _sums: dict[int, _Sums | None] = field(default_factory=dict)
    _values: Array = field(default_factory=lambda: np.zeros(0))
    _continuous: bool = False
    _problem: str = ""

    def add(self, candidate: Array, reference: Array) -> None:
        """Account for one pair of arrays of floats of one shape; places not finite are left out."""
        if reference.ndim < 2 or (self.slices and self.axis >= reference.ndim):
            self._problem = f"it has {reference.ndim} axes, too few for axis {self.axis}"
            return
        rows = max(1, _CHUNK_ELEMENTS // max(1, reference[0].size if len(reference) else 1))
        for start in range(0, len(reference), rows):
            self._add(candidate[start : start + rows], reference[start : start + rows])

    def _add(self, candidate: Array, reference: Array) -> None:
        if not reference.size:
            return
        left, right = (np.asarray(item, np.float64) for item in (candidate, reference))
        finite = np.isfinite(left) & np.isfinite(right)
        left, right = np.where(finite, left, np.nan), np.where(finite, right, np.nan)
        self._add_values(left[finite])
        axes = {1, right.ndim - 1} | ({self.axis % right.ndim} if self.slices else set())
        for axis in axes:
            rows = [
                np.moveaxis(item, axis, 0).reshape(item.shape[axis], -1) for item in (left, right)
            ]
            if len(rows[0]) > _INDICES and not (self.slices and axis == self.axis % right.ndim):
                self._sums[axis] = None
                continue
            sums = _Sums.of(*rows)
            before = self._sums.get(axis, sums)
            if before is None or len(before.count) != len(sums.count):
                self._sums[axis] = None  # an axis of several sizes has no channels
            elif axis in self._sums:
                self._sums[axis] = before.plus(sums)
            else:
                self._sums[axis] = sums

    def _add_values(self, values: Array) -> None:
        if self._continuous or not values.size:
            return
        self._values = np.unique(np.concatenate([self._values, np.unique(values)]))
        if len(self._values) > _DISTINCT:
            self._continuous, self._values = True, np.zeros(0)

    @property
    def step(self) -> float:
        """The smallest distance of two of the candidate's values; 0 if it has no coarse levels."""
        if self._continuous or len(self._values) < 2:
            return 0.0
        gaps = np.diff(self._values)
        # Values of one level may differ by rounding of the scale.
        gaps = gaps[gaps > 1e-5 * float(np.abs(self._values).max())]
        return float(gaps.min()) if gaps.size else 0.0

    def named(self) -> list[Part]:
        """The parts that the user named, with enough values."""
        axis = self.axis if self.axis > 0 else max(self._sums, default=0)
        parts: list[Part] = []
        for name, part in self.slices.items():
            sums = self._sums.get(axis)
            if sums is None:
                continue
            chosen = _sliced(sums, part)
            if len(chosen.count):
                first = range(*part.indices(len(sums.count)))[0]
                parts += _parts(_summed(chosen), self.step, [first], [name])
        return parts

    def missing(self, name: str) -> list[str]:
        """A sentence for each named part that could not be measured."""
        measured = {part.name for part in self.named()}
        return [
            f"output {name!r}: part {part!r} was not judged: "
            f"{self._problem or f'it has no values, or fewer than {_VALUES}'}"
            for part in self.slices
            if part not in measured
        ]

    def indices(self) -> dict[int, list[Part]]:
        """The parts by index, those with enough values, by axis."""
        return {
            axis: _parts(sums, self.step, list(range(len(sums.count))), [""] * len(sums.count))
            for axis, sums in self._sums.items()
            if sums is not None
        }

    def lost(self, limit_db: float) -> dict[int, list[Part]]:
        """Runs of indices that lost their information to the rest of the output, by axis."""
        return {
            axis: lost
            for axis, parts in self.indices().items()
            if (lost := _lost(parts, self.step, limit_db))
        }


def _lost(parts: Sequence[Part], step: float, limit_db: float) -> list[Part]:
    """The lost parts, if they are one run beside parts of another order of magnitude.

    An output of 8 bits always costs its weakest channels the most, which is sound. It is not if the
    axis falls in two: indices that are all lost, and others that spread much further.
    """
    alive = [part for part in parts if part.alive]
    lost = [
        part
        for part in alive
        if part.sqnr_db < limit_db and step > 0.0 and part.largest <= _STEPS * step
    ]
    kept = [part for part in alive if part not in lost]
    if not lost or not kept or max(part.largest for part in kept) <= _UNIT:
        return []
    in_one_run = not any(lost[0].index < part.index < lost[-1].index for part in kept)
    apart = min(part.spread for part in kept) >= _GAP * max(part.spread for part in lost)
    return lost if in_one_run and apart else []


def failure(name: str, axis: int | None, parts: Sequence[Part], step: float) -> str:
    """The sentence about parts that lost their information.

    Args:
        axis: that of indices; None for a named part.
    """
    first, last = parts[0], parts[-1]
    worst = min(parts, key=lambda part: part.sqnr_db)
    where, keep = f"part {first.name!r}", "keeps"
    if axis is not None and first is last:
        where = f"index {first.index} of axis {axis}"
    elif axis is not None:
        where, keep = f"indices {first.index}..{last.index} of axis {axis}", "keep at worst"
    levels = ""
    if step > 0.0:
        count = max(part.levels for part in parts)
        levels = f" (one step of the output is {step:.3g}, which leaves {count:.2g} levels)"
    return (
        f"output {name!r}: {where} {keep} {worst.sqnr_db:.2g} dB against the spread of its own "
        f"values{levels}: make it an output of its own, scale it to the range of the rest, "
        "or keep the head in float"
    )


def _sliced(sums: _Sums, part: slice) -> _Sums:
    fields = (sums.count, sums.total, sums.squares, sums.error, sums.low, sums.high)
    return _Sums(*(item[part] for item in fields))


def _summed(sums: _Sums) -> _Sums:
    """All parts as one, each around its own mean: offsets between channels are not information."""
    with np.errstate(divide="ignore", invalid="ignore"):
        within = sums.squares - np.where(sums.count > 0, sums.total**2 / sums.count, 0.0)
    return _Sums(
        sums.count.sum(keepdims=True),
        np.zeros(1),
        within.sum(keepdims=True),
        sums.error.sum(keepdims=True),
        sums.low.min(keepdims=True),
        sums.high.max(keepdims=True),
    )


def _parts(sums: _Sums, step: float, indices: Sequence[int], names: Sequence[str]) -> list[Part]:
    parts = []
    for position, (index, name) in enumerate(zip(indices, names, strict=True)):
        count, low, high = (float(item[position]) for item in (sums.count, sums.low, sums.high))
        if count < _VALUES or not high > low:
            continue
        mean = float(sums.total[position]) / count
        variance = float(sums.squares[position]) / count - mean * mean
        largest = max(abs(low), abs(high))
        # Less is cancellation in float64, or the rounding of float32.
        if not math.isfinite(variance) or variance <= (1e-6 * largest) ** 2:
            continue
        own = (high - low) ** 2 / 12.0 / 256.0**2
        parts.append(
            Part(
                name,
                index,
                _decibels(variance, float(sums.error[position]) / count),
                (high - low) / step if step > 0.0 else math.inf,
                math.sqrt(variance),
                largest,
                _decibels(variance, own),
            )
        )
    return parts


def _decibels(signal: float, noise: float) -> float:
    return min(_EXACT_DB, 10.0 * math.log10(signal / noise)) if noise > 0.0 else _EXACT_DB
