"""Programs of torch.export: loading .pt2 files, which are untrusted input, and their outputs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch


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


def plain_outputs(outputs: Any) -> Any:
    """A dict of what a dataclass or another mapping holds; anything else as it is."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        fields = [item.name for item in dataclasses.fields(outputs)]
        found = {name: getattr(outputs, name) for name in fields}
        return {name: value for name, value in found.items() if value is not None}
    return outputs


def select_outputs(outputs: Any, names: list[str]) -> list[torch.Tensor]:
    """The tensors that a module returned, as declared: by key if it is a dict, else in order.

    The fields of a dataclass count as keys, as those of the outputs of transformers.

    Raises:
        ValueError: their number or their keys are not the declared ones.
    """
    outputs = plain_outputs(outputs)
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
