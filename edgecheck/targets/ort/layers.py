"""The layers of an .onnx file, and the nodes of those that stay in float (see `kept`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgecheck.targets.common import keep_float

_MATRIX_PRODUCTS = ("MatMul", "Gemm")
# Operators that multiply by weights.
WEIGHTED = (
    *("Conv", "ConvTranspose", *_MATRIX_PRODUCTS, "Gather"),
    *("LSTM", "GRU", "RNN", "Attention", "EmbedLayerNormalization"),
)


def weighted_by(precision: str) -> tuple[str, ...]:
    """The operators with weights that a precision quantizes."""
    return WEIGHTED if precision == "int8" else _MATRIX_PRODUCTS


def name_nodes(path: str) -> None:
    """Give nodes without a name one, in place: ONNX Runtime excludes nodes by name."""
    import onnx

    model = onnx.load(path)
    unnamed = [node for node in model.graph.node if not node.name]
    for node in unnamed:
        node.name = f"{node.op_type} {next(iter(node.output), '')}"
    if unnamed:
        onnx.save(model, path)


def operators(path: str, precision: str) -> list[keep_float.Operator]:
    """The nodes of a float file's main graph, in its order, which is one of execution."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    constants = {item.name: item for item in graph.initializer}
    types = weighted_by(precision)

    def weights(node: Any) -> dict[str, Any]:
        return {
            name: numpy_helper.to_array(constants[name])
            for name in node.input
            if node.op_type in types
            and name in constants
            and constants[name].data_type == onnx.TensorProto.FLOAT
            and len(constants[name].dims) >= 2
        }

    return [
        keep_float.Operator(
            node.name,
            tuple(name for name in node.input if name and name not in constants),
            tuple(name for name in node.output if name),
            weights(node),
        )
        for node in graph.node
    ]


def layers(path: str, precision: str, program: str) -> list[str]:
    """The layers of a float file that a precision quantizes."""
    found = keep_float.layers(operators(path, precision), keep_float.program_weights(program))
    return list(dict.fromkeys(found.values()))


def excluded(path: str, precision: str, program: str, keep: Collection[str]) -> list[str]:
    """The nodes that stay in float where these layers do.

    Raises:
        KeepFloatError: there is no such layer.
    """
    if not keep:
        return []
    name_nodes(path)
    nodes = operators(path, precision)
    by_node = keep_float.layers(nodes, keep_float.program_weights(program))
    chosen, _ = keep_float.kept(nodes, by_node, keep_float.expanded(keep, set(by_node.values())))
    return sorted(chosen)
