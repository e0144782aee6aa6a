"""Targets that edgecheck knows by name but can't build or run yet.

Naming one on the command line makes its cases ``not checked``, so the gate stays closed: asking for
a device that nobody tests must not pass.
"""

from __future__ import annotations

from edgecheck.names import PRECISIONS
from edgecheck.targets import Target

_PLANNED = {
    "coreml": ("Core ML", ".mlpackage", ("mlpackage", "core-ml")),
    "trt": ("TensorRT", ".engine", ("tensorrt",)),
    "executorch": ("ExecuTorch", ".pte", ("pte",)),
    "ort-web": ("ONNX Runtime Web", ".onnx", ("web", "onnxruntime-web")),
}

TARGETS = tuple(
    Target(
        name=name,
        title=title,
        suffix=suffix,
        aliases=aliases,
        precisions=dict.fromkeys(PRECISIONS, "torch"),
        unavailable=f"this version of edgecheck has no {title} support",
    )
    for name, (title, suffix, aliases) in _PLANNED.items()
)
