"""Faults of behaviour: NaN at a bound, chance, memory between calls, fallbacks, leaks."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from fixtures import digits, series
from tests.faults.bench import Bench
from tests.faults.fault import Fault
from tests.faults.files import change_tflite, edited

# -- guards that the file lost


class _Standardized(torch.nn.Module):
    """The CNN on images of mean 0 and deviation 1, as cameras' gains differ."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.net = digits.trained_cnn()
        self.least = least

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        centred = image - image.mean((1, 2, 3), keepdim=True)
        deviation = (centred * centred).mean((1, 2, 3), keepdim=True).sqrt()
        found: torch.Tensor = self.net(centred / (deviation + self.least))
        return found


class _Logarithmic(torch.nn.Module):
    """The series model on a signal in decibels."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.net = series.trained_model()
        self.least = least

    def forward(self, signal: torch.Tensor, sensor: torch.Tensor) -> dict[str, torch.Tensor]:
        level = signal + 2.0
        level = torch.log(level.clamp(min=self.least) if self.least else level)
        found: dict[str, torch.Tensor] = self.net(level, sensor)
        return found


class _Shares(torch.nn.Module):
    """The transformer on rows as shares of the image's ink."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.net = digits.trained_transformer()
        self.least = least

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        ink = rows.sum((1, 2), keepdim=True)
        found: torch.Tensor = self.net(
            16 * rows / (ink.clamp(min=self.least) if self.least else ink)
        )
        return found


def standardized() -> torch.nn.Module:
    """Guarded."""
    return _Standardized(1e-8).eval()


def logarithmic() -> torch.nn.Module:
    """Guarded."""
    return _Logarithmic(1e-6).eval()


def shares() -> torch.nn.Module:
    """Guarded."""
    return _Shares(1e-6).eval()


def _made(make: Callable[[float], torch.nn.Module], least: float, _: Any) -> torch.nn.Module:
    """Another module than the given one."""
    return make(least)


def _boundary() -> Iterator[Fault]:
    kinds = {"cnn": (standardized, _Standardized), "series": (logarithmic, _Logarithmic)}
    kinds["transformer"] = (shares, _Shares)
    for model, target, precision, least in (
        ("cnn", "ort", "fp32", 0.0),
        ("cnn", "coreml", "fp16", 0.0),
        ("cnn", "tflite", "fp32", 0.0),
        ("series", "ort", "fp16", 0.0),
        ("series", "tflite", "fp32", 0.0),
        ("series", "coreml", "fp32", 0.0),
        ("transformer", "ort", "fp32", 0.0),
        ("transformer", "coreml", "fp32", 0.0),
        ("transformer", "tflite", "int8-dynamic", 0.0),
    ):
        source, module = kinds[model]

        yield Fault(
            "NaN on a boundary input",
            f"unguarded-{model}-{target}-{precision}",
            model,
            target,
            precision,
            functools.partial(
                _build, functools.partial(_made, module, least), model, target, precision, {}
            ),
            # Core ML's own log gives no infinity: it adds 1e-45.
            says="with all inputs at (zero|their (low|high)est)",
            declared={"source": source, "evaluation": None, "calibration": None},
        )


# -- operators at the end of a file


def _onnx_tail(node: Callable[[str, str], list[Any]], path: Path) -> None:
    """Put nodes between the first output and what gave it."""
    model = onnx.load(path)
    name, before = model.graph.output[0].name, "before_fault"
    for item in model.graph.node:
        for names in (item.input, item.output):
            names[:] = [before if each == name else each for each in names]
    model.graph.node.extend(node(before, name))
    onnx.save(model, path)


def _onnx_noise(operator: str, amplitude: float, seed: float | None, before: str, name: str) -> Any:
    size = {"high": amplitude, "low": -amplitude} if "Uniform" in operator else {"scale": amplitude}
    seeded = {} if seed is None else {"seed": seed}
    return [
        helper.make_node(operator, [before], ["noise"], **size, **seeded),
        helper.make_node("Add", [before, "noise"], [name]),
    ]


