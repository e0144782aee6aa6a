"""What is in a .tflite file: operators, layers, weights by storage type, a plan of its memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecheck.targets.base import Inspection
from edgecheck.targets.common.contents import Contents
from edgecheck.targets.tflite import memory

# Tensor types that, with a scale, hold quantized values.
_INTEGER_TYPES = ("INT8", "UINT8", "INT16", "INT4")
_STORAGE = {"UINT8": "int8", "UINT4": "int4"}
_BITS = {"INT4": 4, "UINT4": 4, "BOOL": 8}
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def inspect(path: Path) -> Inspection:
    """Parse the file and count what is in it."""
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        return Inspection.unreadable("the file is not a TFLite flatbuffer (identifier TFL3)")
    contents = Contents()
    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        for graph in model.subgraphs:
            _count(model, graph, schema, contents)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return Inspection.unreadable(
            f"the file is cut off or damaged: its flatbuffer can't be parsed ({text})"
        )
    inspection = Inspection(
        failures=tuple(_cut_off(model, len(data))),
        format={"schema_version": model.version},
        layers=contents.layers,
        activation_memory=memory.plan_memory(model, schema),
    )
    return contents.added_to(inspection)


def _cut_off(model: Any, size_bytes: int) -> list[str]:
    """Weights outside the flatbuffer, as in large files, that end after the file does."""
    ends = [item.offset + item.size for item in model.buffers if item.offset > 1]
    needed = max(ends, default=0)
    if needed <= size_bytes:
        return []
    return [f"the file is cut off: its weights end at byte {needed}, it has {size_bytes}"]


def _count(model: Any, graph: Any, schema: Any, contents: Contents) -> None:
    """Count a graph's operators, quantized operators, layers, and weights by storage type.

    A weight is a constant of two elements or more that an operator reads, other than unquantized
    int32 and int64 (shapes, axes, indices). An operator is quantized if a weight of it is an
    integer or comes from DEQUANTIZE, or its data is quantized.
    """
    types, codes = _names(schema.TensorType), _names(schema.BuiltinOperator)
    tensors = graph.tensors
    counted: set[int] = set()
    unpacked: set[int] = set()

    def is_quantized(tensor: Any) -> bool:
        return types[tensor.type] in _INTEGER_TYPES and _has_scale(tensor)

    for operator in graph.operators or []:
        name = _operator_name(model.operatorCodes[operator.opcodeIndex], codes)
        contents.add_operator(name)
        reads = [int(index) for index in _list(operator.inputs) if index >= 0]
        if name in _LAYERS:
            shape = "x".join(map(str, _list(tensors[reads[1]].shape)))
            integer = types[tensors[reads[0]].type] in _INTEGER_TYPES
            contents.add_layer(f"{name} {shape}", integer=integer)
        for index in reads:
            if _is_constant(model, tensors[index]) and index not in counted:
                counted.add(index)
                _count_weight(tensors[index], types[tensors[index].type], contents)
        if name == "DEQUANTIZE" and _is_constant(model, tensors[reads[0]]):
            unpacked.update(int(index) for index in _list(operator.outputs))
        elif name not in ("QUANTIZE", "DEQUANTIZE") and (
            unpacked.intersection(reads) or any(is_quantized(tensors[index]) for index in reads)
        ):
            contents.add_quantized_operator(name)


def _count_weight(tensor: Any, kind: str, contents: Contents) -> None:
    count = _product(tensor.shape)
    if count < 2 or (kind in ("INT32", "INT64") and not _has_scale(tensor)):
        return
    bits = _BITS.get(kind) or int("".join(filter(str.isdigit, kind)) or 8)
    contents.add_weight(_STORAGE.get(kind, kind.lower()), count, (count * bits + 7) // 8)


def _names(enumeration: Any) -> dict[int, str]:
    return {
        value: name
        for name, value in vars(enumeration).items()
        if isinstance(value, int) and not name.startswith("_")
    }


def _operator_name(code: Any, codes: Mapping[int, str]) -> str:
    # Old files have the operator in the deprecated field only, which ends at 127.
    name = codes.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
    return f"CUSTOM {code.customCode.decode()}" if name == "CUSTOM" and code.customCode else name


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)


def _product(shape: Any) -> int:
    total = 1
    for size in _list(shape):
        total *= int(size)
    return total


def _is_constant(model: Any, tensor: Any) -> bool:
    buffer = model.buffers[tensor.buffer]
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.offset > 1


def _has_scale(tensor: Any) -> bool:
    quantization = tensor.quantization
    return quantization is not None and len(_list(quantization.scale)) > 0
