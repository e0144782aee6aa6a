"""Builds engines, from ONNX files.

Networks are strongly typed: an ONNX file's own types and Q/DQ pairs decide the precision. With
TensorRT for RTX, engines are built ahead of time for stated architectures, on machines without a
GPU too.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecheck.targets.base import Builder, BuildRequest, Inspection
from edgecheck.targets.common.onnx import inspection, quantization
from edgecheck.targets.trt import BUILDERS, NO_GPU, nvidia
from edgecheck.units import parse_quantity

# Notes of what is in an engine stay beside it: nothing reads an engine without a GPU.
_NOTES = ".json"
_COUNTS = ("operators", "quantized_operators", "weight_elements", "weight_bytes")
# Smaller than any engine's header.
_LEAST_ENGINE_BYTES = 64
# Where neither a GPU nor the user says which: Ada.
_AHEAD_OF_TIME = ("SM89",)


class BuildError(ValueError):
    """TensorRT refuses a network; the message is the whole story."""

    stands_alone = True


class TrtBuilder(Builder):
    """Builds and inspects engines."""

    def write(self, request: BuildRequest) -> None:
        """Write the engine of a precision, and notes of what is in it beside it."""
        with tempfile.TemporaryDirectory() as directory:
            model = request.source
            if request.precision != "fp32":
                model = str(Path(directory) / "typed.onnx")
                _write_typed(request.precision, request.source, model, request.calibration)
            engine, notes = _build(Path(model), request.options, request.dims)
            contents = inspection.inspect(Path(model))
        Path(request.output).write_bytes(engine)
        notes |= {name: dict(getattr(contents, name)) for name in _COUNTS}
        Path(f"{request.output}{_NOTES}").write_text(json.dumps(notes))

    def inspect_file(self, path: Path) -> Inspection:
        """What was noted when the engine was built; nothing is known of other engines."""
        size = path.stat().st_size
        if size < _LEAST_ENGINE_BYTES:
            return Inspection.unreadable(f"{size} bytes are not a TensorRT engine")
        notes = Path(f"{path}{_NOTES}")
        if not notes.is_file():
            reason = "" if nvidia.gpu_name() else f"{NO_GPU}, and nothing reads it without one"
            return Inspection(not_inspected=reason)
        noted = json.loads(notes.read_text())
        return Inspection(
            warnings=tuple(noted["warnings"]),
            format={
                name: noted[name] for name in ("builder", "version", "architectures", "workspace")
            },
            **{name: noted[name] for name in _COUNTS},
        )


def _write_typed(
    precision: str, source: str, output: str, calibration: Mapping[str, str] | None
) -> None:
    """The ONNX file with the types that the engine is to compute in."""
    if precision == "fp16":
        quantization.to_float16(source, output)
        return
    assert calibration is not None
    with tempfile.TemporaryDirectory() as directory:
        prepared = str(Path(directory) / "prepared.onnx")
        quantization.prepare(source, prepared)
        # TensorRT takes symmetric, signed activations, and biases in float.
        quantization.quantize_static(prepared, output, calibration, signed=True)


def _build(
    model: Path, options: Mapping[str, Any], dims: Mapping[str, tuple[int, int]]
) -> tuple[bytes, dict[str, Any]]:
    """The serialized engine, and what it was built for."""
    trt = _module()
    log = _Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(model.read_bytes(), str(model)):
        raise BuildError(_refusal(parser))
    config = builder.create_builder_config()
    workspace_bytes = int(parse_quantity(options["workspace"], "bytes"))
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    architectures = _choose_architectures(trt, config, options["architectures"])
    if any(-1 in tuple(network.get_input(index).shape) for index in range(network.num_inputs)):
        config.add_optimization_profile(_profile(builder, network, model, dims))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BuildError(f"TensorRT built no engine: {log.last_error()}")
    return bytes(engine), {
        "builder": trt.__name__,
        "version": trt.__version__,
        "architectures": architectures,
        "workspace": options["workspace"],
        "warnings": log.warnings(),
    }


def _module() -> Any:
    """TensorRT for RTX where there is no GPU to build on, else whichever is installed."""
    order = BUILDERS if nvidia.gpu_name() else BUILDERS[::-1]
    name = next(item for item in order if importlib.util.find_spec(item) is not None)
    return importlib.import_module(name)


def _strongly_typed(trt: Any) -> int:
    """The flag of strong typing; from TensorRT 11 on there is nothing else, and it may be gone."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _choose_architectures(trt: Any, config: Any, stated: list[str]) -> list[str]:
    """Have the engine built for the stated architectures; without any, for the GPU that is here."""
    if not stated and nvidia.gpu_name():
        return [nvidia.gpu_name()]
    wanted = stated or list(_AHEAD_OF_TIME)
    known = getattr(trt, "ComputeCapability", None)
    if known is None:
        raise BuildError(
            f"{trt.__name__} builds for the GPU of its machine only: leave architectures out, or "
            "pip install tensorrt-rtx-cu13"
        )
    if unknown := [name for name in wanted if not hasattr(known, name)]:
        names = ", ".join(sorted(name for name in dir(known) if name.startswith("SM")))
        raise BuildError(f"architectures {unknown} are unknown to {trt.__name__}; it has {names}")
    config.num_compute_capabilities = len(wanted)
    for position, name in enumerate(wanted):
        config.set_compute_capability(getattr(known, name), position)
    return wanted


def _profile(builder: Any, network: Any, model: Path, dims: Mapping[str, tuple[int, int]]) -> Any:
    """An optimization profile: smallest, usual (the largest but a batch of one) and largest."""
    import onnx

    named = {
        item.name: [axis.dim_param for axis in item.type.tensor_type.shape.dim]
        for item in onnx.load(str(model), load_external_data=False).graph.input
    }
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shapes = []
        for pick in (0, None, 1):
            sizes = []
            for axis, size in enumerate(tensor.shape):
                low, high = dims.get(named[tensor.name][axis], (1, 64))
                if size >= 0:
                    sizes.append(size)
                elif pick is None:
                    sizes.append(max(1, low) if axis == 0 else high)
                else:
                    sizes.append((low, high)[pick])
            shapes.append(tuple(sizes))
        profile.set_shape(tensor.name, *shapes)
    return profile


def _refusal(parser: Any) -> str:
    """The parser's errors as findings: node, operator, reason."""
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        reason = " ".join(str(error.desc()).split())
        name, operator = error.node_name(), error.node_operator()
        lines.append(f"node {name!r} ({operator}): {reason}" if name else reason)
    return f"TensorRT can't parse the ONNX file: {'; '.join(lines[:3]) or 'no reason given'}"


class _Log:
    """TensorRT's messages, kept in place of printed."""

    def __init__(self, trt: Any) -> None:
        kept: list[tuple[Any, str]] = []

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                kept.append((severity, message))

        self.logger = Logger()
        self._kept = kept
        self._severity = trt.ILogger

    def last_error(self) -> str:
        """The last error, on one line."""
        errors = [
            text
            for severity, text in self._kept
            if severity in (self._severity.ERROR, self._severity.INTERNAL_ERROR)
        ]
        return " ".join(errors[-1].split())[:300] if errors else "it gave no reason"

    def warnings(self) -> list[str]:
        """Distinct warnings."""
        texts = [text for severity, text in self._kept if severity == self._severity.WARNING]
        return [" ".join(text.split())[:300] for text in dict.fromkeys(texts)]
