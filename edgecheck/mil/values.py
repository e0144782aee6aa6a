"""Values while a program runs: tensors as stored and as handlers get them, lists, states.

A stored tensor has its declared type, so that fp16 is rounded and overflows; a handler gets floats
in float32. torch has no arithmetic for uint16, uint32, uint64 and none of the types under a byte:
these are kept in the next wider type, within their range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgecheck.mil.call import TensorType
from edgecheck.mil.pickling import NUMPY_DTYPES, PACKED_BITS, unpack
from edgecheck.mil.program import DictionaryType, ListType, StateType, Value, ValueType

_STORED_AS = {
    "bool": torch.bool,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp64": torch.float64,
    "int4": torch.int8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint1": torch.uint8,
    "uint2": torch.uint8,
    "uint3": torch.uint8,
    "uint4": torch.uint8,
    "uint6": torch.uint8,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "uint32": torch.int64,
    "uint64": torch.int64,
}
_WRAP_BITS = {"uint16": 16, "uint32": 32}


class ExecutionError(ValueError):
    """An operation can't be run, or its result is not what the program declares."""

    stands_alone = True


@dataclass(frozen=True)
class ListValue:
    """A list of tensors; None where nothing was written yet."""

    items: tuple[torch.Tensor | None, ...]
    element: TensorType
    dynamic_length: bool


@dataclass
class State:
    """A tensor that operations read and write by reference."""

    tensor: torch.Tensor


def integer_range(dtype: str) -> tuple[int, int]:
    """The least and greatest value of a declared integer type."""
    bits = PACKED_BITS.get(dtype) or 8 * NUMPY_DTYPES[dtype].itemsize
    if dtype.startswith("uint"):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def constant(value: Value) -> Any:
    """A constant as handlers get it: a tensor, floats in float32; a str; a tuple of str or int."""
    if not isinstance(value.data, np.ndarray) or not isinstance(value.type, TensorType):
        return value.data
    array = value.data
    if value.type.dtype in PACKED_BITS:
        shape = tuple(size or 0 for size in value.type.shape)
        array = unpack(array, value.type.dtype, math.prod(shape)).reshape(shape)
    return widened(from_array(array))


def from_array(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """An array as a tensor, of the same memory where torch knows its type."""
    wider = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}.get(array.dtype.name)
    return torch.from_numpy(array.astype(wider) if wider else array)


def widened(value: Any) -> Any:
    """A value as handlers get it: floats in float32."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.float()
    return value


def stored(value: Any, declared: ValueType) -> Any:
    """A handler's result as it is stored: in its declared type, rounded to it.

    Raises:
        ExecutionError: if its kind or shape is not the declared one.
    """
    if not isinstance(declared, TensorType):
        return _expect(value, _PYTHON_TYPES[type(declared)])
    if declared.dtype == "string":
        return _expect(value, tuple if declared.shape else str)
    tensor: torch.Tensor = _expect(value, torch.Tensor)
    if not fits(tensor.shape, declared.shape):
        raise ExecutionError(
            f"gives shape {tuple(tensor.shape)} where {declared.shape} is declared"
        )
    if _kind(tensor.dtype) != _kind(_STORED_AS[declared.dtype]):
        raise ExecutionError(f"gives {tensor.dtype} where {declared.dtype} is declared")
    if declared.dtype in _WRAP_BITS:
        tensor = tensor.long() & (2 ** _WRAP_BITS[declared.dtype] - 1)
    return tensor.to(_STORED_AS[declared.dtype])


def fits(shape: Sequence[int], declared: Sequence[int | None]) -> bool:
    """Whether a shape is a declared one, of which None leaves a size open."""
    return len(shape) == len(declared) and all(
        size in (None, actual) for actual, size in zip(shape, declared, strict=True)
    )


def zeros(declared: TensorType) -> torch.Tensor:
    """A stored tensor of zeros.

    Raises:
        ExecutionError: if a size is open.
    """
    if None in declared.shape:
        raise ExecutionError(f"shape {declared.shape} of a new tensor is not known")
    shape = [size for size in declared.shape if size is not None]
    return torch.zeros(shape, dtype=_STORED_AS[declared.dtype])


def element_type(declared: ValueType) -> TensorType:
    """Of a list its elements' type, of a state the wrapped one, of a dictionary the values'."""
    if isinstance(declared, TensorType):
        return declared
    if isinstance(declared, ListType):
        return declared.element
    return declared.wrapped if isinstance(declared, StateType) else declared.value


_PYTHON_TYPES: dict[type, type] = {ListType: ListValue, DictionaryType: dict, StateType: State}


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ExecutionError(f"gives {type(value).__name__} where {kind.__name__} is declared")
    return value


def _kind(dtype: torch.dtype) -> str:
    if dtype is torch.bool:
        return "bool"
    return "float" if dtype.is_floating_point else "integer"
