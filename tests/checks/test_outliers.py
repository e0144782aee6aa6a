"""Evaluation samples that a float candidate gets wrong, which the metric does not show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgecheck.checks import accuracy
from edgecheck.checks.outliers import relative_errors
from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case
from edgecheck.declare.model import Evaluation, Input, Model
from edgecheck.declare.settings import Settings
from edgecheck.judge.verdict import Outcome, Verdict
from edgecheck.targets.registry import find_target
from edgecheck.workbench import USER_SAMPLES, Workbench

SAMPLES = 200


def save(path: Path, highest: float) -> Path:
    """``y = min(x, highest)``, which turns no row's largest entry into another."""
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"
    }
    graph = helper.make_graph(
        [helper.make_node("Min", ["x", "highest"], ["y"])],
        "g",
        [values["x"]],
        [values["y"]],
        [helper.make_tensor("highest", TensorProto.FLOAT, [], [highest])],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opset), path)
    return path


@pytest.fixture
def workbench(tmp_path: Path) -> Iterator[Workbench]:
    made = Workbench(
        Settings(tmp_path / "cache", tmp_path / "scratch", lock=tmp_path / "lock", sharers=2)
    )
    yield made
    made.close()


def judged(
    workbench: Workbench, folder: Path, loud: int, precision: str = "fp32", first: int = 100
) -> Verdict:
    """The accuracy of a file that clips, on data of which so many samples are clipped."""
    data = np.tile(np.array([0.5, 0.1, 0.2], np.float32), (SAMPLES, 1))
    data[first : first + loud, 0] = 1.0
    model = Model(
        save(folder / "reference.onnx", 2.0),
        inputs=[Input("x", ("batch", 3))],
        outputs=["y"],
        artifacts={("ort", precision): save(folder / "m.onnx", 0.9)},
        evaluation=Evaluation(data, np.arange(SAMPLES) % 2, metric="top1"),
    )
    case = Case("m", "", find_target("ort"), precision, model, Budget())
    return accuracy.run(workbench, case)


@pytest.mark.parametrize("loud", [0, 1, 2, 20])
def test_a_share_of_samples_fails_and_a_single_one_warns(
    workbench: Workbench, tmp_path: Path, loud: int
) -> None:
    found = judged(workbench, tmp_path, loud)
    told = [text for text in found.failures + found.warnings if "evaluation samples" in text]
    assert len(told) == (loud > 0)
    assert bool(told) is (loud > 0)
    assert (found.outcome is Outcome.FAILED) == (loud >= 2)
    assert all(f"on {loud} of 200 evaluation samples" in text for text in told)
    assert all("on sample 100 max_relative_error[y] 0.1 is not <=" in text for text in told)


def test_what_parity_sees_is_left_to_it(workbench: Workbench, tmp_path: Path) -> None:
    found = judged(workbench, tmp_path, 20, first=USER_SAMPLES - 1)
    assert found.outcome is Outcome.PASSED
    assert not any("evaluation samples" in text for text in found.warnings)


def test_fp16_warns_only(workbench: Workbench, tmp_path: Path) -> None:
    found = judged(workbench, tmp_path, 20, "fp16")
    assert found.outcome is Outcome.PASSED
    assert any("20 of 200 evaluation samples" in text for text in found.warnings)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 9), st.integers(0, 8), st.floats(0.01, 10.0))
def test_an_error_is_its_samples_own_and_relative_to_the_largest_value(
    samples: int, place: int, error: float
) -> None:
    expected = np.random.default_rng(0).normal(size=(samples, 4, 2)).astype(np.float32)
    candidate = expected.astype(np.float64)
    candidate[place % samples, 1] += error
    found = relative_errors(candidate, expected, samples)
    wanted = np.zeros(samples)
    wanted[place % samples] = error / np.abs(expected).max()
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_outputs_without_a_row_a_sample_are_left_out() -> None:
    assert not relative_errors(np.ones((4, 2)), np.zeros((3, 2)), 3).any()
    assert not relative_errors(np.ones(3, int), np.zeros(3, int), 3).any()
    assert not relative_errors(np.ones((2, 2)), np.zeros((2, 2)), 3).any()
