"""A .npy file written row by row is the same as one saved whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecheck.capture.row_writer import RowWriter
from edgecheck.errors import DataError


def test_rows_written_in_parts_read_back_as_one_array(tmp_path: Path) -> None:
    rows = np.arange(24, dtype=np.int16).reshape(12, 2)
    with RowWriter(tmp_path / "rows.npy", "x") as writer:
        for start, stop in [(0, 1), (1, 1), (1, 12)]:
            writer.append(rows[start:stop])
    assert writer.rows == 12
    stored = np.load(tmp_path / "rows.npy", allow_pickle=False)
    np.testing.assert_array_equal(stored, rows, strict=True)


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "rows.npy", "x") as writer:
        writer.append(np.zeros((1, 3)))
        with pytest.raises(DataError, match=r"samples of input 'x' have shapes \(3,\) and \(4,\)"):
            writer.append(np.zeros((1, 4)))


def test_without_rows_there_is_no_file(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "rows.npy", "x"):
        pass
    assert not (tmp_path / "rows.npy").exists()
