"""Reads FlatBuffers without their schema, every access within bounds.

Self-contained (standard library), since it is sent to the device. Of the format it knows what
https://flatbuffers.dev/internals/ says; the slots of fields are the caller's to know.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Numbers as FlatBuffers stores them: little-endian.
_FORMATS = {
    "int8": "<b",
    "uint8": "<B",
    "int16": "<h",
    "uint16": "<H",
    "int32": "<i",
    "uint32": "<I",
    "int64": "<q",
    "uint64": "<Q",
}


@dataclass
class Window:
    """A part of a file.

    Attributes:
        data: bytes or a memory map.
        start, end: of the part.
        tables_left: how many more tables may be read of it. Each takes four bytes of its own, so
            only a file whose tables refer to each other over and over runs out of them.
    """

    data: Any
    start: int
    end: int
    tables_left: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= len(self.data):
            raise ValueError(
                f"bytes {self.start} to {self.end} are not all in the {len(self.data)} bytes of "
                "the file"
            )
        self.tables_left = (self.end - self.start) // 4

    def number(self, kind: str, position: int) -> int:
        """The number at a position, counted from the window's start."""
        layout = struct.Struct(_FORMATS[kind])
        if position < 0 or self.start + position + layout.size > self.end:
            raise ValueError(f"offset {position} lies outside of {self.end - self.start} bytes")
        found: int = layout.unpack_from(self.data, self.start + position)[0]
        return found

    def read(self, position: int, size: int) -> bytes:
        """Bytes from a position, counted from the window's start."""
        if position < 0 or size < 0 or self.start + position + size > self.end:
            raise ValueError(f"{size} bytes at offset {position} are not all there")
        return bytes(self.data[self.start + position : self.start + position + size])

    def root(self) -> Table:
        """The root table."""
        return Table(self, self.number("uint32", 0))


@dataclass
class Table:
    """A table; fields are addressed by slot, counted from 0, and a union takes two slots."""

    window: Window
    position: int

    def __post_init__(self) -> None:
        self.window.tables_left -= 1
        if self.window.tables_left < 0:
            raise ValueError("its tables refer to each other without end")
        self._fields = self.position - self.window.number("int32", self.position)
        self._slots = (self.window.number("uint16", self._fields) - 4) // 2

    def _field(self, slot: int) -> int:
        """Position of a field, or 0 where the table leaves it out."""
        if slot >= self._slots:
            return 0
        offset = self.window.number("uint16", self._fields + 4 + 2 * slot)
        return self.position + offset if offset else 0

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        """A number, or its default."""
        position = self._field(slot)
        return self.window.number(kind, position) if position else default

    def table(self, slot: int) -> Table | None:
        """A table, if there is one."""
        position = self._field(slot)
        return Table(self.window, self._target(position)) if position else None

    def tables(self, slot: int) -> Iterator[Table]:
        """The tables of a vector."""
        start, count = self._vector(slot, 4)
        for index in range(count):
            yield Table(self.window, self._target(start + 4 * index))

    def numbers(self, slot: int, kind: str) -> tuple[int, ...]:
        """The numbers of a vector."""
        size = struct.calcsize(_FORMATS[kind])
        start, count = self._vector(slot, size)
        return struct.unpack(f"<{count}{_FORMATS[kind][1]}", self.window.read(start, count * size))

    def text(self, slot: int) -> str:
        """A string, empty where there is none."""
        start, count = self._vector(slot, 1)
        return self.window.read(start, count).decode("utf-8", "replace")

    def span(self, slot: int) -> tuple[int, int]:
        """Start and end, in the whole data, of a vector of bytes."""
        start, count = self._vector(slot, 1)
        return self.window.start + start, self.window.start + start + count

    def _target(self, position: int) -> int:
        return position + self.window.number("uint32", position)

    def _vector(self, slot: int, size: int) -> tuple[int, int]:
        """Position of the first element, and how many there are."""
        position = self._field(slot)
        if not position:
            return 0, 0
        start = self._target(position)
        count = self.window.number("uint32", start)
        if self.window.start + start + 4 + count * size > self.window.end:
            raise ValueError(f"a list of {count} elements at offset {start} is not all there")
        return start + 4, count
