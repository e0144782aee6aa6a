"""Adversarial inputs on real runs: what fails is found, made small, kept, and tried again."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck import workbench
from edgecheck.checks import fuzz
from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case
from edgecheck.declare.model import Input, Model
from edgecheck.declare.settings import Settings
from edgecheck.errors import EdgecheckError
from edgecheck.judge.verdict import Evidence
from edgecheck.targets.registry import find_target
from edgecheck.workbench import Workbench

node = helper.make_node
DOUBLE = [node("Add", ["x", "x"], ["y"])]
# Double, but for the upper bound.
AT_BOUND = [
    node("Add", ["x", "x"], ["twice"]),
    node("Less", ["x", "high"], ["inside"]),
    node("Where", ["inside", "twice", "x"], ["y"]),
]
RECIPROCAL = [node("Reciprocal", ["x"], ["y"])]
# Makes two samples of one where there are five.
ROWS = [node("Concat", ["x", "x"], ["both"], axis=0), node("Slice", ["both", "one", "six"], ["y"])]
ORT = find_target("ort")
Measure = Callable[..., Evidence]


def save(path: Path, nodes: list[Any], batch: int | str = "batch") -> Path:
    constants = {"one": [1], "six": [6]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("high", TensorProto.FLOAT, [], [1.0]),
            *(helper.make_tensor(name, TensorProto.INT64, [1], v) for name, v in constants.items()),
        ],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(made, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    folder = tmp_path_factory.mktemp("run")
    settings = Settings(folder / "cache", folder / "scratch", lock=folder / "lock", sharers=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "_WARM_DEVICES", 12)  # graphs stay loaded for the next test
        made = Workbench(settings)
    yield made
    made.close()


@pytest.fixture
def measure(run: Workbench, tmp_path: Path) -> Iterator[Measure]:
    """What adversarial inputs show of a graph whose reference is another one.

    The same graphs without a name are the same candidate in all tests.
    """
    before = run.settings

    def measured(
        candidate: list[Any],
        reference: list[Any] = DOUBLE,
        *,
        name: str = "",
        precision: str = "fp32",
        budget: Budget | None = None,
        batch: int | str = "batch",
        **changes: Any,
    ) -> Evidence:
        run.settings = replace(before, **{"fuzz": 60, "fuzz_folder": tmp_path / "kept", **changes})
        shared = repr((candidate, reference, precision, batch)).encode()
        model_name = f"{tmp_path.name}-{name}" if name else hashlib.sha256(shared).hexdigest()[:12]
        model = Model(
            save(tmp_path / f"{name}-reference.onnx", reference),
            inputs=[Input("x", ("batch", 4), low=0, high=1)],
            outputs=["y"],
            artifacts={("ort", precision): save(tmp_path / f"{name}.onnx", candidate, batch)},
        )
        case = Case(model_name, "", ORT, precision, model, budget or Budget())
        return fuzz.measure(run, case)

    yield measured
    run.settings = before


def kept(folder: Path) -> Path:
    (path,) = (folder / "kept").iterdir()
    return path


def test_a_fault_at_the_upper_bound_alone_is_found_made_small_and_kept(
    measure: Measure, tmp_path: Path
) -> None:
    found = measure(AT_BOUND)
    path = kept(tmp_path)
    (failure,) = found.failures
    assert failure.startswith(f"adversarial input {path.name}: ")
    assert "[y] 0.5 is not <= 0.0001 (default)" in failure
    array = fuzz.load(path)["x"]
    assert array.shape == (1, 4) and sorted(array.ravel()) == [0, 0, 0, 1]
    assert "x: float32 (1, 4), 0 but for 1 at [0, " in found.details
    assert found.measurements["fuzz"]["failing"] == path.name
    assert 1 <= found.measurements["fuzz"]["examples"] <= 60


def test_it_is_found_again_the_same_and_tried_first_then(measure: Measure, tmp_path: Path) -> None:
    measure(AT_BOUND, name="a")
    first = kept(tmp_path)
    content = first.read_bytes()
    first.unlink()
    measure(AT_BOUND, name="b")  # another process would find it as anew
    again = kept(tmp_path)
    assert again.read_bytes() == content
    assert again.name.rpartition("-")[2] == first.name.rpartition("-")[2]
    found = measure(AT_BOUND, name="b", fuzz=1)
    assert "kept from an earlier run" in found.details
    assert found.measurements["fuzz"]["examples"] == 0


def test_what_was_kept_passes_on_a_repaired_candidate(measure: Measure, tmp_path: Path) -> None:
    measure(AT_BOUND, name="a")
    path = kept(tmp_path)
    path.rename(path.with_name(path.name.replace("-a-", "-b-")))
    found = measure(DOUBLE, name="b")
    assert (found.failures, found.warnings) == ((), ())
    assert found.measurements["fuzz"]["kept"] == 1
    assert measure(DOUBLE, name="c").measurements["fuzz"]["kept"] == 0  # another's


def test_a_sound_candidate_has_no_finding_in_many_inputs(measure: Measure, tmp_path: Path) -> None:
    found = measure(DOUBLE, fuzz=200)
    assert (found.failures, found.warnings, found.details) == ((), (), "")
    assert 150 <= found.measurements["fuzz"]["examples"] <= 200
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("batch", [1, 2])
def test_a_file_with_a_fixed_batch_is_given_that(measure: Measure, batch: int) -> None:
    found = measure(DOUBLE, batch=batch, fuzz=30)
    assert found.failures == ()
    assert f"batch {batch}" in found.measurements["fuzz"]["worst"]


def test_none_are_tried_where_none_are_asked_for(measure: Measure) -> None:
    assert measure(AT_BOUND, fuzz=0) == Evidence()
    assert measure(AT_BOUND, fuzz=None) == Evidence()


def test_nan_and_infinity_at_a_bound_fail(measure: Measure) -> None:
    (failure,) = measure(RECIPROCAL, RECIPROCAL).failures
    assert "NaN or infinite values, the first is inf at (0, " in failure


def test_a_quantized_candidate_must_only_come_out_finite_and_in_shape(measure: Measure) -> None:
    assert measure(AT_BOUND, name="a", precision="int8").failures == ()
    assert measure(RECIPROCAL, name="b", precision="int8").failures != ()
    (failure,) = measure(ROWS, name="c", precision="int8").failures
    assert "has shape (3, 4), the reference (2, 4)" in failure


def test_a_limit_that_is_stated_is_the_one_that_holds(measure: Measure) -> None:
    wide = Budget(max_relative_error=0.6, sqnr_db=-10)
    found = measure(AT_BOUND, budget=wide)
    assert found.failures == ()
    assert 0.5 <= found.measurements["fuzz"]["score"] < 1
    (failure,) = measure(AT_BOUND, name="b", budget=Budget(max_abs_error=0.9)).failures
    assert "(budget)" in failure or "(default)" in failure


# -- replayed and saved inputs


def test_a_saved_input_is_replayed_alone(measure: Measure, tmp_path: Path) -> None:
    path = fuzz.save({"x": np.ones((2, 4), np.float32)}, tmp_path, "mine")
    found = measure(AT_BOUND, fuzz=0, replay=path)
    assert "(replayed)" in found.details
    assert found.failures != () and not (tmp_path / "kept").exists()
    inside = fuzz.save({"x": np.zeros((2, 4), np.float32)}, tmp_path, "mine")
    assert measure(AT_BOUND, replay=inside).failures == ()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"z": np.zeros((1, 4), np.float32)}, "it has ['z'], the inputs are ['x']"),
        ({"x": np.zeros((1, 4))}, "'x' is float64, not float32"),
        ({"x": np.zeros((1, 5), np.float32)}, "'x' has shape (1, 5), not ('batch', 4)"),
        ({"x": np.zeros((0, 4), np.float32)}, "'x' has shape (0, 4), not ('batch', 4)"),
        ({"x": np.zeros(4, np.float32)}, "'x' has shape (4,), not ('batch', 4)"),
    ],
)
def test_an_input_of_another_model_is_an_error_to_replay_and_a_warning_where_kept(
    measure: Measure, tmp_path: Path, arrays: dict[str, Any], says: str
) -> None:
    path = fuzz.save(arrays, tmp_path, "other")
    with pytest.raises(EdgecheckError) as caught:
        measure(DOUBLE, name="m", replay=path)
    assert str(caught.value).endswith(says)
    fuzz.save(arrays, tmp_path / "kept", f"{tmp_path.name}-m-ort-fp32")
    (warning,) = measure(DOUBLE, name="m", fuzz=5).warnings
    assert "is not tried, delete it" in warning and warning.endswith(says)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a file of arrays"])
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(EdgecheckError, match=r"broken\.npz is not an \.npz file of inputs"):
        fuzz.load(path)
    with pytest.raises(EdgecheckError, match=r"is not an \.npz file of inputs"):
        fuzz.load(tmp_path / "absent.npz")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", x=np.array([object()], dtype=object))
    with pytest.raises(EdgecheckError, match=r"is not an \.npz file of inputs"):
        fuzz.load(tmp_path / "pickled.npz")


def test_inputs_come_back_as_they_were_saved(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "file": np.array([[1.5, np.nan]], np.float32),
        "a/b.c": np.arange(3, dtype=np.int64),
        "flag": np.array(True),
    }
    path = fuzz.save(arrays, tmp_path / "new", "m")
    assert fuzz.save(arrays, tmp_path / "new", "m") == path
    loaded = fuzz.load(path)
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype


# -- whole runs

EDGE = """
import onnx


