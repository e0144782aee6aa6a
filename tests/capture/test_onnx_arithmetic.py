"""ONNX graphs in other arithmetic, against NumPy in float64 and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.capture.base import SimulationError
from edgecheck.capture.onnx import LiveOnnx, simulator
from edgecheck.declare.model import Input

STATIC = {"kind": "quantized", "weight_bits": 8, "activation_bits": 8, "activations": "static"}
DRAWN = np.random.default_rng(7)
FEED = {"x": DRAWN.uniform(-1, 1, (6, 5)).astype(np.float32)}
WEIGHT = DRAWN.normal(size=(5, 4)).astype(np.float32)


def graph(nodes: list[Any], shape: list[Any], constants: dict[str, Any] | None = None) -> Any:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    ]
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], stored),
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 20)],
    )


def simulated(model: Any, arithmetic: dict[str, Any], feed: Any, calibration: Any = ()) -> Any:
    return simulator(model, ["x"], ["y"], arithmetic, list(calibration))(feed)["y"]


def sqnr_db(found: Any, exact: Any) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(found - exact).sum()))


def dense() -> Any:
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Add", ["cast", "one"], ["y"]),
    ]
    return graph(nodes, ["batch", 5], {"weight": WEIGHT})


def test_float64_rounds_nowhere() -> None:
    exact = FEED["x"].astype(np.float64) @ WEIGHT.astype(np.float64) + 1
    found = simulated(dense(), {"kind": "float64"}, FEED)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, exact, rtol=1e-15)
    single = simulated(dense(), {"kind": "float32"}, FEED)
    assert single.dtype == np.float32
    assert 0 < np.abs(single - exact).max() < 1e-6


def test_half_precision_rounds_and_overflows_at_each_operator() -> None:
    model = graph(
        [
            helper.make_node("Mul", ["x", "x"], ["squared"]),
            helper.make_node("Sqrt", ["squared"], ["y"]),
        ],
        ["batch", 1],
    )
    feed = {"x": np.array([[3.0], [300.0]], np.float32)}
    assert simulated(model, {"kind": "float16"}, feed).ravel().tolist() == [3.0, np.inf]


def test_a_quantizer_takes_ranges_from_its_calibration() -> None:
    exact = simulated(dense(), {"kind": "float64"}, FEED)
    assert 35 < sqnr_db(simulated(dense(), STATIC, FEED, [FEED]), exact) < 55
    wide = {"x": FEED["x"] * 16}
    assert sqnr_db(simulated(dense(), STATIC, FEED, [wide]), exact) < 30
    with pytest.raises(SimulationError, match="no calibration data"):
        simulated(dense(), STATIC, FEED)


def test_weights_have_a_scale_for_each_output_channel() -> None:
    scales = np.array([1, 1e-3, 1, 1], np.float32)
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    model = graph(nodes, ["batch", 5], {"weight": WEIGHT * scales})
    exact = simulated(model, {"kind": "float64"}, FEED)
    weights_only = {**STATIC, "activations": "none"}
    small = simulated(model, weights_only, FEED)[:, 1]
    assert sqnr_db(small, exact[:, 1]) > 35


@pytest.mark.parametrize(
    ("operator", "shape", "weight", "attributes"),
    [
        ("Conv", (2, 4, 9, 8), (6, 2, 3, 3), {"group": 2, "pads": [1, 0, 1, 2], "strides": [2, 1]}),
        ("Conv", (2, 4, 11), (4, 1, 3), {"group": 4, "dilations": [2]}),
        ("Conv", (1, 3, 8, 8), (2, 3, 3, 3), {"auto_pad": "SAME_UPPER"}),
        (
            "ConvTranspose",
            (2, 4, 5, 6),
            (4, 3, 3, 3),
            {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
        ),
        ("MaxPool", (2, 3, 9, 9), None, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 0]}),
        (
            "MaxPool",
            (2, 3, 9, 9),
            None,
            {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [2, 2]},
        ),
        ("AveragePool", (2, 3, 9, 9), None, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        (
            "AveragePool",
            (2, 3, 9, 9),
            None,
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        ),
    ],
)
def test_windows_are_those_of_the_runtime(
    operator: str, shape: tuple[int, ...], weight: Any, attributes: dict[str, Any]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    constants = {} if weight is None else {"weight": DRAWN.normal(size=weight).astype(np.float32)}
    node = helper.make_node(operator, ["x", *constants], ["y"], **attributes)
    model = graph([node], list(shape), constants)
    feed = {"x": DRAWN.normal(size=shape).astype(np.float32)}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, feed)
    found = simulated(model, {"kind": "float64"}, feed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_bodies_of_branches_are_in_float64_too() -> None:
    third = numpy_helper.from_array(np.float32(1 / 3), "third")
    body = helper.make_graph(
        [helper.make_node("Mul", ["x", "third"], ["inside"])],
        "body",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
        [third],
    )
    node = helper.make_node("If", ["true"], ["y"], then_branch=body, else_branch=body)
    model = graph([node], ["batch", 5], {"true": np.array(True)})
    exact = FEED["x"].astype(np.float64) * np.float64(np.float32(1 / 3))
    np.testing.assert_array_equal(simulated(model, {"kind": "float64"}, FEED), exact)


def test_what_does_not_run_is_named() -> None:
    model = graph([helper.make_node("Wave", ["x"], ["y"], domain="own", name="first")], [1])
    model.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(SimulationError, match="does not run node 'first'"):
        simulated(model, {"kind": "float64"}, {"x": np.ones(1, np.float32)})
    drawn = graph([helper.make_node("RandomNormalLike", ["x"], ["y"])], [1])
    with pytest.raises(SimulationError, match="draws random numbers"):
        simulated(drawn, {"kind": "float64"}, {"x": np.ones(1, np.float32)})


def test_a_file_is_a_source_and_its_external_data_stays_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    onnx.save(dense(), folder / "m.onnx")
    live = LiveOnnx(str(folder / "m.onnx"), [Input("features", ("batch", 5))], ["scores"])
    found = live.infer({"features": FEED["x"]})["scores"]
    np.testing.assert_allclose(found, FEED["x"] @ WEIGHT + 1, rtol=1e-5)

    escaping = dense()
    (tensor,) = escaping.graph.initializer
    (tmp_path / "secret").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (folder / "m.onnx").write_bytes(escaping.SerializeToString())
    with pytest.raises(SimulationError, match="does not load"):
        LiveOnnx(str(folder / "m.onnx"), [Input("x", ("batch", 5))], ["y"])
