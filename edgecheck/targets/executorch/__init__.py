"""ExecuTorch: .pte files on the CPU, with XNNPACK or the portable kernels.

A program that is lowered to Core ML is built here, and runs on Apple's systems only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecheck.targets.base import Build, Files, Host, Options, Runtime, Target

# Precisions by backend; the others have no kernels for the rest, or no recipe here.
BACKENDS = {
    "xnnpack": ("fp32", "fp16", "int8-dynamic", "int8", "int8-qat", "int4"),
    "portable": ("fp32", "fp16", "int8-dynamic", "int8", "int8-qat"),
    "coreml": ("fp32", "fp16"),
}


def _option_problem(options: Mapping[str, Any]) -> str:
    backend = options["backend"]
    if backend in BACKENDS:
        return ""
    return f"backend is {backend!r}, not one of {', '.join(BACKENDS)}"


def _gaps(options: Mapping[str, Any]) -> Mapping[str, str]:
    if options["backend"] != "coreml":
        return {}
    return {"run": "a program lowered to Core ML runs on Apple's systems only"}


TARGET = Target(
    name="executorch",
    title="ExecuTorch",
    aliases=("pte", "et"),
    files=Files(suffix=".pte", keeps_dynamic_batch=False),
    build=Build(
        builder="edgecheck.targets.executorch.build:ExecutorchBuilder",
        precisions=dict.fromkeys(BACKENDS["xnnpack"], "torch"),
        distributions=("torch", "torchao", "executorch", "coremltools"),
    ),
    runtime=Runtime(
        package="executorch",
        runner="edgecheck.targets.executorch.run:ExecutorchRunner",
        tracer="edgecheck.targets.executorch.trace:ExecutorchTracer",
    ),
    options=Options(defaults={"backend": "xnnpack"}, problem=_option_problem),
    host=Host(packages={"executorch": "executorch", "torchao": "torchao"}, gaps=_gaps),
)