def write_edge(path):
    # What is at the upper bound counts half.
    file = onnx.load(HERE / "tiny_file.onnx")
    for node in file.graph.node:
        node.input[:] = ["halved" if name == "x" else name for name in node.input]
    numbers = {"high": 1.0, "half": 0.5}
    for name, value in numbers.items():
        file.graph.initializer.append(onnx.helper.make_tensor(name, 1, [], [value]))
    node = onnx.helper.make_node
    for position, made in enumerate([
        node("GreaterOrEqual", ["x", "high"], ["at_bound"]),
        node("Mul", ["x", "half"], ["less"]),
        node("Where", ["at_bound", "less", "x"], ["halved"]),
    ]):
        file.graph.node.insert(position, made)
    onnx.save(file, path)


write_edge(HERE / "edge.onnx")


class TestEdge(Conformance):
    model = file_model(artifacts={"ort": HERE / "edge.onnx"})
"""
SUITE = """
class Cancelling(torch.nn.Module):
    # On constant inputs nothing but rounding: of the model, not of its export.
    def __init__(self):
        super().__init__()
        weight = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
        self.weight = torch.nn.Parameter(weight - weight.mean(0))

    def forward(self, x):
        return torch.tanh(1e6 * (x @ self.weight))


def reordered(module, path):
    # The same sums in another order.
    import onnx
    node, weight = onnx.helper.make_node, module.weight.detach().numpy()
    value = onnx.helper.make_tensor_value_info
    nodes, constants = [], {"axis": np.array([1]), "scale": np.array(1e6, np.float32)}
    for name, low, high in (("last", 5, 16), ("first", 0, 5)):
        constants |= {f"{name}_low": np.array([low]), f"{name}_high": np.array([high]),
                      f"{name}_weight": weight[low:high]}
        nodes += [node("Slice", ["x", f"{name}_low", f"{name}_high", "axis"], [f"{name}_x"]),
                  node("MatMul", [f"{name}_x", f"{name}_weight"], [f"{name}_sum"])]
    nodes += [node("Add", ["last_sum", "first_sum"], ["sum"]),
              node("Mul", ["sum", "scale"], ["large"]), node("Tanh", ["large"], ["logits"])]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("x", 1, ["batch", 16])], [value("logits", 1, ["batch", 4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=opsets), path)


class TestSound(Conformance):
    model = model(targets={"ort": ["fp32", "fp16"]}, fuzz=200)


class TestCancelling(Conformance):
    model = model(lambda: Cancelling().eval(), builders={"ort": reordered})
"""


def test_a_run_finds_it_and_says_how_to_try_it_again(judge: Any) -> None:
    parity = ("--edge-targets=ort", "--edge-checks=parity")
    found = judge(EDGE + SUITE, *parity, "--edge-fuzz=100")
    cases = {key.removesuffix("/parity"): case for key, case in found.cases.items()}
    verdicts = {key: case["verdict"] for key, case in cases.items()}
    assert verdicts == {
        "edge/ort/fp32": "failed",
        "sound/ort/fp32": "passed",
        "sound/ort/fp16": "passed",
        "cancelling/ort/fp32": "passed",
    }, found.output
    assert cases["cancelling/ort/fp32"]["measurements"]["fuzz"]["rounding"] > 0
    command = cases["edge/ort/fp32"]["details"].partition("try it again with\n")[2]
    pytest_word, test, replay = shlex.split(command.splitlines()[0])
    assert (pytest_word, test) == ("pytest", "test_suite.py::TestEdge::test_parity[ort-fp32]")
    again = judge(EDGE, test, replay)
    assert again.status == 1
    assert "(replayed)" in again.output
    assert math.isfinite(again.cases["edge/ort/fp32/parity"]["measurements"]["fuzz"]["score"])
