"""The static memory plan of a .tflite file: lifetimes of its tensors, without running it.

Lifetimes are those of TensorFlow Lite Micro (``MarkAllocationLifetimes``): inputs live from before
the first operator to their last use, outputs to the end, and a subgraph that an operator calls lies
within that operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgecheck.targets.common import static_arena

_WIDTHS = {
    **{"BOOL": 8, "INT2": 2, "FLOAT8_E4M3FN": 8, "FLOAT8_E5M2": 8, "BFLOAT16": 16},
    **{f"{sign}INT{bits}": bits for sign in ("", "U") for bits in (4, 8, 16, 32, 64)},
    **{f"FLOAT{bits}": bits for bits in (16, 32, 64)},
    **{f"COMPLEX{bits}": bits for bits in (64, 128)},
}
# Where tensors stand that no operator reads or writes: TensorFlow Lite Micro allocates them too.
_UNUSED = -1
Spans = dict[tuple[int, int], tuple[int, int]]


def plan_memory(model: Any, schema: Any) -> dict[str, Any]:
    """What the first subgraph, with those that it calls, needs for activations.

    Args:
        model: a ``ModelT``.
        schema: the module that it is from.

    Returns:
        As `edgecheck.targets.common.static_arena.describe`; or ``unplanned``, the reason why it
        can't be planned.
    """
    try:
        return _plan(model, schema)
    except _UnplannableError as error:
        return {"unplanned": str(error)}
    except Exception as error:
        return {"unplanned": f"its graph can't be followed: {type(error).__name__}: {error}"}


class _UnplannableError(Exception):
    """Something in the graph has no static size."""


def _plan(model: Any, schema: Any) -> dict[str, Any]:
    types = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
    codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
    if any(_text(item.name) == "OfflineMemoryAllocation" for item in _list(model.metadata)):
        raise _UnplannableError("it brings an offline plan of its own (OfflineMemoryAllocation)")
    operators = {_UNUSED: static_arena.Operator(-1, "no operator: nothing uses them", "")}
    spans: Spans = {}
    _mark(model, codes, 0, 0, operators, spans, ())
    buffers = []
    variables_bytes = 0
    for graph_index, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            if _is_constant(model, tensor) and not tensor.isVariable:
                continue
            shape = tuple(_shape(tensor))
            size_bytes = _size_bytes(shape, types[tensor.type], _text(tensor.name))
            if tensor.isVariable:
                variables_bytes += (
                    -(-size_bytes // static_arena.ALIGNMENT_BYTES) * static_arena.ALIGNMENT_BYTES
                )
            elif size_bytes:
                first, last = spans.get((graph_index, index), (_UNUSED, _UNUSED))
                kind = types[tensor.type].lower()
                buffers.append(
                    static_arena.Buffer(_text(tensor.name), size_bytes, first, last, shape, kind)
                )
    return static_arena.describe(static_arena.plan(buffers), operators, variables_bytes)


def _mark(
    model: Any,
    codes: dict[int, str],
    graph_index: int,
    position: int,
    operators: dict[int, static_arena.Operator],
    spans: Spans,
    callers: tuple[int, ...],
) -> int:
    """Enter what runs at each position from `position` on, and lifetimes; return the last one.

    A subgraph that is called more than once keeps its tensors from the first call to the last.
    """
    if graph_index in callers:
        raise _UnplannableError(f"subgraph {graph_index} calls itself")
    graph = model.subgraphs[graph_index]
    suffix = f" (subgraph {graph_index})" if callers else ""
    operators[position] = static_arena.Operator(-1, f"the start of the graph{suffix}", "")
    begin = position
    first: dict[int, int] = {int(index): begin for index in _list(graph.inputs)}
    last = dict(first)
    for number, operator in enumerate(_list(graph.operators)):
        position += 1
        code = model.operatorCodes[operator.opcodeIndex]
        writes = [int(index) for index in _list(operator.outputs) if index >= 0]
        # Old files have the operator in the deprecated field only, which ends at 127.
        kind = codes.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
        if kind == "CUSTOM":
            kind = f"CUSTOM {_text(code.customCode)}"
        name = _text(graph.tensors[writes[0]].name) if writes else ""
        operators[position] = static_arena.Operator(number, kind + suffix, name)
        works_on = [int(index) for index in _list(operator.intermediates)] + writes
        for index in works_on:
            first.setdefault(index, position)
        for called in _called(operator):
            position = _mark(
                model, codes, called, position + 1, operators, spans, (*callers, graph_index)
            )
        for index in [*works_on, *(int(index) for index in _list(operator.inputs) if index >= 0)]:
            first.setdefault(index, begin)
            last[index] = position
    for index in _list(graph.outputs):
        first.setdefault(int(index), begin)
        last[int(index)] = position
    for index in first:
        known = spans.get((graph_index, index), (first[index], last[index]))
        spans[graph_index, index] = min(known[0], first[index]), max(known[1], last[index])
    return position


def _called(operator: Any) -> Iterator[int]:
    """The subgraphs that an operator calls: what its options name (IF, WHILE, CALL_ONCE ...)."""
    for options in (operator.builtinOptions, operator.builtinOptions2):
        for name, value in vars(options).items() if options is not None else ():
            if "subgraph" in name.lower() and value is not None:
                values = [value] if isinstance(value, int) else list(value)
                yield from (int(index) for index in values if index >= 0)


def _size_bytes(shape: tuple[int, ...], kind: str, name: str) -> int:
    """Bytes of a tensor; elements of less than a byte are packed."""
    if kind not in _WIDTHS:
        raise _UnplannableError(f"tensor {name!r} is of type {kind}, which has no static size")
    count = 1
    for size in shape:
        count *= size
    return (count * _WIDTHS[kind] + 7) // 8


def _is_constant(model: Any, tensor: Any) -> bool:
    buffer = model.buffers[tensor.buffer]
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.offset > 1


def _shape(tensor: Any) -> list[int]:
    """Its shape, with sizes that vary as 1: converters store them so, or as -1."""
    sizes = [int(size) for size in _list(tensor.shape)]
    signature = _list(tensor.shapeSignature)
    if len(signature) != len(sizes):
        signature = sizes
    return [1 if min(pair) < 0 else pair[0] for pair in zip(sizes, signature, strict=True)]


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)
