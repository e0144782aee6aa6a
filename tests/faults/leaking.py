"""Targets whose drivers leak: a third party's, around ONNX Runtime and LiteRT.

Found through the entry point in ``site/``. Model files themselves can't leak there: neither runtime
has an operator that keeps ever more.
"""

from __future__ import annotations

from dataclasses import replace

from edgecheck.targets import Target, ort, tflite

_DRIVER = "tests.faults.leaking_runner"


def _leaking(target: Target, driver: str) -> Target:
    drivers = dict.fromkeys((*ort.TARGETS[0].drivers, *tflite.TARGETS[0].drivers, _DRIVER))
    return replace(
        target,
        name=f"{target.name}-leaking",
        aliases=(),
        drivers=tuple(drivers),
        driver=f"{_DRIVER}:{driver}",
    )


TARGETS = (
    _leaking(ort.TARGETS[0], "LeakingOnnxRuntime"),
    _leaking(tflite.TARGETS[0], "LeakingLiteRT"),
)
