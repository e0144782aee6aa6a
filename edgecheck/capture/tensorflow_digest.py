"""A digest of what a frozen TensorFlow graph computes.

Saving the same model twice gives other bytes: names count up within a process, and maps are written
in any order. So names don't count here, nor does the order of nodes: each is known by what it
computes from what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def digest(graph: Any, inputs: Mapping[str, str], outputs: Sequence[str]) -> str:
    """The sha256 of what a GraphDef computes.

    Args:
        graph: without variables.
        inputs: declared name by tensor name (``"image:0"``).
        outputs: tensor names, in declared order.
    """
    library = {item.signature.name: item for item in graph.library.function}
    functions = _Functions(library)
    named = {tensor.split(":")[0]: name for tensor, name in inputs.items()}
    known = _nodes(graph.node, named, functions)
    return _sha256(_edge(name, known) for name in outputs)


class _Functions:
    """Digests of the functions that nodes call, each computed once."""

    def __init__(self, library: Mapping[str, Any]) -> None:
        self._library = library
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = "recursion"
            self._known[name] = self._digest(self._library[name])
        return self._known[name]

    def _digest(self, function: Any) -> str:
        signature = function.signature
        arguments = {item.name: f"argument {i}" for i, item in enumerate(signature.input_arg)}
        known = _nodes(function.node_def, {}, self, arguments)
        return _sha256(
            [
                *(_edge(function.ret[item.name], known) for item in signature.output_arg),
                *sorted(_edge(name, known) for name in function.control_ret.values()),
            ]
        )


def _nodes(
    nodes: Iterable[Any],
    named: Mapping[str, str],
    functions: Callable[[str], str],
    arguments: Mapping[str, str] = {},
) -> dict[str, str]:
    """Digest by node name; `named` replaces the names of placeholders."""
    by_name = {node.name: node for node in nodes}
    known = dict(arguments)
    for start in by_name:
        stack = [start]
        while stack:
            name = stack[-1]
            node = by_name.get(name)
            if node is None or name in known:
                stack.pop()
                continue
            needed = [_producer(item) for item in node.input]
            # A loop of TensorFlow 1 comes back to a node that waits for itself.
            waiting = [item for item in needed if item in by_name and item not in known]
            if any(item in stack for item in waiting):
                waiting = [item for item in waiting if item not in stack]
            if waiting:
                stack.extend(waiting)
                continue
            known[name] = _node(node, named.get(name, ""), known, functions)
            stack.pop()
    return known


def _node(node: Any, name: str, known: Mapping[str, str], functions: Callable[[str], str]) -> str:
    parts = [node.op, name]
    parts += [_edge(item, known) for item in node.input if not item.startswith("^")]
    parts += sorted(_edge(item, known) for item in node.input if item.startswith("^"))
    for key in sorted(node.attr):
        if not key.startswith("_") and key != "config_proto":  # hints to the runtime
            parts.append(f"{key} {_value(node.attr[key], functions)}")
    return _sha256(parts)


def _value(value: Any, functions: Callable[[str], str]) -> str:
    if value.HasField("func"):
        return functions(value.func.name)
    if value.HasField("list") and value.list.func:
        return _sha256(functions(item.name) for item in value.list.func)
    return hashlib.sha256(value.SerializeToString(deterministic=True)).hexdigest()


def _producer(tensor: str) -> str:
    return tensor.removeprefix("^").split(":")[0]


def _edge(tensor: str, known: Mapping[str, str]) -> str:
    """Which output of which node; ``a``, ``a:0`` and ``^a`` name node ``a``."""
    _, _, output = tensor.partition(":")
    control = "^" if tensor.startswith("^") else ""
    return f"{control}{known.get(_producer(tensor), 'loop')} {'' if output == '0' else output}"


def _sha256(parts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{part}\0".encode())
    return total.hexdigest()
