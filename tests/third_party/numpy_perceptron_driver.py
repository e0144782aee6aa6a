"""Runs .npz perceptrons. Self-contained: NumPy and edgecheck's drivers only."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecheck.runtime.runner import Driver, Tensor


class PerceptronDriver(Driver):
    """Linear layers with a ReLU between them."""

    def _open(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        with np.load(path, allow_pickle=False) as weights:
            self._output = str(weights["output_name"])
            arrays = [np.float32(array) for array in weights.values() if array.dtype.kind == "f"]
        self._layers = list(zip(arrays[::2], arrays[1::2], strict=True))
        columns, rows = self._layers[0][0].shape[1], self._layers[-1][0].shape[0]
        return (
            [{"name": "x", "shape": [None, columns], "dtype": "float32"}],
            [{"name": self._output, "shape": [None, rows], "dtype": "float32"}],
        )

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (values,) = inputs.values()
        for position, (weight, bias) in enumerate(self._layers):
            if position:
                values = np.maximum(values, 0)
            values = values @ weight.T + bias
        return {self._output: values}
