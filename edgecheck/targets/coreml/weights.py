"""The weights that a .mlpackage stores, for the audit (see `weight_audit`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.mil.call import TensorType
from edgecheck.mil.pickling import PACKED_BITS, unpack
from edgecheck.mil.program import Operation, Value
from edgecheck.mil.reader import read
from edgecheck.targets.common.weight_audit import Stored, from_floats, from_integers, from_palette

# Of the operators that unpack 8-bit weights: data, zero point, and whether scales are by blocks.
_UNPACKERS = {
    "constexpr_affine_dequantize": ("quantized_data", "zero_point", False),
    "dequantize": ("input", "zero_point", False),
    "constexpr_blockwise_shift_scale": ("data", "offset", True),
}


def stored(path: str) -> list[Stored]:
    """The constants of two axes or more, in float, 8-bit integers with a constant scale, or values
    of one table."""
    program = read(Path(path))
    block = program.functions[program.default_function].block
    constants = {
        item.outputs[0].name: item.attributes["val"]
        for item in block.walk()
        if item.operator == "const" and item.outputs and "val" in item.attributes
    }
    found = []
    for operation in block.walk():
        if operation.operator in _UNPACKERS:
            weight = _unpacked(operation, constants)
            found += [] if weight is None else [weight]
        elif operation.operator == "constexpr_lut_to_dense":
            weight = _looked_up(operation, constants)
            found += [] if weight is None else [weight]
    for name, value in constants.items():
        if _dtype(value) in ("fp16", "fp32") and value.data.ndim >= 2:
            found.append(from_floats(name, value.data))
    return found


def _dtype(value: Value) -> str:
    return value.type.dtype if isinstance(value.type, TensorType) else ""


def _given(operation: Operation, parameter: str, constants: dict[str, Value]) -> Value | None:
    """A parameter that is an attribute or a constant."""
    if parameter in operation.attributes:
        value: Any = operation.attributes[parameter]
    else:
        value = next(iter(operation.inputs.get(parameter, ())), None)
    value = constants.get(value) if isinstance(value, str) else value
    return value if isinstance(value, Value) else None


def _looked_up(operation: Operation, constants: dict[str, Value]) -> Stored | None:
    """What an operator looks up in one table (iOS16: of packed indices); None of several tables."""
    indices = _given(operation, "indices", constants)
    lut = _given(operation, "lut", constants)
    shape = _given(operation, "shape", constants)
    if indices is None or lut is None or lut.data.size != max(lut.data.shape, default=0):
        return None
    places = indices.data
    if shape is not None:
        sizes = tuple(int(size) for size in np.ravel(shape.data))
        packed = f"uint{int(lut.data.size).bit_length() - 1}"
        if packed in PACKED_BITS:
            places = unpack(places, packed, math.prod(sizes))
        places = places.reshape(sizes)
    if places.ndim < 2:
        return None
    return from_palette(operation.outputs[0].name, places.astype(np.int64), lut.data.ravel())


def _unpacked(operation: Operation, constants: dict[str, Value]) -> Stored | None:
    """What an operator unpacks; None where it is no 8-bit constant of two axes or more."""
    data_name, zero_name, blocks = _UNPACKERS[operation.operator]
    data, scale, zero_point = (
        _given(operation, parameter, constants) for parameter in (data_name, "scale", zero_name)
    )
    if data is None or scale is None or _dtype(data) not in ("int8", "uint8"):
        return None
    if data.data.ndim < 2 or (zero_point is None and zero_name in operation.inputs):
        return None
    axis = _given(operation, "axis", constants)
    along = 0 if axis is None else int(np.asarray(axis.data).item())

    def fitted(value: Value | None) -> Any:
        if value is None:
            return np.zeros((1,) * data.data.ndim)
        array = np.asarray(value.data, np.float32)
        if blocks:
            for position, (size, count) in enumerate(
                zip(data.data.shape, array.shape, strict=True)
            ):
                if count not in (1, size):
                    array = np.repeat(array, size // count, position)
            return array
        shape = [1] * data.data.ndim
        shape[along] = array.size
        return array.reshape(shape)

    return from_integers(operation.outputs[0].name, data.data, fitted(scale), fitted(zero_point))
