"""Inputs of one call from the declared domain, joined by what the user's ``draw`` makes valid.

See also `edgecheck.capture.data.random_inputs`, which draws each input by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.capture.arrays import as_array, convert
from edgecheck.capture.base import story
from edgecheck.capture.data import random_inputs
from edgecheck.declare.model import Draw, Input
from edgecheck.errors import DataError

Array = npt.NDArray[Any]


def random_call(
    inputs: Sequence[Input],
    sizes: Mapping[str, int],
    rng: np.random.Generator,
    draw: Draw | None,
) -> dict[str, Array]:
    """Random inputs for given sizes of the named dimensions, some of them from `draw`.

    Raises:
        DataError: see `drawn_inputs`.
    """
    return {**random_inputs(inputs, sizes, rng), **drawn_inputs(inputs, sizes, rng, draw)}


def drawn_inputs(
    inputs: Sequence[Input],
    sizes: Mapping[str, int],
    rng: np.random.Generator,
    draw: Draw | None,
) -> dict[str, Array]:
    """What `draw` returns, in the inputs' dtypes; {} without one.

    Raises:
        DataError: it raised, or what it returned does not fit the declared inputs.
    """
    if draw is None:
        return {}
    try:
        returned = draw(dict(sizes), rng)
    except Exception as error:
        raise DataError(f"draw raised {story(error)}") from error
    declared = {item.name: item for item in inputs}
    if not isinstance(returned, Mapping) or not returned:
        raise DataError(
            f"draw returned {returned!r:.60}; it returns arrays by input name "
            f"({', '.join(declared)})"
        )
    if unknown := sorted(map(str, set(returned) - set(declared))):
        raise DataError(f"draw returned {unknown}, but the inputs are {sorted(declared)}")
    return {name: _fitted(value, declared[name], sizes) for name, value in returned.items()}


def tied_inputs(
    inputs: Sequence[Input], sizes: Mapping[str, int], draw: Draw | None
) -> frozenset[str]:
    """The inputs whose values can't be chosen freely: those that `draw` returns or without bounds.

    Args:
        sizes: of the named dimensions, any that the model takes.
    """
    drawn = drawn_inputs(inputs, sizes, np.random.default_rng(0), draw)
    return frozenset([*drawn, *(item.name for item in inputs if not item.bounds)])


def _fitted(value: Any, item: Input, sizes: Mapping[str, int]) -> Array:
    """An array that `draw` returned, in the input's dtype."""
    array = convert(np.asarray(as_array(value)), item, "what draw returned")
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in item.shape)
    if array.shape != shape:
        raise DataError(
            f"draw returned {item.name!r} of shape {array.shape}; the shape is {shape} for "
            f"{dict(sizes)}"
        )
    if array.dtype.kind != "b" and array.size:
        low, high = array.min(), array.max()
        if low < array.dtype.type(item.low) or high > array.dtype.type(item.high):
            raise DataError(
                f"draw returned {item.name!r} with values {low}..{high}, outside of its domain "
                f"{item.low}..{item.high}"
            )
    return array
