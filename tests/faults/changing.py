"""Faults that are planted by changing the module before it is exported: how.

Not for the faults themselves: see `tests.faults.conversion`, `shapes` and `mistaken`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import edgecheck
from tests.faults.bench import Bench
from tests.faults.fault import UNLIKE_QUANTIZED, Fault

Change = Callable[[Any], nn.Module]
# How a file that is unlike the model fails, by whether its precision is quantized.
UNLIKE = f"noise_ratio|top1_agreement|{UNLIKE_QUANTIZED}"


def changed(
    kind: str,
    what: str,
    where: str,
    change: Change,
    *,
    says: str = UNLIKE,
    check: str = "parity",
    layer: str = "",
    declared: Mapping[str, Any] | None = None,
    inputs: list[edgecheck.Input] | None = None,
) -> Fault:
    """A fault whose file is built from a changed module.

    Args:
        where: model, target and precision.
        inputs: of the changed module, where they differ from the declared ones.
    """
    model, target, precision = where.split()

    def plant(bench: Bench, path: Path) -> None:
        module = change(bench.module(model))
        bench.build(module, model, target, precision, path, inputs=inputs)

    name = f"{what}-{model}-{target}-{precision}"
    return Fault(
        kind, name, model, target, precision, plant, check, says, layer, dict(declared or {})
    )


class Images(nn.Module):
    """A digit model behind something else."""

    def __init__(self, model: nn.Module, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.before = model, before

    def forward(self, image: Tensor) -> Tensor:
        return self.model(self.before(image))


class Rows(Images):
    """The same of the transformer."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.model(self.before(rows))


class Signals(nn.Module):
    """The series model between something before and something after it."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda signal: signal,
        after: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda outputs: outputs,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, signal: Tensor, sensor: Tensor) -> dict[str, Tensor]:
        return self.after(self.model(self.before(signal), sensor))


_BEHIND = {"cnn": Images, "mobilenet": Images, "transformer": Rows, "series": Signals}


def behind(where: str, before: Callable[[Tensor], Tensor]) -> Change:
    """The model of `where` behind something."""
    return lambda module: _BEHIND[where.split()[0]](module, before)


def replaced(path: str, make: Callable[[Any], nn.Module]) -> Change:
    """The model with another layer at a path."""

    def change(module: nn.Module) -> nn.Module:
        module.set_submodule(path, make(module.get_submodule(path)))
        return module

    return change
