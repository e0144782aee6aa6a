"""Ranges of a Core ML program's activations over calibration data, by the reference executor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Ranges = dict[str, dict[str, float]]


def observe(
    package: Path, calibration: Mapping[str, str], images: Mapping[str, Mapping[str, Any]]
) -> Ranges:
    """Smallest and largest value of each variable of a program: ``rmin`` and ``rmax`` by name.

    Args:
        package: of the float program.
        calibration: .npy path by input, samples on axis 0.
        images: inputs that are images (see `edgecheck.targets.coreml.images.to_pixels`).
    """
    import numpy as np
    import torch

    from edgecheck.mil.evaluator import Evaluator
    from edgecheck.mil.reader import read
    from edgecheck.targets.coreml.images import to_pixels

    torch.set_num_threads(1)  # operators are small: waiting for a second core takes longer
    program = read(package)
    function = program.functions[program.default_function]
    evaluator = Evaluator(program)
    arrays = {
        name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in calibration.items()
    }
    names = _names_in([item.name for item in function.inputs], list(arrays))
    ranges: Ranges = {}

    def note(name: str, value: Any) -> None:
        if not isinstance(value, torch.Tensor) or value.numel() == 0:
            return
        if not value.dtype.is_floating_point:
            return
        low, high = value.float().aminmax()
        known = ranges.setdefault(name, {"rmin": float(low), "rmax": float(high)})
        known["rmin"] = min(known["rmin"], float(low))
        known["rmax"] = max(known["rmax"], float(high))

    for row in range(len(next(iter(arrays.values())))):
        call = {name: np.array(array[row : row + 1]) for name, array in arrays.items()}
        for name, image in images.items():
            call[name] = to_pixels(call[name], image, name)
        for name, array in call.items():
            note(names[name], torch.from_numpy(array))
        evaluator.run({names[name]: array for name, array in call.items()}, observe=note)
    return ranges


def _names_in(present: list[str], declared: list[str]) -> dict[str, str]:
    """The program's names of declared inputs: coremltools renames those that are words of MIL.

    Those that it lacks are taken in order, as inputs are bound.
    """
    left = [name for name in present if name not in declared]
    return {name: name if name in present else left.pop(0) for name in declared}


def integer_operations(package: Path) -> list[str]:
    """Names of a program's operations that give no floats."""
    from edgecheck.mil.call import TensorType
    from edgecheck.mil.reader import read

    program = read(package)
    return [
        operation.name
        for operation in program.functions[program.default_function].block.walk()
        if operation.operator != "const"
        and not all(
            isinstance(item.type, TensorType) and item.type.dtype.startswith("fp")
            for item in operation.outputs
        )
    ]


def share_at_concat(model: Any, ranges: Ranges) -> Ranges:
    """The ranges, with one for all that a concat joins, as coremltools does it."""
    from coremltools.optimize.coreml.experimental import _post_training_quantization as upstream
    from coremltools.optimize.coreml.experimental._model_debugger import ModelDebugger

    shared = {name: dict(found) for name, found in ranges.items()}
    joined = ModelDebugger(model)._get_concat_op_info()
    upstream._adjust_concat_surrounding_activation_stats(joined, shared)
    return shared
