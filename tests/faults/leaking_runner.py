"""Drivers that keep their inputs, as a log for debugging that was left on would.

Sent to the device: imports drivers only.
"""

from __future__ import annotations

import numpy as np

from edgecheck.targets.ort.run import OnnxRuntimeDriver
from edgecheck.targets.tflite.run import LiteRTDriver

Arrays = dict[str, np.ndarray]


class LeakingOnnxRuntime(OnnxRuntimeDriver):
    """Copies them all."""

    def __init__(self) -> None:
        super().__init__()
        self._log: list[Arrays] = []

    def _infer(self, inputs: Arrays) -> Arrays:
        self._log.append({name: array.copy() for name, array in inputs.items()})
        return super()._infer(inputs)


class LeakingLiteRT(LiteRTDriver):
    """As bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._log: list[list[bytes]] = []

    def _infer(self, inputs: Arrays) -> Arrays:
        self._log.append([array.tobytes() for array in inputs.values()])
        return super()._infer(inputs)
