"""Booleans at the border of a Core ML package, which has none there: 0 and 1 in another type.

coremltools converts a boolean input to a number that the program's first operation casts to bool,
and a boolean output to a number that its last operation casts from bool.
"""

from __future__ import annotations

from edgecheck.mil.call import TensorType
from edgecheck.mil.program import Function, ValueType


def boolean_names(function: Function) -> frozenset[str]:
    """The inputs that are used as booleans alone, and the outputs that are made of booleans."""
    operations = list(function.block.walk())
    types = {item.name: item.type for operation in operations for item in operation.outputs}
    uses: dict[str, list[bool]] = {}
    made: set[str] = set()
    for operation in operations:
        casts = operation.operator == "cast"
        for name in operation.used():
            uses.setdefault(name, []).append(casts and _boolean(operation.outputs[0].type))
        source = operation.inputs["x"][0] if casts else None
        if isinstance(source, str) and _boolean(types.get(source)):
            made.update(item.name for item in operation.outputs)
    inputs = {item.name for item in function.inputs if all(uses.get(item.name, [False]))}
    return frozenset(inputs | made.intersection(function.block.outputs))


def _boolean(declared: ValueType | None) -> bool:
    return isinstance(declared, TensorType) and declared.dtype == "bool"
