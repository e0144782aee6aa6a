"""Data whose samples are whole calls: of a model with scalars, or with state of another batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecheck.capture.calls import join_outputs, save_calls
from edgecheck.capture.data import materialize, save_feed
from edgecheck.declare.inputs import takes_whole_calls
from edgecheck.declare.model import Input
from edgecheck.errors import DataError
from tests.conftest import Judge

FRAME = Input("frame", (1, 4, 3), low=-1)
STATE = Input("state", (2, 1, 5), low=-1)
GAIN = Input("gain", ())
ROWS = Input("rows", ("batch", 4))


def test_a_sample_is_a_whole_call_where_inputs_share_no_batch() -> None:
    assert takes_whole_calls([FRAME, STATE])
    assert takes_whole_calls([ROWS, GAIN])
    assert takes_whole_calls([GAIN])
    assert takes_whole_calls([ROWS, FRAME])
    assert not takes_whole_calls([ROWS])
    assert not takes_whole_calls([FRAME, Input("other", (1, 9))])


def arrays(count: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"frame": (1, 4, 3), "state": (2, 1, 5), "gain": ()}
    return {
        name: rng.uniform(0, 1, (count, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("form", ["stacked", "samples"])
def test_whole_calls_are_stored_and_read_one_by_one(form: str, tmp_path: Path) -> None:
    given = arrays()
    samples = [{name: array[call] for name, array in given.items()} for call in range(6)]
    data: Any = given if form == "stacked" else iter(samples)
    stored = materialize(data, None, [FRAME, STATE, GAIN], tmp_path, "samples", labelled=False)
    assert stored.count == 6
    feeds = save_calls(stored.inputs, [4, 1], tmp_path / "calls")
    for feed, call in zip(feeds, (4, 1), strict=True):
        for name, path in feed.items():
            np.testing.assert_array_equal(np.load(path), given[name][call], strict=True)


def test_a_call_of_one_row_may_lack_the_batch_axis(tmp_path: Path) -> None:
    data = {"rows": np.ones((3, 4), np.float32), "gain": np.ones(3, np.float32)}
    stored = materialize(data, None, [ROWS, GAIN], tmp_path, "samples", labelled=False)
    assert np.load(stored.inputs["rows"]).shape == (3, 1, 4)


def test_a_call_of_another_shape_is_refused(tmp_path: Path) -> None:
    data = {**arrays(), "state": np.ones((6, 1, 1, 5), np.float32)}
    message = (
        r"input 'state' has shape \(1, 1, 5\) in a call; expected \(2, 1, 5\): the inputs share"
    )
    with pytest.raises(DataError, match=message):
        materialize(data, None, [FRAME, STATE, GAIN], tmp_path, "samples", labelled=False)


def test_outputs_of_calls_are_joined_in_place_of_a_batch_of_one(tmp_path: Path) -> None:
    calls = [
        save_feed(
            {
                "scores": np.full((1, 7), call),
                "state": np.full((2, 1, 3), call),
                "mean": np.array(call),
            },
            tmp_path / str(call),
        )
        for call in range(3)
    ]
    joined = {name: np.load(path) for name, path in join_outputs(calls, tmp_path).items()}
    assert {name: array.shape for name, array in joined.items()} == {
        "scores": (3, 7),
        "state": (3, 2, 1, 3),
        "mean": (3,),
    }
    assert joined["mean"].tolist() == [0, 1, 2]


# Two layers of state, a gain, a scalar output; a weight whose quantization the ranges decide.
STEP = """
import onnx
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
RNG = np.random.default_rng(0)


def tensors(shapes):
    return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]


def write(path):
    weight = RNG.normal(0, 0.3, (16, 16)).astype(np.float32)
    nodes = [
        node("Mul", ["frame", "gain"], ["louder"]),
        node("MatMul", ["louder", "weight"], ["mixed"]),
        node("Add", ["mixed", "state"], ["sum"]),
        node("Tanh", ["sum"], ["state_out"]),
        node("ReduceSum", ["state_out", "axis"], ["scores"], keepdims=0),
        node("ReduceMean", ["state_out"], ["mean"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([0]), "axis"),
    ]
    state = {"state": [2, 1, 16]}
    graph = helper.make_graph(
        nodes,
        "step",
        tensors({"frame": [1, 16], **state, "gain": []}),
        tensors({"scores": [1, 16], "state_out": [2, 1, 16], "mean": []}),
        constants,
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opsets), path)
    return path


def calls(count=24):
    rng = np.random.default_rng(1)
    uniform = lambda *shape: rng.uniform(-1, 1, (count, *shape)).astype(np.float32)
    return {"frame": uniform(1, 16), "state": uniform(2, 1, 16), "gain": uniform() / 2 + 1.5}


def labels():
    import onnxruntime

    session = onnxruntime.InferenceSession(HERE / "step.onnx")
    data = calls()
    feeds = [{name: np.asarray(array[call]) for name, array in data.items()} for call in range(24)]
    return np.array([session.run(["scores"], feed)[0].argmax() for feed in feeds])


class TestStep(Conformance):
    model = Model(
        write(HERE / "step.onnx"),
        inputs=[
            Input("frame", (1, 16), low=-1.0, high=1.0),
            Input("state", (2, 1, 16), low=-1.0, high=1.0),
            Input("gain", (), low=1.0, high=2.0),
        ],
        outputs=["scores", "state_out", "mean"],
        calibration=calls,
        evaluation=Evaluation(calls, labels, metric=metrics.top1, output="scores"),
        fuzz=20,
    )
"""


def test_a_model_with_scalars_and_state_is_judged_on_whole_calls(judge: Judge) -> None:
    run = judge(STEP, "--edge-targets=ort", "--edge-precisions=fp32,int8")
    assert {case["verdict"] for case in run.cases.values()} == {"passed"}, run.output
    accuracy = run.cases["step/ort/fp32/accuracy"]["measurements"]
    assert accuracy["samples"] == 24
