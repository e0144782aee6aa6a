"""The static memory plan of an .onnx file: lifetimes of its tensors, without running it.

The graph is taken as written, in the file's order: what a runtime would fuse, or compute in place,
is counted. A QDQ graph so counts the float tensors between its quantized ones: an upper estimate.
What follows from constants alone is counted as constant, since runtimes fold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from edgecheck.targets.common import static_arena

_BITS = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}
# Larger initializers hold weights, not the axes, sizes and repeats that decide shapes.
_SHAPE_ELEMENTS = 1024
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli")


class _UnplannableError(Exception):
    """Something in the graph has no static size."""


def plan_memory(model: Any) -> dict[str, Any]:
    """What the graph needs for activations.

    The first axis of an input is taken for the batch: where it has no fixed size, it is one.

    Args:
        model: a ``ModelProto`` with its external data loaded.

    Returns:
        As `edgecheck.targets.common.static_arena.describe`; or ``unplanned``, the reason why it
        can't be planned.
    """
    try:
        return _plan(model)
    except _UnplannableError as error:
        return {"unplanned": str(error)}
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        return {"unplanned": f"its shapes can't be inferred: {type(error).__name__}: {text}"}


def _plan(model: Any) -> dict[str, Any]:
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
    graph = model.graph
    for node in graph.node:
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            raise _UnplannableError(f"operator {node.op_type} {node.name!r} has a graph inside")
    constants = _constants(graph)
    types = _types(model)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    operators = {0: static_arena.Operator(-1, "the start of the graph", "")}
    for item in graph.input:
        if item.name not in constants:
            first[item.name] = last[item.name] = 0
    for position, node in enumerate(graph.node, start=1):
        writes = [name for name in node.output if name]
        name = writes[0] if writes else node.name
        operators[position] = static_arena.Operator(position - 1, node.op_type, name)
        for name in writes:
            if name not in constants:
                first[name] = last[name] = position
        last.update({name: position for name in node.input if name in first})
    last.update({item.name: len(graph.node) for item in graph.output if item.name in first})
    buffers = []
    for name in first:
        shape, kind, size_bytes = _measure(name, types)
        buffers.append(static_arena.Buffer(name, size_bytes, first[name], last[name], shape, kind))
    return static_arena.describe(static_arena.plan(buffers), operators)


def _constants(graph: Any) -> set[str]:
    """Initializers, and what is computed from nothing else."""
    known = {item.name for item in graph.initializer}
    known |= {item.values.name for item in graph.sparse_initializer}
    for node in graph.node:
        reads = [name for name in node.input if name]
        folds = reads and node.op_type not in _RANDOM and known.issuperset(reads)
        if node.op_type == "Constant" or folds:
            known.update(name for name in node.output if name)
    return known


def _types(model: Any) -> dict[str, Any]:
    """The tensor type of every value that the file states or shape inference finds."""
    import onnx

    graph = onnx.GraphProto(name="shapes")
    graph.input.extend(model.graph.input)
    stated = {item.name: item for item in (*model.graph.value_info, *model.graph.output)}
    graph.value_info.extend(stated.values())
    _fix_batch(graph)
    given = {item.name for item in graph.input}
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= _SHAPE_ELEMENTS:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            _add_input(graph, tensor.name, tensor.data_type, tensor.dims)
    for node in model.graph.node:
        graph.node.append(_inferable(node, graph))
    small = onnx.helper.make_model(
        graph, ir_version=model.ir_version, opset_imports=model.opset_import
    )
    inferred = onnx.shape_inference.infer_shapes(small, strict_mode=False, data_prop=True).graph
    return {item.name: item.type for item in (*inferred.value_info, *inferred.input)}


def _fix_batch(graph: Any) -> None:
    """Set the first axis of each input to one where it is open, and its name everywhere."""
    batch = set()
    for item in graph.input:
        for size in item.type.tensor_type.shape.dim[:1]:
            if size.dim_param:
                batch.add(size.dim_param)
            elif not size.HasField("dim_value"):
                size.dim_value = 1
    for item in (*graph.input, *graph.value_info):
        for size in item.type.tensor_type.shape.dim:
            if size.dim_param in batch:
                size.dim_value = 1


def _inferable(node: Any, graph: Any) -> Any:
    """The node; for MatMulNBits, of which ONNX knows no shapes, a MatMul by what it unpacks."""
    import onnx

    if node.op_type != "MatMulNBits":
        return node
    sizes = {item.name: item.i for item in node.attribute}
    weight = f"{node.input[1]} unpacked"
    _add_input(graph, weight, onnx.TensorProto.FLOAT, (sizes["K"], sizes["N"]))
    return onnx.helper.make_node("MatMul", [node.input[0], weight], node.output[:1])


def _add_input(graph: Any, name: str, kind: int, shape: Iterable[int]) -> None:
    import onnx

    graph.input.append(onnx.helper.make_tensor_value_info(name, kind, list(shape)))


def _measure(name: str, types: Mapping[str, Any]) -> tuple[tuple[int, ...], str, int]:
    """Shape, type and bytes of a tensor."""
    import onnx

    stated = types.get(name, onnx.TypeProto())
    if stated.WhichOneof("value") not in (None, "tensor_type"):
        raise _UnplannableError(f"{name!r} is not a tensor")
    if not stated.tensor_type.HasField("shape"):
        raise _UnplannableError(f"tensor {name!r} has no static shape")
    sizes = stated.tensor_type.shape.dim
    shape = tuple(size.dim_value for size in sizes if size.HasField("dim_value"))
    if len(shape) < len(sizes):
        texts = (
            str(size.dim_value) if size.HasField("dim_value") else size.dim_param or "?"
            for size in sizes
        )
        raise _UnplannableError(f"tensor {name!r} has no static shape: {', '.join(texts)}")
    kind = onnx.TensorProto.DataType.Name(stated.tensor_type.elem_type)
    if kind in ("UNDEFINED", "STRING"):
        raise _UnplannableError(f"tensor {name!r} is of type {kind}, which has no static size")
    bits = _BITS.get(kind) or int(re.findall(r"\d+", kind)[0])
    return shape, kind.lower(), (prod(shape) * bits + 7) // 8
