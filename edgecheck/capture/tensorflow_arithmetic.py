"""A TensorFlow model in other arithmetic, by its ONNX equivalent: its own layers fix their type.

Runs in a child (see `edgecheck.capture.worker`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.capture import onnx
from edgecheck.capture.base import SimulationError, story
from edgecheck.targets.ort import from_tensorflow

# How far the equivalent may be from the model, as a share of the largest output: the relative
# tolerance that exports to float files are usually held to.
_SAME = 1e-3

Infer = Callable[..., dict[str, np.ndarray]]


def equivalent(write: Callable[[Path], object], inputs: list[str]) -> Any:
    """A model as an ``onnx.ModelProto``.

    Args:
        write: writes its frozen SavedModel.

    Raises:
        SimulationError: tf2onnx does not convert it, or is not installed.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            program, file = Path(folder, "program"), Path(folder, "equivalent.onnx")
            write(program)
            from_tensorflow.convert(str(program), str(file), inputs)
            return onnx.load(file)
    except ModuleNotFoundError as error:
        raise SimulationError(str(error)) from error
    except Exception as error:  # whatever a converter raises
        raise SimulationError(f"tf2onnx does not convert the model: {story(error)}") from error


def simulator(
    model: Any,
    live: Infer,
    inputs: Sequence[str],
    outputs: Sequence[str],
    arithmetic: Mapping[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]],
) -> Infer:
    """The equivalent in other arithmetic (see `edgecheck.capture.onnx.simulator`).

    On the first inputs it is held against the model itself, in float64.

    Args:
        live: runs the model.

    Raises:
        SimulationError: it does not run so, or is not the model; the function raises it too.
    """
    run = onnx.simulator(model, inputs, outputs, arithmetic, calibration)
    exact = onnx.simulator(model, inputs, outputs, {"kind": "float64"}, [])
    checked = False

    def infer(feed: Mapping[str, np.ndarray], **keeping: Any) -> dict[str, np.ndarray]:
        nonlocal checked
        if not checked:
            check_same(exact(feed), live(feed))
            checked = True
        return run(feed, **keeping)

    return infer


def check_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Both are outputs of the same model, but for rounding.

    Raises:
        SimulationError: they are not.
    """
    for name, array in expected.items():
        other = found[name]
        if other.shape != array.shape:
            raise SimulationError(
                f"what tf2onnx makes of the model gives {name!r} the shape {other.shape}, the "
                f"model {array.shape}"
            )
        finite = np.isfinite(other) & np.isfinite(array)
        left, right = (item[finite].astype(np.float64) for item in (other, array))
        largest = float(np.abs(right).max(initial=0.0))
        error = float(np.abs(left - right).max(initial=0.0))
        if error > _SAME * largest:
            raise SimulationError(
                f"what tf2onnx makes of the model differs from it by {error:.3g} in output "
                f"{name!r}, whose largest value is {largest:.3g}"
            )
