"""An ONNX graph that is evaluated node by node in NumPy, in float64 or as it is.

Each node runs in ONNX's own reference implementation (`onnx.reference`), which shares no kernel
with a runtime; convolutions and pooling, which are slow there, run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from edgecheck.capture import onnx_windows
from edgecheck.capture.base import SimulationError, story

Array = npt.NDArray[Any]
# What may be put between the nodes: operands before one runs, results after it did.
Between = Callable[["Node", list[Any]], list[Any]]

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli")
)
# Attributes that name the type of what an operator gives.
_TYPES = {"Cast": "to", "EyeLike": "dtype", "SequenceEmpty": "dtype"}


class Node:
    """One node, compiled when it first runs, since some depend on the types of their inputs."""

    def __init__(self, proto: Any, opsets: Any, index: int) -> None:
        self.index = index
        self.operator: str = proto.op_type if proto.domain in ("", "ai.onnx") else ""
        self.name: str = proto.name or proto.op_type
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
        self.has_body = any(item.type == onnx.AttributeProto.GRAPH for item in proto.attribute)
        self._proto, self._opsets = proto, opsets
        self._evaluator: Any = None

    def run(self, operands: list[Any], known: Mapping[str, Any]) -> list[Any]:
        """What it gives, in the order of its outputs.

        Args:
            known: all values so far, which bodies of loops and branches may use.
        """
        fast = onnx_windows.FAST.get(self.operator)
        if fast is not None:
            result = fast(self.attributes, operands, len(self.outputs))
            if result is not None:
                return [result]
        given = {name: value for name, value in zip(self.inputs, operands, strict=True) if name}
        if self._evaluator is None:
            self._evaluator = self._compiled(given)
        wanted = [name for name in self.outputs if name]
        context = {**known, **given} if self.has_body else given
        found = dict(zip(wanted, self._evaluator.run(wanted, context), strict=True))
        return [found.get(name) for name in self.outputs]

    def _compiled(self, given: Mapping[str, Any]) -> Any:
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in given.items()
            if isinstance(value, np.ndarray)
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in self.outputs if name]
        graph = helper.make_graph([self._proto], "node", inputs, outputs)
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opsets))


@dataclass(frozen=True)
class Graph:
    """A graph that runs.

    Attributes:
        nodes: in an order in which they can run.
        constants: what is stored, by name.
        fixed: names of values that do not depend on the inputs.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    fixed: frozenset[str]

    def run(
        self,
        feed: Mapping[str, Array],
        before: Between | None = None,
        after: Between | None = None,
    ) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            SimulationError: a node does not run here; the message names it.
        """
        known: dict[str, Any] = {**self.constants, **feed}
        for node in self.nodes:
            operands = [known[name] if name else None for name in node.inputs]
            try:
                if before is not None:
                    operands = before(node, operands)
                with np.errstate(all="ignore"):
                    results = node.run(operands, known)
            except SimulationError:
                raise
            except Exception as error:  # whatever an operator of onnx.reference raises
                raise SimulationError(
                    f"ONNX's reference implementation does not run node {node.name!r} "
                    f"({node.operator or 'of another domain'}): {story(error)}"
                ) from error
            if after is not None:
                results = after(node, results)
            known.update(zip(node.outputs, results, strict=True))
        return {name: known[name] for name in self.outputs}


def load(path: Path) -> Any:
    """The model in a file, with the external data beside it.

    onnx refuses external data outside the file's folder.

    Raises:
        SimulationError: it does not load.
    """
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's, the file system's, and onnx's own
        raise SimulationError(f"{path.name} does not load: {story(error)}") from error


def prepare(model: Any, *, double: bool) -> Graph:
    """A graph that runs, its floating tensors in float64 if so asked.

    Raises:
        SimulationError: it draws random numbers, or holds what onnx.reference does not know.
    """
    model = inline_local_functions(model)
    if drawn := sorted({item.op_type for item in model.graph.node} & _RANDOM):
        raise SimulationError(f"the model draws random numbers ({', '.join(drawn)})")
    if model.graph.sparse_initializer:
        raise SimulationError("the model holds sparse weights")
    if double:
        _widen(model.graph)
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    nodes = tuple(
        Node(item, model.opset_import, index) for index, item in enumerate(model.graph.node)
    )
    inputs = tuple(item.name for item in model.graph.input if item.name not in constants)
    fixed = set(constants)
    for node in nodes:
        if not node.has_body and all(name in fixed for name in node.inputs if name):
            fixed.update(node.outputs)
    outputs = tuple(item.name for item in model.graph.output)
    return Graph(inputs, outputs, nodes, constants, frozenset(fixed))


def _widen(graph: Any) -> None:
    """Floating constants and casts of a graph in float64, in place, those of its bodies too."""
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        if node.op_type == "Constant":
            _widen_constant(node)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif attribute.type == onnx.AttributeProto.GRAPH:
                _widen(attribute.g)
            elif attribute.name == _TYPES.get(node.op_type) and attribute.i in _FLOATS:
                attribute.i = onnx.TensorProto.DOUBLE
        # Its default is float32.
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, np.float64))
            node.attribute.append(helper.make_attribute("value", zero))


def _widen_constant(node: Any) -> None:
    """A constant that is written as a float becomes a tensor."""
    (attribute,) = node.attribute
    if attribute.name in ("value_float", "value_floats"):
        value = np.asarray(helper.get_attribute_value(attribute), np.float64)
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(value)))


def _widen_tensor(tensor: Any) -> None:
    if tensor.data_type in _FLOATS:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
