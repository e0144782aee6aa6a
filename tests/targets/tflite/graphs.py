"""Small .tflite files, put together by hand for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

OPTIONS = {
    "CONCATENATION": (schema.ConcatenationOptionsT, schema.BuiltinOptions.ConcatenationOptions),
    "SPLIT": (schema.SplitOptionsT, schema.BuiltinOptions.SplitOptions),
    "IF": (schema.IfOptionsT, schema.BuiltinOptions.IfOptions),
    "WHILE": (schema.WhileOptionsT, schema.BuiltinOptions.WhileOptions),
    "ADD": (schema.AddOptionsT, schema.BuiltinOptions.AddOptions),
    "LESS": (schema.LessOptionsT, schema.BuiltinOptions.LessOptions),
}


@dataclass
class Graph:
    """One subgraph; its methods return the indices of the tensors that they add."""

    tensors: list[Any] = field(default_factory=list)
    operators: list[tuple[str, list[int], list[int], dict[str, int]]] = field(default_factory=list)
    constants: dict[int, bytes] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def tensor(self, shape: Sequence[int], kind: str = "FLOAT32", **options: Any) -> int:
        made = schema.TensorT()
        made.shape = list(shape)
        made.type = getattr(schema.TensorType, kind)
        made.name = f"t{len(self.tensors)}".encode()
        for name, value in options.items():
            setattr(made, name, value)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray) -> int:
        kind = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8"}[str(values.dtype)]
        index = self.tensor(values.shape, kind)
        self.constants[index] = values.tobytes()
        return index

    def input(self, shape: Sequence[int], kind: str = "FLOAT32", **options: Any) -> int:
        self.inputs.append(self.tensor(shape, kind, **options))
        return self.inputs[-1]

    def operator(self, kind: str, reads: list[int], writes: list[int], **options: int) -> None:
        self.operators.append((kind, reads, writes, options))


def model(*graphs: Graph) -> Any:
    """A ``ModelT`` of the graphs, the first of which is the main one."""
    made = schema.ModelT()
    made.version = 3
    made.description = b""
    made.buffers = [schema.BufferT()]
    made.operatorCodes, made.subgraphs = [], []
    kinds: dict[str, int] = {}
    for graph in graphs:
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = graph.tensors, []
        subgraph.inputs, subgraph.outputs = graph.inputs, graph.outputs
        for index, tensor in enumerate(graph.tensors):
            # A buffer of its own for each: TensorFlow Lite Micro reads even the empty ones.
            buffer = schema.BufferT()
            if index in graph.constants:
                buffer.data = np.frombuffer(graph.constants[index], np.uint8)
            tensor.buffer = len(made.buffers)
            made.buffers.append(buffer)
        for kind, reads, writes, options in graph.operators:
            if kind not in kinds:
                code = schema.OperatorCodeT()
                code.builtinCode = getattr(schema.BuiltinOperator, kind)
                code.deprecatedBuiltinCode = min(code.builtinCode, 127)
                code.version = 1
                kinds[kind] = len(made.operatorCodes)
                made.operatorCodes.append(code)
            operator = schema.OperatorT()
            operator.opcodeIndex = kinds[kind]
            operator.inputs, operator.outputs = reads, writes
            if kind in OPTIONS:
                make, operator.builtinOptionsType = OPTIONS[kind]
                operator.builtinOptions = make()
                for name, value in options.items():
                    setattr(operator.builtinOptions, name, value)
            subgraph.operators.append(operator)
        made.subgraphs.append(subgraph)
    return made


def pack(made: Any) -> bytes:
    """The file's bytes."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())
