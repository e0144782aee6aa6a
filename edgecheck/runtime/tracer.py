"""What tracers share: they are runners that also show intermediate tensors."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np

from edgecheck.runtime.runner import Runner
from edgecheck.runtime.trace import Array, Seen, Trace, save_candidate, save_outputs


class Tracer(Runner):
    """A runner whose intermediate tensors can be seen: subclass it in ``trace.py``.

    Name it before the runner's class among the bases, and override `observe`.
    """

    # What a reader should know of how tensors are observed, or "".
    note = ""
    # By precision, how many times the rounding of an operator its kernels are known to make, where
    # they keep sums in less than single precision.
    slack: Mapping[str, float] = MappingProxyType({})

    @abc.abstractmethod
    def observe(self, inputs: dict[str, Array]) -> tuple[Sequence[Seen], dict[str, Array]]:
        """One inference: all float tensors in the order of execution, and the outputs."""

    @final
    def trace_data(self, *, feeds: list[dict[str, str]], directory: str) -> dict[str, Any]:
        """The fields of `trace`."""
        return asdict(self.trace(feeds=feeds, directory=directory))

    def trace(self, *, feeds: list[dict[str, str]], directory: str) -> Trace:
        """Run feeds, each one call: .npy paths by declared input."""
        calls, returned = [], []
        for feed in feeds:
            seen, outputs = self.observe(self._load_feed(feed))
            calls.append(seen)
            returned.append(self._declared_outputs(outputs))
        folder = Path(directory)
        return Trace(
            save_candidate(calls, folder),
            save_outputs(returned, folder),
            self.note,
            dict(self.slack),
        )


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
