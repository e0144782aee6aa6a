"""Drivers that leak: around the real runtimes, 10 kB of each inference stay."""

from __future__ import annotations

import numpy as np

from edgecheck.targets.ort.run import OrtRunner
from edgecheck.targets.tflite.run import TfliteRunner

LEAK_BYTES = 10_000


class LeakingOnnxRuntime(OrtRunner):
    """Keeps fresh bytes, in blocks that the C library allocates."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[bytes] = []

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._kept.append(b"x" * LEAK_BYTES)
        return super().infer(inputs)


class LeakingLiteRT(TfliteRunner):
    """The same, in small objects of Python's own allocator."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[list[bytes]] = []

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._kept.append([b"x" * (size - 33) for size in [500] * (LEAK_BYTES // 500)])
        return super().infer(inputs)
