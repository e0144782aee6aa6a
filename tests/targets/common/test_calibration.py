"""Calibration data in the calls that a file takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecheck.targets.common.calibration import calls


def files(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    for name, shape in shapes.items():
        np.save(folder / name, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    return {name: str(folder / f"{name}.npy") for name in shapes}


@pytest.mark.parametrize(
    ("batch", "expected"), [(0, [3, 3, 1]), (1, [1] * 7), (2, [2, 2, 2]), (7, [7])]
)
def test_samples_come_in_calls_of_the_fixed_batch(
    batch: int, expected: list[int], tmp_path: Path
) -> None:
    stored = files(tmp_path, {"x": (7, 4), "y": (7, 2, 3)})
    shapes = {"y": (batch, 2, 3), "x": (batch, 4)}
    found = list(calls(stored, shapes, batch=3))
    assert [len(call["x"]) for call in found] == expected
    assert [len(call["y"]) for call in found] == expected
    joined = np.concatenate([call["x"] for call in found])
    np.testing.assert_array_equal(joined, np.load(stored["x"])[: len(joined)])


def test_whole_calls_come_one_by_one(tmp_path: Path) -> None:
    stored = files(tmp_path, {"level": (3,), "x": (3, 1, 4)})
    found = list(calls(stored, {"level": (), "x": (1, 4)}))
    assert [call["level"].shape for call in found] == [()] * 3
    assert [float(call["level"]) for call in found] == [0, 1, 2]
    assert [call["x"].shape for call in found] == [(1, 4)] * 3
