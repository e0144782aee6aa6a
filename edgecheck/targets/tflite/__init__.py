"""TFLite (LiteRT): .tflite files on the CPU, with XNNPACK.

Files have a fixed batch of one: LiteRT's converter does not keep a dynamic batch reliably.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecheck.targets.base import ON_X86, Build, Files, Host, Options, Runtime, Target
from edgecheck.targets.common import keep_float

# Types of an "int8" file's input and output tensors; the default is int8 from PyTorch and float32
# from TensorFlow, as their converters have it.
_IO_TYPES = ("default", "float32", "int8", "uint8")
_KEEPS_FLOAT = ("int8", "int8-dynamic", "int16x8", "int4")


def _option_problem(options: Mapping[str, Any]) -> str:
    io = options["io"]
    if io not in _IO_TYPES:
        return f"io is {io!r}; use one of {', '.join(_IO_TYPES)}"
    return keep_float.option_problem(options, _KEEPS_FLOAT)


TARGET = Target(
    name="tflite",
    title="LiteRT (TFLite)",
    aliases=("litert", "lite", "tf-lite"),
    files=Files(suffix=".tflite", keeps_dynamic_batch=False),
    build=Build(
        builder="edgecheck.targets.tflite.build:TfliteBuilder",
        precisions={
            "fp32": "torch",
            "fp16": "float",
            "int8-dynamic": "float",
            "int8": "float",
            "int8-qat": "torch",
            "int16x8": "float",
            "int4": "float",
        },
        reads=("torch", "tensorflow"),
        from_tensorflow=dict.fromkeys(
            ("fp16", "int8-dynamic", "int8", "int8-qat", "int16x8"), "tensorflow"
        ),
        distributions=(
            *("torch", "torchao", "litert-torch", "litert-converter", "ai-edge-quantizer"),
            *("tensorflow", "tensorflow-cpu"),
        ),
        weights="edgecheck.targets.tflite.weights",
    ),
    runtime=Runtime(
        package="ai-edge-litert",
        runner="edgecheck.targets.tflite.run:TfliteRunner",
        tracer="edgecheck.targets.tflite.trace:TfliteTracer",
        wide_half_sums=ON_X86,
    ),
    options=Options(defaults={"io": "default", keep_float.OPTION: {}}, problem=_option_problem),
    host=Host(
        packages={
            "ai_edge_litert": "ai-edge-litert",
            "ai_edge_quantizer": "ai-edge-quantizer",
            "litert_torch": "litert-torch",
            "torchao": "torchao",
        },
    ),
)
