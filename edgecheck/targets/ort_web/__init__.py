"""ONNX Runtime Web: the files of ONNX Runtime, run in a browser with WebAssembly or WebGPU.

How the files are built and inspected is ONNX Runtime's. Not for running them: see
`edgecheck.targets.ort_web.run`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edgecheck.errors import ChildError
from edgecheck.targets import Target, ort

(_ORT,) = ort.TARGETS
RUNTIME = "onnxruntime-web@1.30.0"
_DRIVERS = (
    *("edgecheck.runtime.memory", "edgecheck.runtime.timing", "edgecheck.runtime.runner"),
    *("edgecheck.targets.ort_web.server", "edgecheck.targets.ort_web.page"),
    *("edgecheck.targets.ort_web.browser", "edgecheck.targets.ort_web.package"),
    "edgecheck.targets.ort_web.run",
)
_DRIVER = "edgecheck.targets.ort_web.run:OnnxRuntimeWebDriver"
_ADAPTERS = ("hardware", "software")
# Device files of GPUs on Linux: Mesa's and the kernel's, NVIDIA's, and WSL's.
_GPU_FILES = ("dri/renderD*", "nvidiactl", "dxg")
_PROBE_LIMIT_S = 120.0
_GPU_MEMORY = "a page can't tell what a model's buffers on a GPU take"


def _lacks() -> str:
    """What a page needs besides Python packages and is not here, with what would bring it."""
    from edgecheck.targets.ort_web.browser import find_browser
    from edgecheck.targets.ort_web.package import find_runtime

    found = []
    if not find_browser():
        found.append(
            "no Chromium: apt-get install chromium, or python -m playwright install chromium"
        )
    if find_runtime() is None:
        found.append(
            f"no onnxruntime-web in node_modules here or above: npm install {RUNTIME} "
            "(or set EDGECHECK_ORT_WEB to the package's folder)"
        )
    return "; ".join(found)


def _others() -> Mapping[str, str]:
    """The runtime's version, and which browser: asking it for its version would start it."""
    from edgecheck.targets.ort_web.browser import find_browser
    from edgecheck.targets.ort_web.package import find_runtime

    found = {}
    runtime, browser = find_runtime(), find_browser()
    if runtime is not None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            about = json.loads((runtime.parent / "package.json").read_text(encoding="utf-8"))
            found["onnxruntime-web"] = str(about["version"])
    if browser:
        changed = datetime.datetime.fromtimestamp(Path(browser).stat().st_mtime, datetime.UTC)
        found["browser"] = f"{browser} of {changed:%Y-%m-%d %H:%M}"
    return found


def _check_options(options: Mapping[str, Any]) -> str:
    if options["adapter"] not in _ADAPTERS:
        return f"adapter is {options['adapter']!r}, but may be {' or '.join(_ADAPTERS)}"
    return ""


def _webgpu_gaps(options: Mapping[str, Any]) -> Mapping[str, str]:
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
            with Child(Service(_DRIVER, modules=_DRIVERS), Path(folder)) as child:
                found: dict[str, Any] = child.call(
                    "probe", timeout_s=_PROBE_LIMIT_S, adapter="hardware"
                )
        except ChildError as error:
            return str(error)
    return found


def _target(name: str, title: str, **settings: Any) -> Target:
    return Target(
        name=name,
        title=title,
        suffix=".onnx",
        precisions=_ORT.precisions,
        packages={"playwright": "playwright", **_ORT.packages},
        distributions=("onnx", "playwright"),
        runtime="onnxruntime-web",
        tools=_ORT.tools,
        weights=_ORT.weights,
        drivers=_DRIVERS,
        driver=_DRIVER,
        reads=_ORT.reads,
        from_tensorflow=_ORT.from_tensorflow,
        shares_files=_ORT.name,
        lacks=_lacks,
        others=_others,
        **settings,
    )


TARGETS = (
    _target("ort-web", "ONNX Runtime Web", aliases=("web", "onnxruntime-web")),
    _target(
        "ort-webgpu",
        "ONNX Runtime Web on WebGPU",
        aliases=("webgpu",),
        repeats=False,
        options={"adapter": "hardware"},
        check_options=_check_options,
        gaps=_webgpu_gaps,
    ),
)
