"""Peak memory as the drivers measure it: of a fresh process, repeatable, and of the right size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck.process import Child, Service

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
SERVICE = Service(
    "edgecheck.drivers.onnxruntime:OnnxRuntimeDriver",
    modules=("edgecheck.drivers.common", "edgecheck.drivers.onnxruntime"),
)


def save_filling(path: Path) -> str:
    """A model that makes an activation of the shape that it is given, and returns one row."""
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["x"], ["large"]),
            helper.make_node("Gather", ["large", "row"], ["y"], axis=0),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1000])],
        [helper.make_tensor("row", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, path)
    return str(path)


def peak_bytes(megabytes: int, directory: Path, runs: int) -> int:
    path = save_filling(directory / "m.onnx")
    np.save(directory / "x.npy", np.array([megabytes * 250, 1000]))
    binding = {
        "inputs": {"x": {"name": "x", "transpose": None}},
        "outputs": {"y": {"name": "y", "transpose": None}},
        "batched": [],
        "batch": None,
    }
    with Child(SERVICE, directory) as child:
        measured = child.call(
            "measure_memory",
            timeout_s=60,
            path=path,
            options={"threads": 1},
            binding=binding,
            feed={"x": str(directory / "x.npy")},
            runs=runs,
        )
    return int(measured["peak_bytes"])


def test_a_larger_activation_is_measured_by_its_size(tmp_path: Path) -> None:
    small, large = peak_bytes(10, tmp_path, 1), peak_bytes(50, tmp_path, 1)
    assert 39e6 < large - small < 44e6


def test_what_later_runs_take_counts_too(tmp_path: Path) -> None:
    """ONNX Runtime's second run allocates by a plan, beside what its arena kept of the first."""
    assert peak_bytes(50, tmp_path, 3) > 1.8 * peak_bytes(50, tmp_path, 1)


def test_repeats_agree(tmp_path: Path) -> None:
    peaks = [peak_bytes(20, tmp_path, 3) for _ in range(3)]
    assert max(peaks) - min(peaks) < 0.5e6
