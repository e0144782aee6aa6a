"""The weights that a .tflite file stores, for the audit (see `weight_audit`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.targets.common.weight_audit import Stored, from_floats, from_integers

_DTYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT8": "i1", "UINT8": "u1"}


def stored(path: str) -> list[Stored]:
    """The constants of two axes or more, in float or 8-bit integers with a scale."""
    from ai_edge_litert import schema_py_generated as schema

    data = Path(path).read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    dtypes = {getattr(schema.TensorType, name): dtype for name, dtype in _DTYPES.items()}
    found: list[Stored] = []
    seen: set[int] = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
            if len(shape) < 2 or tensor.type not in dtypes or tensor.buffer in seen:
                continue
            raw = _bytes(model.buffers[tensor.buffer], data)
            dtype = np.dtype(dtypes[tensor.type])
            if not len(raw) or len(raw) != dtype.itemsize * int(np.prod(shape)):
                continue
            seen.add(tensor.buffer)
            name = tensor.name.decode("utf-8", "replace") if tensor.name else ""
            weight = _weight(name, np.frombuffer(raw, dtype).reshape(shape), tensor.quantization)
            found += [] if weight is None else [weight]
    return found


def _bytes(buffer: Any, data: bytes) -> Any:
    if buffer.offset > 1:  # beside the flatbuffer, in the same file (schema.fbs)
        return data[buffer.offset : buffer.offset + buffer.size]
    return b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()


def _weight(name: str, values: Any, quantization: Any) -> Stored | None:
    if values.dtype.kind == "f":
        return from_floats(name, values)
    scale = None if quantization is None else quantization.scale
    if scale is None or not len(scale):
        return None
    axis = int(quantization.quantizedDimension) if len(scale) > 1 else 0
    zero_point = quantization.zeroPoint
    zero_point = [0] if zero_point is None or not len(zero_point) else zero_point
    sizes = (1, values.shape[axis] if axis < values.ndim else 0)
    if len(scale) not in sizes or len(zero_point) not in sizes:
        return None

    def along(given: Any) -> Any:
        shape = [1] * values.ndim
        shape[axis] = len(given)
        return np.asarray(given, np.float32).reshape(shape)

    return from_integers(name, values, along(scale), along(zero_point))
