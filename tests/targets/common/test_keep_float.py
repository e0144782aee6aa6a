"""Layers that stay in float: found by their weights in every format, and really float there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.capture import torch as program
from edgecheck.declare.model import Input
from edgecheck.targets.common import keep_float
from edgecheck.targets.common.keep_float import KeepFloatError, Operator
from edgecheck.targets.ort.build import OrtBuilder
from edgecheck.targets.registry import all_targets
from edgecheck.targets.tflite.build import TfliteBuilder
from edgecheck.targets.tflite.run import TfliteRunner

WEIGHT = np.ones((2, 2), np.float32)
SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=4).filter(lambda item: np.prod(item) > 8)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.randoms(use_true_random=False), st.booleans(), st.integers(0, 2**31))
def test_a_weight_is_known_in_any_layout_with_any_factor_a_channel(
    shape: list[int], random: Any, folded: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal(shape).astype(np.float32)
    constant = weight.copy()
    if folded and weight[0].size >= 4:
        factors = generator.uniform(0.1, 3.0, len(weight)) * generator.choice([-1, 1], len(weight))
        constant = (constant * factors.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    order = random.sample(range(len(shape)), len(shape))
    constant = constant.transpose(order).astype(np.float16).astype(np.float32)
    assert keep_float.difference(weight, constant) < 2e-3
    assert keep_float.difference(weight, constant[None]) < 2e-3
    assert keep_float.difference(weight, np.concatenate([constant, constant])) == float("inf")


def test_another_weight_of_the_same_shape_is_not_taken_for_it() -> None:
    one, other = np.random.default_rng(0).standard_normal((2, 16, 16))
    assert keep_float.difference(one, other) > 0.5


def test_alike_layers_are_taken_in_order_and_unknown_weights_name_themselves() -> None:
    own = np.random.default_rng(0).standard_normal((4, 4))
    operators = [
        Operator("a", (), ("x",), {"w1": WEIGHT}),
        Operator("b", ("x",), ("y",), {"w2": WEIGHT}),
        Operator("c", ("y",), ("z",), {"w3": own}),
        Operator("d", ("z",), ("u",), {}),
        Operator("e", ("u",), ("v",), {"w2": WEIGHT}),
    ]
    found = keep_float.layers(operators, {"first": [WEIGHT], "second": [WEIGHT]})
    assert found == {"a": "first", "b": "second", "c": "c", "e": "second"}


# in -> pad -> one -> relu -> two -> add -> three, and relu -> add as a shortcut
CHAIN = [
    Operator("pad", ("in",), ("padded",), {}),
    Operator("one", ("padded",), ("a",), {"w1": WEIGHT}),
    Operator("relu", ("a",), ("b",), {}),
    Operator("two", ("b",), ("c",), {"w2": WEIGHT}),
    Operator("add", ("b", "c"), ("d",), {}),
    Operator("three", ("d",), ("out",), {"w3": WEIGHT}),
]
LAYERS = {"one": "one", "two": "two", "three": "three"}


@pytest.mark.parametrize(
    ("keep", "operators", "tensors"),
    [
        ([], set(), set()),
        (["one"], {"pad", "one", "relu"}, {"in", "padded", "a"}),
        (["two"], {"two"}, set()),
        (["one", "two"], {"pad", "one", "relu", "two", "add"}, {"in", "padded", "a", "b", "c"}),
        (["three"], {"three"}, {"out"}),
        (["one", "two", "three"], {item.name for item in CHAIN}, set("abcd") | {"padded"}),
    ],
)
def test_what_lies_between_float_layers_is_float(
    keep: list[str], operators: set[str], tensors: set[str]
) -> None:
    chosen, left = keep_float.kept(CHAIN, LAYERS, keep)
    assert chosen == operators
    assert left - {"in", "out"} == tensors - {"in", "out"}


def test_names_are_layers_or_modules_that_hold_some() -> None:
    known = {"blocks.0.conv", "blocks.0.norm", "blocks.10.conv", "head"}
    assert keep_float.expanded(["blocks.0"], known) == {"blocks.0.conv", "blocks.0.norm"}
    with pytest.raises(KeepFloatError, match=r"'haed'.*did you mean 'head'\?.*there are blocks"):
        keep_float.expanded(["haed"], known)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["stem"], "keep_float is a list; it is a dict"),
        ({"fp32": ["stem"]}, "keep_float has fp32; it may have int8"),
        ({"int8": "stem"}, "keep_float['int8'] is a str; it is a list of names"),
        ({"int8": ["stem", 3]}, "names 3"),
        ({"int8": ["stem"], "student/int8": ["head"]}, ""),
    ],
)
def test_the_form_of_the_option_is_checked(given: Any, words: str) -> None:
    problem = keep_float.option_problem({keep_float.OPTION: given}, ("int8",))
    assert words in problem
    assert bool(problem) == bool(words)


class Network(torch.nn.Module):
    """Every kind of weight that a file stores in another form than the program."""

    sizes = {"stem": 216, "deep": 72, "up": 256, "hidden": 2048, "head": 40}

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.deep = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = torch.nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.hidden = torch.nn.Linear(8 * 32, 8)
        self.head = torch.nn.Linear(8, 5)
        with torch.no_grad():
            self.norm.weight.copy_(torch.linspace(-2, 2, 8))
            assert self.norm.running_var is not None
            self.norm.running_var.copy_(torch.linspace(0.5, 2, 8))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.up(self.deep(torch.relu(self.norm(self.stem(image))))))
        return self.head(torch.relu(self.hidden(x[:, :, ::2, ::4].flatten(1))))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    torch.manual_seed(0)
    inputs = [Input("image", ("batch", 3, 8, 8), low=-1.0, high=1.0)]
    program.capture(Network().eval(), inputs, ["scores"], {}, folder / "m.pt2")
    images = np.random.default_rng(0).uniform(-1, 1, (8, 3, 8, 8)).astype(np.float32)
    np.save(folder / "images.npy", images)
    np.save(folder / "one.npy", images[:1])
    for name, tools in (("ort", OrtBuilder), ("tflite", TfliteBuilder)):
        tools().build(**request(folder, name, "fp32", []))
    return folder


def request(folder: Path, target: str, precision: str, keep: list[str]) -> dict[str, Any]:
    suffix = all_targets()[target].files.suffix
    built_from = "m.pt2" if precision == "fp32" or target == "coreml" else f"fp32{suffix}"
    return {
        "precision": precision,
        "source": str(folder / built_from),
        "output": str(folder / f"{precision}{suffix}"),
        "inputs": ["image"],
        "outputs": ["scores"],
        "calibration": {"image": str(folder / "images.npy")},
        "example": {"image": str(folder / "one.npy")},
        "options": {**all_targets()[target].options.defaults, keep_float.OPTION: {precision: keep}},
        "program": str(folder / "m.pt2"),
    }


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("ort", "int8"),
        ("ort", "int8-dynamic"),
        ("ort", "int4"),
        ("tflite", "int8"),
        ("tflite", "int8-dynamic"),
        pytest.param("coreml", "int8", marks=pytest.mark.long),
    ],
)
def test_a_kept_layer_is_float_in_the_file_and_the_others_are_not(
    made: Path, target: str, precision: str
) -> None:
    tools: Any = {"ort": OrtBuilder, "tflite": TfliteBuilder}.get(target)
    if target == "coreml":
        pytest.importorskip("coremltools")
        from edgecheck.targets.coreml.build import CoremlBuilder

        tools = CoremlBuilder

    products = precision in ("int8-dynamic", "int4") and target == "ort"
    expected = ["hidden", "head"] if products else list(Network.sizes)
    assert sorted(tools().layers(**request(made, target, precision, []))) == sorted(expected)
    stored = "int4" if precision == "int4" else "int8"

    def quantized(keep: list[str]) -> int:
        given = request(made, target, precision, keep)
        tools().build(**given)
        count: int = tools().inspect(path=given["output"])["weight_elements"].get(stored, 0)
        return count

    keep: list[str] = [layer for layer in ("stem", "hidden") if layer in expected]
    assert quantized([]) - quantized(keep) == sum(Network.sizes[layer] for layer in keep)
    assert quantized(expected) == 0
    with pytest.raises(KeepFloatError, match="did you mean 'hidden'"):
        quantized(["hiden"])


@pytest.mark.parametrize(("io", "dtype"), [("default", "float32"), ("int8", "int8")])
def test_an_end_of_a_tflite_file_that_only_float_layers_touch_is_float(
    made: Path, io: str, dtype: str
) -> None:
    given = request(made, "tflite", "int8", ["stem", "head"])
    given["options"] = {**given["options"], "io": io}
    TfliteBuilder().build(**given)
    loaded = TfliteRunner().load(given["output"], {"threads": 1})
    assert {item["dtype"] for item in [*loaded["inputs"], *loaded["outputs"]]} == {dtype}
