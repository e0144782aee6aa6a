"""Capture: the user's module becomes one ``torch.export`` program on disk, once.

That file needs none of the user's code, so everything after it happens in other processes. Runs in
a child (see `edgecheck.capture.worker`).
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecheck.capture.arithmetic import simulator
from edgecheck.capture.base import CaptureError, story
from edgecheck.capture.data import example_sizes, random_inputs
from edgecheck.declare.model import Input
from edgecheck.runtime.torch import call_module, name_outputs
from edgecheck.runtime.torch_program import plain_outputs


class LiveTorch:
    """A PyTorch module, or the program of a .pt2 file (see `edgecheck.capture.base.Live`)."""

    kind = "torch"

    def __init__(self, model: Any, inputs: Sequence[Input], outputs: Sequence[str]) -> None:
        self.model = check_module(model, inputs)
        self.training = bool(self.model.training)
        self._inputs, self._outputs = inputs, outputs
        try:
            self.model.eval()
        except NotImplementedError:  # exported programs have no modes
            self.training = False

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call of the module."""
        return call_module(self.model, inputs, list(self._outputs))

    def simulator(
        self, arithmetic: Mapping[str, Any], calibration: Sequence[Mapping[str, np.ndarray]]
    ) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """The module in other arithmetic."""
        return simulator(self.model, self._outputs, arithmetic, calibration)

    def capture(
        self,
        folder: Path,
        dims: Mapping[str, tuple[int, int]],
        example: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Path, str]:
        """Export it to ``program.pt2``."""
        path = folder / "program.pt2"
        return path, capture(self.model, self._inputs, self._outputs, dims, path, example)


def is_module(value: Any) -> bool:
    """Whether something is a model of PyTorch."""
    return isinstance(value, torch.export.ExportedProgram | torch.nn.Module)


def check_module(module: Any, inputs: Sequence[Input]) -> Any:
    """What a source returned, checked.

    Raises:
        CaptureError: it lacks a declared input.
    """
    if isinstance(module, torch.export.ExportedProgram):
        module = module.module()
    if not isinstance(module, torch.fx.GraphModule):
        _check_parameters(module, inputs)
    return module


def _check_parameters(module: torch.nn.Module, inputs: Sequence[Input]) -> None:
    parameters = inspect.signature(module.forward).parameters
    if any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values()):
        return
    signature = f"{type(module).__name__}.forward({', '.join(parameters)})"
    for item in inputs:
        if item.name not in parameters:
            raise CaptureError(f"input {item.name!r} is not a parameter of {signature}")
    declared = {item.name for item in inputs}
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty
        variadic = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        if required and not variadic and name not in declared:
            raise CaptureError(f"{signature} needs {name!r}, which no declared input provides")


def capture(
    module: torch.nn.Module,
    inputs: Sequence[Input],
    outputs: Sequence[str],
    dims: Mapping[str, tuple[int, int]],
    path: Path,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Export a module to a .pt2 file; return the digest of what is in it.

    Args:
        arrays: the example inputs; by default random ones of the declared domain.

    Raises:
        CaptureError: ``torch.export`` refuses it, or it fixes a dimension declared dynamic.
    """
    named = {size for item in inputs for size in item.shape if isinstance(size, str)}
    if arrays is None:
        arrays = random_inputs(inputs, example_sizes(inputs, dims), np.random.default_rng(0))
    example = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        with torch.inference_mode():
            returned = module(**example)
    except Exception as error:
        shapes = {name: tuple(value.shape) for name, value in example.items()}
        raise CaptureError(
            f"the model raised on inputs of shapes {shapes}: {story(error)}"
        ) from error
    name_outputs(returned, list(outputs))
    named_dims = {
        name: torch.export.Dim(name, min=dims.get(name, (1, 64))[0], max=dims.get(name, (1, 64))[1])
        for name in named
    }
    if type(plain_outputs(returned)) is not type(returned):
        module = _plain(module)
    program = _export(module, example, _dynamic_shapes(inputs, named_dims), dynamic=bool(named))
    _check_dynamic(program, inputs)
    torch.export.save(program, path)
    return program_digest(path)


def _plain(module: torch.nn.Module) -> torch.nn.Module:
    """The module, returning a dict in place of a dataclass, of which a program knows nothing."""
    forward = module.forward

    @functools.wraps(forward)
    def plain_forward(*arguments: Any, **named: Any) -> Any:
        return plain_outputs(forward(*arguments, **named))

    plain = copy.copy(module)  # its parameters and the names of its layers stay
    plain.forward = plain_forward
    return plain


def _dynamic_shapes(inputs: Sequence[Input], named: Mapping[str, Any]) -> dict[str, Any]:
    return {
        item.name: {
            axis: named[size] for axis, size in enumerate(item.shape) if isinstance(size, str)
        }
        for item in inputs
    }


def _export(module: Any, example: dict[str, Any], shapes: dict[str, Any], *, dynamic: bool) -> Any:
    try:
        return torch.export.export(module, (), example, dynamic_shapes=shapes if dynamic else None)
    except Exception as error:
        first = error
    if dynamic:
        # Some modules (recurrent ones) reject a named dimension but export with an inferred one.
        inferred = {
            name: dict.fromkeys(axes, torch.export.Dim.AUTO) for name, axes in shapes.items()
        }
        try:
            return torch.export.export(module, (), example, dynamic_shapes=inferred)
        except Exception:  # the first error names the declared dimension
            pass
    raise CaptureError(f"torch.export can't capture the model: {story(first)}") from first


def _check_dynamic(program: Any, inputs: Sequence[Input]) -> None:
    """Every dimension declared dynamic is so in the program."""
    values = {
        node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"
    }
    for item in inputs:
        value = values.get(item.name)
        if not isinstance(value, torch.Tensor):
            continue
        for axis, size in enumerate(item.shape):
            if isinstance(size, str) and isinstance(value.shape[axis], int):
                raise CaptureError(
                    f"dimension {size!r} of input {item.name!r} is fixed to {value.shape[axis]} "
                    "by the model, though it is declared dynamic: declare a number, or remove "
                    "what fixes it (a reshape or branch on the size)"
                )


def program_digest(path: Path) -> str:
    """The sha256 of a .pt2 file's graph, weights and constants.

    Where in the user's files the graph comes from does not count, nor the name of the file, which
    is the archive's top folder.
    """
    digest = hashlib.sha256()
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            inner = name.partition("/")[2]
            if inner.endswith("serialization_id") or inner.startswith("data/sample_inputs/"):
                continue
            content = archive.read(name)
            if inner.startswith("models/"):
                content = _without_places(content)
            digest.update(f"{inner}\0".encode())
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _without_places(graph: bytes) -> bytes:
    """A serialized graph without its history: files and lines, and object ids of earlier graphs."""

    def clean(value: dict[str, Any]) -> dict[str, Any]:
        value.pop("stack_trace", None)
        value.pop("from_node", None)
        return value

    return json.dumps(json.loads(graph, object_hook=clean), sort_keys=True).encode()
