"""Faults beside references that have fewer yardsticks: static batches, ONNX files, Keras models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults import keras_digits
from tests.faults.bench import Bench
from tests.faults.changing import UNLIKE
from tests.faults.fault import Fault
from tests.faults.mistaken import tuned
from tests.faults.quantization import recalibrate
from tests.faults.weights import edit_weight, flip, zero
from tests.localization.files import Array

_UNLIKE = f"{UNLIKE}|max_relative_error|weights of layer"


def _few(weight: Array, truth: Array, seed: int) -> Array:
    """A few weights of one output are zero: 16 neighbours, as a lost block of a file."""
    changed = np.array(weight, order="C")
    rng = np.random.default_rng(seed)
    start = int(rng.integers(0, changed.size - 16))
    changed.reshape(-1)[start : start + 16] = 0
    return changed


def _edited(edit: Callable[..., Array], layer: str, where: str) -> Callable[[Bench, Path], None]:
    model, target, precision = where.split()
    return partial(
        edit_weight, model=model, target=target, precision=precision, layer=layer, edit=edit
    )


def _rebuilt(change: Callable[[Any], Any], where: str) -> Callable[[Bench, Path], None]:
    model, target, precision = where.split()

    def plant(bench: Bench, path: Path) -> None:
        bench.build(change(bench.module(model)), model, target, precision, path)

    return plant


def _recalibrated(factor: float, where: str) -> Callable[[Bench, Path], None]:
    model, target, precision = where.split()
    return partial(recalibrate, model=model, target=target, factor=factor, precision=precision)


def _fault(
    kind: str, what: str, where: str, plant: Callable[[Bench, Path], object], **other: Any
) -> Fault:
    model, target, precision = where.split()
    against = other.pop("against", "module")
    words = (kind.replace(" ", "-"), what, model, target, precision)
    return Fault(
        kind,
        "-".join(words),
        model,
        target,
        precision,
        plant,
        says=_UNLIKE,
        against=against,
        **other,
    )


def _keras(what: str, precision: str, **how: Any) -> Fault:
    def plant(bench: Bench, path: Path) -> None:
        keras_digits.convert(path, precision=precision, **how)

    return _fault("Keras source", what, f"keras tflite {precision}", plant)


_STATIC, _ONNX, _FILE = "static batch", "ONNX source", "static file reference"

FAULTS = (
    *(
        _fault(_STATIC, what, where, _recalibrated(factor, where))
        for what, factor in (("saturated", 0.25), ("unscaled", 16.0))
        for where in ("static ort int8", "static tflite int8", "static coreml int8")
    ),
    _fault(_STATIC, "zeroed", "static ort fp32", _edited(zero, "hidden", "static ort fp32")),
    _fault(_STATIC, "zeroed", "static tflite int8", _edited(zero, "hidden", "static tflite int8")),
    *(
        _fault(
            _FILE,
            f"few-{seed}",
            "static ort fp32",
            _edited(partial(_few, seed=seed), "hidden", "static ort fp32"),
            against="tflite reference",
            declared={"builders": {}},
        )
        for seed in range(8)
    ),
    *(
        _fault(_ONNX, what, where, _recalibrated(factor, where), against="onnx source")
        for what, factor in (("saturated", 0.25), ("unscaled", 16.0))
        for where in ("cnn ort int8", "cnn tflite int8", "series ort int8", "transformer ort int8")
    ),
    *(
        _fault(
            _ONNX,
            "stale",
            where,
            _rebuilt(tuned(where.split()[0], 1e-3), where),
            against="onnx source",
        )
        for where in ("cnn ort int8", "cnn tflite int8", "series ort fp16", "cnn ort fp32")
    ),
    *(
        _fault(_ONNX, what, where, _edited(edit, layer, where), against="onnx source")
        for what, edit, where, layer in (
            ("zeroed", zero, "cnn ort int8", "hidden"),
            ("zeroed", zero, "cnn tflite fp16", "block2.0"),
            ("zeroed", zero, "transformer ort int8", "layers.1.expand"),
            ("bit-14", partial(flip, bit=14), "cnn ort fp32", "hidden"),
            ("bit-6", partial(flip, bit=6), "cnn ort int8", "head"),
            ("bit-9", partial(flip, bit=9), "series ort fp16", "conv2"),
        )
    ),
    _keras("unscaled", "int8", factor=16.0),
    _keras("saturated", "int8", factor=0.25),
    _keras("twice-scaled", "int8", factor=1 / 16),
    _keras("stale-by-6", "int8", drift=0.06),
    _keras("stale-by-3", "fp16", drift=0.03),
    _keras("stale-by-3", "fp32", drift=0.03),
    _keras("zeroed", "int8", zeroed=3),
    _keras("zeroed", "fp32", zeroed=3),
)