class _Tail:
    """Operators put between a .tflite file's first output, in float32, and what gave it."""

    def __init__(self, model: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = model
        self.graph = model.subgraphs[0]
        self.output = int(self.graph.outputs[0])
        self.shape = [int(size) for size in self.graph.tensors[self.output].shape]
        self.before = self.tensor(self.shape)
        for operator in self.graph.operators:
            for side in ("inputs", "outputs"):
                names = np.asarray(getattr(operator, side), np.int32)
                setattr(operator, side, np.where(names == self.output, self.before, names))

    def tensor(self, shape: Any, value: Any = None, *, variable: bool = False) -> int:
        buffer = 0
        if value is not None:
            self.model.buffers.append(self.schema.BufferT())
            self.model.buffers[-1].data = np.frombuffer(value.tobytes(), np.uint8)
            buffer = len(self.model.buffers) - 1
        made = self.schema.TensorT()
        made.shape = np.asarray(shape, np.int32)
        integers = value is not None and value.dtype == np.int32
        types = self.schema.TensorType
        made.type = types.INT32 if integers else types.FLOAT32
        made.buffer, made.isVariable = buffer, variable
        made.name = f"fault/{len(self.graph.tensors)}".encode()
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, options: str, inputs: list[int], output: int) -> None:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        self.model.operatorCodes.append(code)
        made = self.schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes) - 1
        made.inputs = np.asarray(inputs, np.int32)
        made.outputs = np.asarray([output], np.int32)
        made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        made.builtinOptions = getattr(self.schema, f"{options}T")()
        self.graph.operators.append(made)


def _tflite_noise(operator: str, amplitude: float, model: Any) -> None:
    tail = _Tail(model)
    drawn, scaled = tail.tensor(tail.shape), tail.tensor(tail.shape)
    shape = tail.tensor([len(tail.shape)], np.asarray(tail.shape, np.int32))
    size = tail.tensor([1], np.asarray([amplitude], np.float32))
    tail.operator(operator, "RandomOptions", [shape], drawn)
    tail.operator("MUL", "MulOptions", [drawn, size], scaled)
    tail.operator("ADD", "AddOptions", [tail.before, scaled], tail.output)


def _tflite_state(share: float, model: Any) -> None:
    """A recurrent layer whose state nobody resets: y = x + share * the last y."""
    tail = _Tail(model)
    units = tail.shape[-1]
    own = tail.tensor([units, units], np.eye(units, dtype=np.float32))
    last = tail.tensor([units, units], share * np.eye(units, dtype=np.float32))
    bias = tail.tensor([units], np.zeros(units, np.float32))
    state = tail.tensor(tail.shape, variable=True)
    tail.operator("RNN", "RNNOptions", [tail.before, own, last, bias, state], tail.output)


class _Noisy(torch.nn.Module):
    """A model whose training noise was exported with it."""

    def __init__(self, net: Any, amplitude: float) -> None:
        super().__init__()
        self.net = net
        self.amplitude = amplitude

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(image + self.amplitude * torch.randn_like(image))
        return found


