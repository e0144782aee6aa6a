"""PyTorch as a runtime: runs ``torch.export`` programs (.pt2).

Serves as the reference that other runtimes are compared with. Not for live modules: see
`edgecheck.capture.torch`, which builds on this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from edgecheck.runtime.runner import Driver, Tensor


class TorchDriver(Driver):
    """A torch program or module, called with keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._module: Any = None

    def _open(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        self._module = load_program(path).module()
        return self._tensors(options)

    def _tensors(self, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """The declared tensors: a torch program checks its inputs itself."""
        return options["inputs"], options["outputs"]

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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


def select_outputs(outputs: Any, names: list[str]) -> list[torch.Tensor]:
    """The tensors that a module returned, as declared: by key if it is a dict, else in order.

    Raises:
        ValueError: their number or their keys are not the declared ones.
    """
    if isinstance(outputs, dict) and set(names) <= set(outputs):
        flat = [outputs[name] for name in names]
    else:
        flat = list(torch.utils._pytree.tree_leaves(outputs))
    tensors = [item for item in flat if isinstance(item, torch.Tensor)]
    if len(tensors) != len(names):
        keys = f" with keys {sorted(map(str, outputs))}" if isinstance(outputs, dict) else ""
        raise ValueError(
            f"the model returns {len(tensors)} tensors{keys}, but outputs declares {len(names)}: "
            f"{names}"
        )
    return tensors


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.numpy())


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable else array.copy()


def load_program(path: str) -> Any:
    """The ``torch.export`` program in a .pt2 file.

    Raises:
        ValueError: the file is no such program, or would have to be unpickled.
    """
    # Defines the operators that quantized programs call.
    with contextlib.suppress(ImportError):
        import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401
    try:
        with _no_pickle():
            return torch.export.load(path)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path} does not load as a torch.export program: {text or type(error).__name__}"
        ) from error


@contextlib.contextmanager
def _no_pickle() -> Iterator[None]:
    """Hold ``torch.load`` to ``weights_only=True``.

    ``torch.export.load`` falls back to unpickling anything, and a model file is untrusted.
    """
    load = torch.load

    def load_weights_only(*args: Any, **options: Any) -> Any:
        return load(*args, **{**options, "weights_only": True})

    torch.load = load_weights_only
    try:
        yield
    finally:
        torch.load = load
