"""Core ML: runs .mlpackage folders; on macOS by Core ML, elsewhere by the reference executor.

What the executor shows is what the file computes, in PyTorch, with each operator's result rounded
to the declared type. The part for macOS is written against coremltools' documentation and has not
been run by us.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.mil.program import DEPLOYMENT_TARGETS, Feature, Program
from edgecheck.mil.reader import read
from edgecheck.runtime.results import Placement
from edgecheck.runtime.runner import Runner, Tensor
from edgecheck.targets.coreml.booleans import boolean_names
from edgecheck.targets.coreml.images import to_pixels

_DTYPES = {"fp16": "float16", "fp32": "float32", "fp64": "float64", "int32": "int32"}
_DTYPES |= {"int8": "int8"}
_ON_MACOS = sys.platform == "darwin"


class CoremlRunner(Runner):
    """A loaded ML Program."""

    def __init__(self) -> None:
        super().__init__()
        self._run: Any = None
        self._program: Program | None = None
        self._images: dict[str, Mapping[str, Any]] = {}
        self._probabilities = ""
        # The types that the file itself takes, by input.
        self._numbers: dict[str, str] = {}

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        chosen = options.get("target", {})
        program = read(Path(path))
        _check_target(program, chosen.get("deployment_target", ""))
        interface = program.interfaces[program.default_function]
        self._program, self._images = program, dict(chosen.get("images", {}))
        self._probabilities = interface.predicted_probabilities_name
        images = [item.name for item in interface.inputs if item.kind == "image"]
        if unstated := sorted(set(images) - set(self._images)):
            raise ValueError(
                f"inputs {unstated} are images: say what a pixel means by target_options="
                f"{{'coreml': {{'images': {{{unstated[0]!r}: {{'scale': ..., 'bias': ...}}}}}}}}"
            )
        if _ON_MACOS:
            self._run = _Prediction(path, chosen.get("compute_units", "all"), images)
        else:
            import torch

            from edgecheck.mil.evaluator import Evaluator

            torch.set_num_threads(options["threads"])
            self._run = Evaluator(program).run
        outputs = [
            item for item in interface.outputs if item.name != interface.predicted_feature_name
        ]
        inputs = [_tensor(item) for item in interface.inputs]
        self._numbers = {item["name"]: item["dtype"] for item in inputs}
        booleans = boolean_names(program.functions[program.default_function])
        tensors = inputs, [self._output(item) for item in outputs]
        for item in (*tensors[0], *tensors[1]):
            if item["name"] in booleans:
                item["dtype"] = "bool"
        return tensors

    def _output(self, feature: Feature) -> Tensor:
        if feature.kind == "dictionary":
            assert self._program is not None
            labels = self._program.class_labels
            return {"name": feature.name, "shape": [1, len(labels)], "dtype": "float32"}
        if feature.kind == "array" and not feature.shape:
            # Core ML states no shape of outputs that vary, and coremltools often none at all.
            return {"name": feature.name, "shape": [None], "dtype": _dtype(feature)}
        return _tensor(feature)

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {
            name: to_pixels(array, self._images[name], name)
            if name in self._images
            else array.astype(self._numbers[name], copy=False)
            for name, array in inputs.items()
        }
        outputs = self._run(given)
        if self._probabilities:
            assert self._program is not None
            found = outputs[self._probabilities]
            row = [found[label] for label in self._program.class_labels]
            outputs[self._probabilities] = np.asarray([row], np.float32)
        return {
            name: np.asarray(outputs[name]).astype(bool)
            if tensor["dtype"] == "bool"
            else np.asarray(outputs[name])
            for name, tensor in self._outputs.items()
        }

    def placement(self, feed: dict[str, str]) -> Placement:
        """What computes it; of Core ML's own choice between its compute units nothing is known."""
        return Placement(facts={"executor": "coreml" if _ON_MACOS else "mil-reference"})


class _Prediction:
    """Core ML's own predict, on macOS."""

    def __init__(self, path: str, compute_units: str, images: list[str]) -> None:
        import coremltools

        units = getattr(coremltools.ComputeUnit, compute_units.upper())
        self._model = coremltools.models.MLModel(path, compute_units=units)
        self._images = images

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        given: dict[str, Any] = {
            name: _picture(array) if name in self._images else array
            for name, array in inputs.items()
        }
        found: dict[str, Any] = self._model.predict(given)
        return found


def _picture(pixels: np.ndarray) -> Any:
    """A PIL image of (1, channels, height, width) pixels, which is what predict takes."""
    from PIL import Image

    rows = pixels[0].astype(np.uint8)
    return Image.fromarray(rows[0] if len(rows) == 1 else rows.transpose(1, 2, 0))


def _tensor(feature: Feature) -> Tensor:
    if feature.kind == "image":
        shape: list[int | None] = list(feature.shape)
        return {"name": feature.name, "shape": shape, "dtype": "float32"}
    if feature.kind != "array":
        raise ValueError(f"{feature.name!r} is a {feature.kind}, which is not handled")
    shape = list(feature.shape)
    if feature.flexible:
        ranges = feature.ranges or tuple(zip(*feature.enumerated_shapes, strict=True))
        shape = [sizes[0] if len(set(sizes)) == 1 else None for sizes in ranges]
    return {"name": feature.name, "shape": shape, "dtype": _dtype(feature)}


def _dtype(feature: Feature) -> str:
    if feature.dtype not in _DTYPES:
        raise ValueError(f"{feature.name!r} holds {feature.dtype}, which is not handled")
    return _DTYPES[feature.dtype]


def _check_target(program: Program, wanted: str) -> None:
    """Hold what the file needs against the deployment target that was stated.

    Raises:
        ValueError: it needs a newer one.
    """
    order = list(DEPLOYMENT_TARGETS.values())
    needs = program.deployment_target
    if wanted and (needs is None or order.index(needs) > order.index(wanted)):
        version = needs or f"specification version {program.specification_version}"
        raise ValueError(f"the file needs {version}, but the deployment target is {wanted}")
