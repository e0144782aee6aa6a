"""TensorRT: engines for NVIDIA GPUs, from ONNX files.

Without a GPU, engines are built for stated architectures and not run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from edgecheck.errors import DeclarationError
from edgecheck.targets.base import Build, Files, Host, Options, Runtime, Target
from edgecheck.targets.trt import nvidia
from edgecheck.units import parse_quantity

NO_GPU = "no NVIDIA GPU: the engine can't be run here"
# The packages that build engines; the second one also does without a GPU.
BUILDERS = ("tensorrt", "tensorrt_rtx")


def _missing() -> str:
    installed = [name for name in BUILDERS if importlib.util.find_spec(name) is not None]
    if not installed:
        return "neither tensorrt nor tensorrt_rtx installed: pip install tensorrt-rtx-cu13"
    if installed == ["tensorrt"] and not nvidia.gpu_name():
        return "no NVIDIA GPU, which tensorrt needs to build: pip install tensorrt-rtx-cu13"
    return ""


def _gaps(options: Mapping[str, Any]) -> Mapping[str, str]:
    if not nvidia.gpu_name():
        return {"run": NO_GPU}
    if importlib.util.find_spec("cuda") is None:
        return {"run": "cuda-python not installed: pip install cuda-python"}
    return {}


def _option_problem(options: Mapping[str, Any]) -> str:
    try:
        parse_quantity(options["workspace"], "bytes")
    except DeclarationError as error:
        return f"workspace: {error}"
    given = options["architectures"]
    if not isinstance(given, list | tuple) or not all(
        isinstance(item, str) and item.startswith("SM") and item[2:].isdigit() for item in given
    ):
        return f"architectures {given!r} is not a list of names such as 'SM89'"
    return ""


TARGET = Target(
    name="trt",
    title="TensorRT",
    aliases=("tensorrt",),
    files=Files(suffix=".engine"),
    build=Build(
        builder="edgecheck.targets.trt.build:TrtBuilder",
        precisions={"fp32": "ort", "fp16": "ort", "int8": "ort"},
        reads=("torch", "onnx", "tensorflow"),
        distributions=("onnx", "onnxruntime", "tensorrt", "tensorrt-rtx-cu13"),
    ),
    runtime=Runtime(
        package="tensorrt-rtx-cu13",
        runner="edgecheck.targets.trt.run:TrtRunner",
        untraceable="a TensorRT engine runs on its GPU only, and keeps its intermediate tensors to "
        "itself",
        deterministic=False,
    ),
    options=Options(defaults={"workspace": "1 GB", "architectures": []}, problem=_option_problem),
    host=Host(
        packages={
            "onnx": "onnx",
            "onnxruntime": "onnxruntime",
            "onnxscript": "onnxscript",
            "onnxconverter_common": "onnxconverter-common",
        },
        missing=_missing,
        gaps=_gaps,
    ),
)
