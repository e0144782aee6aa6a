"""Which few elements of a float layer are not the bits that rounding gives, where all others are.

A flipped last bit is no larger than rounding itself, but honest rounding leaves nothing to chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Of a layer's elements, so many may differ: fewer than a channel has whose factor can be told.
_MOST = 3
# The smallest normal number of float16: what is below some converters flush to zero.
_SMALLEST_NORMAL_HALF = 2.0**-14
# Of products in float32, which are rounded before they are stored in float16.
_PRODUCT = 2.0**-21


def odd(weight: Array, values: Array, telling: Array, *, half: bool, axis: int | None) -> Array:
    """A mask of the elements; all False where too many differ to tell.

    Args:
        weight: of the program, float32.
        values: as stored, float32.
        telling: mask of the elements to look at.
        half: whether they are stored in float16.
        axis: along which each entry has a factor of its own (a folded batch norm); None for none.
            In float32 products have no last bit to rely on: nothing is odd there.
    """
    if axis is not None and not half:
        return np.zeros(values.shape, bool)
    if half:
        telling = telling & (np.abs(values) > _SMALLEST_NORMAL_HALF)
    with np.errstate(all="ignore"):
        if axis is not None:
            found = _inconsistent(weight, values, telling, axis)
        else:
            dtype = np.float16 if half else np.float32
            found = (weight.astype(dtype).astype(np.float32) != values) & telling
            if half and found.any():
                found = _unless_scaled(weight, values, telling, found)
    return found if np.count_nonzero(found) <= _MOST else np.zeros(values.shape, bool)


def _inconsistent(weight: Array, values: Array, telling: Array, axis: int) -> Array:
    """Elements whose factor is none that all others of their channel can have.

    See `_factors`.
    """
    low, high = (rows(ends, axis) for ends in _factors(weight, values, telling))
    found = np.zeros(low.shape, bool)
    for row in np.flatnonzero(low.max(axis=1) > high.min(axis=1)):
        suspects = (int(low[row].argmax()), int(high[row].argmin()))
        guilty = [one for one in suspects if _consistent(low[row], high[row], one)]
        found[row, guilty[:1] or suspects] = True
    shape = np.moveaxis(values, axis, 0).shape
    return np.moveaxis(found.reshape(shape), 0, axis)


def _unless_scaled(weight: Array, values: Array, telling: Array, found: Array) -> Array:
    """The elements that differ, but for those that one factor for the whole layer explains.

    A batch norm that was never trained has the variance 1 in all channels, so folding it in
    multiplies the layer by 1/sqrt(1 + epsilon): of 1e-5 that is 0.999995, a hundredth of the
    distance between two numbers of float16, and only elements halfway between two round otherwise.
    All others together hold the factor within that distance over their number, so that an element
    that is not halfway has no such excuse.
    """
    low, high = (ends.ravel() for ends in _factors(weight, values, telling))
    if low.max() <= high.min():
        return np.zeros(found.shape, bool)
    for suspect in (int(low.argmax()), int(high.argmin())):
        if _consistent(low, high, suspect):
            alone = np.zeros(found.size, bool)
            alone[suspect] = True
            return alone.reshape(found.shape)
    return found


def _factors(weight: Array, values: Array, telling: Array) -> tuple[Array, Array]:
    """The least and the largest factor that each element can have been made with, in float16.

    An element w stored as v was made with a factor of between (v - ulp/2) / w and (v + ulp/2) / w.
    """
    stored = values.astype(np.float16)
    slack = _PRODUCT * np.abs(values, dtype=np.float64)
    below, above = (
        (np.nextafter(stored, np.float16(end)).astype(np.float64) + values) / 2
        for end in (-np.inf, np.inf)
    )
    ends = np.stack(((below - slack) / weight, (above + slack) / weight))
    low = np.where(telling, ends.min(axis=0), -np.inf)
    return low, np.where(telling, ends.max(axis=0), np.inf)


def _consistent(low: Array, high: Array, without: int) -> bool:
    return bool(np.delete(low, without).max() <= np.delete(high, without).min())


def rows(array: Array, axis: int) -> Array:
    """An array as a matrix with a row for each entry of an axis."""
    moved = np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), -1)
