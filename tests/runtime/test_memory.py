"""Memory as the drivers measure it: repeatable, of the right size, and leaks and mappings seen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck.capture import torch
from edgecheck.capture.data import dimension_sizes, random_inputs, save_feed
from edgecheck.checks.memory import growth
from edgecheck.declare.model import Input
from edgecheck.devices.local import runner_service
from edgecheck.process.parent import Child, Service
from edgecheck.targets.ort.build import OrtBuilder
from edgecheck.targets.registry import find_target
from edgecheck.targets.tflite.build import TfliteBuilder
from fixtures import digits, series
from tests.runtime.leaking import LEAK_BYTES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
TOOLS: dict[str, Any] = {"ort": OrtBuilder, "tflite": TfliteBuilder}
MODELS: dict[str, tuple[Callable[[], Any], list[Input], list[str]]] = {
    "cnn": (
        digits.trained_cnn,
        [Input("image", ("batch", 1, 8, 8), low=0.0, high=1.0)],
        ["logits"],
    ),
    "transformer": (
        digits.trained_transformer,
        [Input("rows", ("batch", 8, 8), low=0.0, high=1.0)],
        ["logits"],
    ),
    "series": (
        series.trained_model,
        [
            Input("signal", ("batch", 3, 128), low=-2.0, high=2.0),
            Input("sensor", ("batch",), low=0, high=3, dtype="int64"),
        ],
        ["activity", "intensity"],
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Model file and feed of each bundled network on each target."""
    found: dict[tuple[str, str], Any] = {}
    for name, (source, inputs, outputs) in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        torch.capture(source().eval(), inputs, outputs, {}, folder / "m.pt2")
        arrays = random_inputs(
            inputs, dimension_sizes(inputs, {}, 1, None), np.random.default_rng(0)
        )
        feed = save_feed(arrays, folder / "feed")
        for target, tools in TOOLS.items():
            output = folder / f"m{find_target(target).files.suffix}"
            tools().build(
                precision="fp32",
                source=str(folder / "m.pt2"),
                output=str(output),
                inputs=[item.name for item in inputs],
                outputs=outputs,
                calibration=None,
                example=feed,
            )
            found[name, target] = (output, feed)
    return found


def weigh(
    target: str,
    path: Path,
    feed: dict[str, str],
    directory: Path,
    *,
    driver: str = "",
    runs: int = 3,
    growth_runs: tuple[int, int] = (20, 200),
) -> dict[str, Any]:
    """Load and weigh a file in fresh processes, names matched by position."""
    found = find_target(target)
    service = runner_service(found)
    with Child(service, directory) as child:
        info = child.call("load", timeout_s=60, path=str(path), options={"threads": 1})
    names = {name: info["inputs"][place]["name"] for place, name in enumerate(feed)}
    if set(feed) <= {item["name"] for item in info["inputs"]}:
        names = {name: name for name in feed}
    outputs = [item["name"] for item in info["outputs"]]
    binding: dict[str, Any] = {
        "inputs": {name: {"name": own, "transpose": None} for name, own in names.items()},
        "outputs": {name: {"name": name, "transpose": None} for name in outputs},
        "batched": [],
        "batch": None,
    }
    with Child(Service(driver) if driver else service, directory) as child:
        measured: dict[str, Any] = child.call(
            "measure_memory",
            timeout_s=120,
            path=str(path),
            options={"threads": 1},
            binding=binding,
            feed=feed,
            runs=runs,
            growth_runs=growth_runs,
            growth_limit_s=1.0,
        )
    return measured


