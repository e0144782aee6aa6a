"""An ML Program as plain values: functions, blocks, operations, types, and the model's description.

The words are those of Core ML's MIL.proto and Model.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecheck.mil.call import TensorType

# The specification version that coremltools.target gives each operating system; ML Programs exist
# since 6. The same versions stand for macOS 12 to 15 and 26.
DEPLOYMENT_TARGETS: Mapping[int, str] = {
    6: "iOS15",
    7: "iOS16",
    8: "iOS17",
    9: "iOS18",
    10: "iOS26",
}


class ProgramError(ValueError):
    """A file holds no ML Program that can be read or run; says what is wrong, and where."""

    stands_alone = True


@dataclass(frozen=True)
class ListType:
    """A list of tensors of one type; `length` is None where it varies."""

    element: TensorType
    length: int | None = None


@dataclass(frozen=True)
class DictionaryType:
    """A classifier's probabilities: from labels to scalars."""

    key: TensorType
    value: TensorType


@dataclass(frozen=True)
class StateType:
    """A tensor that lives on between two predictions."""

    wrapped: TensorType


ValueType = TensorType | ListType | DictionaryType | StateType


@dataclass(frozen=True)
class Variable:
    """A named value with its declared type."""

    name: str
    type: ValueType


@dataclass(frozen=True)
class Value:
    """A constant, as stored.

    Attributes:
        type: declared.
        data: of a tensor an ndarray of the declared shape; of a scalar string a str, of several a
            tuple of them; of a list a tuple of str or int. The elements of types under 8 bits are
            packed: a flat uint8 array (`edgecheck.mil.pickling.unpack` gives the elements).
        in_file: whether the data lies in the weight file, not in the program itself.
    """

    type: ValueType
    data: Any
    in_file: bool = False


# What a parameter is bound to: the name of a variable, or a literal.
Binding = str | Value


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        operator: its type, e.g. ``conv``.
        name: its attribute ``name``, else its first output's name.
        inputs: by parameter, one binding or several.
        outputs: declared.
        attributes: literals beside the inputs: ``val`` of a ``const``, the data of iOS16's
            ``constexpr_`` operators. Without ``name``.
        blocks: of control flow, the blocks it runs.
    """

    operator: str
    name: str
    inputs: Mapping[str, tuple[Binding, ...]] = field(default_factory=dict)
    outputs: tuple[Variable, ...] = ()
    attributes: Mapping[str, Value] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()

    def used(self) -> Iterator[str]:
        """Names of the variables that the inputs are bound to, not those that its blocks use."""
        for bindings in self.inputs.values():
            yield from (binding for binding in bindings if isinstance(binding, str))


@dataclass(frozen=True)
class Block:
    """Operations in the order in which they run."""

    inputs: tuple[Variable, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]

    def walk(self) -> Iterator[Operation]:
        """All operations, those of nested blocks after the operation that holds them."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.walk()


@dataclass(frozen=True)
class Function:
    """A function of the program.

    Attributes:
        inputs: with states, which have a `StateType`.
        block: that of the chosen operator set; its outputs are the function's.
        opset: e.g. ``CoreML7``.
    """

    name: str
    inputs: tuple[Variable, ...]
    block: Block
    opset: str


@dataclass(frozen=True)
class Feature:
    """An input, output or state as the model's description states it.

    Attributes:
        name: of the input or output of the function.
        kind: ``array``, ``image``, ``state``, ``int64``, ``double``, ``string``, ``dictionary`` or
            ``sequence``.
        dtype: of an array or state fp16, fp32, fp64, int32 or int8; of an image uint8, or fp16 for
            GRAYSCALE_FLOAT16; of a dictionary that of its keys, int64 or string; otherwise "".
        shape: the default one; () where none is stated. An image's is (1, channels, height, width)
            in pixels.
        ranges: the least and greatest size of each axis where sizes are a range, the greatest None
            where unbounded; otherwise ().
        enumerated_shapes: where only these are allowed; otherwise ().
        colour_layout: of an image: RGB, BGR, GRAYSCALE or GRAYSCALE_FLOAT16; otherwise "".
        optional: whether it may be left out.
        default_value: of an optional array, what fills it where it is left out; otherwise None.
        short_description: what its author says of it.
    """

    name: str
    kind: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    ranges: tuple[tuple[int, int | None], ...] = ()
    enumerated_shapes: tuple[tuple[int, ...], ...] = ()
    colour_layout: str = ""
    optional: bool = False
    default_value: float | int | None = None
    short_description: str = ""

    @property
    def flexible(self) -> bool:
        """Whether more than one shape is allowed."""
        if self.enumerated_shapes:
            return len(set(self.enumerated_shapes)) > 1
        return any(least != greatest for least, greatest in self.ranges)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape may be given."""
        if self.enumerated_shapes:
            return shape in self.enumerated_shapes
        if self.ranges:
            return len(shape) == len(self.ranges) and all(
                least <= size and (greatest is None or size <= greatest)
                for size, (least, greatest) in zip(shape, self.ranges, strict=True)
            )
        return shape == self.shape


@dataclass(frozen=True)
class Interface:
    """What a function takes and gives, as the model's description states it.

    Attributes:
        inputs, outputs, states: in the file's order.
        predicted_feature_name: of a classifier the output with the label; otherwise "".
        predicted_probabilities_name: of a classifier the output with the dictionary; otherwise "".
    """

    inputs: tuple[Feature, ...] = ()
    outputs: tuple[Feature, ...] = ()
    states: tuple[Feature, ...] = ()
    predicted_feature_name: str = ""
    predicted_probabilities_name: str = ""


@dataclass(frozen=True)
class Metadata:
    """What the author says of the model; each "" where it is missing."""

    author: str = ""
    short_description: str = ""
    licence: str = ""
    version: str = ""
    user_defined: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """An ML Program with its description.

    Attributes:
        path: of the package or file it was read from.
        specification_version: of the Core ML model format.
        functions: by name.
        default_function: the name of the one that runs if none is asked for.
        interfaces: by function; one function's where the description names none.
        metadata: author and the like.
    """

    path: Path
    specification_version: int
    functions: Mapping[str, Function]
    default_function: str
    interfaces: Mapping[str, Interface]
    metadata: Metadata

    @property
    def deployment_target(self) -> str | None:
        """The oldest system that loads the file, e.g. ``iOS17``; None for a newer specification."""
        return DEPLOYMENT_TARGETS.get(self.specification_version)

    @property
    def class_labels(self) -> tuple[str, ...] | tuple[int, ...]:
        """Of a classifier its labels, in the order of the probabilities; otherwise ()."""
        for operation in self.functions[self.default_function].block.walk():
            if operation.operator == "classify":
                for binding in operation.inputs.get("classes", ()):
                    if isinstance(binding, Value):
                        labels: tuple[str, ...] | tuple[int, ...] = tuple(binding.data)
                        return labels
        return ()
