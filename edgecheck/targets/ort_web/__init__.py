"""ONNX Runtime Web: the files of ONNX Runtime, run in headless Chromium with WebAssembly."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgecheck.targets import ort
from edgecheck.targets.base import Files, Host, Runtime, Target

RUNTIME = "onnxruntime-web@1.30.0"


def _missing() -> str:
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


def _other_versions() -> Mapping[str, str]:
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


TARGET = Target(
    name="ort-web",
    title="ONNX Runtime Web",
    aliases=("web", "onnxruntime-web"),
    files=Files(suffix=ort.TARGET.files.suffix, shared_with=ort.TARGET.name),
    build=replace(ort.TARGET.build, distributions=("onnx", "playwright")),
    runtime=Runtime(
        package="onnxruntime-web",
        runner="edgecheck.targets.ort_web.run:OrtWebRunner",
        # The file is ONNX Runtime's, whose operators are the same.
        tracer=ort.TARGET.runtime.tracer,
        other_versions=_other_versions,
    ),
    host=Host(packages={"playwright": "playwright", **ort.TARGET.host.packages}, missing=_missing),
)
