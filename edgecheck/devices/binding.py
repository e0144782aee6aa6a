"""Matching declared inputs and outputs with the tensors of a model file.

By a stated mapping first, then by name, then by position; a shape that does not fit is an error.
Pure functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.declare.model import Artifact, Input
from edgecheck.errors import ArtifactError

# A tensor of a file: name, shape with None on dynamic axes, dtype, scale (see
# `edgecheck.runtime.runner`).
FileTensor = Mapping[str, Any]


@dataclass(frozen=True)
class Binding:
    """How declared names and layouts correspond to a file's.

    Attributes:
        inputs, outputs: declared name -> name in the file.
        transpose: declared name -> axes, where the layouts differ.
        batched: declared inputs with samples on axis 0.
        batch: the batch size that the file is fixed to, or None.
        fixed: declared name of a dimension -> the size that the file fixes it to.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    transpose: Mapping[str, tuple[int, ...]]
    batched: tuple[str, ...]
    batch: int | None
    fixed: Mapping[str, int]

    def for_runner(self) -> dict[str, Any]:
        """Plain data, as `edgecheck.runtime.runner.Runner.bind` takes it."""

        def side(names: Mapping[str, str]) -> dict[str, Any]:
            return {
                declared: {
                    "name": name,
                    "transpose": list(self.transpose[declared])
                    if declared in self.transpose
                    else None,
                }
                for declared, name in names.items()
            }

        return {
            "inputs": side(self.inputs),
            "outputs": side(self.outputs),
            "batched": list(self.batched),
            "batch": self.batch,
        }


def bind(
    inputs: Sequence[Input],
    outputs: Sequence[str],
    file_inputs: Sequence[FileTensor],
    file_outputs: Sequence[FileTensor],
    artifact: Artifact,
) -> Binding:
    """Match declared inputs and outputs with those of a file.

    Raises:
        ArtifactError: their number, a name, a shape or a dtype does not fit.
    """
    tensors = {item["name"]: item for item in file_inputs}
    input_names = _match(
        "input", [item.name for item in inputs], list(tensors), dict(artifact.inputs)
    )
    output_names = _match(
        "output", list(outputs), [item["name"] for item in file_outputs], dict(artifact.outputs)
    )
    if unknown := sorted(set(artifact.transpose) - set(input_names) - set(output_names)):
        raise ArtifactError(f"transpose names {unknown}, which are not declared inputs or outputs")
    transpose = {name: tuple(axes) for name, axes in artifact.transpose.items()}
    all_tensors = {item["name"]: item for item in (*file_inputs, *file_outputs)}
    for name, axes in transpose.items():
        rank = len(all_tensors[{**input_names, **output_names}[name]]["shape"])
        if sorted(axes) != list(range(rank)):
            raise ArtifactError(f"transpose {axes} of {name!r} is not an order of its {rank} axes")
    fixed: dict[str, int] = {}
    for item in inputs:
        tensor = tensors[input_names[item.name]]
        _check_dtype(item, tensor)
        fixed |= _fixed_sizes(item, tensor, transpose.get(item.name), fixed)
    dynamic = tuple(item.name for item in inputs if item.batched)
    first_sizes = {item.shape[0] for item in inputs if item.shape}
    batch: int | None = fixed.get("batch")
    if not dynamic and len(first_sizes) == 1:
        (size,) = first_sizes
        if isinstance(size, int):
            batch = size
            dynamic = tuple(item.name for item in inputs if item.shape)
    return Binding(input_names, output_names, transpose, dynamic, batch, fixed)


def _match(
    what: str, declared: list[str], present: list[str], stated: Mapping[str, str]
) -> dict[str, str]:
    if unknown := sorted(set(stated) - set(declared)):
        raise ArtifactError(f"the mapping names {what}s {unknown}, which are not declared")
    if len(set(stated.values())) < len(stated):
        raise ArtifactError(f"the mapping gives two {what}s one tensor of the file: {dict(stated)}")
    for name, file_name in stated.items():
        if file_name not in present:
            raise ArtifactError(
                f"{what} {name!r} is mapped to {file_name!r}, but the file has {present}"
            )
    if len(declared) != len(present):
        raise ArtifactError(
            f"the file has {len(present)} {what}s {present}, "
            f"but the model declares {len(declared)}: {declared}"
        )
    names = dict(stated)
    taken = set(stated.values())
    for name in declared:
        if name not in names and name in present and name not in taken:
            names[name] = name
            taken.add(name)
    left = [name for name in present if name not in taken]
    for name in declared:
        if name not in names:
            names[name] = left.pop(0)
    return {name: names[name] for name in declared}


def _check_dtype(item: Input, tensor: FileTensor) -> None:
    kinds = {"f": "float", "i": "integer", "u": "integer", "b": "bool"}
    declared, present = item.dtype, tensor["dtype"]

    def kind(name: str) -> str:
        return kinds["f" if name.startswith("float") else name[0]]

    quantized = kind(declared) == "float" and kind(present) == "integer" and tensor.get("scale")
    if kind(declared) != kind(present) and not quantized:
        raise ArtifactError(
            f"input {item.name!r} is declared {declared}, but {tensor['name']!r} is {present}"
        )


def _fixed_sizes(
    item: Input, tensor: FileTensor, axes: tuple[int, ...] | None, so_far: Mapping[str, int]
) -> dict[str, int]:
    """Sizes that the file gives to named dimensions; an error where the shapes don't fit."""
    shape: list[int | None] = list(tensor["shape"])
    if axes is not None:
        if sorted(axes) != list(range(len(item.shape))):
            raise ArtifactError(f"transpose {axes} of {item.name!r} permutes no {item.shape}")
        if len(shape) == len(axes):
            declared_order: list[int | None] = [None] * len(axes)
            for file_axis, declared_axis in enumerate(axes):
                declared_order[declared_axis] = shape[file_axis]
            shape = declared_order
    fixed = dict(so_far)
    fits = len(shape) == len(item.shape)
    for declared, size in zip(item.shape, shape, strict=False):
        if size is None:
            continue
        if isinstance(declared, str):
            fits = fits and fixed.setdefault(declared, size) == size
        else:
            fits = fits and declared == size
    if not fits:
        raise ArtifactError(
            f"input {item.name!r} is declared {_text(item.shape)}, but {tensor['name']!r} in the "
            f"file is {_text(tensor['shape'])}{_suggest(item, tensor, axes)}"
        )
    return fixed


def _suggest(item: Input, tensor: FileTensor, axes: tuple[int, ...] | None) -> str:
    """A transpose that would make the shapes fit."""
    if axes is not None or len(tensor["shape"]) != len(item.shape):
        return ""
    for candidate in itertools.permutations(range(len(item.shape))):
        turned = [item.shape[axis] for axis in candidate]
        if all(
            size is None or isinstance(declared, str) or size == declared
            for declared, size in zip(turned, tensor["shape"], strict=True)
        ):
            return f"; transpose={{{item.name!r}: {candidate}}} would fit"
    return ""


def _text(shape: Sequence[int | str | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
