"""A target that edgecheck does not know: perceptrons as .npz files, run with NumPy alone.

The example of docs/targets.md; `tests/targets/test_third_party.py` installs it and judges with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.targets import BuildRequest, Target, Tools, unreadable

TARGET = Target(
    name="numpy-perceptron",
    title="NumPy perceptron",
    suffix=".npz",
    precisions={"fp32": "torch", "fp16": "float"},
    packages={"numpy": "numpy"},
    install="pip install edgecheck-numpy-perceptron",
    distributions=("numpy",),
    runtime="numpy",
    tools="numpy_perceptron:PerceptronTools",
    # Sources that are sent to where the driver runs, in order of their imports.
    drivers=(
        "edgecheck.runtime.memory",
        "edgecheck.runtime.timing",
        "edgecheck.runtime.runner",
        "numpy_perceptron_driver",
    ),
    driver="numpy_perceptron_driver:PerceptronDriver",
)


class PerceptronTools(Tools):
    """Runs in a child process, so heavy imports belong into its methods."""

    def write(self, request: BuildRequest) -> None:
        """Write the weights of the program's linear layers, in order."""
        if request.precision == "fp16":
            with np.load(request.source, allow_pickle=False) as weights:
                arrays = {
                    name: array.astype(np.float16) if array.dtype == np.float32 else array
                    for name, array in weights.items()
                }
        else:
            from edgecheck.runtime.torch import load_program

            program = load_program(request.source)
            arrays = {name: value.detach().numpy() for name, value in program.state_dict.items()}
            arrays["output_name"] = np.array(request.outputs[0])
        with Path(request.output).open("wb") as stream:
            np.savez(stream, **arrays)

    def inspect(self, *, path: str) -> dict[str, Any]:
        """Count the weights by storage type."""
        try:
            with np.load(path, allow_pickle=False) as weights:
                arrays = {name: array for name, array in weights.items() if array.dtype.kind == "f"}
        except Exception as error:
            return unreadable(f"{path} is no .npz file: {error}")
        elements: dict[str, int] = {}
        for array in arrays.values():
            elements[array.dtype.name] = elements.get(array.dtype.name, 0) + array.size
        return {
            "failures": [],
            "warnings": [],
            "format": {"container": "npz"},
            "operators": {"linear": len(arrays) // 2},
            "quantized_operators": {},
            "weight_elements": elements,
            "weight_bytes": {
                kind: count * np.dtype(kind).itemsize for kind, count in elements.items()
            },
        }
