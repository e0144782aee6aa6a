"""What is found in .onnx files: counts, versions, and files that must not pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.targets import onnx_file


def save(path: Path, weight: onnx.TensorProto, opset: int = 20, ir: int = 10) -> str:
    """``y = x @ weight``, the weight dequantized first where it is an integer."""
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    initializers = [weight]
    if weight.data_type != TensorProto.FLOAT:
        weight.name = "stored"
        initializers.append(numpy_helper.from_array(np.float32(0.1), "scale"))
        nodes.insert(0, helper.make_node("DequantizeLinear", ["stored", "scale"], ["weight"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        initializers,
    )
    model = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return str(path)


def weight(dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones((4, 3), dtype), "weight")


def test_float_weights_are_counted(tmp_path: Path) -> None:
    contents = onnx_file.inspect(save(tmp_path / "m.onnx", weight()))
    assert contents["failures"] == []
    assert contents["weight_elements"] == {"float32": 12}
    assert contents["weight_bytes"] == {"float32": 48}
    assert contents["quantized_operators"] == {}
    assert contents["format"]["opset"] == {"ai.onnx": 20}


def test_integer_weights_and_what_works_on_them_are_counted(tmp_path: Path) -> None:
    contents = onnx_file.inspect(save(tmp_path / "m.onnx", weight("int8")))
    assert contents["weight_elements"] == {"int8": 12}
    assert contents["quantized_operators"] == {"MatMul": 1}


def test_four_bit_weights_take_half_a_byte(tmp_path: Path) -> None:
    packed = helper.make_tensor("weight", TensorProto.INT4, [4, 3], [1] * 12)
    contents = onnx_file.inspect(save(tmp_path / "m.onnx", packed, opset=21))
    assert contents["weight_elements"] == {"int4": 12}
    assert contents["weight_bytes"] == {"int4": 6}


@pytest.mark.parametrize(("opset", "ir"), [(99, 10), (20, 99)])
def test_a_version_beyond_the_runtime_fails(tmp_path: Path, opset: int, ir: int) -> None:
    contents = onnx_file.inspect(save(tmp_path / "m.onnx", weight(), opset, ir))
    assert any(str(max(opset, ir)) in line for line in contents["failures"])


def test_a_graph_that_is_not_valid_fails(tmp_path: Path) -> None:
    wrong = numpy_helper.from_array(np.ones((5, 3), np.float32), "weight")
    contents = onnx_file.inspect(save(tmp_path / "m.onnx", wrong))
    assert any("the ONNX checker rejects the file" in line for line in contents["failures"])


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "missing.bin"])
def test_external_data_outside_the_models_folder_or_absent_fails(
    tmp_path: Path, location: str
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (tmp_path / "model").mkdir()
    outside = weight()
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", location
    contents = onnx_file.inspect(save(tmp_path / "model" / "m.onnx", outside))
    assert len(contents["failures"]) == 1
