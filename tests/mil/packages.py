"""Small .mlpackage folders for the tests of edgecheck.mil, made with coremltools."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters import mil
from coremltools.converters.mil.mil import types
from coremltools.proto import Model_pb2

from edgecheck.mil.evaluator import Evaluator
from edgecheck.mil.reader import read

mb = mil.Builder

# Of the fixture `linear`.
WEIGHT = np.arange(8 * 256, dtype=np.float32).reshape(8, 256) / 1000


def save(model: Any, folder: Path) -> Path:
    """Write a converted model."""
    path = folder / "model.mlpackage"
    model.save(str(path))
    return path


def converted(source: Any, folder: Path, **options: Any) -> Path:
    """Convert a MIL program, or an exported PyTorch program, in float32 unless told otherwise."""
    options = {
        "convert_to": "mlprogram",
        "minimum_deployment_target": ct.target.iOS17,
        "compute_precision": ct.precision.FLOAT32,
        **options,
    }
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return save(ct.convert(source, **options), folder)


def model_file(package: Path) -> Path:
    """Where coremltools puts the protobuf."""
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def weight_file(package: Path) -> Path:
    """Where coremltools puts the weights."""
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def change(package: Path, edit: Callable[[Any], None]) -> None:
    """Change a package's protobuf."""
    model = Model_pb2.Model()
    model.ParseFromString(model_file(package).read_bytes())
    edit(model)
    model_file(package).write_bytes(model.SerializeToString())


def operations(model: Any) -> Any:
    """The operations of the main function of a protobuf."""
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def evaluator(source: Any, folder: Path, **options: Any) -> Evaluator:
    return Evaluator(read(converted(source, folder, **options)))


def one_input(
    body: Any, folder: Path, shape: tuple[int, ...], dtype: Any = types.fp32, **options: Any
) -> Evaluator:
    """An evaluator of a program of one input, ``x``."""
    target = options.setdefault("minimum_deployment_target", ct.target.iOS17)
    specification = mb.TensorSpec(shape=shape, dtype=dtype)
    program = mb.program(input_specs=[specification], opset_version=target)(body)
    # Without coremltools' passes, which would fold or drop what is to be seen here.
    options.setdefault("pass_pipeline", ct.PassPipeline.EMPTY)
    return evaluator(program, folder, **options)
