"""The layers of an ML Program, and the operations of those that stay in float (see `kept`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from edgecheck.targets.common import keep_float

WEIGHTED = (
    *("conv", "conv_transpose", "linear", "matmul", "gather", "gather_along_axis"),
    *("lstm", "gru", "rnn"),
)


def operators(model: Any) -> list[keep_float.Operator]:
    """The operations of a converted model's main function, in the order of execution."""
    found = []
    for operation in model._mil_program.functions["main"].operations:
        if operation.op_type == "const":
            continue
        reads, weights = [], {}
        for given in operation.inputs.values():
            for variable in given if isinstance(given, list | tuple) else [given]:
                if variable is None:
                    continue
                source = variable.op
                if source is None or source.op_type != "const":
                    reads.append(variable.name)
                    continue
                value = variable.val
                if (
                    operation.op_type in WEIGHTED
                    and isinstance(value, np.ndarray)
                    and value.dtype.kind == "f"
                    and value.ndim >= 2
                ):
                    weights[source.name] = value
        writes = tuple(item.name for item in operation.outputs)
        found.append(keep_float.Operator(operation.name, tuple(reads), writes, weights))
    return found


def layers(model: Any, program: str) -> list[str]:
    """The layers of a converted model."""
    found = keep_float.layers(operators(model), keep_float.program_weights(program))
    return list(dict.fromkeys(found.values()))


def excluded(model: Any, program: str, keep: Collection[str]) -> dict[str, None]:
    """Operations and constants that stay in float where these layers do, for
    ``op_name_configs`` of coremltools.

    Raises:
        KeepFloatError: there is no such layer.
    """
    if not keep:
        return {}
    found = operators(model)
    by_operation = keep_float.layers(found, keep_float.program_weights(program))
    chosen, _ = keep_float.kept(
        found, by_operation, keep_float.expanded(keep, set(by_operation.values()))
    )
    constants = [name for item in found if item.name in chosen for name in item.weights]
    return dict.fromkeys([*sorted(chosen), *constants])