def save_filling(path: Path, copies: int = 1) -> Path:
    """A model that makes activations of the shape that it is given, and returns a row of each."""
    nodes, rows = [], []
    for place in range(copies):
        large, row = f"large{place}", f"row{place}"
        nodes.append(
            helper.make_node("ConstantOfShape", ["x"], [large])
            if place == 0
            else helper.make_node("Exp", [f"large{place - 1}"], [large])
        )
        rows.append((large, row))
    # Gathered from at the end, so that all of them live until then.
    nodes += [
        helper.make_node("Gather", [large, "row"], [row], axis=0) for large, row in reversed(rows)
    ]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Sum", [row for _, row in rows], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1000])],
        [helper.make_tensor("row", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, path)
    return path


def filled(megabytes: int, directory: Path, *, runs: int = 3, copies: int = 1) -> dict[str, Any]:
    path = save_filling(directory / "m.onnx", copies)
    np.save(directory / "x.npy", np.array([megabytes * 250, 1000]))
    feed = {"x": str(directory / "x.npy")}
    return weigh("ort", path, feed, directory, runs=runs, growth_runs=(20, 20))


def test_a_larger_activation_is_measured_by_its_size(tmp_path: Path) -> None:
    small, large = filled(10, tmp_path, runs=1), filled(50, tmp_path, runs=1)
    assert 39e6 < large["peak_bytes"] - small["peak_bytes"] < 44e6
    assert abs(large["load_bytes"] - small["load_bytes"]) < 0.5e6  # only runs take it


def test_what_later_runs_take_counts_too(tmp_path: Path) -> None:
    """ONNX Runtime's second run allocates by a plan, beside what its arena kept of the first."""
    once, thrice = filled(50, tmp_path, runs=1), filled(50, tmp_path)
    assert thrice["peak_bytes"] > 1.8 * once["peak_bytes"]


def test_a_further_buffer_of_5_megabytes_shows(tmp_path: Path) -> None:
    without, with_it = (filled(5, tmp_path, runs=1, copies=count) for count in (1, 2))
    assert 4.5e6 < with_it["peak_bytes"] - without["peak_bytes"] < 6.5e6
    assert with_it["steady_bytes"] - without["steady_bytes"] > 4.5e6
    held = [item["reported"]["arena_peak_in_use_bytes"] for item in (without, with_it)]
    assert 4.5e6 < held[1] - held[0] < 11e6


@pytest.mark.parametrize("target", TOOLS)
@pytest.mark.parametrize("name", MODELS)
def test_three_weighings_agree_and_a_clean_runtime_does_not_grow(
    files: dict[tuple[str, str], Any], name: str, target: str, tmp_path: Path
) -> None:
    path, feed = files[name, target]
    found = [weigh(target, path, feed, tmp_path) for _ in range(3)]
    for what in ("peak_bytes", "load_bytes", "loaded_bytes", "steady_bytes"):
        values = [item[what] for item in found]
        assert max(values) - min(values) <= max(0.5e6, 0.01 * max(values)), what
        assert min(values) > 0
    for item in found:
        assert item["peak_bytes"] >= item["load_bytes"]
        assert growth(item["inferences"], item["held_bytes"]).sustained < 200


@pytest.mark.parametrize("growth_runs", [(20, 20), pytest.param((20, 200), marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("target", "driver"),
    [
        ("ort", "LeakingOnnxRuntime"),
        pytest.param("tflite", "LeakingLiteRT", marks=pytest.mark.long),
    ],
)
def test_a_leak_of_10_kilobytes_per_inference_is_found(
    files: dict[tuple[str, str], Any],
    target: str,
    driver: str,
    growth_runs: tuple[int, int],
    tmp_path: Path,
) -> None:
    path, feed = files["cnn", target]
    service = f"tests.runtime.leaking:{driver}"
    found = weigh(target, path, feed, tmp_path, driver=service, growth_runs=growth_runs)
    grown = growth(found["inferences"], found["held_bytes"])
    assert abs(grown.slope - LEAK_BYTES) < 0.15 * LEAK_BYTES
    assert grown.sustained > 0.8 * LEAK_BYTES


def test_a_mapped_file_is_told_from_one_that_is_read(
    files: dict[tuple[str, str], Any], tmp_path: Path
) -> None:
    mapped, feed = files["cnn", "tflite"]
    found = weigh("tflite", mapped, feed, tmp_path)
    assert mapped.stat().st_size <= found["mapped_bytes"] < mapped.stat().st_size + 8192
    assert 0 < found["mapped_resident_bytes"] <= found["mapped_bytes"]
    path, feed = files["cnn", "ort"]
    found = weigh("ort", path, feed, tmp_path)
    assert (found["mapped_bytes"], found["mapped_resident_bytes"]) == (0, 0)


def test_the_runtimes_own_figures(files: dict[tuple[str, str], Any], tmp_path: Path) -> None:
    path, feed = files["cnn", "ort"]
    reported = weigh("ort", path, feed, tmp_path)["reported"]
    assert 0 < reported["largest_node_bytes"] < reported["arena_peak_in_use_bytes"]
    assert reported["arena_peak_in_use_bytes"] <= reported["arena_held_bytes"]
    path, feed = files["cnn", "tflite"]
    assert weigh("tflite", path, feed, tmp_path)["reported"] == {}
