"""Values of the user's, of any library, as NumPy arrays of an input's dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.declare.inputs import Input
from edgecheck.errors import DataError

Array = npt.NDArray[Any]


def is_array(data: Any) -> bool:
    return isinstance(data, np.ndarray) or (
        hasattr(data, "__array__") and hasattr(data, "shape") and hasattr(data, "dtype")
    )


def as_array(data: Any) -> Array:
    """Any array-like as a NumPy array, memory-mapped ones left so."""
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    if isinstance(data, np.ndarray):
        return data
    array: Array = np.asarray(data)
    return array


def convert(array: Array, item: Input, what: str, first: int = 0) -> Array:
    """The values in the input's dtype; `first` is the position of the first row in all data."""
    wanted = np.dtype(item.dtype)
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and wanted.kind != "f"):
        raise DataError(f"{what} for input {item.name!r} is {array.dtype}; the input is {wanted}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row, *rest = (int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise DataError(
            f"{what} for input {item.name!r} has NaN or infinite values, "
            f"the first at {(first + row, *rest)}"
        )
    if wanted.kind != "b" and array.size:
        bounds = np.iinfo(wanted) if wanted.kind in "iu" else np.finfo(wanted)
        low, high = array.min(), array.max()
        if low < bounds.min or high > bounds.max:
            raise DataError(
                f"{what} for input {item.name!r} has values {low}..{high}, "
                f"which {wanted} can't hold"
            )
    return array.astype(wanted, copy=False)
