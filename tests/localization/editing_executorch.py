"""Single-layer faults planted into .pte files whose layers XNNPACK runs, in place.

Slots are those of ExecuTorch's backends/xnnpack/serialization/schema.fbs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.targets.executorch import file, xnnpack_graph
from edgecheck.targets.executorch.flatbuffer import Table, Window
from tests.localization.editing import transposed, zero_row

# Slots of weight and result by the kind of layer, and XNNDatatype.
_SLOTS = {"XNNConv2d": (16, 18), "XNNFullyConnected": (1, 3)}
_DTYPES: dict[int, Any] = {1: np.float32, 2: np.float16, 3: np.int8, 6: np.int8}


@dataclass(frozen=True)
class Layer:
    """A layer with weights, and where in the file its parts are; 0 for what it has not.

    Attributes:
        weight: as stored, outputs first and inputs last.
        scales: of the weight.
        result_scale, result_zero_point: of what it computes, where no other value has to have the
            same.
    """

    weight: np.ndarray[Any, Any]
    place: int
    scales: int
    result_scale: int
    result_zero_point: int


def executorch_layers(content: bytes) -> list[Layer]:
    """The layers of a program in the order of execution."""
    program = file.read_program(content)
    method = program.method()
    found = []
    for call in method.calls:
        if call.kernel:
            continue
        start, end = method.delegates[call.delegate].start, method.delegates[call.delegate].end
        nodes = xnnpack_graph.read_graph(content, start, end).nodes
        offset, size, base = map(int, np.frombuffer(content, "<u4", 3, start + 10))
        window = Window(content, start + offset, start + offset + size)
        root = window.root()
        values = {_plain(item).number(6, "uint32"): item for item in root.tables(2)}
        # In the delegate's own data, or under a name in the program's.
        constants = [
            program.named[name][0]
            if (name := item.text(2))
            else start + base + item.number(0, "uint64")
            for item in root.tables(8)
        ]
        tables = [(node.type, table) for node, table in zip(nodes, _nodes(root), strict=True)]
        # XNNPACK moves values only within a grid.
        kept = {table.number(2, "uint32") for kind, table in tables if kind == "XNNStaticTranspose"}
        for kind, table in tables:
            if kind not in _SLOTS:
                continue
            read, made = (table.number(slot, "uint32") for slot in _SLOTS[kind])
            stored, scales = _plain(values[read]), _grid(values[read])
            place = constants[stored.number(3, "uint32")]
            shape, dtype = stored.numbers(2, "uint32"), _DTYPES[stored.number(0, "int16")]
            weight = np.frombuffer(content, dtype, int(np.prod(shape)), place).reshape(shape)
            where = 0
            if scales is not None:
                buffer = scales.number(2, "uint32")
                where = constants[buffer] if buffer else scales.span(0)[0]
            grid = None if made in kept else _grid(values[made])
            # A field that is left out is 0.
            fields = [grid._field(slot) if grid else 0 for slot in (0, 1)]
            places = [field and window.start + field for field in fields]
            found.append(Layer(weight, place, where, *places))
    return found


def _nodes(root: Table) -> Iterator[Table]:
    for item in root.tables(1):
        table = item.table(1)
        assert table is not None
        yield table


def _plain(item: Table) -> Any:
    value = item.table(1)
    return value.table(0) if value is not None and item.number(0, "uint8") == 2 else value


def _grid(item: Table) -> Table | None:
    """Its quantization: PerChannelQuant or PerTensorQuant."""
    value = item.table(1)
    return value.table(2) if value is not None and item.number(0, "uint8") == 2 else None


def executorch_faults(path: Path, folder: Path) -> Iterator[tuple[str, int | str, Path]]:
    """Faults of each layer of a .pte file: name, the layer's position, the file."""
    content = path.read_bytes()

    def write(name: str, place: int, values: np.ndarray[Any, Any]) -> Path:
        written = folder / f"{name}.pte"
        written.write_bytes(content[:place] + values.tobytes() + content[place + values.nbytes :])
        return written

    for position, layer in enumerate(executorch_layers(content)):
        name, weight = "zeroed channel", layer.weight
        yield name, position, write(f"{name}-{position}", layer.place, zero_row(weight))
        if weight.shape[0] == weight.shape[-1]:
            name, changed = "transposed weight", np.moveaxis(weight, -1, 1)
            changed = np.ascontiguousarray(np.moveaxis(transposed(changed), 1, -1))
            yield name, position, write(f"{name}-{position}", layer.place, changed)
        if layer.scales:
            scales = np.frombuffer(content, "<f4", len(weight), layer.scales) * np.float32(1.7)
            yield "wrong scale", position, write(f"scale-{position}", layer.scales, scales)
        if layer.result_scale:
            scale = np.frombuffer(content, "<f4", 1, layer.result_scale) * np.float32(0.3)
            written = write(f"clipped-{position}", layer.result_scale, scale)
            yield "clipped range", position, written
        if layer.result_zero_point:
            zero = np.frombuffer(content, "<i4", 1, layer.result_zero_point)
            shifted = zero + np.int32(80 if zero[0] < 40 else -80)
            written = write(f"zero-{position}", layer.result_zero_point, shifted)
            yield "wrong zero point", position, written
