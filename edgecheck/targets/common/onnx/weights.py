"""The weights that an .onnx file stores, for the audit (see `weight_audit`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.names import layer_of
from edgecheck.targets.common.onnx import inspection
from edgecheck.targets.common.weight_audit import Stored, from_floats, from_integers

# Where operators have a weight, its scale (None: not among the inputs) and its zero point, and the
# axis of the channels (None: an attribute). ONNX and com.microsoft.
_QUANTIZED: dict[str, tuple[int, int | None, int, int | None]] = {
    "DequantizeLinear": (0, 1, 2, None),
    "QLinearConv": (3, 4, 5, 0),
    "QLinearMatMul": (3, 4, 5, -1),
    "ConvInteger": (1, None, 3, 0),
    "MatMulInteger": (1, None, 3, -1),
    "MatMulIntegerToFloat": (1, 3, 5, -1),
    "DynamicQuantizeMatMul": (1, 2, 3, -1),
}


def read(path: str) -> dict[str, list[npt.NDArray[Any]]]:
    """Float initializers of two axes or more by layer, in float32: those of a source."""
    weights: dict[str, list[npt.NDArray[Any]]] = {}
    for item in stored(path):
        if item.step is None:
            weights.setdefault(layer_of(item.name), []).append(item.values)
    return weights


def stored(path: str) -> list[Stored]:
    """The initializers of two axes or more, in float or 8-bit integers with a constant scale."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    types = onnx.TensorProto
    found = []
    for graph in inspection.graphs(model.graph):
        constants = {item.name: item for item in graph.initializer}
        users: dict[str, Any] = {}
        for node in graph.node:
            position = _QUANTIZED.get(node.op_type, (len(node.input),))[0]
            if position < len(node.input):
                users.setdefault(node.input[position], node)

        def read(name: str, constants: dict[str, Any] = constants) -> npt.NDArray[Any] | None:
            return numpy_helper.to_array(constants[name]) if name in constants else None

        for name, item in constants.items():
            if len(item.dims) < 2:
                continue
            if item.data_type in (types.FLOAT, types.FLOAT16):
                found.append(from_floats(name, numpy_helper.to_array(item)))
            elif item.data_type in (types.INT8, types.UINT8) and name in users:
                weight = _integers(name, users[name], numpy_helper.to_array(item), read)
                found += [] if weight is None else [weight]
    return found


def _integers(name: str, node: Any, values: npt.NDArray[Any], read: Any) -> Stored | None:
    """A weight that an operator dequantizes; None where its scale is computed, or by blocks."""
    _, scale_at, zero_at, axis = _QUANTIZED[node.op_type]
    attributes = {item.name: item.i for item in node.attribute}
    if attributes.get("block_size"):
        return None
    axis = attributes.get("axis", 1) if axis is None else axis

    def along(position: int) -> npt.NDArray[Any] | None:
        given = node.input[position] if len(node.input) > position else ""
        array = read(given) if given else np.zeros(())
        if array is None or array.size not in (1, values.shape[axis]):
            return None
        shape = [1] * values.ndim
        shape[axis] = array.size
        return np.asarray(array.reshape(shape), np.float32)

    scale = None if scale_at is None else along(scale_at)
    zero_point = along(zero_at)
    if zero_point is None or (scale is None and scale_at is not None):
        return None
    return from_integers(name, values, scale, zero_point)
