"""Arrays on their way to a runtime: their dtype and number of axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.runtime.runner import Runner

TENSORS: list[dict[str, Any]] = [
    {"name": "level", "shape": [], "dtype": "float32"},
    {"name": "coded", "shape": [], "dtype": "int8", "scale": 0.5, "zero_point": 1},
    {"name": "turned", "shape": [2, 3], "dtype": "float32"},
]


class Identity(Runner):
    """A runtime that returns its inputs."""

    def open_file(self, path: str, options: dict[str, Any]) -> Any:
        return TENSORS, [{**item, "scale": None} for item in TENSORS]

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert all(array.flags.c_contiguous for array in inputs.values())
        return inputs


def test_a_scalar_reaches_the_runtime_without_axes(tmp_path: Path) -> None:
    runner = Identity()
    runner.load("", {})
    side = {item["name"]: {"name": item["name"], "transpose": None} for item in TENSORS}
    runner.bind({"inputs": side, "outputs": side, "batched": [], "batch": None})
    arrays: dict[str, Any] = {
        "level": np.float32(1.5),
        "coded": np.float32(1.5),
        "turned": np.arange(6, dtype=np.float32).reshape(3, 2).T,
    }
    paths = {name: str(tmp_path / f"{name}.npy") for name in arrays}
    for name, array in arrays.items():
        np.save(paths[name], array)
    (tmp_path / "outputs").mkdir()
    (found,) = runner.run([{"inputs": paths, "directory": str(tmp_path / "outputs")}])
    outputs = {name: np.load(path) for name, path in found.items()}
    assert (outputs["level"].shape, outputs["coded"].shape) == ((), ())
    assert (outputs["level"], outputs["coded"]) == (1.5, 4)
    np.testing.assert_array_equal(outputs["turned"], arrays["turned"])
