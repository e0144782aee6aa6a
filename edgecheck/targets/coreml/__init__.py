"""Core ML: .mlpackage folders of ML Programs, with a fixed batch of one.

macOS runs the files; elsewhere the reference executor (`edgecheck.mil`) computes what they say.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from edgecheck.targets.base import ON_X86, Build, Files, Host, Options, Runtime, Target
from edgecheck.targets.common import keep_float

# ML Programs exist since iOS15; macOS 12 to 15 and 26 have the same operators.
_DEPLOYMENT_TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")
_COMPUTE_UNITS = ("all", "cpu_only", "cpu_and_gpu", "cpu_and_ne")
_KEEPS_FLOAT = ("int8", "int8-weights", "int4")
METADATA = ("author", "short_description", "license", "version")
_OFF_MACOS = (
    "Core ML itself runs on macOS only; here the reference executor shows what the file computes, "
    "not how fast and in how much memory"
)


def _gaps(options: Mapping[str, Any]) -> Mapping[str, str]:
    return {} if sys.platform == "darwin" else {"latency": _OFF_MACOS, "memory": _OFF_MACOS}


def _option_problem(options: Mapping[str, Any]) -> str:
    target, units = options["deployment_target"], options["compute_units"]
    if target and target not in _DEPLOYMENT_TARGETS:
        return f"deployment_target {target!r} is none of {', '.join(_DEPLOYMENT_TARGETS)}"
    if units not in _COMPUTE_UNITS:
        return f"compute_units {units!r} is none of {', '.join(_COMPUTE_UNITS)}"
    kinds = {"images": dict, "labels": list | tuple, "metadata": dict}
    for name, kind in kinds.items():
        if not isinstance(options[name], kind):
            return f"{name} is a {type(options[name]).__name__}"
    for name, image in options["images"].items():
        if unknown := sorted(set(image) - {"scale", "bias", "color_layout"}):
            return f"images[{name!r}] has {unknown}; it may have scale, bias and color_layout"
        if not isinstance(image.get("scale", 1.0), int | float) or image.get("scale", 1.0) <= 0:
            return f"images[{name!r}]: scale {image['scale']!r} is not a positive number"
        if image.get("color_layout", "RGB") not in ("RGB", "BGR", "GRAYSCALE"):
            return f"images[{name!r}]: color_layout is RGB, BGR or GRAYSCALE"
    labels = options["labels"]
    if len(set(labels)) < len(labels):
        return "labels repeat"
    if unknown := sorted(set(options["metadata"]) - set(METADATA)):
        return f"metadata has {unknown}; it may have {', '.join(METADATA)}"
    return keep_float.option_problem(options, _KEEPS_FLOAT)


TARGET = Target(
    name="coreml",
    title="Core ML",
    aliases=("mlpackage", "core-ml"),
    files=Files(suffix=".mlpackage", keeps_dynamic_batch=False),
    build=Build(
        builder="edgecheck.targets.coreml.build:CoremlBuilder",
        precisions=dict.fromkeys(
            ("fp32", "fp16", "int8-weights", "int8", "int4", "palettized"), "torch"
        ),
        reads=("torch", "tensorflow"),
        distributions=("torch", "coremltools", "tensorflow", "tensorflow-cpu"),
        weights="edgecheck.targets.coreml.weights",
    ),
    runtime=Runtime(
        package="coremltools",
        runner="edgecheck.targets.coreml.run:CoremlRunner",
        # The reference executor is a part of edgecheck.
        needs_edgecheck=True,
        tracer="edgecheck.targets.coreml.trace:CoremlTracer",
        executor="" if sys.platform == "darwin" else "mil-reference",
        deterministic=sys.platform != "darwin",
        wide_half_sums=ON_X86,
    ),
    options=Options(
        defaults={
            "deployment_target": "",
            "compute_units": "all",
            "images": {},
            "labels": [],
            "metadata": {},
            keep_float.OPTION: {},
        },
        problem=_option_problem,
    ),
    host=Host(
        packages={"coremltools": "coremltools", "torch": "torch", "sklearn": "scikit-learn"},
        gaps=_gaps,
    ),
)
