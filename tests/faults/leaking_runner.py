"""Runners that keep their inputs, as a log for debugging that was left on would."""

from __future__ import annotations

import numpy as np

from edgecheck.targets.ort.run import OrtRunner
from edgecheck.targets.tflite.run import TfliteRunner

Arrays = dict[str, np.ndarray]


class LeakingOnnxRuntime(OrtRunner):
    """Copies them all."""

    def __init__(self) -> None:
        super().__init__()
        self._log: list[Arrays] = []

    def infer(self, inputs: Arrays) -> Arrays:
        self._log.append({name: array.copy() for name, array in inputs.items()})
        return super().infer(inputs)


class LeakingLiteRT(TfliteRunner):
    """As bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._log: list[list[bytes]] = []

    def infer(self, inputs: Arrays) -> Arrays:
        self._log.append([array.tobytes() for array in inputs.values()])
        return super().infer(inputs)
