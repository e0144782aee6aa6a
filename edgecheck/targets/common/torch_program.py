"""A captured PyTorch program made ready for converters that want fixed shapes.

Runs in a target's child process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def load_tensors(files: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """The tensors of .npy files by name."""
    import numpy as np
    import torch

    return {
        name: torch.from_numpy(np.load(path, allow_pickle=False)) for name, path in files.items()
    }


def export_fixed(
    source: str, outputs: list[str], example: Mapping[str, str]
) -> tuple[Any, dict[str, torch.Tensor]]:
    """The program exported again at the example's shapes, its outputs a tuple in declared order.

    Args:
        source: a .pt2 file.
        example: .npy path by input: one call.

    Returns:
        the ``torch.export.ExportedProgram`` and the example's tensors.
    """
    import torch

    from edgecheck.runtime.torch_program import load_program, select_outputs

    program = load_program(source).module(check_guards=False)

    class Ordered(torch.nn.Module):
        """Converters sort the outputs of dicts; a tuple keeps its order."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(select_outputs(self.program(**inputs), outputs))

    sample = load_tensors(example)
    return torch.export.export(Ordered(), (), sample, strict=False), sample
