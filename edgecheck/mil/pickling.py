"""Element types of ML Programs: their NumPy dtype, and elements under 8 bits out of packed
bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Types of a byte or more, little-endian as ML Programs store them.
NUMPY_DTYPES = {
    "bool": np.dtype("?"),
    "fp16": np.dtype("<f2"),
    "fp32": np.dtype("<f4"),
    "fp64": np.dtype("<f8"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
}

# Types under a byte: bits of an element.
PACKED_BITS = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}


def stored_bytes(dtype: str, count: int) -> int:
    """Size in bytes of `count` elements as stored; packed types fill their last byte up."""
    if dtype in PACKED_BITS:
        return (count * PACKED_BITS[dtype] + 7) // 8
    return count * NUMPY_DTYPES[dtype].itemsize


def unpack(packed: npt.NDArray[np.uint8], dtype: str, count: int) -> npt.NDArray[np.generic]:
    """The elements of a packed type, flat, as uint8, or int8 for a signed type.

    A stream of bits that starts with the least significant bit of the first byte; an element may
    lie across two bytes (coremltools, constexpr_lut_to_dense). `packed` holds at least
    `stored_bytes(dtype, count)`.
    """
    bits = PACKED_BITS[dtype]
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        elements = (packed[:, None] >> shifts & np.uint8(2**bits - 1)).reshape(-1)[:count]
    else:
        stream = np.unpackbits(packed, count=count * bits, bitorder="little")
        elements = np.packbits(stream.reshape(count, bits), axis=1, bitorder="little").reshape(-1)
    if dtype.startswith("uint"):
        return elements
    sign = np.int8(2 ** (bits - 1))
    return (elements.astype(np.int8) ^ sign) - sign
