"""Intermediate tensors in ONNX Runtime: every node's output is made an output of the graph.

That would keep the runtime from fusing, so its own optimizer runs first, and what it wrote is
looked into. Layout changes, which only the last level makes, are left out. Serves ONNX sources as
reference too, with no optimization.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from edgecheck.runtime.runner import Tensor
from edgecheck.runtime.trace import INPUT, Array, Seen, Step
from edgecheck.runtime.trace import Tensor as Traced
from edgecheck.runtime.tracer import Tracer, dequantized
from edgecheck.targets.ort.run import OrtRunner

# They hand on quantized values as they are.
_MOVING = frozenset(
    [
        *("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    ]
)
_QUANTIZED = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


class OrtTracer(Tracer, OrtRunner):
    """A session of the optimized graph with all its tensors as outputs."""

    def __init__(self) -> None:
        super().__init__()
        self._graph: Any = None
        self._exposed: Any = None
        self._grids: dict[str, tuple[Array, Array]] = {}

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        found = super().open_file(path, options)
        model = onnx.load(path)
        if options.get("optimize", True):
            self.note = "after the runtime's fusions, without its changes of layout"
            model = self._optimized(path) or model
        self._graph = model.graph
        self._grids = _grids(model.graph)
        known = {item.name for item in model.graph.output}
        for node in model.graph.node:
            for name in node.output:
                if name and name not in known:
                    known.add(name)
                    model.graph.output.append(onnx.ValueInfoProto(name=name))
        plain = self._session_options()
        plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._exposed = onnxruntime.InferenceSession(
            model.SerializeToString(), plain, providers=["CPUExecutionProvider"]
        )
        return found

    def _optimized(self, path: str) -> Any:
        """The graph after the runtime's own fusions; None where it can't write it."""
        options = self._session_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        with tempfile.TemporaryDirectory() as directory:
            written = str(Path(directory) / "optimized.onnx")
            options.optimized_model_filepath = written
            try:
                onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                return onnx.load(written)
            except Exception:  # its errors share no base class
                self.note = "with the runtime's fusions off: it could not write the fused graph"
                return None

    def observe(self, inputs: dict[str, Array]) -> tuple[Sequence[Seen], dict[str, Array]]:
        names = [item.name for item in self._exposed.get_outputs()]
        values = dict(zip(names, self._exposed.run(names, inputs), strict=True))
        seen = [
            Seen(name, node.op_type, values[name].dtype.name, real)
            for node in self._graph.node
            for name in node.output
            if name in values and (real := self._real(name, values[name])) is not None
        ]
        return seen, {name: values[name] for name in self._outputs}

    def _real(self, name: str, values: Any) -> Array | None:
        if not isinstance(values, np.ndarray):
            return None
        if values.dtype.kind == "f":
            return values
        if values.dtype in (np.int8, np.uint8) and name in self._grids:
            return dequantized(values, *self._grids[name])
        return None

    def reference(
        self, *, feeds: list[dict[str, str]], directory: str, limit_bytes: int
    ) -> dict[str, Any]:
        """The trace of an ONNX source as `ReferenceTracer.trace` gives it; noise is not known."""
        trace = self.trace(feeds=feeds[:1], directory=directory)
        first = sum(np.load(item.path, mmap_mode="r").nbytes for item in trace.tensors)
        calls = min(len(feeds), max(1, limit_bytes // max(first, 1)))
        if calls > 1:
            trace = self.trace(feeds=feeds[:calls], directory=directory)
        return {
            "steps": list(self._steps({item.name: item for item in trace.tensors})),
            "outputs": dict(trace.outputs),
            "calls": calls,
        }

    def _steps(self, tensors: Mapping[str, Traced]) -> Iterator[dict[str, Any]]:
        constants = {item.name for item in self._graph.initializer}
        origins = {
            item.name: frozenset([INPUT])
            for item in self._graph.input
            if item.name not in constants
        }
        count = 0
        for node in self._graph.node:
            sources = frozenset().union(*(origins.get(name, frozenset()) for name in node.input))
            for name in node.output:
                origins[name] = sources
                if not sources or name not in tensors:
                    continue
                tensor = tensors[name]
                origins[name] = frozenset([count])
                count += 1
                yield asdict(
                    Step(
                        operator=node.op_type,
                        module=node.name or name,
                        module_type="",
                        place="",
                        shape=tensor.shape,
                        dtype=tensor.dtype,
                        sources=tuple(sorted(sources)),
                        noise=None,
                        path=tensor.path,
                    )
                )


def _grids(graph: Any) -> dict[str, tuple[Array, Array]]:
    """Scale and zero point of each tensor of 8 bits that has one of each.

    An operator on quantized tensors is given each with its scale and its zero point after it, and
    its result's as the last such pair (ONNX and com.microsoft operators QLinear..., QGemm).
    """
    constants = {item.name: item for item in graph.initializer}

    def pair(names: Sequence[str]) -> tuple[Array, Array] | None:
        if len(names) < 2 or any(name not in constants for name in names):
            return None
        scale, zero = (constants[name] for name in names)
        if scale.data_type != onnx.TensorProto.FLOAT or zero.data_type not in _QUANTIZED:
            return None
        found = numpy_helper.to_array(scale), numpy_helper.to_array(zero)
        return found if found[0].size == 1 else None

    grids: dict[str, tuple[Array, Array]] = {}
    for node in graph.node:
        inputs = list(node.input)
        for position, name in enumerate(inputs):
            if name not in constants and (found := pair(inputs[position + 1 : position + 3])):
                grids.setdefault(name, found)
        if node.op_type == "QLinearConcat":
            found = pair(inputs[0:2])
        elif node.op_type == "QuantizeLinear":
            found = pair(inputs[1:3])
        elif node.op_type.startswith(("QLinear", "QGemm")):
            pairs = [pair(inputs[start : start + 2]) for start in range(len(inputs) - 1)]
            found = next((item for item in reversed(pairs) if item), None)
        else:
            found = None
        if found:
            grids[node.output[0]] = found
    for node in graph.node:
        if node.op_type in _MOVING and node.input[0] in grids:
            for name in node.output:
                grids.setdefault(name, grids[node.input[0]])
    return grids
