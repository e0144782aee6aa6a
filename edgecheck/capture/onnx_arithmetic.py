"""An ONNX graph in other arithmetic: float64, true half precision, simulated quantization.

What `edgecheck.capture.arithmetic` is for PyTorch, with the same rules of what a quantizer rounds.
Runs in a child (see `edgecheck.capture.worker`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.capture import onnx_graph
from edgecheck.capture.base import SimulationError
from edgecheck.capture.onnx_graph import Graph, Node

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]

# Operators whose operands a quantizer rounds: positions of the operands, and for weights the axes
# that count output channels are `_channel_axes`.
_OPERANDS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul", "Add"), (0, 1)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (0, 1, 2)),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), (0,)),
}
_RECURRENT = ("LSTM", "GRU", "RNN")


def simulator(
    model: Any, arithmetic: Mapping[str, Any], calibration: Sequence[Mapping[str, Array]]
) -> Run:
    """A function that computes a graph in other arithmetic, arrays by the graph's names.

    Args:
        model: an ``onnx.ModelProto``.
        arithmetic: see `edgecheck.capture.arithmetic.simulator`; also of kind ``"float32"``: as
            the file is, but not in a runtime's kernels.
        calibration: calls that show the ranges of static activations.

    Raises:
        SimulationError: the graph does not run so; the message says why. The function too.
    """
    kind = arithmetic["kind"]
    graph = onnx_graph.prepare(model, double=kind != "float32")
    if kind == "float32":
        return graph.run
    if kind == "float64":
        return lambda feed: graph.run(_converted(feed, lambda array: array))
    if kind == "float16":
        return _half_precision(graph)
    return _quantized(graph, arithmetic, calibration)


def _converted(arrays: Mapping[str, Array], convert: Callable[[Array], Array]) -> dict[str, Array]:
    """Floating arrays in float64 and converted."""
    return {
        name: convert(array.astype(np.float64)) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }


def _half(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float64)


def _half_precision(graph: Graph) -> Run:
    """Each node computes in float64 and what it gives is rounded to half precision."""
    stored = Graph(
        graph.inputs,
        graph.outputs,
        graph.nodes,
        _converted(graph.constants, _half),
        graph.fixed,
    )

    def rounded(node: Node, results: list[Any]) -> list[Any]:
        return [
            _half(item) if isinstance(item, np.ndarray) and item.dtype.kind == "f" else item
            for item in results
        ]

    return lambda feed: stored.run(_converted(feed, _half), after=rounded)


def _quantized(
    graph: Graph, scheme: Mapping[str, Any], calibration: Sequence[Mapping[str, Array]]
) -> Run:
    quantizer = _Quantizer(graph, scheme)
    if scheme["activations"] == "static":
        if not calibration:
            raise SimulationError("no calibration data shows the ranges of activations")
        for feed in calibration:
            found = graph.run(_converted(feed, lambda array: array), before=quantizer.watch)
            quantizer.watch_outputs(found)

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        found = graph.run(_converted(feed, lambda array: array), before=quantizer.round)
        if not quantizer.weights:
            raise SimulationError("the model has no convolution or matrix product with weights")
        return quantizer.outputs(found)

    return run


class _Quantizer:
    """Rounds operands to the levels of a scheme, or watches their ranges.

    Attributes:
        weights: that were rounded, by name and axes.
    """

    def __init__(self, graph: Graph, scheme: Mapping[str, Any]) -> None:
        self._fixed, self._scheme = graph.fixed, scheme
        # Smallest and largest of static activations, by node and operand, or by output.
        self._ranges: dict[tuple[Any, ...], tuple[float, float]] = {}
        self.weights: dict[tuple[str, tuple[int, ...]], Array] = {}

    def watch(self, node: Node, operands: list[Any]) -> list[Any]:
        """Widen the ranges by a node's operands."""
        for position in self._activations(node, operands):
            self._widen((node.index, position), operands[position])
        return operands

    def watch_outputs(self, outputs: Mapping[str, Array]) -> None:
        """Widen the ranges by the model's outputs."""
        for name, array in outputs.items():
            if array.dtype.kind == "f":
                self._widen(("output", name), array)

    def round(self, node: Node, operands: list[Any]) -> list[Any]:
        """A node's operands, rounded."""
        new = list(operands)
        activations = self._activations(node, operands)
        for position in activations:
            new[position] = self._activation((node.index, position), operands[position])
        for position in _OPERANDS.get(node.operator, ()):
            if self._has(operands, position) and position not in activations:
                new[position] = self._weight(node, position, operands[position])
        return new

    def outputs(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """The model's outputs, which static files hold quantized too."""
        if self._scheme["activations"] != "static":
            return dict(outputs)
        return {
            name: self._activation(("output", name), array) if array.dtype.kind == "f" else array
            for name, array in outputs.items()
        }

    @staticmethod
    def _has(operands: list[Any], position: int) -> bool:
        if position >= len(operands):
            return False
        value = operands[position]
        return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0

    def _activations(self, node: Node, operands: list[Any]) -> list[int]:
        """Positions of operands that a quantizer rounds and that depend on the inputs."""
        return [
            position
            for position in _OPERANDS.get(node.operator, ())
            if self._has(operands, position) and node.inputs[position] not in self._fixed
        ]

    def _widen(self, key: tuple[Any, ...], array: Array) -> None:
        if array.size:
            low, high = self._ranges.get(key, (0.0, 0.0))
            self._ranges[key] = min(low, float(array.min())), max(high, float(array.max()))

    def _weight(self, node: Node, position: int, weight: Array) -> Array:
        if weight.ndim < 2:
            return weight
        channels = _channel_axes(node, position, weight.ndim)
        key = node.inputs[position], channels
        if key not in self.weights:
            self.weights[key] = self._rounded(weight, channels)
        return self.weights[key]

    def _rounded(self, weight: Array, channels: tuple[int, ...]) -> Array:
        bits = self._scheme["weight_bits"]
        if self._scheme.get("palette"):
            return _palettized(weight, 2**bits)
        top = 2 ** (bits - 1) - 1
        others = tuple(axis for axis in range(weight.ndim) if axis not in channels)
        step = np.maximum(np.abs(weight).max(axis=others, keepdims=True) / top, 1e-30)
        rounded: Array = np.clip(np.round(weight / step), -top, top) * step
        return rounded

    def _activation(self, key: tuple[Any, ...], array: Array) -> Array:
        if self._scheme["activations"] == "none" or not array.size:
            return array
        if self._scheme["activations"] == "dynamic":
            low, high = min(0.0, float(array.min())), max(0.0, float(array.max()))
        elif key in self._ranges:
            low, high = self._ranges[key]
        else:
            raise SimulationError("the model computes other operators on other inputs")
        levels = 2 ** self._scheme["activation_bits"] - 1
        step = max((high - low) / levels, 1e-30)
        zero = round(-low / step)
        rounded: Array = (np.clip(np.round(array / step) + zero, 0, levels) - zero) * step
        return rounded


def _channel_axes(node: Node, position: int, rank: int) -> tuple[int, ...]:
    """The axes of a weight that count output channels."""
    if node.operator in _RECURRENT:  # (directions, gates * hidden, inputs)
        return 0, 1
    if node.operator == "ConvTranspose":
        return (1,)
    if node.operator == "MatMul":
        return (rank - 1,) if position == 1 else (rank - 2,)
    if node.operator == "Gemm":
        turned = node.attributes.get("transB" if position == 1 else "transA", 0)
        return (int(bool(turned) != (position == 1)),)
    return (0,)


def _palettized(weight: Array, entries: int) -> Array:
    try:
        import torch

        from edgecheck.capture.palette import palettized
    except ModuleNotFoundError as error:
        raise SimulationError("palettes are simulated with torch, not installed") from error
    found: Array = palettized(torch.from_numpy(weight), entries).numpy()
    return found
