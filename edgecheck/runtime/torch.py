"""PyTorch as a runtime: runs ``torch.export`` programs (.pt2).

Serves as the reference that other runtimes are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from edgecheck.runtime.runner import Runner, Tensor
from edgecheck.runtime.torch_program import load_program, select_outputs


class TorchRunner(Runner):
    """A torch program or module, called with keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._module: Any = None

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        self._module = load_program(path).module()
        return self._tensors(options)

    def _tensors(self, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """The declared tensors: a torch program checks its inputs itself."""
        return options["inputs"], options["outputs"]

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return call_module(self._module, inputs, list(self._outputs))


def call_module(
    module: Any, inputs: Mapping[str, np.ndarray], outputs: list[str]
) -> dict[str, np.ndarray]:
    """One call with keyword arguments; the outputs by declared name (see `select_outputs`)."""
    tensors = {name: torch.from_numpy(_writable(array)) for name, array in inputs.items()}
    with torch.inference_mode():
        returned = module(**tensors)
    return name_outputs(returned, outputs)


def name_outputs(outputs: Any, names: list[str]) -> dict[str, np.ndarray]:
    """The arrays by declared name of what a module returned (see `select_outputs`)."""
    tensors = select_outputs(outputs, names)
    return {name: _to_numpy(item) for name, item in zip(names, tensors, strict=True)}


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type
        tensor = tensor.float()
    return np.asarray(tensor.numpy(), order="C")


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable else array.copy()
