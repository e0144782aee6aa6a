"""The data of an XNNPACK delegate with every intermediate value as an external output.

What is added goes behind all that was there, and little is changed in place, so that nothing else
of it need be understood. Slots are those of ExecuTorch's backends/xnnpack/serialization/schema.fbs,
flags those of XNNPACK's include/xnnpack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.targets.executorch import xnnpack_graph
from edgecheck.targets.executorch.flatbuffer import Table, Window

Grid = tuple[float, int]

_EXTERNAL_INPUT, _EXTERNAL_OUTPUT = 1, 2
# Of XNNDatatype; others are weights, or grids that change with the data (dynamic quantization).
_DTYPES = {1: "float32", 2: "float16", 3: "int8", 4: "uint8"}
_QUANTIZED_VALUE, _PER_TENSOR = 2, 2
# Of constants, by which XNNPACK may read.
_ALIGNMENT = 128
# XNNCompiler's own limit.
_MOST_EXTERNS = 4096
# Slots of the value that a node computes, unless it is the second as in nodes of one input.
_RESULTS = {
    **dict.fromkeys(("XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d"), 18),
    **dict.fromkeys(("XNNAvgPooling2d", "XNNMaxPooling2d"), 11),
    **dict.fromkeys((f"XNNConcatenate{count}" for count in (2, 3, 4, 5)), 5),
    **dict.fromkeys(("XNNFullyConnected", "XNNStaticTranspose", "XNNStaticReshape"), 3),
    **dict.fromkeys(("XNNStaticConstantPad", "XNNStaticSlice"), 4),
    **dict.fromkeys(("XNNLeakyReLU", "XNNELU"), 2),
    **dict.fromkeys(("XNNAdd", "XNNSubtract", "XNNMultiply", "XNNDiv", "XNNMinimum"), 2),
    **dict.fromkeys(("XNNMaximum", "XNNPReLU", "XNNBatchMatMul"), 2),
    "XNNStaticResizeBilinear2D": 3,
    "XNNArgMaxPooling2d": 7,
    "XNNScaledDotProductAttention": 5,
}


@dataclass(frozen=True)
class Value:
    """A value that a node computes.

    Attributes:
        type: the node's.
        argument: its position among the arguments of the delegate's call.
        shape: where it varies, the largest.
        grid: scale and zero point, if it is quantized.
    """

    name: str
    type: str
    argument: int
    dtype: str
    shape: tuple[int, ...]
    grid: Grid | None


@dataclass(frozen=True)
class Exposed:
    """A delegate's new data.

    Attributes:
        values: in the order of execution.
        results: arguments of the call that were outputs before.
    """

    data: bytes
    values: tuple[Value, ...]
    results: tuple[int, ...]


def expose(data: bytes, arguments: int) -> Exposed:
    """Make outputs of all values that nodes compute, as arguments behind those that there are.

    Args:
        data: of the delegate.
        arguments: how many its call has.

    Raises:
        ValueError: it is damaged, or of a version that is not known.
    """
    nodes = xnnpack_graph.read_graph(data, 0, len(data)).nodes
    start, end = _bounds(data)
    graph = bytearray(data[start:end])
    window = Window(bytes(graph), 0, len(graph))
    root = window.root()
    tables = {_plain(item).number(6, "uint32"): item for item in root.tables(2)}
    results = tuple(
        argument
        for value in map(_plain, tables.values())
        if value.number(5, "uint32") & _EXTERNAL_OUTPUT
        and (argument := value.number(4, "uint32")) < arguments
    )
    values: list[Value] = []
    added: list[int] = []
    count = max(arguments, root.number(3, "uint32"))
    for node, item in zip(nodes, root.tables(1), strict=True):
        table = item.table(1)
        if table is None or " " in node.type:
            continue  # of a kind that is not known
        identity = table.number(_RESULTS.get(node.type, 1), "uint32")
        if identity not in tables:
            continue
        value = _plain(tables[identity])
        dtype, flags = _DTYPES.get(value.number(0, "int16")), value.number(5, "uint32")
        if dtype is None or value.number(3, "uint32") or flags & _EXTERNAL_INPUT:
            continue
        argument = value.number(4, "uint32")
        if not flags & _EXTERNAL_OUTPUT:
            if count >= _MOST_EXTERNS:
                continue
            argument, count = count, count + 1
            _replace(graph, tables[identity], value, argument)
            added.append(identity)
        shape, grid = value.numbers(2, "uint32"), _grid(tables[identity])
        values.append(Value(f"value {identity}", node.type, argument, dtype, shape, grid))
    if not added:
        return Exposed(data, tuple(values), results)
    place = root._field(3)
    if not place:
        raise ValueError("the graph has no external values")
    struct.pack_into("<I", graph, place, count)
    outputs = [*root.numbers(5, "uint32"), *added]
    _point(graph, root, 5, _append_vector(graph, outputs))
    return Exposed(_with_graph(data, bytes(graph)), tuple(values), results)


def _bounds(data: bytes) -> tuple[int, int]:
    """Where the graph lies in a delegate's data."""
    if data[4:8] != b"XH00":
        return 0, len(data)
    offset, size = struct.unpack_from("<II", data, 10)
    return offset, offset + size


