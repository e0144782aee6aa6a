"""Data where the batch is static: all of it counts, in calls of that batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecheck
from edgecheck.capture.client import _spread


def calls(tmp_path: Path, batch: int | str, samples: int) -> list[np.ndarray[Any, Any]]:
    values = np.arange(samples, dtype=np.float32).reshape(-1, 1)
    np.save(tmp_path / "x.npy", values)
    files = {"inputs": {"x": str(tmp_path / "x.npy")}, "count": samples}
    model = edgecheck.Model("m.onnx", inputs=[edgecheck.Input("x", (batch, 1))], outputs=["y"])
    return [np.load(call["x"]) for call in _spread(files, model, tmp_path)]


@pytest.mark.parametrize(("batch", "samples"), [(1, 20), (4, 20), (4, 64)])
def test_a_static_batch_is_calibrated_on_all_of_the_data(
    tmp_path: Path, batch: int, samples: int
) -> None:
    found = calls(tmp_path, batch, samples)
    assert all(len(call) == batch for call in found)
    seen = np.concatenate(found).ravel()
    assert seen.min() == 0 and seen.max() == samples - 1
    assert len(np.unique(seen)) == samples


def test_fewer_samples_than_the_batch_fill_one_call(tmp_path: Path) -> None:
    (call,) = calls(tmp_path, 8, 3)
    assert len(call) == 8 and set(call.ravel()) == {0, 1, 2}


def test_a_dynamic_batch_needs_fewer_calls(tmp_path: Path) -> None:
    found = calls(tmp_path, "batch", 64)
    assert len(found) < 64 and sum(map(len, found)) == 64
