"""Faults of export code: training mode, and what the exporter's example decided.

Each is a change of the module before it is exported. Not for another model's weights or data: see
`tests.faults.mistaken`; nor for edits of files that were built: see the other modules beside this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import edgecheck
from fixtures import digits, series
from tests.faults.bench import Bench
from tests.faults.changing import Change, Images, Rows, Signals, behind, changed, replaced
from tests.faults.fault import Fault

# Training mode.


def _training(*kinds: type[nn.Module]) -> Change:
    """Layers of these kinds left in training mode."""

    def change(module: nn.Module) -> nn.Module:
        for child in module.modules():
            if isinstance(child, kinds):
                child.train()
        return module

    return change


def _every(kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> Change:
    """All layers of a kind replaced."""

    def change(module: nn.Module) -> nn.Module:
        for name, child in list(module.named_modules()):
            if isinstance(child, kind):
                module.set_submodule(name, make(child))
        return module

    return change


class _OfTheInput(nn.Module):
    """Batch norm by the statistics of its input, where a converter has no other training mode."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, values: Tensor) -> Tensor:
        centred = values - values.mean(2, keepdim=True)
        scale = torch.rsqrt((centred * centred).mean(2, keepdim=True) + self.eps)
        return centred * scale * self.weight[:, None] + self.bias[:, None]


class _Drop(nn.Module):
    """Dropout that does not look at the mode: with new masks, a frozen one, or only the scale."""

    def __init__(self, dropout: nn.Dropout, how: str) -> None:
        super().__init__()
        self.kept, self.how = 1.0 - dropout.p, how

    def forward(self, values: Tensor) -> Tensor:
        if self.how == "scale":
            return values / self.kept
        if self.how == "random":
            return values * (torch.rand_like(values) < self.kept).to(values.dtype) / self.kept
        drawn = np.random.default_rng(0).random(values.shape[1:], np.float32)
        mask = torch.from_numpy((drawn < self.kept).astype(np.float32))
        return values * mask / self.kept


def _drop(how: str) -> Change:
    return _every(nn.Dropout, lambda dropout: _Drop(dropout, how))


def _trace(module: nn.Module, path: Path) -> None:
    """The tracing exporter, which keeps the operators' training mode in the file."""
    torch.onnx.export(
        module,
        (torch.rand(3, 1, 8, 8),),
        path,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
    )


_NORM, _DROPOUT = "batch norm in training mode", "dropout in training mode"
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_TRAINING = (
    *(
        changed(_NORM, "norm-training", where, _training(*_NORMS))
        for where in ("cnn ort fp32", "cnn tflite int8", "series tflite fp32")
    ),
    changed(
        _NORM,
        "norm-one-layer",
        "cnn tflite fp32",
        replaced("block3.1", nn.Module.train),
        layer="block3.1",
    ),
    changed(
        _NORM,
        "norm-one-layer",
        "series coreml fp16",
        replaced("norm2", _OfTheInput),
        layer="norm2",
    ),
    Fault(
        _NORM,
        "norm-traced-cnn-ort-fp32",
        "cnn",
        "ort",
        "fp32",
        lambda bench, path: _trace(_training(*_NORMS)(bench.module("cnn")), path),
        "export",
        "training mode",
    ),
    *(
        changed(
            _DROPOUT, "dropout", where, _training(nn.Dropout), check="export", says="training mode"
        )
        for where in ("cnn ort fp32", "transformer ort fp16")
    ),
    changed(_DROPOUT, "random-mask", "cnn ort fp32", _drop("random"), says="same input twice"),
    changed(
        _DROPOUT, "random-mask", "cnn coreml fp16", _drop("random"), check="export", says="random"
    ),
    *(
        changed(_DROPOUT, "frozen-mask", where, _drop("frozen"))
        for where in ("cnn tflite fp32", "series tflite int8")
    ),
    *(
        changed(_DROPOUT, "dropout-scale", where, _drop("scale"))
        for where in ("series coreml fp16", "transformer tflite int8", "transformer tflite fp16")
    ),
)


