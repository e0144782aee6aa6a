"""What is in a .pte file, read without running it or importing its runtime.

Self-contained (standard library), since it is sent to the device. Slots are those of ExecuTorch's
schema/program.fbs; the header before it is described in its docs, pte-file-format.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecheck.targets.executorch.flatbuffer import Table, Window

# ScalarType of scalar_type.fbs.
DTYPES = {
    **{0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64"},
    **{5: "float16", 6: "float32", 7: "float64", 11: "bool", 15: "bfloat16"},
    **{27: "uint16", 28: "uint32", 29: "uint64"},
}
# Members of the unions KernelTypes and InstructionArguments, TensorDataLocation.EXTERNAL and
# DataLocation.SEGMENT.
_TENSOR, _KERNEL_CALL, _DELEGATE_CALL, _EXTERNAL, _SEGMENT = 5, 1, 2, 1, 1


class FileError(ValueError):
    """A file that is not a .pte, or not all of one."""

    stands_alone = True


@dataclass(frozen=True)
class Tensor:
    """A value of a method.

    Attributes:
        shape: where it is dynamic, the upper bounds.
        order: axes from outermost to innermost in memory.
        buffer: number of its data in the file, 0 where there is none.
        constant: whether that data is all it ever holds; else it is where a state starts from.
    """

    dtype: str
    shape: tuple[int, ...]
    dynamic: bool
    order: tuple[int, ...]
    buffer: int
    constant: bool


@dataclass(frozen=True)
class Call:
    """An instruction that computes.

    Attributes:
        kernel: name of a portable kernel, empty where a delegate is called.
        delegate: position of the delegate, -1 for a kernel.
        arguments: positions of values, outputs last.
        instruction: position in its chain.
    """

    kernel: str
    delegate: int
    arguments: tuple[int, ...]
    instruction: int


@dataclass(frozen=True)
class Delegate:
    """A part of a method in a backend's own format.

    Attributes:
        start, end: where its data is in the file.
    """

    backend: str
    start: int
    end: int


@dataclass(frozen=True)
class Method:
    """A method of a program, mostly ``forward``.

    Attributes:
        values: None for all that is not a tensor.
        inputs, outputs: positions of values.
        planned_bytes: of each arena that the program was planned for.
    """

    name: str
    values: tuple[Tensor | None, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    calls: tuple[Call, ...]
    delegates: tuple[Delegate, ...]
    planned_bytes: tuple[int, ...]

    @property
    def kernels(self) -> Counter[str]:
        """How often each portable kernel is called."""
        return Counter(call.kernel for call in self.calls if call.kernel)

    @property
    def backends(self) -> Counter[str]:
        """How many delegates each backend has."""
        return Counter(item.backend for item in self.delegates)


@dataclass(frozen=True)
class Program:
    """A file's contents.

    Attributes:
        named: where data that delegates share is in the file, by its name.
        external: whether weights are kept in another file (.ptd).
    """

    version: int
    methods: tuple[Method, ...]
    named: dict[str, tuple[int, int]]
    external: bool

    def method(self) -> Method:
        """``forward``, or else the only method.

        Raises:
            FileError: it can't be told which is meant.
        """
        chosen = [item for item in self.methods if item.name == "forward"] or list(self.methods)
        if len(chosen) == 1:
            return chosen[0]
        names = [item.name for item in self.methods]
        raise FileError(f"the program has no method 'forward', but {names}")


@contextlib.contextmanager
def mapped(path: str) -> Iterator[Any]:
    """The file's bytes, of which only those that are looked at get into memory."""
    if Path(path).stat().st_size == 0:
        raise FileError("the file is empty")
    with (
        Path(path).open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        yield data


def read_program(data: Any) -> Program:
    """The program in a file's bytes.

    Raises:
        FileError: it is of another format, cut off or damaged.
    """
    if len(data) < 8 or data[4:6] != b"ET" or not bytes(data[6:8]).isdigit():
        raise FileError("the file is not an ExecuTorch program (identifier ET12)")
    base, end = 0, len(data)
    try:
        # The extended header: magic, length, size of the program, offset of the first segment and,
        # since 2025, the size of all segments.
        if data[8:12] == b"eh00":
            length, size, base = struct.unpack_from("<IQQ", data, 12)
            segments = struct.unpack_from("<Q", data, 32)[0] if length >= 32 else 0
            if max(size, base + segments) > len(data):
                raise FileError(
                    f"the file is cut off: it has {len(data)} of {max(size, base + segments)} bytes"
                )
            end = size
        return _program(Window(data, 0, end).root(), base, len(data))
    except FileError:
        raise
    except (ValueError, struct.error, IndexError) as error:
        raise FileError(f"the program can't be parsed: {error}") from error


def _program(root: Table, base: int, size: int) -> Program:
    segments = []
    for item in root.tables(4):
        start = base + item.number(0, "uint64")
        segments.append((start, start + item.number(1, "uint64")))
        if segments[-1][1] > size:
            raise FileError(f"the file is cut off: it has {size} of {segments[-1][1]} bytes")
    inline = [item.span(0) for item in root.tables(3)]
    methods = tuple(_method(item, segments, inline) for item in root.tables(1))
    if not methods:
        raise FileError("the program has no method")
    return Program(
        version=root.number(0, "uint32"),
        methods=methods,
        named={item.text(0): segments[item.number(1, "uint32")] for item in root.tables(7)},
        external=any(
            _is_external(value)
            for plan in root.tables(1)
            for value in _tensor_tables(plan)
            if value
        ),
    )


def _method(plan: Table, segments: list[tuple[int, int]], inline: list[tuple[int, int]]) -> Method:
    kernels = []
    for operator in plan.tables(6):
        name, overload = operator.text(0), operator.text(1)
        kernels.append(f"{name}.{overload}" if overload else name)
    delegates = []
    for item in plan.tables(7):
        place = item.table(1)
        if place is None:
            raise ValueError(f"a delegate of {item.text(0)} has no data")
        parts = segments if place.number(0, "int8") == _SEGMENT else inline
        delegates.append(Delegate(item.text(0), *parts[place.number(1, "uint32")]))
    calls = []
    for chain in plan.tables(5):
        for position, instruction in enumerate(chain.tables(2)):
            kind, call = instruction.number(0, "uint8"), instruction.table(1)
            if call is None or kind not in (_KERNEL_CALL, _DELEGATE_CALL):
                continue
            index, arguments = call.number(0, "int32"), call.numbers(1, "int32")
            if kind == _KERNEL_CALL:
                calls.append(Call(kernels[index], -1, arguments, position))
            else:
                calls.append(Call("", index, arguments, position))
    return Method(
        name=plan.text(0),
        values=tuple(None if item is None else _tensor(item) for item in _tensor_tables(plan)),
        inputs=plan.numbers(3, "int32"),
        outputs=plan.numbers(4, "int32"),
        calls=tuple(calls),
        delegates=tuple(delegates),
        planned_bytes=plan.numbers(8, "int64")[1:],  # the first is reserved
    )


def _tensor_tables(plan: Table) -> Iterator[Table | None]:
    for value in plan.tables(2):
        yield value.table(1) if value.number(0, "uint8") == _TENSOR else None


def _tensor(table: Table) -> Tensor:
    code = table.number(0, "int8")
    shape = table.numbers(2, "int32")
    return Tensor(
        dtype=DTYPES.get(code, f"type {code}"),
        shape=shape,
        dynamic=table.number(8, "int8") != 0,
        order=table.numbers(3, "uint8") or tuple(range(len(shape))),
        buffer=table.number(5, "uint32"),
        constant=table.table(6) is None,
    )


def _is_external(table: Table) -> bool:
    extra = table.table(9)
    return extra is not None and extra.number(2, "int8") == _EXTERNAL
