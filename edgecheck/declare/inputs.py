"""The declaration of an input: its shape, its dtype, and the domain of its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecheck.errors import DeclarationError

BATCH = "batch"
# Bounds of a named dimension that `Model.dims` does not state.
DEFAULT_DIM = (1, 64)
_DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


@dataclass(frozen=True)
class Input:
    """One input of a model and the domain its values come from.

    Attributes:
        name: the parameter of the module's ``forward``, or the input's name in the model file.
        shape: one entry per axis: a size, or the name of a dynamic dimension. A first axis named
            ``"batch"`` makes the batch dynamic; a number there is a static batch; () is a scalar.
        low, high: smallest and largest value (inclusive for integers) of generated inputs.
        dtype: a NumPy dtype name.
        step: the spacing of generated floats from `low` on, if not all between are possible:
            1/255 for pixels scaled to 0..1.
        bounds: whether calls with all values at `low`, all at `high` or all zero are valid. An
            input for which they are not, as a mask of which something must be kept, is random
            where others are set to a bound.

    Raises:
        DeclarationError: an impossible shape, dtype, range or step.
    """

    name: str
    shape: tuple[int | str, ...]
    low: float = 0.0
    high: float = 1.0
    dtype: str = "float32"
    step: float | None = None
    bounds: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        where = f"input {self.name!r}"
        _check_dtype(self.dtype, where)
        _check_shape(self.shape, where)
        _check_range(self, where)

    @property
    def batched(self) -> bool:
        """Whether the batch axis is dynamic."""
        return bool(self.shape) and self.shape[0] == BATCH


def takes_whole_calls(inputs: Sequence[Input]) -> bool:
    """Whether a sample of the user's data is all inputs of one call.

    It is where the inputs have no batch axis in common: a scalar, or a state beside frames whose
    first axis is layers.
    """
    first = {item.shape[0] if item.shape else None for item in inputs}
    return len(first) > 1 or None in first


def _check_dtype(dtype: str, where: str) -> None:
    if dtype not in _DTYPES:
        raise DeclarationError(f"{where}: unknown dtype {dtype!r}; use one of {_DTYPES}")


def _check_shape(shape: tuple[int | str, ...], where: str) -> None:
    for axis, size in enumerate(shape):
        if isinstance(size, bool) or not isinstance(size, int | str):
            raise DeclarationError(
                f"{where}: axis {axis} is {size!r}, which is neither a size nor a name"
            )
        if isinstance(size, int) and size < 1:
            raise DeclarationError(f"{where}: axis {axis} has size {size}; sizes start at 1")
        if size == BATCH and axis != 0:
            raise DeclarationError(f"{where}: 'batch' must be the first axis, not axis {axis}")


def _check_range(item: Input, where: str) -> None:
    """The range is finite, holds a value of the dtype, fits the dtype, and has room for a step."""
    low, high, kind = item.low, item.high, np.dtype(item.dtype).kind
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise DeclarationError(f"{where}: no range between low={low} and high={high}")
    if item.step is not None and not (kind == "f" and 0 < item.step <= high - low):
        raise DeclarationError(
            f"{where}: step={item.step} is not a spacing of floats in {low}..{high}"
        )
    if kind in "iu" and math.ceil(low) > math.floor(high):
        raise DeclarationError(f"{where}: no integer between {low} and {high}")
    if kind != "b" and not _representable(low, high, item.dtype):
        raise DeclarationError(f"{where}: {low}..{high} overflows {item.dtype}")


def _representable(low: float, high: float, dtype: str) -> bool:
    """Whether the bounds of a range are within those of a dtype of integers or floats."""
    if np.dtype(dtype).kind in "iu":
        integers = np.iinfo(dtype)
        return low >= int(integers.min) and high <= int(integers.max)
    floats = np.finfo(dtype)
    return low >= float(floats.min) and high <= float(floats.max)
