"""Traces of a model: every intermediate tensor of a few calls, as plain data and .npy files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# In `Step.sources`: the model's input itself.
INPUT = -1


@dataclass(frozen=True)
class Step:
    """The output of one operator of the reference.

    Attributes:
        operator: its name, such as ``aten.conv2d``.
        module, module_type: where in the user's model it was called: ``blocks.0.conv``, ``Conv2d``.
        place: ``file:line`` in the user's code, or "".
        shape: of one call's tensor.
        sources: positions of the steps that it reads; `INPUT` for the model's input.
        noise: error that honest rounding at the candidate's precision gives here, as the root of
            the relative power; None where that could not be simulated.
        path: .npy file, (calls, *shape) float32.
    """

    operator: str
    module: str
    module_type: str
    place: str
    shape: tuple[int, ...]
    dtype: str
    sources: tuple[int, ...]
    noise: float | None
    path: str


@dataclass(frozen=True)
class Tensor:
    """An intermediate tensor of the candidate, in the order of execution.

    Attributes:
        name: in the file.
        operator: what computed it.
        path: .npy file, (calls, *shape) float32; quantized values are dequantized.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    path: str


@dataclass(frozen=True)
class Trace:
    """The intermediate tensors of a candidate in a few calls.

    Attributes:
        outputs: .npy path by declared output, (calls, *shape).
        note: what a reader should know of how they were observed, or "".
        slack: see `edgecheck.runtime.tracer.Tracer`.
    """

    tensors: tuple[Tensor, ...]
    outputs: Mapping[str, str]
    note: str = ""
    slack: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Trace:
        """A trace of plain data."""
        return cls(**{**data, "tensors": tuple(map(tensor, data["tensors"]))})


def step(data: Mapping[str, Any]) -> Step:
    """A step of plain data."""
    return Step(**{**data, "shape": tuple(data["shape"]), "sources": tuple(data["sources"])})


def tensor(data: Mapping[str, Any]) -> Tensor:
    """A tensor of plain data."""
    return Tensor(**{**data, "shape": tuple(data["shape"])})


def load(path: str) -> Array:
    """The values of a step or tensor, (calls, *shape)."""
    values: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return values


@dataclass(frozen=True)
class Seen:
    """One tensor of one call, as a runtime gave it."""

    name: str
    operator: str
    dtype: str
    values: Array


def save_candidate(calls: Sequence[Sequence[Seen]], folder: Path) -> tuple[Tensor, ...]:
    """Write what was seen in each call; return the tensors.

    A loop may run more often in one call than in another: what is not in all of them is left out.
    """
    indexed = [_by_occurrence(call) for call in calls]
    tensors = []
    for position, (key, first) in enumerate(indexed[0].items()):
        values = [call[key].values for call in indexed if key in call]
        if len(values) < len(calls) or len({item.shape for item in values}) > 1:
            continue
        path = folder / f"{position}.npy"
        np.save(path, np.stack(values).astype(np.float32), allow_pickle=False)
        shape = tuple(first.values.shape)
        tensors.append(Tensor(first.name, first.operator, shape, first.dtype, str(path)))
    return tuple(tensors)


def _by_occurrence(call: Sequence[Seen]) -> dict[tuple[str, int], Seen]:
    counts: dict[str, int] = {}
    found = {}
    for item in call:
        counts[item.name] = counts.get(item.name, 0) + 1
        found[item.name, counts[item.name]] = item
    return found


def save_outputs(calls: Sequence[Mapping[str, Array]], folder: Path) -> dict[str, str]:
    """Write the outputs of each call, stacked; return .npy paths by declared name."""
    paths = {}
    for position, name in enumerate(calls[0]):
        path = folder / f"output-{position}.npy"
        np.save(path, np.stack([call[name] for call in calls]), allow_pickle=False)
        paths[name] = str(path)
    return paths
