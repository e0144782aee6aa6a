"""What is in the data of an XNNPACK delegate in a .pte file: nodes, and constants by type.

Self-contained (standard library), since it is sent to the device. Slots are those of ExecuTorch's
backends/xnnpack/serialization/schema.fbs, and the header is that of its XNNHeader.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from edgecheck.targets.executorch.flatbuffer import Table, Window

BACKEND = "XnnpackBackend"
# XNNDatatype; those with "q" are quantized.
_TYPES = (
    *("invalid", "fp32", "fp16", "qint8", "quint8", "qint32", "qcint8", "qcint32", "qcint4"),
    *("qdint8", "qbint4", "qpint8", "int32", "pfp32", "bf16"),
)
STORAGE = {
    **{"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "pfp32": "float32"},
    **{"qint8": "int8", "quint8": "int8", "qcint8": "int8"},
    **{"qint32": "int32", "qcint32": "int32", "qcint4": "int4", "qbint4": "int4"},
}
# Tables of nodes by the slots in which they name the values that they read.
_ONE, _TWO, _CAT, _CONV, _POOL = (0,), (0, 1), (1, 2, 3, 4, 7), (15, 16), (10,)
# XNodeUnion, in its order.
_NODES: tuple[tuple[str, tuple[int, ...]], ...] = (
    *(("Add", _TWO), ("FullyConnected", _TWO), ("Softmax", _ONE), ("Sigmoid", _ONE)),
    *(("StaticTranspose", (2,)), ("Clamp", _ONE), ("Conv2d", _CONV), ("Div", _TWO)),
    *(("StaticResizeBilinear2D", (2,)), ("StaticConstantPad", (3,)), ("AvgPooling2d", _POOL)),
    *(("Minimum", _TWO), ("DepthwiseConv2d", _CONV), ("MaxPooling2d", _POOL)),
    *(("Multiply", _TWO), ("Subtract", _TWO), ("Floor", _ONE), ("Convert", _ONE)),
    *(("GlobalAvgPooling2d", _ONE), ("StaticReshape", (2,)), ("ArgMaxPooling2d", (6,))),
    *(("SquareRoot", _ONE), ("Ceiling", _ONE), ("Hardswish", _ONE), ("LeakyReLU", (1,))),
    *(("Maximum", _TWO), ("Negate", _ONE), ("Square", _ONE), ("ELU", (1,)), ("Abs", _ONE)),
    *(("PReLU", _TWO), ("Concatenate2", _CAT), ("Concatenate3", _CAT), ("Concatenate4", _CAT)),
    *(("StaticSlice", (3,)), ("ScaledDotProductAttention", (0, 1, 2)), ("BatchMatMul", _TWO)),
    *(("Concatenate5", _CAT), ("ConvTranspose2d", _CONV), ("ReciprocalSquareRoot", _ONE)),
    *(("Log", _ONE), ("Gelu", _ONE), ("Tanh", _ONE), ("Exp", _ONE), ("Sin", _ONE)),
    *(("Copy", _ONE), ("Cos", _ONE)),
)


@dataclass(frozen=True)
class Node:
    """An operator.

    Attributes:
        quantized: whether a value that it computes on is quantized; conversions compute nothing.
    """

    type: str
    quantized: bool


@dataclass(frozen=True)
class Constant:
    """A constant value.

    Attributes:
        key: tells constants apart, within the file if it is a name, else within the delegate.
        storage: float32, float16, int8, int4, int32 ...
    """

    key: str | int
    storage: str
    elements: int


@dataclass(frozen=True)
class Graph:
    """A delegate's contents."""

    nodes: tuple[Node, ...]
    constants: tuple[Constant, ...]


def read_graph(data: Any, start: int, end: int) -> Graph:
    """The graph in a part of a file's bytes.

    Raises:
        ValueError: it is damaged, or of a version that is not known.
    """
    window = Window(data, start, end)
    if window.read(4, 4) == b"XH00":
        offset, size = struct.unpack("<II", window.read(10, 8))
        window = Window(data, start + offset, start + offset + size)
    identifier = window.read(4, 4)
    if identifier not in (b"XN00", b"XN01"):
        raise ValueError(f"the identifier {identifier!r} is none of XN00 and XN01")
    root = window.root()
    names = [item.text(2) for item in root.tables(8)]
    quantized: set[int] = set()
    constants = []
    for item in root.tables(2):
        value = _value(item)
        kind = value.number(0, "int16")
        name = _TYPES[kind] if 0 <= kind < len(_TYPES) else f"type {kind}"
        if "q" in name:
            quantized.add(value.number(6, "uint32"))
        buffer = value.number(3, "uint32")
        if not buffer:
            continue
        elements = 1
        for size in value.numbers(2, "uint32"):
            elements *= size
        key = names[buffer] if buffer < len(names) and names[buffer] else buffer
        constants.append(Constant(key, STORAGE.get(name, name), elements))
    return Graph(tuple(_node(item, quantized) for item in root.tables(1)), tuple(constants))


def _value(item: Table) -> Table:
    """The plain tensor of a value, within the quantized one (the union's second) if it is that."""
    value = item.table(1)
    if value is not None and item.number(0, "uint8") == 2:
        value = value.table(0)
    if value is None:
        raise ValueError("a value is empty")
    return value


def _node(item: Table, quantized: set[int]) -> Node:
    kind, table = item.number(0, "uint8"), item.table(1)
    if not 1 <= kind <= len(_NODES) or table is None:
        return Node(f"XNN node {kind}", False)
    name, slots = _NODES[kind - 1]
    reads = {table.number(slot, "uint32") for slot in slots}
    return Node(f"XNN{name}", name != "Convert" and not reads.isdisjoint(quantized))
