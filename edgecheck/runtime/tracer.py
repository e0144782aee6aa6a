"""What tracers of candidates share: they are drivers that also tell what lies between.

Runs in a child process. Not for a runtime's own way of telling: see the `candidate_*` modules.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecheck.runtime.runner import Driver
from edgecheck.runtime.trace import Array, Seen, save_candidate, save_outputs


class Tracer(Driver):
    """A driver of a runtime that can be looked into. Mix it in before the driver's class."""

    # What a reader should know of how it looks, or "".
    note = ""
    # By precision, how many times the rounding of an operator its kernels are known to make, where
    # they keep sums in less than single precision.
    slack: Mapping[str, float] = MappingProxyType({})

    @abc.abstractmethod
    def _observed(self, inputs: dict[str, Array]) -> tuple[Sequence[Seen], dict[str, Array]]:
        """One inference: all float tensors in the order of execution, and the outputs."""

    def trace(self, *, feeds: list[dict[str, str]], directory: str) -> dict[str, Any]:
        """Run feeds, each one call; return ``tensors``, ``outputs``, ``note`` and ``slack``."""
        calls, returned = [], []
        for feed in feeds:
            seen, outputs = self._observed(self._load_feed(feed))
            calls.append(seen)
            returned.append(self._declared_outputs(outputs))
        folder = Path(directory)
        return {
            "tensors": save_candidate(calls, folder),
            "outputs": save_outputs(returned, folder),
            "note": self.note,
            "slack": dict(self.slack),
        }


def dequantized(values: Array, scale: Any, zero_point: Any, axis: int = 0) -> Array:
    """Real values of quantized ones: (q - zero_point) * scale, per tensor or along an axis."""
    scale, zero_point = np.asarray(scale, np.float64), np.asarray(zero_point, np.float64)
    if scale.size > 1:
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    else:
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    real: Array = ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)
    return real
