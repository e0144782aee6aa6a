"""``edgecheck explain`` on a suite with broken builders: what it names, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

NETWORKS = """
import numpy as np
import onnx
import torch
from onnx import numpy_helper


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.middle = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.boxes = torch.nn.Linear(8, 4)
        self.scores = torch.nn.Linear(8, 4)

    def forward(self, image):
        x = torch.relu(self.middle(torch.relu(self.stem(image)))).mean((2, 3))
        return {"boxes": self.boxes(x), "scores": self.scores(x)}


class Branch(torch.nn.Module):
    def forward(self, x):
        return x.cumsum(1) * 2 if torch.compiler.is_compiling() else x.cumsum(1)


def export(module):
    return torch.onnx.export(
        module, (), kwargs={"image": torch.zeros(2, 3, 8, 8)}, dynamo=True, verbose=False,
        input_names=["image"], output_names=["boxes", "scores"], external_data=False,
        dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=64)}},
    ).model_proto


def swapped(module, path):
    model = export(module)
    other = {"boxes": "scores", "scores": "boxes"}
    for node in model.graph.node:
        node.output[:] = [other.get(name, name) for name in node.output]
    onnx.save(model, path)


def broken(module, path):
    model = export(module)
    weight = next(item for item in model.graph.initializer if item.name == "middle.weight")
    exchanged = np.ascontiguousarray(numpy_helper.to_array(weight).swapaxes(0, 1))
    weight.CopyFrom(numpy_helper.from_array(exchanged, weight.name))
    onnx.save(model, path)
"""
# Only the processes that make or build a model import what takes seconds.
SUITE = """
from edgecheck import Conformance, Input, Model

IMAGE = Input("image", ("batch", 3, 8, 8), low=-1.0, high=1.0)


def network():
    import networks
    import torch

    torch.manual_seed(0)
    return networks.Network().eval()


def branch():
    from networks import Branch

    return Branch()


def swapped(module, path):
    import networks

    networks.swapped(module, path)


def broken(module, path):
    import networks

    networks.broken(module, path)


def model(builder):
    outputs = ["boxes", "scores"]
    return Model(network, inputs=[IMAGE], outputs=outputs, builders={("ort", "fp32"): builder})


class TestSwapped(Conformance):
    model = model(swapped)


class TestBroken(Conformance):
    model = model(broken)


class TestClean(Conformance):
    model = Model(network, inputs=[IMAGE], outputs=["boxes", "scores"])


class TestBranch(Conformance):
    model = Model(branch, inputs=[Input("x", ("batch", 8))], outputs=["y"])
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "test_suite.py"
    path.write_text(SUITE)
    path.with_name("networks.py").write_text(NETWORKS)
    return path


def explain(suite: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecheck.commands.cli", "explain", *arguments],
        cwd=suite.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_table_names_the_layer_in_the_users_model(suite: Path) -> None:
    done = explain(suite, "test_suite.py", "broken/ort/fp32")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("broken/ort/fp32: first broken: middle (Conv2d), conv2d")
    assert "networks.py:" in done.stdout
    assert max(map(len, lines)) <= 100
    (marked,) = [line for line in lines if line.startswith(">")]
    assert "middle" in marked
    assert "1x8x8x8" in marked


@pytest.mark.parametrize(
    ("candidate", "kind", "words"),
    [
        ("swapped/ort/fp32", "outputs", "'boxes' carries 'scores'"),
        pytest.param("clean/ort/fp32", "none", "no layer stands out", marks=pytest.mark.long),
        pytest.param(
            "clean/executorch/fp32", "none", "no layer stands out", marks=pytest.mark.long
        ),
        pytest.param(
            "branch/ort/fp32",
            "capture",
            "the captured program already differs",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_is_no_single_layer_is_told_apart(
    suite: Path, candidate: str, kind: str, words: str
) -> None:
    if "executorch" in candidate:
        pytest.importorskip("executorch")
    done = explain(suite, "test_suite.py", candidate, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["kind"] == kind
    assert words in document["sentence"]
    assert done.returncode == (0 if kind == "none" else 1)
    assert all("path" not in step for step in document["steps"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("test_suite.py", "brokn/ort/fp32"), "did you mean 'broken/ort/fp32'?"),
        (("test_suit.py", "broken/ort/fp32"), "there is no suite test_suit.py"),
        (("test_suite.py", "clean/trt/fp32"), "can't be localized: a TensorRT engine"),
    ],
)
def test_what_can_not_be_explained_says_why(
    suite: Path, arguments: tuple[str, str], words: str
) -> None:
    if "trt" in arguments[1]:
        pytest.importorskip("tensorrt_rtx")
    done = explain(suite, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
