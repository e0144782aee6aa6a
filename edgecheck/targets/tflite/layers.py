"""The layers of a .tflite file, and a quantizer's recipe that keeps some in float (see `kept`)."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.targets.common import keep_float

WEIGHTED = (
    *("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "CONV_3D_TRANSPOSE"),
    *("FULLY_CONNECTED", "BATCH_MATMUL", "EMBEDDING_LOOKUP", "GATHER"),
)
# As ai-edge-quantizer's `get_op_scope` makes them, cut there too.
_LONGEST_SCOPE = 10_000


def operators(path: str) -> tuple[list[keep_float.Operator], dict[str, list[str]]]:
    """The operators of a float file's main subgraph, each named by its scope; and its borders.

    Returns the tensors at the borders as ``inputs`` and ``outputs``.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = Path(path).read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    names = [str(index) for index in range(len(graph.tensors))]
    codes = {
        value: name
        for name, value in vars(schema.BuiltinOperator).items()
        if isinstance(value, int)
    }

    def values(index: int) -> Any:
        tensor = graph.tensors[index]
        buffer = model.buffers[tensor.buffer]
        if tensor.type != schema.TensorType.FLOAT32 or len(tensor.shape) < 2:
            return None
        if buffer.offset > 1:  # beside the flatbuffer, in the same file (schema.fbs)
            raw: Any = np.frombuffer(data[buffer.offset : buffer.offset + buffer.size], np.uint8)
        elif buffer.data is None or len(buffer.data) == 0:
            return None
        else:
            raw = np.asarray(buffer.data, np.uint8)
        return raw.view(np.float32).reshape(tensor.shape)

    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = codes.get(max(code.builtinCode, code.deprecatedBuiltinCode), "")
        reads = [int(index) for index in operator.inputs if index >= 0]
        writes = [int(index) for index in operator.outputs]
        weights = {
            names[index]: constant
            for index in (reads if kind in WEIGHTED else [])
            if (constant := values(index)) is not None
        }
        found.append(
            keep_float.Operator(
                scope([graph.tensors[index].name.decode() for index in writes]),
                tuple(names[index] for index in reads if names[index] not in weights),
                tuple(names[index] for index in writes),
                weights,
            )
        )
    borders = {
        "inputs": [names[index] for index in graph.inputs],
        "outputs": [names[index] for index in graph.outputs],
        "input_names": [graph.tensors[index].name.decode() for index in graph.inputs],
        "output_names": [graph.tensors[index].name.decode() for index in graph.outputs],
    }
    return found, borders


def scope(tensors: list[str]) -> str:
    """The scope of an operator that writes these tensors, as the quantizer calls it."""
    return (";".join(tensors) + ";")[:_LONGEST_SCOPE]


def layers(path: str, program: str) -> list[str]:
    """The layers of a float file."""
    found = keep_float.layers(operators(path)[0], keep_float.program_weights(program))
    return list(dict.fromkeys(found.values()))


def keep(manager: Any, path: str, program: str, keep: Collection[str]) -> None:
    """Add to a recipe that layers stay in float: `manager` is a quantizer's ``RecipeManager``.

    Inputs and outputs of the file that no quantized operator touches stay float32 as well.

    Raises:
        KeepFloatError: there is no such layer.
    """
    if not keep:
        return
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    found, borders = operators(path)
    by_operator = keep_float.layers(found, keep_float.program_weights(program))
    chosen, tensors = keep_float.kept(
        found, by_operator, keep_float.expanded(keep, set(by_operator.values()))
    )
    rules = [(name, qtyping.TFLOperationName.ALL_SUPPORTED) for name in sorted(chosen)]
    ends = (
        ("inputs", "input_names", qtyping.TFLOperationName.INPUT),
        ("outputs", "output_names", qtyping.TFLOperationName.OUTPUT),
    )
    for indices, names, end in ends:
        if set(borders[indices]) <= tensors:
            rules.append((scope(borders[names]), end))
    for name, operation in rules:
        manager.add_quantization_config(
            f"^{re.escape(name)}$", operation, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
