"""Runs .npz perceptrons; sent to where that happens, so it imports NumPy and the runner base."""

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

    def layer_outputs(self, values: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] = []
        for weight, bias in self.layers:
            values = np.maximum(outputs[-1], 0) if outputs else values
            outputs.append(values @ weight.T + bias)
        return outputs

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {self.output: self.layer_outputs(inputs["x"])[-1]}
