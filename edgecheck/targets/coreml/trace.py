"""Intermediate tensors of ML Programs, by the reference executor on every system.

Core ML itself shows none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from edgecheck.mil.evaluator import Evaluator
from edgecheck.mil.reader import read
from edgecheck.runtime.runner import Tensor
from edgecheck.runtime.trace import Array, Seen
from edgecheck.runtime.tracer import Tracer
from edgecheck.targets.coreml.run import CoremlRunner


class CoremlTracer(Tracer, CoremlRunner):
    """An ML Program whose variables are observed."""

    note = "by the reference executor"

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[Seen] = []

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        found = super().open_file(path, options)
        program = read(Path(path))
        operators = {
            variable.name: operation.operator
            for operation in program.functions[program.default_function].block.operations
            for variable in operation.outputs
        }
        evaluator = Evaluator(program)

        def observe(name: str, value: torch.Tensor) -> None:
            if value.is_floating_point():
                dtype = str(value.dtype).removeprefix("torch.")
                copied = value.detach().float().clone().numpy()
                self._seen.append(Seen(name, operators.get(name, ""), dtype, copied))

        self._run = lambda inputs: evaluator.run(inputs, observe)
        return found

    def observe(self, inputs: dict[str, Array]) -> tuple[Sequence[Seen], dict[str, Array]]:
        self._seen = []
        outputs = self.infer(inputs)
        return self._seen, outputs
