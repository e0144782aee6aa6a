"""Faults of quantization: wrong ranges and grids, float where integers are promised, overflow."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fixtures import digits
from tests.faults.bench import Bench
from tests.faults.fault import UNLIKE_QUANTIZED, Fault
from tests.faults.quantizers import quantize_onnx, quantize_package, quantize_tflite
from tests.localization.files import opened


def regrid(
    bench: Bench,
    path: Path,
    model: str,
    target: str,
    place: Any,
    scale: float = 1.0,
    zero: int | None = None,
    reader: int = 0,
) -> None:
    """Another scale, or zero point, of one activation of an int8 file.

    Args:
        place: the tensor's name; in TFLite the position of the layer that writes it.
        reader: what is added to the zero point on the reader's side only.
    """
    file = opened(bench.sound(model, target, "int8"))
    _REGRID[target](file, place, scale, zero, reader)
    file.save(path)


def _regrid_onnx(file: Any, place: str, scale: float, zero: int | None, reader: int) -> None:
    from onnx import numpy_helper

    step, point = (file.constants[f"{place}_{name}"] for name in ("scale", "zero_point"))
    steps, points = (numpy_helper.to_array(item) for item in (step, point))
    file.set(step, steps * np.float32(scale))
    if zero is not None:
        file.set(point, points.dtype.type(zero))
    if reader:
        moved = numpy_helper.from_array(points + points.dtype.type(reader), f"{place}_moved")
        file.model.graph.initializer.append(moved)
        for node in file.model.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[2] == point.name:
                node.input[2] = moved.name


def _regrid_tflite(file: Any, place: int, scale: float, zero: int | None, reader: int) -> None:
    assert not reader, "a tensor of TFLite has one zero point"
    index = file.layers[place].outputs[0]
    grid = file.graph.tensors[index].quantization
    grid.scale = np.asarray(grid.scale, np.float32) * np.float32(scale)
    if zero is not None:
        grid.zeroPoint = [zero]
    for layer in file.layers:
        if layer.inputs[0] == index:  # the grid of its bias follows that of its input
            bias = file.graph.tensors[layer.inputs[2]]
            file.set(bias, np.rint(file.value(bias) / scale).astype(np.int32))
            bias.quantization.scale = np.asarray(bias.quantization.scale) * np.float32(scale)


def _regrid_package(file: Any, place: str, scale: float, zero: int | None, reader: int) -> None:
    assert zero is None and not reader, "coremltools writes symmetric activations"
    for item in file.operations.values():
        if item.type not in ("quantize", "dequantize"):
            continue
        source = item.inputs["input"].arguments[0].name
        if place == (source if item.type == "quantize" else item.outputs[0].name):
            value = file.constant(item, "scale").bytes
            value.values = (np.frombuffer(value.values, np.float16) * np.float16(scale)).tobytes()


_REGRID: dict[str, Callable[[Any, Any, float, int | None, int], None]] = {
    "ort": _regrid_onnx,
    "tflite": _regrid_tflite,
    "coreml": _regrid_package,
}

_CLIPPED: tuple[tuple[str, str, Any, Any, float, str], ...] = (
    ("cnn", "ort", "relu_1", None, 0.5, "block2.0"),
    ("transformer", "ort", "gelu_1", None, 0.3, "layers.1.expand"),
    ("cnn", "tflite", 2, None, 0.6, "hidden"),
    ("series", "tflite", 2, None, 0.4, "hidden"),
    ("cnn", "coreml", "relu_3_cast_fp16", "dequantize_5", 0.5, "hidden"),
)


def clip_package(
    bench: Bench, path: Path, model: str, places: tuple[str, str], scale: float
) -> None:
    """Both sides of one activation's grid in a package."""
    file = opened(bench.sound(model, "coreml", "int8"))
    for place in places:
        _regrid_package(file, place, scale, None, 0)
    file.save(path)