def _with_graph(data: bytes, graph: bytes) -> bytes:
    """The data with another graph; the constants come after it (XNNHeader has where both are).

    Without a header the graph is all there is.
    """
    if data[4:8] != b"XH00":
        return graph
    offset, _, constants = struct.unpack_from("<III", data, 10)
    (constants_size,) = struct.unpack_from("<Q", data, 22)
    place = -(-(offset + len(graph)) // _ALIGNMENT) * _ALIGNMENT
    header = bytearray(data[:offset])
    struct.pack_into("<III", header, 10, offset, len(graph), place)
    return bytes(header + graph).ljust(place, b"\0") + data[constants : constants + constants_size]


def _plain(item: Table) -> Table:
    """The XNNTensorValue of an XValue."""
    holder, slot = _holder(item)
    value = holder.table(slot)
    if value is None:
        raise ValueError("a value is empty")
    return value


def _holder(item: Table) -> tuple[Table, int]:
    """The table and its slot that hold the XNNTensorValue of an XValue."""
    if item.number(0, "uint8") != _QUANTIZED_VALUE:
        return item, 1
    quantized = item.table(1)
    if quantized is None:
        raise ValueError("a value is empty")
    return quantized, 0


def _grid(item: Table) -> Grid | None:
    """Scale and zero point of a value that has one of each."""
    if item.number(0, "uint8") != _QUANTIZED_VALUE:
        return None
    holder, _ = _holder(item)
    parameters = holder.table(2)
    if parameters is None or holder.number(1, "uint8") != _PER_TENSOR:
        return None
    (scale,) = struct.unpack("<f", struct.pack("<I", parameters.number(0, "uint32")))
    return float(scale), parameters.number(1, "int32")


def _replace(graph: bytearray, item: Table, value: Table, argument: int) -> None:
    """Put an XNNTensorValue that is an output in the place of one that is internal.

    A FlatBuffer leaves fields out that have their default, so that they can't be set in place.
    """
    dims = value.numbers(2, "uint32")
    _pad(graph)
    fields = len(graph)
    # The vtable: its size, the table's, and each field's offset.
    graph += struct.pack("<9H", 18, 32, 4, 8, 12, 16, 20, 24, 28)
    _pad(graph)
    table = len(graph)
    graph += struct.pack(
        "<ih2xIIIIII",
        table - fields,
        value.number(0, "int16"),
        value.number(1, "uint32"),
        20,  # from here, 12 bytes into the table, to the dims behind it
        0,
        argument,
        _EXTERNAL_OUTPUT,
        value.number(6, "uint32"),
    )
    _append_vector(graph, dims)
    holder, slot = _holder(item)
    _point(graph, holder, slot, table)


def _append_vector(graph: bytearray, numbers: Sequence[int]) -> int:
    _pad(graph)
    start = len(graph)
    graph += struct.pack(f"<{len(numbers) + 1}I", len(numbers), *numbers)
    return start


def _pad(graph: bytearray) -> None:
    graph += bytes(-len(graph) % 4)


def _point(graph: bytearray, table: Table, slot: int, target: int) -> None:
    """Let a table's field refer to what lies elsewhere, further back."""
    place: Any = table._field(slot)
    if not place:
        raise ValueError(f"field {slot} of a table is not there")
    struct.pack_into("<I", graph, place, target - place)
