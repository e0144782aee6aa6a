"""ONNX Runtime Web on WebGPU: on a GPU, or in software for parity and accuracy only."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from edgecheck.errors import ChildError
from edgecheck.targets import ort_web
from edgecheck.targets.base import Options

_ADAPTERS = ("hardware", "software")
# Device files of GPUs on Linux: Mesa's and the kernel's, NVIDIA's, and WSL's.
_GPU_FILES = ("dri/renderD*", "nvidiactl", "dxg")
_PROBE_LIMIT_S = 120.0
_GPU_MEMORY = "a page can't tell what a model's buffers on a GPU take"


def _option_problem(options: Mapping[str, Any]) -> str:
    if options["adapter"] not in _ADAPTERS:
        return f"adapter is {options['adapter']!r}, but may be {' or '.join(_ADAPTERS)}"
    return ""


def _gaps(options: Mapping[str, Any]) -> Mapping[str, str]:
    gaps = {"memory": _GPU_MEMORY}
    if options["adapter"] == "software":
        gaps["latency"] = "the WebGPU adapter is software: its time says nothing of a GPU's"
        has_float16 = False
    else:
        adapter = _adapter()
        if isinstance(adapter, str):
            return {
                "run": f"no GPU for WebGPU ({adapter}); "
                'target_options={"ort-webgpu": {"adapter": "software"}} runs it in software, '
                "for parity and accuracy only"
            }
        has_float16 = bool(adapter["float16"])
    if not has_float16:
        gaps["fp16"] = (
            f"the {options['adapter']} WebGPU adapter has no shader-f16, which fp16 needs"
        )
    return gaps


@cache
def _adapter() -> dict[str, Any] | str:
    """The hardware adapter, or why there is none: a browser is asked where there may be one."""
    if sys.platform == "linux" and not any(any(Path("/dev").glob(item)) for item in _GPU_FILES):
        return "this machine has no GPU device"
    from edgecheck.process.parent import Child, Service

    with tempfile.TemporaryDirectory() as folder:
        try:
            with Child(Service.sent(ort_web.TARGET.runtime.runner), Path(folder)) as child:
                adapter: dict[str, Any] = child.call(
                    "probe", timeout_s=_PROBE_LIMIT_S, adapter="hardware"
                )
        except ChildError as error:
            return str(error)
    return adapter


TARGET = replace(
    ort_web.TARGET,
    name="ort-webgpu",
    title="ONNX Runtime Web on WebGPU",
    aliases=("webgpu",),
    runtime=replace(ort_web.TARGET.runtime, deterministic=False),
    options=Options(defaults={"adapter": "hardware"}, problem=_option_problem),
    host=replace(ort_web.TARGET.host, gaps=_gaps),
)
