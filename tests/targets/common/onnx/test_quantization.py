"""Half-precision files of graphs that the converter alone makes invalid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.targets.common.onnx.quantization import to_float16

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def save(path: Path, nodes: list[onnx.NodeProto], outputs: list[str]) -> Path:
    """A graph of x, (batch, 4), and whole numbers t, (batch, 1)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("t", INT64, ["batch", 1]),
        ],
        [helper.make_tensor_value_info(name, FLOAT, ["batch", None]) for name in outputs],
        [numpy_helper.from_array(np.linspace(0.1, 0.7, 4, dtype=np.float32)[None], "w")],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)
    return path


def cast(source: str, name: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [name], f"cast_{name}", to=FLOAT)


def node(operator: str, *names: str) -> onnx.NodeProto:
    return helper.make_node(operator, names[:-1], names[-1:], f"{operator}_{names[-1]}")


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([cast("t", "f"), node("Mul", "f", "w", "a"), node("Add", "a", "x", "y")], ["y"]),
        ([node("Mul", "x", "w", "state"), node("Tanh", "state", "y")], ["y", "state"]),
        ([node("Mul", "x", "w", "state"), node("Add", "state", "x", "y")], ["state", "y"]),
        ([cast("t", "f"), node("Mul", "x", "w", "y")], ["f", "y"]),
        ([cast("t", "f"), node("Mul", "f", "x", "y")], ["f", "y"]),
    ],
    ids=["cast", "read output", "output read twice", "cast output", "read cast output"],
)
def test_it_loads_and_computes_in_half_precision(
    tmp_path: Path, nodes: list[onnx.NodeProto], outputs: list[str]
) -> None:
    source = save(tmp_path / "m.onnx", nodes, outputs)
    made = tmp_path / "half.onnx"
    to_float16(str(source), str(made))
    feed = {
        "x": np.random.default_rng(0).uniform(-1, 1, (3, 4)).astype(np.float32),
        "t": np.array([[0], [3], [9]]),
    }
    expected, found = (
        onnxruntime.InferenceSession(path).run(outputs, feed) for path in (source, made)
    )
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == np.float32
        np.testing.assert_allclose(other, one, rtol=2e-3, atol=2e-3)
    half = onnx.load(made)
    assert {item.data_type for item in half.graph.initializer} == {TensorProto.FLOAT16}
