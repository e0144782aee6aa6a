"""Calibration data cut into the calls that a file of fixed shapes takes.

Runs in a target's child process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def calls(
    calibration: Mapping[str, str], shapes: Mapping[str, Sequence[int]], batch: int = 1
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Contiguous arrays by input name, one call after another.

    Args:
        calibration: .npy path by input: samples on axis 0, or whole calls, which have an axis more
            than the file's inputs.
        shapes: of the file's inputs by name, in any order; a dynamic axis is 0. What has no fixed
            batch on its first axis gets calls of `batch` samples.
    """
    import numpy as np

    arrays = {
        name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in calibration.items()
    }
    count = len(next(iter(arrays.values())))
    shapes = {name: shapes[name] for name in arrays}
    if any(arrays[name].ndim > len(shape) for name, shape in shapes.items()):
        for index in range(count):
            yield {name: np.asarray(array[index], order="C") for name, array in arrays.items()}
        return
    fixed = next(iter(shapes.values()))[0]
    step = fixed or batch
    for start in range(0, count - step + 1 if fixed else count, step):
        yield {
            name: np.ascontiguousarray(array[start : start + step])
            for name, array in arrays.items()
        }
