"""Runtimes with faults of repetition. Sent as source: imports other drivers only."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecheck.targets.ort.run import OnnxRuntimeDriver


class RememberingDriver(OnnxRuntimeDriver):
    """Mixes in some of the last input."""

    _last: Any = 0.0

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mixed = {name: np.float32(array + 1e-3 * self._last) for name, array in inputs.items()}
        self._last = np.float32(np.mean([array.mean() for array in inputs.values()]))
        return super()._infer(mixed)


class ThreadedDriver(OnnxRuntimeDriver):
    """Is less exact with more threads."""

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: array * np.float32(1 + 1e-3 * (self._options["threads"] - 1))
            for name, array in super()._infer(inputs).items()
        }
