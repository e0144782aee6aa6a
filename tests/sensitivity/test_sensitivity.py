"""Which layers to keep in float: the ranking, the search, and that the recipe really works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgecheck import Budget, Evaluation, Input, Model
from edgecheck.declare import metrics
from edgecheck.declare.case import Case
from edgecheck.declare.settings import Settings
from edgecheck.errors import EdgecheckError
from edgecheck.judge.verdict import Outcome, Verdict
from edgecheck.sensitivity import description, sensitivity
from edgecheck.sensitivity.rebuilding import Attempt
from edgecheck.targets.registry import find_target
from edgecheck.workbench import Workbench


class Mixed(torch.nn.Module):
    """Half of the inputs are a thousand times as large, which `stem` undoes.

    With one scale for all inputs the small ones are lost; no other layer minds. `wide` and `after`
    do the same between them where asked to.
    """

    def __init__(self, apart: bool) -> None:
        super().__init__()
        self.stem = torch.nn.Linear(16, 24)
        self.wide = torch.nn.Linear(24, 24)
        self.after = torch.nn.Linear(24, 48)
        self.head = torch.nn.Linear(48, 48)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                width = parameter.shape[1] ** 0.5 if parameter.dim() > 1 else 4.0
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.4 / width)
            if apart:
                self.wide.weight[:3] *= 3000
                self.wide.bias[:3] *= 3000
                self.after.weight[:, :3] /= 3000
            else:
                self.stem.weight[:, :8] /= 3000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.wide(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.after(x)))


def large_inputs() -> torch.nn.Module:
    return Mixed(apart=False).eval()


def large_between() -> torch.nn.Module:
    return Mixed(apart=True).eval()


def samples(large: float) -> np.ndarray:
    x = np.random.default_rng(1).uniform(-1, 1, (96, 16)).astype(np.float32)
    x[:, :8] *= large
    return x


def labels(source: Callable[[], torch.nn.Module], x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return source()(torch.from_numpy(x)).argmax(1).numpy()


def make_case(name: str, target: str, precision: str = "int8", **budget: Any) -> Case:
    source, large = (large_inputs, 3000.0) if name == "inputs" else (large_between, 1.0)
    x = samples(large)
    model = Model(
        source,
        inputs=[Input("x", ("batch", 16), low=-large, high=large)],
        outputs=["scores"],
        calibration=x,
        evaluation=Evaluation(x, labels(source, x), metric=metrics.top1),
    )
    limits = Budget(**{"sqnr_db": 25, "accuracy_drop": 0.1, **budget})
    return Case(name, "", find_target(target), precision, model, limits)


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    folder = tmp_path_factory.mktemp("run")
    made = Workbench(
        Settings(folder / "cache", folder / "scratch", lock=folder / "lock", sharers=2)
    )
    yield made
    made.close()


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.long) for name in ("ort", "tflite")]
)
def test_the_one_layer_that_quantizes_badly_is_the_recipe(
    workbench: Workbench, target: str
) -> None:
    case = make_case("inputs", target)
    found = sensitivity.find(workbench, case)
    assert found.kind == "found"
    assert found.best is not None
    assert found.best.keep == ("stem",)
    assert found.minimal
    assert found.option == {"keep_float": {"int8": ["stem"]}}
    assert not found.declared.passed
    first, *others = found.ranking
    assert (first.layer, found.simulated) == ("stem", "")
    assert first.gain_db is not None
    assert first.rebuilt_gain_db is not None
    assert abs(first.gain_db - first.rebuilt_gain_db) < 6.0
    assert all(item.gain_db is not None and item.gain_db < first.gain_db / 3 for item in others)
    text = "\n".join(description.sentences(found, case))
    assert f'Model(target_options={{"{target}": {{"keep_float": {{"int8": ["stem"]}}}}}})' in text
    assert "; 1 of 4 layers in float; " in text
    assert " % of the weights are quantized (at least 50 %)" in text
    document = json.loads(json.dumps(description.as_data(found, case)))
    assert document["target_options"] == {target: {"keep_float": {"int8": ["stem"]}}}
    assert document["best"]["passed"]
    assert document["export"]["passed"]
    assert 0.5 < document["quantized_weights"] < 1.0
    # The declaration really is what was verified.
    again = replace(case, model=replace(case.model, target_options={target: found.option}))
    built = workbench.built(again)
    assert built.cached
    assert built.size_bytes == found.best.size_bytes > found.declared.size_bytes


@pytest.mark.long
def test_two_layers_that_help_only_together_are_found(workbench: Workbench) -> None:
    found = sensitivity.find(workbench, make_case("between", "ort", quantized_weights=0.3))
    assert found.kind == "found"
    assert found.best is not None
    assert found.best.keep == ("after", "wide")
    gains = {item.layer: item.rebuilt_gain_db for item in found.ranking}
    assert max(gains["after"] or 0.0, gains["wide"] or 0.0) < 3.0


@pytest.mark.long
def test_an_onnx_source_is_ranked_by_rebuilds(workbench: Workbench, tmp_path: Path) -> None:
    case = make_case("between", "ort", quantized_weights=0.3)
    nodes, constants, before = [], [], "x"
    for name, module in large_between().named_children():
        constants += [
            numpy_helper.from_array(value.detach().numpy(), f"{name}.{kind}")
            for kind, value in module.named_parameters()
        ]
        after = "scores" if name == "head" else f"{name}.out"
        given = [before, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", given, [after], name=name, transB=1))
        before = f"{name}.positive"
        if name != "head":
            nodes.append(helper.make_node("Relu", [after], [before], name=f"{name}.relu"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])
    y = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 48])
    made = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], constants),
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 20)],
    )
    onnx.save(made, tmp_path / "m.onnx")
    model = replace(case.model, source=str(tmp_path / "m.onnx"))
    found = sensitivity.find(workbench, replace(case, model=model, model_name="graph"))
    assert found.simulated == "layers of an ONNX source can't be kept in float one by one"
    assert found.kind == "found"
    assert found.best is not None
    assert found.best.keep == ("after", "wide")
    assert {item.layer for item in found.ranking[:2]} == {"after", "wide"}


def test_a_recipe_that_leaves_too_few_weights_quantized_says_so(workbench: Workbench) -> None:
    case = make_case("between", "ort", quantized_weights=0.9)
    found = sensitivity.find(workbench, case)
    assert found.kind == "blocked"
    assert "by the export check: quantized_weights" in description.sentences(found, case)[-1]


def test_a_candidate_inside_its_limits_needs_nothing(workbench: Workbench) -> None:
    case = make_case("inputs", "ort", sqnr_db=-50, accuracy_drop=1)
    found = sensitivity.find(workbench, case)
    assert (found.kind, found.best, found.rebuilds) == ("holds", None, 1)
    assert "inside its limits already" in description.sentences(found, case)[0]


def test_what_fails_with_all_layers_in_float_has_no_recipe(workbench: Workbench) -> None:
    case = make_case("inputs", "ort", accuracy_floor=2)
    found = sensitivity.find(workbench, case)
    assert found.kind == "hopeless"
    assert found.option == {}
    assert "no recipe helps" in description.sentences(found, case)[-1]


def test_unknown_layers_and_float_precisions_are_refused(workbench: Workbench) -> None:
    case = make_case("inputs", "ort")
    options = {"ort": {"keep_float": {"int8": ["stm"]}}}
    wrong = replace(case, model=replace(case.model, target_options=options), trial="wrong")
    with pytest.raises(EdgecheckError, match=r"names 'stm'.*did you mean 'stem'"):
        workbench.built(wrong)
    with pytest.raises(EdgecheckError, match="has no sensitivity ranking"):
        sensitivity.find(workbench, replace(case, precision="fp16"))


class Scripted:
    """A rebuilder whose files pass where they keep certain layers."""

    def __init__(self, needed: set[str], most: int = 100) -> None:
        self.needed, self.most = needed, most
        self.tried: set[frozenset[str]] = set()

    def affordable(self, keep: Any) -> bool:
        return frozenset(keep) in self.tried or len(self.tried) < self.most

    def attempt(self, keep: Any) -> Attempt:
        self.tried.add(frozenset(keep))
        outcome = Outcome.PASSED if self.needed <= set(keep) else Outcome.FAILED
        return Attempt(tuple(sorted(keep)), 0, Verdict(outcome, "" if self.needed else "x"), None)


@pytest.mark.parametrize(
    "needed", [{"0"}, {"39"}, {"0", "1", "17"}, {"5"}, set(map(str, range(9)))]
)
def test_the_search_keeps_just_what_is_needed(needed: set[str]) -> None:
    order = [str(number) for number in range(40)]
    rebuilder: Any = Scripted(needed)
    kind, best, minimal = sensitivity._search(rebuilder, order, rebuilder.attempt(order))
    assert kind == "found"
    assert minimal
    assert set(best.keep or ()) == needed


def test_a_search_ends_when_its_rebuilds_are_spent() -> None:
    order = [str(number) for number in range(40)]
    rebuilder: Any = Scripted({"0", "39"}, most=5)
    kind, best, minimal = sensitivity._search(rebuilder, order, rebuilder.attempt(order))
    assert kind == "unfinished"
    assert not minimal
    assert best.passed
    assert len(rebuilder.tried) <= 5


SUITE = """
from edgecheck import Conformance, Input, Model


def never_called():
    raise AssertionError


class TestInputs(Conformance):
    model = Model(never_called, inputs=[Input("x", ("batch", 16))], outputs=["y"])
"""
ARGUMENTS = ["test_suite.py", "inputs/ort/fp32", "--sensitivity"]


def test_the_command_takes_the_option(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "edgecheck.commands.cli", "explain", *ARGUMENTS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stdout
    assert "inputs/ort/fp32 has no sensitivity ranking: that is for int8" in done.stderr