# What the example decided.


def _mixed(rows: Tensor) -> Tensor:
    """Normalisation over what was taken for one sample, of an example of one."""
    return rows - rows.mean() + 0.3


def one_mean(rows: Tensor) -> Tensor:
    """The same, as it was meant."""
    return rows - rows.mean((1, 2), keepdim=True) + 0.3


def centred_transformer() -> nn.Module:
    """A transformer that takes each sample's mean off it."""
    return Rows(digits.trained_transformer(), one_mean)


def _gain(signal: Tensor, above: float) -> Tensor:
    """Automatic gain, of signals that are loud only."""
    peak = signal.abs().amax((1, 2), keepdim=True)
    return torch.where(peak > above, signal * (above / peak), signal)


def loud_series() -> nn.Module:
    """A series model that turns down what is loud: one signal in nine."""
    return Signals(series.trained_model(), lambda signal: _gain(signal, 4.0))


def very_loud_series() -> nn.Module:
    """The same of what hardly any signal is: eight of the 500 for evaluation, none of the first."""
    return Signals(series.trained_model(), lambda signal: _gain(signal, 6.0))


def upright(image: Tensor) -> Tensor:
    """Black on white turned into white on black, where that is what comes."""
    inverted = image.mean((1, 2, 3), keepdim=True) > 0.75
    return torch.where(inverted, 1.0 - image, image)


def upright_cnn() -> nn.Module:
    """A CNN that takes both."""
    return Images(digits.trained_cnn(), upright)


def _fixed_batch(bench: Bench, path: Path) -> None:
    """A dynamic batch that one reshape does not follow."""
    model = onnx.load(bench.sound("cnn", "ort", "fp32"))
    (node,) = (node for node in model.graph.node if node.op_type == "Reshape")
    (shape,) = (item for item in model.graph.initializer if item.name == node.input[1])
    shape.CopyFrom(numpy_helper.from_array(np.array([1, 512], np.int64), shape.name))
    onnx.save(model, path)


_BATCH, _BRANCH = "baked-in batch", "baked-in branch"
_FOUR = [edgecheck.Input("rows", (4, 8, 8), low=0.0, high=1.0)]
_ONE_IMAGE = [edgecheck.Input("image", (1, 1, 8, 8), low=0.0, high=1.0)]
_INVERTED = {"source": upright_cnn}
_EXAMPLE = (
    Fault(_BATCH, "reshape-cnn-ort-fp32", "cnn", "ort", "fp32", _fixed_batch, "export", "batch"),
    changed(
        _BATCH,
        "no-dynamic-axes",
        "cnn ort int8",
        lambda module: module,
        check="export",
        says="'batch' is declared dynamic",
        inputs=_ONE_IMAGE,
    ),
    changed(
        _BATCH,
        "one-mean",
        "transformer ort fp32",
        behind("transformer", _mixed),
        declared={"source": centred_transformer},
    ),
    changed(
        _BATCH,
        "mean-of-four",
        "transformer tflite fp32",
        behind("transformer", _mixed),
        declared={"source": centred_transformer},
        inputs=_FOUR,
    ),
    changed(
        _BATCH,
        "mean-of-four",
        "transformer coreml fp16",
        behind("transformer", _mixed),
        declared={"source": centred_transformer},
        inputs=_FOUR,
    ),
    *(
        changed(_BRANCH, "gain", where, lambda module: module, declared={"source": loud_series})
        for where in ("series coreml fp16", "series tflite int8")
    ),
    changed(
        _BRANCH,
        "rare-gain",
        "series ort fp32",
        lambda module: module,
        declared={"source": very_loud_series},
        check="accuracy",
        says="8 of 500 evaluation samples",
    ),
    *(
        changed(
            _BRANCH,
            "inverted",
            where,
            lambda module: module,
            declared=_INVERTED,
            says="at their highest",
        )
        for where in ("cnn ort fp32", "cnn tflite fp16")
    ),
)

FAULTS = (*_TRAINING, *_EXAMPLE)