class _Smoothed(torch.nn.Module):
    """A model that averages what it says over a video."""

    def __init__(self, net: Any, share: float) -> None:
        super().__init__()
        self.net = net
        self.share = share
        self.last: torch.Tensor
        self.register_buffer("last", torch.zeros(1, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = (1 - self.share) * self.net(image) + self.share * self.last
        self.last.copy_(found[:1])
        return found


def _nondeterministic() -> Iterator[Fault]:
    kind, twice = "nondeterministic operator", "on the same input twice"
    for candidate, operator, amplitude in (
        ("cnn/ort/fp32", "RandomNormalLike", 0.05),
        ("series/ort/fp16", "RandomUniformLike", 0.02),
        ("transformer/ort/int8", "RandomNormalLike", 0.05),
        ("transformer/ort/fp32", "RandomUniformLike", 3e-4),
    ):
        change = functools.partial(_onnx_noise, operator, amplitude, None)
        name = f"{operator.lower()}-{amplitude:g}".replace(".", "-")
        yield edited(kind, name, candidate, functools.partial(_onnx_tail, change), twice, "parity")
    for candidate, operator, amplitude in (
        ("cnn/tflite/fp32", "RANDOM_STANDARD_NORMAL", 0.05),
        ("series/tflite/int8-dynamic", "RANDOM_UNIFORM", 0.03),
        ("transformer/tflite/fp16", "RANDOM_STANDARD_NORMAL", 1e-3),
    ):
        change_file = functools.partial(
            change_tflite, functools.partial(_tflite_noise, operator, amplitude)
        )
        yield edited(
            kind, operator.lower().replace("_", "-"), candidate, change_file, twice, "parity"
        )
    for precision, amplitude in (("fp32", 0.05), ("fp16", 1e-3)):
        yield Fault(
            kind,
            f"randn-coreml-{precision}",
            "cnn",
            "coreml",
            precision,
            functools.partial(
                _build,
                functools.partial(_Noisy, amplitude=amplitude),
                "cnn",
                "coreml",
                precision,
                {},
            ),
            "export",
            "draws random numbers",
        )


def _build(
    wrap: Callable[[Any], Any],
    model: str,
    target: str,
    precision: str,
    options: dict[str, Any],
    bench: Bench,
    path: Path,
) -> None:
    """Write the file of what is made of a model."""
    wrapped = wrap(bench.module(model)).eval()
    bench.build(wrapped, model, target, precision, path, options=options)


def _states() -> Iterator[Fault]:
    kind, says = "state between calls", "on the same input (twice|after another one)"
    for candidate, share in (
        ("cnn/tflite/fp32", 0.05),
        ("transformer/tflite/fp16", 2e-3),
        ("series/tflite/int8-dynamic", 0.1),
    ):
        yield edited(
            kind,
            "recurrent",
            candidate,
            functools.partial(change_tflite, functools.partial(_tflite_state, share)),
            says,
            "parity",
        )
    # ONNX has no operator that keeps a tensor; a seeded generator keeps its place.
    seeded = functools.partial(_onnx_noise, "RandomUniformLike", 0.02, 7.0)
    edit = functools.partial(_onnx_tail, seeded)
    yield edited(kind, "seeded-generator", "cnn/ort/fp32", edit, says, "parity")
    for precision, share in (("fp32", 0.1), ("fp16", 0.01)):
        build = functools.partial(
            _build,
            functools.partial(_Smoothed, share=share),
            "cnn",
            "coreml",
            precision,
            {"deployment_target": "iOS18"},
        )
        yield Fault(
            kind, f"smoothed-coreml-{precision}", "cnn", "coreml", precision, build, says=says
        )


# -- what runs elsewhere, and what stays


class _Guarded(torch.nn.Module):
    """A guard against NaN that was added before the export: XNNPACK has no operators for it."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(torch.where(image != image, torch.zeros_like(image), image))
        return found


def _sound(model: str, target: str, precision: str, bench: Bench, path: Path) -> None:
    shutil.copy(bench.sound(model, target, precision), path)


def _fallbacks() -> Iterator[Fault]:
    kind = "silent fallback"
    for model, precision, provider, says in (
        ("cnn", "fp32", "CUDAExecutionProvider", r"did not enable \['CUDAExecutionProvider'\]"),
        # It is in every build for the CPU, and takes no operator of this kind.
        ("series", "int8", "AzureExecutionProvider", "no operator runs on AzureExecutionProvider"),
    ):
        providers = {"ort": {"providers": [provider, "CPUExecutionProvider"]}}
        name = f"{provider.lower()}-{model}-ort-{precision}"
        plant = functools.partial(_sound, model, "ort", precision)
        declared = {"target_options": providers}
        yield Fault(kind, name, model, "ort", precision, plant, "export", says, declared=declared)
    for name, target, precision, wrap, options in (
        ("nan-guard", "tflite", "fp32", _Guarded, {}),
        ("nan-guard", "tflite", "fp16", _Guarded, {}),
        ("nan-guard", "executorch", "fp32", _Guarded, {}),
        ("portable", "executorch", "fp16", lambda net: net, {"backend": "portable"}),
    ):
        yield Fault(
            kind,
            f"{name}-cnn-{target}-{precision}",
            "cnn",
            target,
            precision,
            functools.partial(_build, wrap, "cnn", target, precision, options),
            "export",
            r"undelegated_operators \d+ is not <= 0",
            budget={"undelegated_operators": 0},
        )


def _leaks() -> Iterator[Fault]:
    """The signal of each inference, 1.5 kB, and what Python takes to hold it."""
    for target, precision in (("ort", "fp32"), ("tflite", "int8"), ("tflite", "fp32")):
        leaking = f"{target}-leaking"
        plant = functools.partial(_sound, "series", leaking, precision)
        # A quarter of the bytes: below the default limit, 1 kB.
        small = precision == "int8"
        says = rf"memory_growth [\d.]+ k?B per inference is not <= {'200 B' if small else '1 kB'}"
        yield Fault(
            "memory leak",
            f"kept-inputs-series-{target}-{precision}",
            "series",
            leaking,
            precision,
            plant,
            "memory",
            says,
            budget={"memory_growth": "0.2 kB"} if small else {},
        )


FAULTS = (*_boundary(), *_nondeterministic(), *_states(), *_fallbacks(), *_leaks())