def recalibrate(
    bench: Bench, path: Path, model: str, target: str, factor: float, precision: str = "int8"
) -> None:
    """Ranges from samples that lack the pre-processing, or have it twice."""
    samples = {
        name: array * np.float32(factor) if array.dtype.kind == "f" else array
        for name, array in bench.samples(model).items()
    }
    bench.build(bench.module(model), model, target, precision, path, calibration=samples)


def unequal_cnn() -> Any:
    """The CNN with channels of unequal ranges, which computes the same.

    Each ReLU between two layers lets a channel's scale pass: what one layer multiplies by, the
    next divides by (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and
    Bias Correction", section 4.1, the other way round).
    """
    import torch

    module: Any = digits.trained_cnn()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block, then, each in (
            (module.block1, module.block2[0], 1),
            (module.block2, module.block3[0], 1),
            (module.block3, module.hidden, 16),
        ):
            norm = block[1]
            scale = 4.0 ** (2 * torch.rand(norm.num_features, generator=generator) - 1)
            norm.weight.mul_(scale)
            norm.bias.mul_(scale)
            columns = scale.repeat_interleave(each)
            then.weight.div_(columns.reshape(1, -1, *[1] * (then.weight.dim() - 2)))
    return module


def loud_cnn() -> Any:
    """The CNN with one hidden unit so large that half precision ends, which computes the same."""
    import torch

    module = digits.trained_cnn()
    with torch.no_grad():
        unit = int(module.head.weight.abs().amax(0).argmax())
        for values in (module.hidden.weight[unit], module.hidden.bias[unit : unit + 1]):
            values.mul_(8000.0)
        module.head.weight[:, unit].div_(8000.0)
    return module


def sell(bench: Bench, path: Path, model: str, target: str, really: str) -> None:
    """The file of another precision."""
    copy = shutil.copytree if target == "coreml" else shutil.copyfile
    copy(bench.sound(model, target, really), path)


def unpair(bench: Bench, path: Path, model: str) -> None:
    """Without the pairs of QuantizeLinear and DequantizeLinear around activations."""
    file = opened(bench.sound(model, "ort", "int8"))
    graph = file.model.graph
    outputs = [item.name for item in graph.output]
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        stored = node.op_type == "DequantizeLinear" and node.input[0] in file.constants
        node.input[:] = [alias.get(name, name) for name in node.input]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not stored:
            if node.output[0] not in outputs:
                alias[node.output[0]] = node.input[0]
                continue
            node.op_type = "Identity"
            del node.input[1:]
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    file.save(path)


def build(bench: Bench, path: Path, target: str, precision: str, source: Any) -> None:
    """The file of a module with the CNN's inputs."""
    bench.build(source().eval(), "cnn", target, precision, path)


def _unequal(quantize: Callable[..., None], **options: Any) -> Callable[[Bench, Path], None]:
    def plant(bench: Bench, path: Path) -> None:
        quantize(bench, path, "cnn", unequal_cnn().eval(), **options)

    return plant


def _fault(
    kind: str,
    model: str,
    target: str,
    plant: Callable[[Bench, Path], object],
    precision: str = "int8",
    what: str = "",
    says: str = UNLIKE_QUANTIZED,
    **other: Any,
) -> Fault:
    words = kind.replace(" ", "-"), what, model, target, precision
    name = "-".join(word for word in words if word)
    return Fault(kind, name, model, target, precision, plant, **{"says": says, **other})


def _clipped() -> list[Fault]:
    found = []
    for model, target, place, reader, scale, layer in _CLIPPED:
        if reader:
            plant = partial(clip_package, model=model, places=(place, reader), scale=scale)
        else:
            plant = partial(regrid, model=model, target=target, place=place, scale=scale)
        found.append(_fault("clipped range", model, target, plant, layer=layer))
    return found


def _zero(model: str, target: str, place: Any, layer: str, **grid: Any) -> Fault:
    plant = partial(regrid, model=model, target=target, place=place, **grid)
    what = "-".join(f"{name}-{value}" for name, value in grid.items()).replace("--", "-minus-")
    return _fault("wrong zero point", model, target, plant, what=what, layer=layer)


