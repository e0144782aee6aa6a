"""Runs .npz perceptrons; sent to where that happens, so it imports NumPy and the runner base."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecheck.runtime.runner import Runner, Tensor


class PerceptronRunner(Runner):
    """Linear layers with a ReLU between them."""

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        with np.load(path, allow_pickle=False) as stored:
            self.output = str(stored["output_name"])
            arrays = [np.float32(array) for array in stored.values() if array.dtype.kind == "f"]
        self.layers = list(zip(arrays[::2], arrays[1::2], strict=True))
        columns, rows = self.layers[0][0].shape[1], self.layers[-1][0].shape[0]
        return (
            [{"name": "x", "shape": [None, columns], "dtype": "float32"}],
            [{"name": self.output, "shape": [None, rows], "dtype": "float32"}],
        )

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (values,) = inputs.values()
        for position, (weight, bias) in enumerate(self.layers):
            values = (np.maximum(values, 0) if position else values) @ weight.T + bias
        return {self.output: values}
