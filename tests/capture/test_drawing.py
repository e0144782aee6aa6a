"""Inputs of one call: those that the user draws are checked, and used wherever calls are random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgecheck.capture.drawing import drawn_inputs, random_call, tied_inputs
from edgecheck.declare.model import Input
from edgecheck.errors import DataError
from tests.conftest import Judge

IDS = Input("ids", ("batch", "length"), low=0, high=99, dtype="int64")
KEEP = Input("keep", ("batch", "length"), low=0, high=1, dtype="int64")
SIZES = {"batch": 2, "length": 5}


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def keep_some(sizes: dict[str, int], rng: np.random.Generator) -> Mapping[str, Any]:
    """The first entries of each row, at least one."""
    kept = rng.integers(1, sizes["length"], sizes["batch"], endpoint=True)
    return {"keep": np.arange(sizes["length"]) < kept[:, None]}


def test_drawn_inputs_replace_random_ones_and_take_the_declared_dtype() -> None:
    found = random_call([IDS, KEEP], SIZES, rng(), keep_some)
    assert found["keep"].dtype == np.int64
    assert (found["keep"][:, 0] == 1).all()
    alone = random_call([IDS, KEEP], SIZES, rng(), None)
    np.testing.assert_array_equal(found["ids"], alone["ids"])
    again = random_call([IDS, KEEP], SIZES, rng(), keep_some)
    np.testing.assert_array_equal(found["keep"], again["keep"])


def test_inputs_that_are_drawn_or_have_no_valid_bounds_are_tied() -> None:
    whole = Input("whole", ("batch",), bounds=False)
    assert tied_inputs([IDS, KEEP], SIZES, None) == frozenset()
    assert tied_inputs([IDS, KEEP, whole], SIZES, keep_some) == {"keep", "whole"}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"draw returned None; it returns arrays by input name \(ids, keep\)"),
        ({}, r"draw returned {}; it returns arrays by input name"),
        ({"mask": 1}, r"draw returned \['mask'\], but the inputs are \['ids', 'keep'\]"),
        (
            {"keep": np.ones((2, 4), int)},
            r"draw returned 'keep' of shape \(2, 4\); the shape is \(2, 5\) for ",
        ),
        (
            {"keep": np.full((2, 5), 2)},
            r"draw returned 'keep' with values 2\.\.2, outside of its domain 0\.\.1",
        ),
        (
            {"keep": np.ones((2, 5))},
            r"what draw returned for input 'keep' is float64; the input is int64",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_error(returned: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        drawn_inputs([IDS, KEEP], SIZES, rng(), lambda sizes, rng: returned)


def test_an_error_in_the_users_function_is_told_with_its_place() -> None:
    def broken(sizes: dict[str, int], rng: np.random.Generator) -> Mapping[str, Any]:
        raise KeyError("lenght")

    with pytest.raises(DataError, match=r"draw raised KeyError: 'lenght' \(.*test_drawing\.py:\d+"):
        drawn_inputs([IDS, KEEP], SIZES, rng(), broken)


# The window [start, start + length) of 8 values: the sum of both is an index that must exist, and a
# window of nothing has no mean.
WINDOW = """
import onnx
from onnx import TensorProto, helper


def write(path):
    node = helper.make_node
    shapes = {"signal": [8], "start": ["batch"], "length": ["batch"]}
    kinds = {"signal": TensorProto.FLOAT}
    values = {
        name: helper.make_tensor_value_info(name, kinds.get(name, TensorProto.INT64), shape)
        for name, shape in shapes.items()
    }
    nodes = [
        node("CumSum", ["signal", "zero"], ["sums"]),
        node("Add", ["start", "length"], ["end"]),
        node("Gather", ["sums", "end"], ["above"]),
        node("Gather", ["sums", "start"], ["below"]),
        node("Sub", ["above", "below"], ["sum"]),
        node("Cast", ["length"], ["count"], to=TensorProto.FLOAT),
        node("Div", ["sum", "count"], ["mean"]),
    ]
    graph = helper.make_graph(
        nodes,
        "window",
        list(values.values()),
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("zero", TensorProto.INT64, [], [0])],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(made, path)
    return path


def window(sizes, rng):
    start = rng.integers(0, 7, sizes["batch"])
    return {"start": start, "length": rng.integers(1, 8 - start)}


def windowed(**options):
    return Model(
        write(HERE / "window.onnx"),
        inputs=[
            Input("signal", (8,), low=-1.0, high=1.0),
            Input("start", ("batch",), low=0, high=7, dtype="int64"),
            Input("length", ("batch",), low=0, high=7, dtype="int64"),
        ],
        outputs=["mean"],
        fuzz=30,
        **options,
    )


class TestValid(Conformance):
    model = windowed(draw=window)


class TestAny(Conformance):
    model = windowed()
"""
TORCH = """
class Placed(torch.nn.Module):
    def forward(self, x, index):  # an index of 4..7 does not exist
        return torch.gather(x, 1, index)


def placed():
    return Placed().eval()


def indices(sizes, rng):
    return {"index": rng.integers(0, 4, (sizes["batch"], 3))}


class TestPlaced(Conformance):
    model = Model(
        placed,
        inputs=[
            Input("x", ("batch", 4)),
            Input("index", ("batch", 3), low=0, high=7, dtype="int64"),
        ],
        outputs=["y"],
        draw=indices,
    )
"""


def test_a_model_that_takes_valid_calls_only_is_judged_on_those(judge: Judge) -> None:
    run = judge(WINDOW, "--edge-targets=ort", "--edge-precisions=fp32")
    valid = {key: case for key, case in run.cases.items() if key.startswith("valid/")}
    assert {case["verdict"] for case in valid.values()} == {"passed"}, run.output
    measured = run.cases["valid/ort/fp32/parity"]["measurements"]
    # Zero is not at the signal's low end: three calls, none with a window at a bound.
    assert set(measured["boundary"]) == {"low", "high", "zero"}
    assert measured["fuzz"]["examples"] == 30
    assert run.cases["any/ort/fp32/parity"]["verdict"] == "failed"


def test_a_module_is_captured_with_a_valid_call(judge: Judge) -> None:
    run = judge(TORCH, "--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=parity")
    assert run.cases["placed/ort/fp32/parity"]["verdict"] == "passed", run.output
