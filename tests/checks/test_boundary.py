"""Inputs at the bounds of the domain: what breaks there alone is told, and whose fault it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck.checks import boundary
from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case
from edgecheck.declare.model import Input, Model
from edgecheck.declare.settings import Settings
from edgecheck.judge.verdict import Evidence
from edgecheck.targets.registry import find_target
from edgecheck.workbench import Workbench

node = helper.make_node
GUARDED = [node("Max", ["x", "least"], ["above"]), node("Log", ["above"], ["y"])]
LOG = [node("Log", ["x"], ["y"])]
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
# The same but at the upper bound.
AT_BOUND = [
    node("Max", ["x", "least"], ["above"]),
    node("Log", ["above"], ["logs"]),
    node("Less", ["x", "high"], ["inside"]),
    node("Where", ["inside", "logs", "high"], ["y"]),
]
# An operator of ONNX Runtime's own, which ONNX's reference implementation does not know.
FUSED = [node("Gelu", ["x"], ["y"], domain="com.microsoft")]
FUSED_BUT_AT_BOUND = [
    node("Gelu", ["x"], ["smooth"], domain="com.microsoft"),
    node("Less", ["x", "high"], ["inside"]),
    node("Where", ["inside", "smooth", "least"], ["y"]),
]
Measure = Callable[..., Evidence]


def save(path: Path, nodes: list[Any]) -> Path:
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"
    }
    constants = {"least": 1e-6, "high": 1.0}
    graph = helper.make_graph(
        nodes,
        "g",
        [values["x"]],
        [values["y"]],
        [helper.make_tensor(name, TensorProto.FLOAT, [], [v]) for name, v in constants.items()],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=OPSETS)
    onnx.save(made, path)
    return path


@pytest.fixture
def measure(tmp_path: Path) -> Iterator[Measure]:
    """What the bounds show of a graph whose reference is another one."""
    settings = Settings(tmp_path / "cache", tmp_path / "scratch", lock=tmp_path / "lock", sharers=2)
    workbench = Workbench(settings)

    def measured(candidate: list[Any], reference: list[Any], budget: Budget | None = None) -> Any:
        model = Model(
            save(tmp_path / "reference.onnx", reference),
            inputs=[Input("x", ("batch", 4), low=0, high=1)],
            outputs=["y"],
            artifacts={"ort": save(tmp_path / "m.onnx", candidate)},
        )
        case = Case("m", "", find_target("ort"), "fp32", model, budget or Budget())
        return boundary.measure(workbench, case)

    yield measured
    workbench.close()


def test_a_guard_that_the_file_lost_shows_at_the_bound_that_it_was_for(measure: Measure) -> None:
    found = measure(LOG, GUARDED)
    (failure,) = found.failures
    assert failure.startswith("with all inputs at their lowest (declared domain): the candidate's ")
    assert "has 4 NaN or infinite values, the first is -inf" in failure
    assert found.warnings == ()
    # Zero is the lower bound: it is run once.
    assert set(found.measurements["boundary"]) == {"low", "high"}


def test_a_sound_file_has_no_finding(measure: Measure) -> None:
    found = measure(GUARDED, GUARDED)
    assert (found.failures, found.warnings) == ((), ())
    assert max(found.measurements["boundary"].values()) < 1e-3


def test_a_reference_that_breaks_at_a_bound_is_a_warning(measure: Measure) -> None:
    found = measure(LOG, LOG)
    (warning,) = found.warnings
    assert "with all inputs at their lowest (declared domain): the reference's output" in warning
    assert found.failures == ()


def test_inputs_without_valid_bounds_stay_random(tmp_path: Path) -> None:
    """A mean over what a mask keeps: 0 / 0 where it keeps nothing, on both sides."""
    kinds = {"x": TensorProto.FLOAT, "keep": TensorProto.FLOAT, "y": TensorProto.FLOAT}
    values = {
        name: helper.make_tensor_value_info(name, kind, ["batch", 64] if name != "y" else None)
        for name, kind in kinds.items()
    }
    nodes = [
        node("Mul", ["x", "keep"], ["kept"]),
        node("ReduceSum", ["kept", "axis"], ["sum"]),
        node("ReduceSum", ["keep", "axis"], ["count"]),
        node("Div", ["sum", "count"], ["y"]),
    ]
    axis = [helper.make_tensor("axis", TensorProto.INT64, [1], [1])]
    graph = helper.make_graph(nodes, "g", [values["x"], values["keep"]], [values["y"]], axis)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=OPSETS), path)

    def warnings(**options: Any) -> tuple[str, ...]:
        name = f"m{len(options)}"
        settings = Settings(tmp_path / "cache", tmp_path / name, lock=tmp_path / "lock", sharers=2)
        workbench = Workbench(settings)
        keep = Input("keep", ("batch", 64), low=0, high=1, **options)
        x = Input("x", ("batch", 64), low=1, high=2)
        model = Model(path, inputs=[x, keep], outputs=["y"])
        case = Case(name, "", find_target("ort"), "fp32", model, Budget())
        found = boundary.measure(workbench, case)
        workbench.close()
        assert found.failures == ()
        return found.warnings

    (warning,) = warnings()
    assert "with all inputs at their lowest" in warning
    assert warnings(bounds=False) == ()


def test_an_error_fails_by_the_fixed_limits_where_nothing_is_known_of_rounding(
    measure: Measure,
) -> None:
    found = measure(FUSED_BUT_AT_BOUND, FUSED)
    (failure,) = found.failures
    assert failure.startswith("with all inputs at their highest (declared domain): ")


def test_an_error_fails_where_rounding_is_known_or_the_limit_is_stated(measure: Measure) -> None:
    found = measure(AT_BOUND, GUARDED)
    (failure,) = found.failures
    assert failure.startswith("with all inputs at their highest (declared domain): ")
    assert found.warnings == ()
    stated = measure(AT_BOUND, GUARDED, Budget(max_abs_error=0.5))
    (failure,) = stated.failures
    assert "max_abs_error[y] 1 is not <= 0.5 (budget)" in failure
