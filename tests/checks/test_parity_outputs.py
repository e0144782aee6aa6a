"""Parity of outputs that one figure can't judge: parts, labels, NaN by design; on real files."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Judge

# One file a network: y = f(x), with the candidate's made by another graph where it is broken.
_FILES = """
import onnx
from onnx import TensorProto, helper, numpy_helper

def graph(path, nodes, constants, dtype=TensorProto.FLOAT, shape=("batch", 16)):
    if Path(path).is_file():
        return path
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", dtype, list(shape))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(made, ir_version=10, opset_imports=opsets), path)
    return path

def file_of(reference, candidate, output, budget=Budget(), **options):
    class Suite(Conformance):
        model = Model(
            source=HERE / reference, inputs=[X], outputs=[output], samples=inputs,
            artifacts={("ort", "int8"): HERE / candidate}, name="m", **options,
        )
    Suite.budget = budget
    return Suite

NODE = helper.make_node
SCALES = np.array([500.0] * 4 + [1.0] * 12, np.float32)
STEP = np.float32(2.0)
"""
_LOSSY = """
graph(HERE / "parts.onnx", [NODE("Mul", ["x", "s"], ["y"])], {"s": SCALES})
graph(HERE / "lossy.onnx", [
    NODE("Mul", ["x", "s"], ["a"]), NODE("Div", ["a", "q"], ["b"]), NODE("Round", ["b"], ["c"]),
    NODE("Mul", ["c", "q"], ["y"]),
], {"s": SCALES, "q": STEP})
"""
_LABELS = """
def labels(path, shift):
    graph(HERE / path, [
        NODE("ArgMax", ["x"], ["a"], axis=1, keepdims=0), NODE("Add", ["a", "k"], ["y"]),
    ], {"k": np.int64(shift)}, TensorProto.INT64, ("batch",))
labels("labels.onnx", 0)
labels("shifted.onnx", 1)
"""
_LOGS = """
def logs(path, threshold):
    graph(HERE / path, [
        NODE("Greater", ["x", "t"], ["a"]), NODE("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        NODE("Log", ["b"], ["c"]), NODE("Add", ["c", "x"], ["y"]),
    ], {"t": np.float32(threshold)})
logs("logs.onnx", 0.3)
logs("other.onnx", 0.5)
"""


def failures(judge: Judge, files: str, suite: str) -> str:
    """All failures of the parity of an int8 file."""
    judged = judge(
        f"{_FILES}{files}\nTestM = {suite}",
        *("--edge-targets=ort", "--edge-precisions=int8", "-k", "parity"),
    )
    case: dict[str, Any] = judged.cases["m/ort/int8/parity"]
    return "\n".join(case["failures"])


PARTS = 'edgecheck.Output("y", parts={"boxes": slice(0, 4), "scores": slice(4, None)})'


def test_scores_beside_pixels_are_lost(judge: Judge) -> None:
    text = failures(judge, _LOSSY, 'file_of("parts.onnx", "lossy.onnx", "y")')
    assert "indices 4..15 of axis 1" in text
    assert "sqnr_db[y]" not in text


def test_a_budget_names_a_part(judge: Judge) -> None:
    budget = 'Budget(part_sqnr_db={"y/boxes": 90, "default": -10})'
    text = failures(judge, _LOSSY, f'file_of("parts.onnx", "lossy.onnx", {PARTS}, {budget})')
    assert "part_sqnr_db[y/boxes]" in text
    assert "scores" not in text


def test_labels_one_too_high_fail(judge: Judge) -> None:
    text = failures(judge, _LABELS, 'file_of("labels.onnx", "shifted.onnx", "y")')
    assert "label_agreement[y] 0 is not >= 0.68 (default)" in text
    assert "sqnr_db" not in text


DECLARED = 'edgecheck.Output("y", nonfinite="match")'


@pytest.mark.parametrize(
    ("output", "candidate", "said"),
    [
        (DECLARED, "logs.onnx", ""),
        (DECLARED, "other.onnx", "is NaN or infinite in other places than the reference"),
        ('"y"', "logs.onnx", "declare Output('y', nonfinite=\"match\")"),
    ],
)
def test_infinity_by_design_is_compared_where_it_is_declared(
    judge: Judge, output: str, candidate: str, said: str
) -> None:
    text = failures(judge, _LOGS, f'file_of("logs.onnx", "{candidate}", {output})')
    assert said in text
    assert bool(text) == bool(said)
