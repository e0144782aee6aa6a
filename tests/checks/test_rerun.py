"""Repetition on real runs: candidates that remember, vary or mix the samples of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck.checks import rerun
from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case
from edgecheck.declare.model import Input, Model
from edgecheck.declare.settings import Settings
from edgecheck.judge.verdict import Evidence
from edgecheck.targets.registry import find_target
from edgecheck.workbench import Workbench

ORT = find_target("ort")
Measure = Callable[..., Evidence]

CLEAN = [helper.make_node("Mul", ["x", "x"], ["y"])]
RANDOM = [
    helper.make_node("RandomNormalLike", ["x"], ["noise"]),
    helper.make_node("Add", ["x", "noise"], ["y"]),
]
CENTRED = [
    helper.make_node("ReduceMean", ["x", "axes"], ["mean"]),
    helper.make_node("Sub", ["x", "mean"], ["y"]),
]


def save(path: Path, nodes: list[Any], batch: int | str) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [0])],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(made, path)
    return path


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    folder = tmp_path_factory.mktemp("run")
    settings = Settings(folder / "cache", folder / "scratch", lock=folder / "lock", sharers=2)
    made = Workbench(settings)
    yield made
    made.close()


@pytest.fixture
def measure(workbench: Workbench, tmp_path: Path) -> Measure:
    """What repetition shows of a graph."""

    def run(nodes: list[Any], batch: int | str = "batch", runner: str = "", **model: Any) -> Any:
        target = ORT
        if runner:
            module = "tests.checks.rerun_runners"
            target = replace(ORT, runtime=replace(ORT.runtime, runner=f"{module}:{runner}"))
        declared = Model(
            inputs=[Input("x", ("batch", 4))],
            outputs=["y"],
            reference="ort",
            artifacts={"ort": save(tmp_path / "m.onnx", nodes, batch)},
            **model,
        )
        case = Case(tmp_path.name, "", target, "fp32", declared, Budget())
        found = rerun.measure(workbench, case, {})
        # Whatever comes next gets the file as it is always run.
        assert workbench.session(case).binding is not None
        return found

    return run


def ways(found: Evidence) -> dict[str, Any]:
    differences: dict[str, Any] = found.measurements["repeatability"]["differences"]
    return {way: item["y"]["differing"] for way, item in differences.items() if "y" in item}


@pytest.mark.parametrize(
    ("batch", "options", "compared"),
    [
        ("batch", {}, 4),
        ("batch", {"dims": {"batch": (2, 4)}, "batch_sizes": [2]}, 4),
        ("batch", {"dims": {"batch": (1, 1)}, "batch_sizes": [1]}, 3),
        (1, {}, 3),
        (3, {}, 4),
    ],
)
def test_a_sound_candidate_repeats_itself(
    measure: Measure, batch: int | str, options: dict[str, Any], compared: int
) -> None:
    found = measure(CLEAN, batch, **options)
    assert (found.failures, found.warnings) == ((), ())
    assert list(ways(found).values()) == [0] * compared


def test_one_that_varies_is_found(measure: Measure) -> None:
    found = measure(RANDOM)
    (failure,) = found.failures
    assert failure.startswith("output 'y' differs on the same input twice, in 4 of 4 values by up")
    assert found.warnings == ()


@pytest.mark.parametrize("batch", ["batch", 1])
def test_one_that_remembers_is_found(measure: Measure, batch: int | str) -> None:
    found = measure(CLEAN, batch, "RememberingRunner")
    (failure,) = found.failures
    assert failure.startswith("output 'y' differs on the same input ")
    assert (
        1e-5
        < found.measurements["repeatability"]["differences"]["after_others"]["y"][
            "max_relative_error"
        ]
        < 1e-2
    )


@pytest.mark.parametrize("batch", ["batch", 3])
def test_one_that_mixes_samples_is_found_with_the_size_of_it(
    measure: Measure, batch: int | str
) -> None:
    found = measure(CENTRED, batch)
    (failure,) = found.failures
    assert failure.startswith("output 'y' differs for the same sample beside others in a batch, in")
    assert "depends on what else is in its batch" in failure
    assert ways(found) == {"twice": 0, "after_others": 0, "batch": 4, "threads": 0}


def test_one_that_depends_on_threads_is_found(measure: Measure) -> None:
    found = measure(CLEAN, runner="ThreadedRunner")
    (failure,) = found.failures
    assert failure.startswith("output 'y' differs on the same input with more threads")
    assert "(0.3 % of the largest)" in failure
