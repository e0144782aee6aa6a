"""Faults of export code: layout, padding and resizing, which converters do each in their own way.

Each is a change of the module before it is exported. Not for edits of files that were built: see
the modules beside this one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn
from torch.nn import functional

from fixtures import digits
from tests.faults.bench import Bench
from tests.faults.changing import UNLIKE, Images, behind, changed, replaced
from tests.faults.fault import Fault


class _ChannelsLast(nn.Module):
    """Flattens as if the channels were last, for weights that are for channels first."""

    def forward(self, features: Tensor) -> Tensor:
        return features.unflatten(1, (32, 4, 4)).permute(0, 2, 3, 1).flatten(1)


class _SameStride(nn.Module):
    """TensorFlow's "same" at stride 2: the odd element of the padding comes last."""

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.convolution = convolution
        self.axes = convolution.weight.dim() - 2
        self.kernel = convolution.kernel_size[0]
        convolution.padding = (0,) * self.axes

    def forward(self, values: Tensor) -> Tensor:
        total = self.kernel - 2  # of an even size at stride 2
        sides = (total // 2, total - total // 2)
        return self.convolution(functional.pad(values, sides * self.axes))


def _padding_mode(mode: str) -> Callable[[Any], nn.Module]:
    def make(convolution: Any) -> nn.Module:
        convolution.padding_mode = mode
        return convolution

    return make


def _resized(image: Tensor, how: Mapping[str, Any]) -> Tensor:
    """Up and down again, as pictures of any size are."""
    larger = functional.interpolate(image, size=(20, 20), **how)
    return functional.avg_pool2d(larger[:, :, 2:18, 2:18], 2)


_BILINEAR = {"mode": "bilinear", "align_corners": False}


def resizing_cnn() -> nn.Module:
    """A CNN that crops the middle of what it enlarged."""
    return Images(digits.trained_cnn(), lambda image: _resized(image, _BILINEAR))


def _resize_attribute(bench: Bench, path: Path) -> None:
    """The ONNX file of a resize whose grid is the old runtimes'."""
    bench.build(resizing_cnn(), "cnn", "ort", "fp32", path)
    model = onnx.load(path)
    (node,) = (node for node in model.graph.node if node.op_type == "Resize")
    for attribute in node.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"asymmetric"
    onnx.save(model, path)


_LAYOUT, _PADDING, _RESIZE = "NHWC/NCHW mix-up", "wrong padding", "wrong align_corners"
FAULTS = (
    *(
        changed(_LAYOUT, "flatten-order", where, replaced("dropout", lambda _: _ChannelsLast()))
        for where in ("cnn tflite fp32", "cnn ort int8")
    ),
    *(
        changed(
            _LAYOUT,
            "turned",
            where,
            behind(where, lambda image: image.transpose(-1, -2)),
        )
        for where in ("cnn coreml fp16", "transformer tflite int8")
    ),
    *(
        changed(
            _LAYOUT,
            "reshaped",
            where,
            behind(where, lambda signal: signal.reshape(-1, 128, 3).transpose(1, 2)),
        )
        for where in ("series ort fp32", "series tflite fp16")
    ),
    *(
        changed(_PADDING, f"same-{layer}", where, replaced(layer, _SameStride), layer=layer)
        for where, layer in (
            ("series ort fp32", "conv1"),
            ("series tflite int8", "conv2"),
            ("series coreml fp16", "conv1"),
        )
    ),
    *(
        changed(
            _PADDING,
            f"{mode}-padding",
            where,
            replaced("block1.0", _padding_mode(mode)),
            layer="block1.0",
        )
        for where, mode in (("cnn ort int8", "replicate"), ("cnn tflite fp32", "reflect"))
    ),
    *(
        changed(
            _RESIZE,
            what,
            where,
            behind(where, functools.partial(_resized, how=how)),
            declared={"source": resizing_cnn},
        )
        for what, where, how in (
            ("align-corners", "cnn tflite fp32", {"mode": "bilinear", "align_corners": True}),
            ("align-corners", "cnn ort int8", {"mode": "bilinear", "align_corners": True}),
            ("align-corners", "cnn coreml fp16", {"mode": "bilinear", "align_corners": True}),
            ("nearest", "cnn coreml int8-weights", {"mode": "nearest"}),
        )
    ),
    Fault(
        _RESIZE,
        "asymmetric-cnn-ort-fp32",
        "cnn",
        "ort",
        "fp32",
        _resize_attribute,
        says=UNLIKE,
        declared={"source": resizing_cnn},
    ),
)
