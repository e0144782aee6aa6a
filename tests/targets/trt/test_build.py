"""TensorRT engines, built ahead of time; what a machine without a GPU can and can't say of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgecheck.capture import torch as program
from edgecheck.checks.export import judge_precision
from edgecheck.declare.model import Input
from edgecheck.targets.ort.build import OrtBuilder
from edgecheck.targets.registry import all_targets
from edgecheck.targets.trt import nvidia
from edgecheck.targets.trt.build import BuildError, TrtBuilder
from tests.targets.test_builds import Network

TARGET = all_targets()["trt"]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx not installed: pip install tensorrt-rtx-cu13",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with a dynamic batch, and calibration data."""
    folder = tmp_path_factory.mktemp("trt")
    torch.manual_seed(0)
    inputs = [Input("image", ("batch", 3, 8, 8), low=-1.0, high=1.0)]
    program.capture(Network().eval(), inputs, ["scores"], {}, folder / "m.pt2")
    images = np.random.default_rng(0).uniform(-1, 1, (16, 3, 8, 8)).astype(np.float32)
    np.save(folder / "images.npy", images)
    np.save(folder / "one.npy", images[:1])
    OrtBuilder().build(
        precision="fp32", source=str(folder / "m.pt2"), **arguments(folder, folder / "m.onnx")
    )
    return folder


def arguments(folder: Path, output: Path, **options: Any) -> dict[str, Any]:
    return {
        "output": str(output),
        "inputs": ["image"],
        "outputs": ["scores"],
        "calibration": {"image": str(folder / "images.npy")},
        "example": {"image": str(folder / "one.npy")},
        "options": {**TARGET.options.defaults, **options},
        "dims": {"batch": (1, 16)},
    }


def build(folder: Path, output: Path, precision: str = "fp32", **options: Any) -> Path:
    source = str(folder / "m.onnx")
    TrtBuilder().build(precision=precision, source=source, **arguments(folder, output, **options))
    return output


@pytest.mark.parametrize("precision", TARGET.build.precisions)
def test_an_engine_is_built_ahead_of_time_for_the_stated_architectures(
    folder: Path, tmp_path: Path, precision: str
) -> None:
    path = build(folder, tmp_path / "m.engine", precision, architectures=["SM86", "SM120"])
    contents = TrtBuilder().inspect(path=str(path))
    assert contents["failures"] == []
    assert contents["format"]["architectures"] == ["SM86", "SM120"]
    assert contents["format"]["version"]
    failures, share = judge_precision(precision, contents)
    assert failures == []
    assert share is None or share > 0.9


def test_an_unknown_architecture_is_told_with_those_that_there_are(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"\['SM42'\] are unknown .* it has SM120, "):
        build(folder, tmp_path / "m.engine", architectures=["SM42"])


def test_an_operator_that_the_parser_refuses_is_named_with_its_node(
    folder: Path, tmp_path: Path
) -> None:
    broken = onnx.load(str(folder / "m.onnx"))
    broken.graph.node[0].op_type = "NoSuchOperator"
    broken.graph.node[0].name = "first"
    onnx.save(broken, str(tmp_path / "broken.onnx"))
    with pytest.raises(BuildError, match=r"node 'first' \(NoSuchOperator\): ") as caught:
        TrtBuilder().build(
            precision="fp32",
            source=str(tmp_path / "broken.onnx"),
            **arguments(folder, tmp_path / "m.engine", architectures=["SM89"]),
        )
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_onnx_file_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"garbage")
    with pytest.raises(BuildError, match=r"can't parse the ONNX file: .*Failed to parse"):
        TrtBuilder().build(
            precision="fp32",
            source=str(tmp_path / "m.onnx"),
            **arguments(folder, tmp_path / "m.engine", architectures=["SM89"]),
        )


@pytest.mark.skipif(bool(nvidia.gpu_name()), reason="this machine has an NVIDIA GPU")
def test_an_engine_that_others_built_is_not_judged_where_nothing_reads_it(tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_bytes(b"\0" * 4096)
    contents = TrtBuilder().inspect(path=str(tmp_path / "m.engine"))
    assert contents["failures"] == []
    assert "no NVIDIA GPU" in contents["not_inspected"]
    assert "no NVIDIA GPU" in TARGET.gap("parity")
    assert TARGET.gap("export") == ""


def test_without_any_tensorrt_the_command_that_helps_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    absent = {"tensorrt", "tensorrt_rtx"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else found(name)
    )
    assert TARGET.missing() == (
        "neither tensorrt nor tensorrt_rtx installed: pip install tensorrt-rtx-cu13"
    )


def test_an_empty_file_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_bytes(b"")
    (failure,) = TrtBuilder().inspect(path=str(tmp_path / "m.engine"))["failures"]
    assert failure == "0 bytes are not a TensorRT engine"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"workspace": "much"}, "workspace: 'much' is not a bytes quantity: write a number"),
        ({"architectures": "SM89"}, "architectures 'SM89' is not a list of names such as 'SM89'"),
        ({"architectures": ["ada"]}, "architectures ['ada'] is not a list of names such as 'SM89'"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], problem: str) -> None:
    assert TARGET.options.problem({**TARGET.options.defaults, **options}).startswith(problem)