def _sold(model: str, target: str, precision: str, really: str, says: str) -> Fault:
    plant = partial(sell, model=model, target=target, really=really)
    kind = "quantization that did nothing"
    return _fault(kind, model, target, plant, precision, really, says, check="export")


_LOUD: Mapping[str, Any] = {"source": loud_cnn}
_UNEQUAL: Mapping[str, Any] = {"source": unequal_cnn}

FAULTS = (
    *_clipped(),
    *(
        _fault(
            "calibration at wrong scale",
            model,
            target,
            partial(recalibrate, model=model, target=target, factor=factor),
            what=f"x{factor}".replace(".", "-"),
        )
        for model, target, factor in (
            ("cnn", "ort", 255),
            ("transformer", "tflite", 255),
            ("cnn", "executorch", 255),
            ("cnn", "tflite", 0.1),
            ("transformer", "ort", 0.5),
            ("series", "coreml", 0.1),
        )
    ),
    *(
        _fault("per-tensor weights", "cnn", target, plant, precision, declared=_UNEQUAL)
        for target, precision, plant in (
            ("ort", "int8", _unequal(quantize_onnx, per_channel=False)),
            ("tflite", "int8", _unequal(quantize_tflite, granularity="TENSORWISE")),
            ("coreml", "int8-weights", _unequal(quantize_package, granularity="per_tensor")),
        )
    ),
    _zero("cnn", "ort", "relu_1", "block2.0", reader=8),
    _zero("transformer", "ort", "linear_4", "layers.0.expand", zero=0),
    _zero("series", "ort", "cat", "", reader=3),
    _zero("cnn", "tflite", 2, "hidden", zero=0),
    _zero("transformer", "tflite", 6, "layers.0.contract", zero=64),
    _sold("cnn", "ort", "int8", "fp32", "nothing in the file is int8"),
    _sold("series", "tflite", "int8", "fp32", "nothing in the file is int8"),
    _sold("transformer", "coreml", "int8", "fp16", "nothing in the file is int8"),
    _sold("transformer", "tflite", "fp16", "fp32", "nothing in the file is fp16"),
    _sold("cnn", "coreml", "fp16", "fp32", "nothing in the file is fp16"),
    _sold("cnn", "tflite", "int8", "int8-dynamic", "no layer computes on integers"),
    _sold("cnn", "coreml", "int8", "int8-weights", "no layer computes on integers"),
    _fault(
        "quantization that did nothing",
        "transformer",
        "ort",
        partial(unpair, model="transformer"),
        what="no-pairs",
        check="export",
        says="no layer computes on integers",
    ),
    *(
        _fault(
            "float layer",
            "cnn",
            target,
            plant,
            precision,
            what=what,
            check="export",
            says="quantized_weights",
            budget={"quantized_weights": 0.99} if what != "largest" else {},
        )
        for target, precision, what, plant in (
            ("ort", "int8", "largest", partial(quantize_onnx, model="cnn", keep="hidden")),
            ("ort", "int8", "small", partial(quantize_onnx, model="cnn", keep="head")),
            (
                "tflite",
                "int8",
                "largest",
                partial(quantize_tflite, model="cnn", keep="FULLY_CONNECTED"),
            ),
            (
                "tflite",
                "int8",
                "convolutions",
                partial(quantize_tflite, model="cnn", keep="CONV_2D"),
            ),
            (
                "coreml",
                "int8-weights",
                "largest",
                partial(quantize_package, model="cnn", keep="linear_0_cast_fp16"),
            ),
        )
    ),
    *(
        _fault(
            "fp16 overflow",
            "cnn",
            target,
            partial(build, target=target, precision="fp16", source=loud_cnn),
            "fp16",
            says=says,
            declared=_LOUD,
            budget=budget,
        )
        for target, says, budget in (
            ("ort", "hidden_overflow", {"hidden_overflow": 0}),
            ("tflite", "hidden_overflow", {"hidden_overflow": 0}),
            ("coreml", "NaN or infinite", {}),
        )
    ),
)
