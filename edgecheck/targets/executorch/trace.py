"""Intermediate tensors in ExecuTorch: the program is rewritten so that all are outputs.

The runtime itself computes them, in its own kernels and in XNNPACK.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

# `executorch.runtime` wraps this, but imports the exporter too.
from executorch.extension.pybindings import _C

from edgecheck.runtime.runner import Tensor
from edgecheck.runtime.trace import Array, Seen
from edgecheck.runtime.tracer import Tracer, dequantized
from edgecheck.targets.executorch import file
from edgecheck.targets.executorch.exposing import Observed, expose
from edgecheck.targets.executorch.run import ExecutorchRunner, _to_numpy, _translated

_NOTE = "every tensor was made an output, so that XNNPACK fuses less"
# Relative; what other fusions round otherwise in single precision.
_SAME = 1e-5


class ExecutorchTracer(Tracer, ExecutorchRunner):
    """A program whose tensors are all outputs."""

    note = _NOTE
    # XNNPACK keeps half-precision sums in half precision: sound files were seen at 11 times.
    slack = MappingProxyType({"fp16": 3.0})

    def __init__(self) -> None:
        super().__init__()
        self._data = b""
        self._exposed: tuple[Any, Any] = (None, None)
        self._observing: tuple[Observed, ...] = ()
        self._changed = 0.0

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        found = super().open_file(path, options)
        assert self._file is not None
        data = Path(path).read_bytes()
        exposed = expose(data, file.read_program(data))
        if exposed.opaque:
            self.note += f"; delegates of {', '.join(exposed.opaque)} keep theirs to themselves"
        self._observing = exposed.observed
        self._data = exposed.data  # the runtime reads it where it lies
        with _translated("the program with its intermediate tensors as outputs does not load"):
            program = _C._load_program_from_buffer(
                self._data, program_verification=_C.Verification.InternalConsistency
            )
            self._exposed = program, program.load_method(self._file.name)
        return found

    def observe(self, inputs: dict[str, Array]) -> tuple[Sequence[Seen], dict[str, Array]]:
        with _translated("inference failed"):
            values = list(map(_to_numpy, self._exposed[1].call(self._arguments(inputs))))
        seen = []
        for item in self._observing:
            found = values[item.output]
            real = found if item.grid is None else dequantized(found, *item.grid)
            seen.append(Seen(item.name, item.operator, found.dtype.name, real))
        outputs = dict(zip(self._outputs, values, strict=False))
        self._compare(self.infer(inputs), outputs)
        return seen, outputs

    def _compare(self, plain: dict[str, Array], outputs: dict[str, Array]) -> None:
        """Say in the note where looking changes what is looked at."""
        for name, values in plain.items():
            difference = np.abs(outputs[name].astype(np.float64) - values).max(initial=0.0)
            largest = float(np.abs(values.astype(np.float64)).max(initial=0.0))
            if difference > max(_SAME, self._changed) * largest:
                self._changed = float(difference / largest) if largest else 1.0
                self.note = (
                    f"{_NOTE}; that alone moves {name} by {self._changed:.2g} of its largest"
                )
