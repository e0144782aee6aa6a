"""Runtimes with faults of repetition. Sent as source: imports other drivers only."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecheck.targets.ort.run import OrtRunner


class RememberingRunner(OrtRunner):
    """Mixes in some of the last input."""

    _last: Any = 0.0

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mixed = {
            name: np.asarray(array + 1e-3 * self._last, np.float32)
            for name, array in inputs.items()
        }
        self._last = np.float32(np.mean([array.mean() for array in inputs.values()]))
        return super().infer(mixed)


class ThreadedRunner(OrtRunner):
    """Is less exact with more threads."""

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: array * np.float32(1 + 1e-3 * (self._options["threads"] - 1))
            for name, array in super().infer(inputs).items()
        }
