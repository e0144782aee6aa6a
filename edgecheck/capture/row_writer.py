"""A .npy file that is written row by row, so that no process holds all of it in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgecheck.errors import DataError

Array = npt.NDArray[Any]


class RowWriter:
    """A .npy file that grows by rows, as a context manager that closes it.

    NumPy's format pads the header for a growing first axis, so it is rewritten in place at the end.

    Args:
        path: the file, which is created when the first rows are appended.
        name: the input that the rows belong to, for messages.

    Attributes:
        rows: the number of rows appended so far.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._stream: BinaryIO | None = None
        self._header_bytes = 0
        self._dtype: np.dtype[Any] | None = None
        self._row_shape: tuple[int, ...] = ()
        self.rows = 0

    def append(self, rows: Array) -> None:
        """Write rows of shape (count, *row shape), all of the dtype of the first ones.

        Raises:
            DataError: the row shape differs from that of the rows before.
        """
        if self._stream is None:
            self._dtype, self._row_shape = rows.dtype, rows.shape[1:]
            self._stream = self._path.open("wb")
            self._write_header()
            self._header_bytes = self._stream.tell()
        if rows.shape[1:] != self._row_shape:
            raise DataError(
                f"samples of input {self._name!r} have shapes {self._row_shape} and "
                f"{rows.shape[1:]}: all must be alike"
            )
        self._stream.write(np.ascontiguousarray(rows).tobytes())
        self.rows += len(rows)

    def _write_header(self) -> None:
        assert self._stream is not None and self._dtype is not None
        np.lib.format.write_array_header_1_0(
            self._stream,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self.rows, *self._row_shape),
            },
        )

    def close(self) -> None:
        """Write the final number of rows into the header; without rows there is no file.

        Raises:
            DataError: the number of rows does not fit into the header.
        """
        if self._stream is not None:
            self._stream.seek(0)
            self._write_header()
            if self._stream.tell() != self._header_bytes:
                raise DataError(f"{self._path} has more samples than its header can say")
            self._stream.close()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
