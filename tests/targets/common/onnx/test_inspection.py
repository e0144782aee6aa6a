"""What is found in .onnx files: counts, versions, and files that must not pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.targets.common.onnx import inspection


def save(path: Path, weight: onnx.TensorProto, opset: int = 20, ir: int = 10) -> Path:
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
    return path


def weight(dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones((4, 3), dtype), "weight")


def test_float_weights_are_counted(tmp_path: Path) -> None:
    contents = inspection.inspect(save(tmp_path / "m.onnx", weight())).as_data()
    assert contents["failures"] == []
    assert contents["weight_elements"] == {"float32": 12}
    assert contents["weight_bytes"] == {"float32": 48}
    assert contents["quantized_operators"] == {}
    assert contents["format"]["opset"] == {"ai.onnx": 20}


def test_integer_weights_and_what_works_on_them_are_counted(tmp_path: Path) -> None:
    contents = inspection.inspect(save(tmp_path / "m.onnx", weight("int8"))).as_data()
    assert contents["weight_elements"] == {"int8": 12}
    assert contents["quantized_operators"] == {"MatMul": 1}


def test_a_layer_is_one_of_integers_only_where_its_data_is_quantized_too(tmp_path: Path) -> None:
    def layers(nodes: list[onnx.NodeProto]) -> dict[str, list[str]]:
        model = onnx.load(save(tmp_path / "m.onnx", weight("int8")))
        product = model.graph.node.pop()
        product.input[0] = nodes[-1].output[0]
        model.graph.node.extend([*nodes, product])
        onnx.save(model, tmp_path / "changed.onnx")
        found = inspection.inspect(tmp_path / "changed.onnx").as_data()
        assert found["failures"] == []
        return found["layers"]

    pair = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["d"]),
    ]
    assert layers(pair) == {"integer": ["MatMul"], "float": []}
    assert layers([helper.make_node("Identity", ["x"], ["d"])]) == {
        "integer": [],
        "float": ["MatMul"],
    }


def test_four_bit_weights_take_half_a_byte(tmp_path: Path) -> None:
    packed = helper.make_tensor("weight", TensorProto.INT4, [4, 3], [1] * 12)
    contents = inspection.inspect(save(tmp_path / "m.onnx", packed, opset=21)).as_data()
    assert contents["weight_elements"] == {"int4": 12}
    assert contents["weight_bytes"] == {"int4": 6}


@pytest.mark.parametrize(("opset", "ir"), [(99, 10), (20, 99)])
def test_a_version_beyond_the_runtime_fails(tmp_path: Path, opset: int, ir: int) -> None:
    contents = inspection.inspect(save(tmp_path / "m.onnx", weight(), opset, ir)).as_data()
    assert any(str(max(opset, ir)) in line for line in contents["failures"])


@pytest.mark.parametrize(("opset", "ir"), [(onnx.defs.onnx_opset_version(), 10), (20, 14)])
def test_of_a_version_beyond_the_runtime_its_newest_is_told(
    tmp_path: Path, opset: int, ir: int
) -> None:
    failures = inspection._check_opset(onnx.load(save(tmp_path / "m.onnx", weight(), opset, ir)))
    if not failures:
        pytest.skip("this ONNX Runtime takes all that this onnx knows")
    (failure,) = failures
    assert re.search(r"max supported IR version: \d+|support for .* is till opset \d+", failure)
    assert "onnxruntime_src" not in failure


def test_a_graph_that_is_not_valid_fails(tmp_path: Path) -> None:
    wrong = numpy_helper.from_array(np.ones((5, 3), np.float32), "weight")
    contents = inspection.inspect(save(tmp_path / "m.onnx", wrong)).as_data()
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
    contents = inspection.inspect(save(tmp_path / "model" / "m.onnx", outside)).as_data()
    assert len(contents["failures"]) == 1


@pytest.mark.parametrize("training", [False, True])
def test_operators_in_training_mode_fail(tmp_path: Path, training: bool) -> None:
    """ONNX Runtime removes a Dropout that is, so that running the file does not show it."""
    names = ("scale", "shift", "mean", "variance")
    nodes = [
        helper.make_node(
            "BatchNormalization",
            ["x", *names],
            ["z", *(["new_mean", "new_variance"] if training else [])],
            training_mode=int(training),
        ),
        helper.make_node("Dropout", ["z", "ratio", "training"], ["y"]),
    ]
    tensors: list[tuple[str, Any]] = [("ratio", np.float32(0.5)), ("training", np.bool_(training))]
    tensors += [(name, np.ones(3, np.float32)) for name in names]
    shape = ["batch", 3, 4]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "m.onnx")
    failures = list(inspection.inspect(tmp_path / "m.onnx").failures)
    told = "operators are in training mode (1 BatchNormalization, 1 Dropout)"
    assert [text.partition(":")[0] for text in failures] == ([told] if training else [])


@pytest.mark.parametrize(("half", "count"), [(True, 2), (False, 0)])
def test_operators_that_compute_in_half_precision_are_counted(
    half: bool, count: int, tmp_path: Path
) -> None:
    dtype = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], to=dtype),
        helper.make_node("Mul", ["low", "low"], ["square"]),
        helper.make_node("Cast", ["square"], ["y"], to=TensorProto.FLOAT),
    ]
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", border[:1], border[1:])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opset), tmp_path / "m.onnx")
    found = inspection.inspect(tmp_path / "m.onnx")
    assert (dict(found.weight_elements), found.half_operators) == ({}, count)
