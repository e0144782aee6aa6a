"""The weight file of an ML Program: what lies at an offset, checked against what is declared.

Format (MILBlob's StorageFormat.hpp, in the sources of coremltools), little-endian: a header of 64
bytes (uint32 count, uint32 version 2), then for each tensor 64 bytes of metadata (uint32 sentinel,
uint32 type, uint64 size in bytes, uint64 offset of the data) and the data, each at a multiple of
64. A program refers to the offset of the metadata.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecheck.mil.pickling import NUMPY_DTYPES, PACKED_BITS, stored_bytes
from edgecheck.mil.program import ProgramError

_ALIGNMENT_BYTES = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF
# MILBlob's BlobDataType.
_TYPES = {
    1: "fp16",
    2: "fp32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}


class WeightFile:
    """A weight file, memory-mapped.

    Raises:
        ProgramError: if it is missing or no weight file.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        if not path.is_file():
            raise ProgramError(f"weight file {path} is missing")
        if path.stat().st_size < _ALIGNMENT_BYTES:
            raise ProgramError(f"weight file {path} is truncated: no header")
        # Copy on write: torch takes writable arrays only, and the file must stay as it is.
        mapped = np.memmap(path, dtype=np.uint8, mode="c")
        self._bytes: npt.NDArray[np.uint8] = mapped.view(np.ndarray)
        _, version = struct.unpack_from("<II", self._bytes.data, 0)
        if version != _VERSION:
            raise ProgramError(f"weight file {path} has format version {version}, not {_VERSION}")

    def read(self, offset: int, dtype: str, count: int) -> npt.NDArray[np.generic]:
        """`count` elements, flat; of a packed type the packed bytes. Memory of the mapped file.

        Raises:
            ProgramError: if other things lie there than `count` elements of `dtype`.
        """
        place = f"weight file {self._name} at offset {offset}"
        if offset % _ALIGNMENT_BYTES or offset + _ALIGNMENT_BYTES > self._bytes.size:
            raise ProgramError(f"{place}: no metadata; the file has {self._bytes.size} bytes")
        sentinel, code, size_bytes, start = struct.unpack_from("<IIQQ", self._bytes.data, offset)
        if sentinel != _SENTINEL:
            raise ProgramError(f"{place}: no metadata; its sentinel is missing")
        if _TYPES.get(code) != dtype:
            stored = _TYPES.get(code, f"unknown type {code}")
            raise ProgramError(f"{place}: holds {stored} where {dtype} is declared")
        if size_bytes != stored_bytes(dtype, count):
            raise ProgramError(
                f"{place}: holds {size_bytes} bytes; {count} elements of {dtype} take "
                f"{stored_bytes(dtype, count)}"
            )
        if start % _ALIGNMENT_BYTES or start + size_bytes > self._bytes.size:
            raise ProgramError(
                f"{place}: truncated; data of {size_bytes} bytes at {start} in a file of "
                f"{self._bytes.size}"
            )
        data = self._bytes[start : start + size_bytes]
        return data if dtype in PACKED_BITS else data.view(NUMPY_DTYPES[dtype])
