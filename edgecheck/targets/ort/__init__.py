"""ONNX Runtime: .onnx files, on its CPU provider or on those that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecheck.targets.base import ON_X86, Build, Files, Host, Options, Runtime, Target
from edgecheck.targets.common import keep_float

_KEEPS_FLOAT = ("int8", "int8-dynamic", "int4")


def _option_problem(options: Mapping[str, Any]) -> str:
    providers = options["providers"]
    if not isinstance(providers, list | tuple) or not providers:
        return f"providers is {providers!r}, no list of names"
    if unfit := [item for item in providers if not isinstance(item, str)]:
        return f"providers has {unfit[0]!r}, which is not a name"
    return keep_float.option_problem(options, _KEEPS_FLOAT)


TARGET = Target(
    name="ort",
    title="ONNX Runtime",
    aliases=("onnx", "onnxruntime"),
    files=Files(suffix=".onnx", source_kind="onnx"),
    build=Build(
        builder="edgecheck.targets.ort.build:OrtBuilder",
        precisions={
            "fp32": "torch",
            "fp16": "float",
            "int8-dynamic": "float",
            "int8": "float",
            "int8-qat": "torch",
            "int4": "float",
        },
        reads=("torch", "onnx", "tensorflow"),
        from_tensorflow={"int8-qat": ""},
        distributions=(
            *("torch", "torchao", "onnx", "onnxruntime", "onnxscript"),
            *("onnxconverter-common", "tf2onnx", "tensorflow", "tensorflow-cpu"),
        ),
        weights="edgecheck.targets.common.onnx.weights",
    ),
    runtime=Runtime(
        package="onnxruntime",
        runner="edgecheck.targets.ort.run:OrtRunner",
        tracer="edgecheck.targets.ort.trace:OrtTracer",
        wide_half_sums=ON_X86,
    ),
    options=Options(
        defaults={"providers": ["CPUExecutionProvider"], keep_float.OPTION: {}},
        problem=_option_problem,
    ),
    host=Host(
        packages={
            "onnx": "onnx",
            "onnxruntime": "onnxruntime",
            "onnxscript": "onnxscript",
            "onnxconverter_common": "onnxconverter-common",
        },
    ),
)
