"""Where the runtimes say that time goes, on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgecheck.capture import torch as program
from edgecheck.declare.model import Input
from edgecheck.judge.operator_profile import summarize, table
from edgecheck.targets.ort.run import OrtRunner
from edgecheck.targets.tflite import profiler
from edgecheck.targets.tflite.build import TfliteBuilder
from edgecheck.targets.tflite.run import TfliteRunner


def opened(driver: Any, path: str, feed: dict[str, np.ndarray], directory: Path) -> dict[str, str]:
    """Load and bind; return the feed as files."""
    inputs = driver.load(path, {"threads": 1})["inputs"]
    side = {
        name: {"name": item["name"], "transpose": None}
        for name, item in zip(feed, inputs, strict=True)
    }
    driver.bind({"inputs": side, "outputs": {}, "batched": [], "batch": None})
    for name, array in feed.items():
        np.save(directory / f"{name}.npy", array)
    return {name: str(directory / f"{name}.npy") for name in feed}


def test_onnx_runtime_shows_the_heavy_node_first(tmp_path: Path) -> None:
    weight = np.ones((512, 512), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Sin", ["x"], ["s"], name="light"),
            helper.make_node("MatMul", ["s", "w"], ["y"], name="heavy"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 512])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "m.onnx")
    driver = OrtRunner()
    array = np.ones((64, 512), np.float32)
    feed = opened(driver, str(tmp_path / "m.onnx"), {"x": array}, tmp_path)
    found = driver.profile(feed)
    profile = summarize(found)
    assert 3 <= found.runs <= 50
    assert [(node.operator, node.name) for node in profile.nodes] == [
        ("MatMul", "heavy"),
        ("Sin", "light"),
    ]
    assert {item.calls for item in found.operators} == {1.0}
    assert sum(node.share for node in profile.nodes) == pytest.approx(1)
    assert profile.fallbacks == ()
    assert list(tmp_path.glob("*.json")) == []
    assert "MatMul" in table(profile)


class Tokens(torch.nn.Module):
    """An embedding, which XNNPACK does not take, before a heavy layer and a light one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 512)
        self.heavy = torch.nn.Linear(512, 2048)
        self.light = torch.nn.Linear(2048, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.light(torch.relu(self.heavy(self.embedding(tokens))))


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokens")
    inputs = [Input("tokens", ("batch", 32), dtype="int32", low=0, high=15)]
    np.save(folder / "tokens.npy", np.zeros((1, 32), np.int32))
    program.capture(Tokens().eval(), inputs, ["scores"], {}, folder / "m.pt2")
    TfliteBuilder().build(
        precision="fp32",
        source=str(folder / "m.pt2"),
        output=str(folder / "m.tflite"),
        inputs=["tokens"],
        outputs=["scores"],
        calibration={},
        example={"tokens": str(folder / "tokens.npy")},
    )
    return str(folder / "m.tflite")


def test_litert_shows_operators_within_the_delegate_and_beside_it(
    tokens_file: str, tmp_path: Path
) -> None:
    driver = TfliteRunner()
    feed = opened(driver, tokens_file, {"tokens": np.full((1, 32), 15, np.int32)}, tmp_path)
    found = driver.profile(feed)
    assert found.note == ""
    profile = summarize(found)
    assert profile.nodes[0].operator.startswith("Fully Connected")
    assert profile.nodes[0].placed == "XNNPACK"
    assert profile.nodes[0].share > 0.5
    assert sum(node.share for node in profile.nodes) == pytest.approx(1, abs=1e-3)
    assert "EMBEDDING_LOOKUP" in {item.operator for item in profile.fallbacks}
    assert {item.placed for item in profile.fallbacks} == {"built-in kernels"}
    assert "not on XNNPACK" in table(profile)
    # The interpreter that is timed still works beside the profiled one.
    assert np.isfinite(next(iter(driver.infer(driver._load_feed(feed)).values()))).all()


def test_an_input_of_another_size_leaves_a_reason(tokens_file: str, tmp_path: Path) -> None:
    driver = TfliteRunner()
    feed = opened(driver, tokens_file, {"tokens": np.zeros((2, 32), np.int32)}, tmp_path)
    found = driver.profile(feed)
    assert found.operators == ()
    assert "the file takes 128 bytes, the input has 256" in found.note
    assert "the file takes 128 bytes" in table(summarize(found))


def test_text_that_is_no_profile_is_an_error() -> None:
    with pytest.raises(ValueError, match="no table of operators"):
        profiler.operator_times("Profile:\nnothing was seen\n", 3)
