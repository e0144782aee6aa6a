"""The ONNX Runtime runner, and what all runners share, on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.targets.ort import build
from edgecheck.targets.ort.run import OrtRunner

OPTIONS = {"threads": 1}


def save_scale(path: Path, shape: list[Any], kind: int = TensorProto.FLOAT, op: str = "Add") -> str:
    """``y = x + x`` (or another operator of two equal inputs)."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, path)
    return str(path)


def opened(
    path: str, batch: int | None = None, transpose: list[int] | None = None, **chosen: Any
) -> Any:
    driver = OrtRunner()
    driver.load(path, {**OPTIONS, "target": chosen})
    side = {"name": "x", "transpose": transpose}
    driver.bind(
        {
            "inputs": {"image": side},
            "outputs": {"out": {"name": "y", "transpose": transpose}},
            "batched": ["image"],
            "batch": batch,
        }
    )
    return driver


def run(driver: Any, array: np.ndarray, directory: Path, batch_size: int | None = None) -> Any:
    np.save(directory / "in.npy", array)
    (directory / "out").mkdir(exist_ok=True)
    feed = {"inputs": {"image": str(directory / "in.npy")}, "directory": str(directory / "out")}
    (outputs,) = driver.run([feed], batch_size)
    return np.load(outputs["out"])


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 100])
def test_outputs_do_not_depend_on_how_the_feed_is_cut(
    tmp_path: Path, batch_size: int | None
) -> None:
    array = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    driver = opened(save_scale(tmp_path / "m.onnx", ["batch", 3]))
    np.testing.assert_array_equal(run(driver, array, tmp_path, batch_size), array + array)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_a_fixed_batch_is_filled_and_the_filling_cut_off(tmp_path: Path, rows: int) -> None:
    array = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    driver = opened(save_scale(tmp_path / "m.onnx", [4, 3]), batch=4)
    np.testing.assert_array_equal(run(driver, array, tmp_path), array + array)


