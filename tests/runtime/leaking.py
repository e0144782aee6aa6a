"""Drivers that leak: around the real runtimes, 10 kB of each inference stay."""

from __future__ import annotations

import numpy as np

from edgecheck.targets.ort.run import OnnxRuntimeDriver
from edgecheck.targets.tflite.run import LiteRTDriver

LEAK_BYTES = 10_000


class LeakingOnnxRuntime(OnnxRuntimeDriver):
    """Keeps fresh bytes, in blocks that the C library allocates."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[bytes] = []

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._kept.append(b"x" * LEAK_BYTES)
        return super()._infer(inputs)


class LeakingLiteRT(LiteRTDriver):
    """The same, in small objects of Python's own allocator."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[list[bytes]] = []

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._kept.append([b"x" * (size - 33) for size in [500] * (LEAK_BYTES // 500)])
        return super()._infer(inputs)
