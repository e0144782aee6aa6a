"""The weights of .onnx files as a source has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecheck.targets.common.onnx.weights import read


def test_float_weights_are_read_by_layer_and_others_left_out(tmp_path: Path) -> None:
    kernel = np.arange(12, dtype=np.float32).reshape(3, 4)
    half = np.ones((4, 2), np.float16)
    tensors = {
        "body.first.weight": kernel,
        "body.first.bias": np.zeros(4, np.float32),
        "table": half,
        "indices": np.zeros((2, 2), np.int64),
    }
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "body.first.weight"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), path)
    found = read(str(path))
    assert set(found) == {"body.first", "table"}
    np.testing.assert_array_equal(found["body.first"][0], kernel)
    assert found["table"][0].dtype == np.float32
