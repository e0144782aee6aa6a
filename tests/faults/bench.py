"""Builds files of the bundled models, sound or from a module that is not the model's own.

With edgecheck's own tools. Not for editing what was built: see the modules of faults.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import edgecheck
from edgecheck.capture import data
from edgecheck.targets.base import BuildRequest
from edgecheck.targets.registry import find_target
from suites.test_digits import TestDigits, TestDigitsTransformer
from suites.test_mobilenet import TestMobilenet
from suites.test_series import TestSeries
from tests.faults import architectures, keras_digits

BUNDLED = {
    "cnn": TestDigits.model,
    "transformer": TestDigitsTransformer.model,
    "series": TestSeries.model,
    "mobilenet": TestMobilenet.model,
}
# What faults are planted into: the bundled models, and some that they are unlike.
MODELS = {
    **BUNDLED,
    **{
        name: architectures.declaration(name, 0)
        for name in ("segmenter", "pixels-640", "pixels-4096", "pixels-last")
    },
    "static": replace(
        TestDigits.model,
        inputs=[edgecheck.Input("image", (1, 1, 8, 8), low=0.0, high=1.0)],
        evaluation=None,
    ),
    "keras": edgecheck.Model(
        keras_digits.network,
        inputs=[edgecheck.Input("image", ("batch", 8, 8, 1), low=0.0, high=1.0)],
        outputs=["scores"],
        calibration=keras_digits.images,
    ),
}


def declaration(model: str, /, **changed: Any) -> edgecheck.Model:
    """A bundled model's declaration, without its variants and its QAT program."""
    return replace(MODELS[model], variants={}, qat=None, **changed)


def sound_file(folder: Path, model: str, target: str, precision: str) -> Path:
    """Where a bench of a folder keeps the sound file of a candidate."""
    return folder / "sound" / f"{model}-{precision}{find_target(target).files.suffix}"


class Bench:
    """Builds files into a folder, sound ones only once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, name: str) -> Path:
        """A new folder for what a fault needs besides its file."""
        path = self._folder / name
        path.mkdir(parents=True)
        return path

    def module(self, model: str) -> Any:
        """The model itself, a ``torch.nn.Module`` in eval mode that may be changed."""
        source = MODELS[model].source
        assert callable(source)
        return source().eval()

    def samples(self, model: str, what: str = "calibration") -> dict[str, np.ndarray[Any, Any]]:
        """The model's ``calibration`` or ``evaluation`` inputs, (samples, ...) by input."""
        found = getattr(MODELS[model], what)
        found = found.inputs if what == "evaluation" else found
        found = found() if callable(found) else found
        if not isinstance(found, Mapping):
            found = {MODELS[model].inputs[0].name: found}
        return {name: np.asarray(array) for name, array in found.items()}

    def sound(self, model: str, target: str, precision: str) -> Path:
        """The sound file of a candidate. Copy it before you change it."""
        path = sound_file(self._folder, model, target, precision)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            self.build(self.module(model), model, target, precision, path)
        return path

    def build(
        self,
        module: Any,
        model: str,
        target: str,
        precision: str,
        path: Path,
        *,
        calibration: Mapping[str, np.ndarray[Any, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        inputs: list[edgecheck.Input] | None = None,
    ) -> Path:
        """Write the file of a module, as the model's candidate would be built.

        Args:
            calibration: by input, instead of the model's own.
            options: of the target, besides its defaults.
            inputs: the module's, where they differ from the model's.
        """
        from edgecheck.capture import torch

        kind, declared = find_target(target), MODELS[model]
        inputs = list(declared.inputs) if inputs is None else inputs
        work = path.with_name(f"{path.name}-work")
        work.mkdir()
        source = work / "program.pt2"
        torch.capture(module, inputs, declared.outputs, declared.dims, source)
        made_from = kind.build.precisions[precision]
        # A file of a broken module can't start from the sound fp32 file.
        if maker := kind.float_file_of(made_from):
            source = work / f"float{find_target(maker).files.suffix}"
            self._write(maker, "fp32", work / "program.pt2", source, inputs, model, work)
        found = self.samples(model) if calibration is None else calibration
        return self._write(
            target, precision, source, path, inputs, model, work, found, options or {}
        )

    def _write(
        self,
        target: str,
        precision: str,
        source: Path,
        path: Path,
        inputs: list[edgecheck.Input],
        model: str,
        work: Path,
        calibration: Mapping[str, np.ndarray[Any, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Path:
        kind, declared = find_target(target), MODELS[model]
        module, name = kind.build.builder.split(":")
        tools = getattr(importlib.import_module(module), name)()
        rng = np.random.default_rng(0)
        sizes = data.dimension_sizes(inputs, declared.dims, 1, None)
        named = {size for item in inputs for size in item.shape if isinstance(size, str)}
        request = BuildRequest(
            precision=precision,
            source=str(source),
            output=str(path),
            inputs=[item.name for item in inputs],
            outputs=list(declared.outputs),
            calibration=data.save_feed(calibration, work / "calibration") if calibration else None,
            example=data.save_feed(data.random_inputs(inputs, sizes, rng), work / "example"),
            options={**kind.options.defaults, **(options or {})},
            dims={name: declared.dim_range(name) for name in sorted(named)},
        )
        tools.write(request)
        return path
