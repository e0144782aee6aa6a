"""Targets whose runners leak: a third party's, around ONNX Runtime and LiteRT.

Found through the entry point in ``site/``. Model files themselves can't leak there: neither runtime
has an operator that keeps ever more.
"""

from __future__ import annotations

from dataclasses import replace

from edgecheck.targets import ort, tflite
from edgecheck.targets.base import Target


def _leaking(target: Target, runner: str) -> Target:
    runner = f"tests.faults.leaking_runner:{runner}"
    return replace(
        target,
        name=f"{target.name}-leaking",
        aliases=(),
        files=replace(target.files, source_kind=""),
        runtime=replace(target.runtime, runner=runner),
    )


TARGETS = (
    _leaking(ort.TARGET, "LeakingOnnxRuntime"),
    _leaking(tflite.TARGET, "LeakingLiteRT"),
)