def test_layouts_are_turned_both_ways(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    path = save_scale(tmp_path / "m.onnx", ["batch", 4, 5, 3])
    driver = opened(path, transpose=[0, 2, 3, 1])
    np.testing.assert_array_equal(run(driver, array, tmp_path), array + array)


def test_other_byte_orders_and_strides_are_read_right(tmp_path: Path) -> None:
    driver = opened(save_scale(tmp_path / "m.onnx", ["batch", 3]))
    array = np.arange(12, dtype=">f4").reshape(3, 4).T
    np.testing.assert_array_equal(run(driver, array, tmp_path), array + array)


def test_an_integer_that_the_file_can_not_hold_is_an_error(tmp_path: Path) -> None:
    driver = opened(save_scale(tmp_path / "m.onnx", ["batch"], TensorProto.INT32))
    assert run(driver, np.array([5], np.int64), tmp_path).tolist() == [10]
    with pytest.raises(ValueError, match=r"holds values 5\.\.3000000000, which the file's int32"):
        run(driver, np.array([5, 3_000_000_000], np.int64), tmp_path)


def test_an_output_without_a_batch_axis_can_not_be_put_together(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "m.onnx")
    driver = opened(str(tmp_path / "m.onnx"))
    with pytest.raises(ValueError, match="its first axis is not the batch"):
        run(driver, np.ones((4, 3), np.float32), tmp_path, 2)


def test_a_provider_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = save_scale(tmp_path / "m.onnx", ["batch", 3])
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the CUDA provider")
    with pytest.raises(RuntimeError, match="did not enable"):
        OrtRunner().load(path, {**OPTIONS, "target": {"providers": providers}})


def test_placement_counts_what_ran_by_provider(tmp_path: Path) -> None:
    driver = opened(save_scale(tmp_path / "m.onnx", ["batch", 3]))
    np.save(tmp_path / "in.npy", np.ones((1, 3), np.float32))
    placement = driver.placement({"image": str(tmp_path / "in.npy")}).as_record()
    assert placement["operators_by_provider"] == {"CPUExecutionProvider": 1}
    assert placement["undelegated_operators"] == 0


def test_a_provider_that_takes_no_operator_leaves_them_all(tmp_path: Path) -> None:
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has no provider that runs nothing here")
    asked = ["AzureExecutionProvider", "CPUExecutionProvider"]
    driver = opened(save_scale(tmp_path / "m.onnx", ["batch", 3]), providers=asked)
    np.save(tmp_path / "in.npy", np.ones((1, 3), np.float32))
    placement = driver.placement({"image": str(tmp_path / "in.npy")}).as_record()
    assert placement["asked_provider"] == "AzureExecutionProvider"
    assert placement["undelegated_operators_by_type"] == {"Add": 1}


def test_a_timed_inference_is_the_runtimes_own_and_gives_the_same(tmp_path: Path) -> None:
    driver = opened(save_scale(tmp_path / "m.onnx", ["batch", 3]))
    array = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    infer = driver.prepare_inference(driver._file_inputs({"image": array}))
    for _ in range(2):
        (output,) = infer()
        np.testing.assert_array_equal(output, array + array)


# -- int8 on processors that saturate


def save_quantized(path: Path, *, shared: bool = False) -> str:
    """``y = x @ w`` in QDQ form, with products of bytes that 16 bits can't add up."""
    weight = np.full((64, 8), 127, np.int8)
    weight[:, ::2] = -127
    constants = {
        "x_scale": np.float32(1 / 255),
        "x_zero": np.uint8(0),
        "w": weight,
        "w_scale": np.float32(1 / 127),
        "w_zero": np.int8(0),
        "y_scale": np.float32(1.0),
        "y_zero": np.uint8(128),
    }
    pairs = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "y_scale", "y_zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "y_scale", "y_zero"], ["y"]),
    ]
    if shared:
        constants |= {"v": weight[:8].copy(), "z_scale": np.float32(4.0)}
        pairs[-1].output[0] = "h"
        pairs += [
            helper.make_node("DequantizeLinear", ["v", "w_scale", "w_zero"], ["vd"]),
            helper.make_node("MatMul", ["h", "vd"], ["n"]),
            helper.make_node("QuantizeLinear", ["n", "z_scale", "y_zero"], ["zq"]),
            helper.make_node("DequantizeLinear", ["zq", "z_scale", "y_zero"], ["y"]),
        ]
    graph = helper.make_graph(
        pairs,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(np.asarray(item), name) for name, item in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, path)
    return str(path)


def test_products_of_bytes_do_not_saturate(tmp_path: Path) -> None:
    driver = opened(save_quantized(tmp_path / "m.onnx"))
    output = run(driver, np.ones((2, 64), np.float32), tmp_path)
    np.testing.assert_allclose(output, np.tile([-64.0, 64.0], (2, 4)))
    feed = {"image": str(tmp_path / "in.npy")}
    assert driver.placement(feed).warnings == ()


def test_a_file_that_must_run_with_saturation_is_told(tmp_path: Path) -> None:
    path = save_quantized(tmp_path / "m.onnx", shared=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        refused = False
    except Exception:  # only processors that saturate rewrite the weights
        refused = True
    driver = opened(path)
    inputs = np.ones((2, 64), np.float32)
    (expected,) = onnx.reference.ReferenceEvaluator(path).run(None, {"x": inputs})
    np.testing.assert_allclose(run(driver, inputs, tmp_path), expected)
    warnings = driver.placement({"image": str(tmp_path / "in.npy")}).warnings
    assert bool(warnings) == refused
    assert all("may saturate on this processor" in line for line in warnings)


def test_parameters_of_their_own_let_a_file_run_without_saturation(tmp_path: Path) -> None:
    path = save_quantized(tmp_path / "m.onnx", shared=True)
    reference = onnx.reference.ReferenceEvaluator(path)
    inputs = np.ones((2, 64), np.float32)
    (expected,) = reference.run(None, {"x": inputs})
    build._unshare_parameters(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    read = [
        name
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    ]
    assert len(read) == len(set(read))
    driver = opened(path)
    np.testing.assert_allclose(run(driver, inputs, tmp_path), expected)
    assert driver.placement({"image": str(tmp_path / "in.npy")}).warnings == ()
