"""Running ML Programs: declared types hold, control flow and states work, misuse is an error."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import types

from edgecheck.mil.call import UnsupportedError
from edgecheck.mil.evaluator import Evaluator, InputError
from edgecheck.mil.program import ProgramError
from edgecheck.mil.reader import read
from edgecheck.mil.values import ExecutionError
from tests.mil import packages
from tests.mil.packages import evaluator, mb, one_input


class _Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.hidden = torch.nn.Linear(8, 32)
        self.last = torch.nn.Linear(32, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.convolution(image)).mean((2, 3))
        return self.last(torch.nn.functional.gelu(self.hidden(features)))


@pytest.fixture(scope="module")
def network() -> tuple[torch.nn.Module, Any]:
    module = _Network().eval()
    rows = torch.export.Dim("rows", min=1, max=8)
    exported = torch.export.export(
        module, (torch.rand(2, 3, 16, 16),), dynamic_shapes={"image": {0: rows}}
    )
    return module, exported.run_decompositions({})


def _flexible() -> dict[str, Any]:
    shape = (ct.RangeDim(1, 8, default=2), 3, 16, 16)
    return {"inputs": [ct.TensorType("image", shape)], "outputs": [ct.TensorType("logits")]}


def test_float32_program_is_torchs(network: Any, tmp_path: Path) -> None:
    module, exported = network
    runner = evaluator(exported, tmp_path, **_flexible())
    for rows in (2, 1, 5):  # the rows are open in the program
        image = torch.rand(rows, 3, 16, 16)
        found = runner.run({"image": image.numpy()})["logits"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, module(image).detach(), rtol=1e-5, atol=1e-6)


def test_float16_program_differs_by_float16s_rounding(network: Any, tmp_path: Path) -> None:
    module, exported = network
    half = ct.precision.FLOAT16
    runner = evaluator(exported, tmp_path, **_flexible(), compute_precision=half)
    image = torch.rand(2, 3, 16, 16)
    seen: dict[str, torch.Tensor] = {}
    found = runner.run({"image": image.numpy()}, seen.__setitem__)["logits"]
    assert {each.dtype for each in seen.values()} <= {torch.float16, torch.float32}
    assert sum(each.dtype == torch.float16 for each in seen.values()) >= 5
    expected = module(image).detach().numpy()
    error = np.abs(found.astype(np.float32) - expected).max() / np.abs(expected).max()
    assert 2e-5 < error < 5e-3  # fp16 has 11 bits: 2^-11 is 4.9e-4


def test_float16_is_rounded_after_each_operation(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        large = mb.mul(x=x, y=x, name="square")  # 300 * 300 is more than fp16's 65504
        back = mb.mul(x=large, y=np.float16(2**-10), name="scaled")
        near = mb.add(x=x, y=np.float16(0.0625), name="rounded")
        return back, mb.sub(x=near, y=x, name="lost")

    half = one_input(body, tmp_path, (3,), types.fp16)
    values = np.array([300, 1, 200], np.float16)
    found = half.run({"x": values})
    np.testing.assert_array_equal(
        found["scaled"], np.array([np.inf, 2**-10, 40000 / 1024], np.float16)
    )
    # From 256 on fp16 has steps of 0.25, from 128 on of 0.125; halves go to the even neighbour.
    np.testing.assert_array_equal(found["lost"], np.array([0, 0.0625, 0], np.float16))
    assert found["scaled"].dtype == np.float16


def test_float16_sums_are_accumulated_in_float32(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        return mb.reduce_sum(x=x, axes=[0], name="sum")

    runner = one_input(body, tmp_path, (4,), types.fp16)
    found = runner.run({"x": np.array([60000, 60000, -60000, -59968], np.float16)})
    assert found["sum"] == 32


def test_a_float32_input_is_rounded_to_a_declared_float16(tmp_path: Path) -> None:
    runner = one_input(lambda x: mb.identity(x=x, name="y"), tmp_path, (2,), types.fp16)
    found = runner.run({"x": np.array([1 + 1e-4, 1e6])})["y"]
    np.testing.assert_array_equal(found, np.array([1, np.inf], np.float16))


def test_inputs_are_checked(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        return mb.add(x=x, y=np.int32(1), name="y")

    runner = one_input(body, tmp_path, (2,), types.int32)
    given_ = np.array([1, 2], np.int64)
    for inputs, message in (
        ({}, r"inputs \[\] are given; it takes \['x'\]"),
        ({"x": given_, "z": given_}, r"\['x', 'z'\] are given"),
        ({"x": given_[:1]}, r"input 'x' has shape \(1,\); it takes \(2,\)"),
        ({"x": given_[None]}, r"has shape \(1, 2\)"),
        ({"x": given_.astype(np.float32)}, "input 'x' holds float32; it takes int32"),
        ({"x": np.array(["a", "b"])}, "it takes int32"),
    ):
        with pytest.raises(InputError, match=message):
            runner.run(inputs)
    for array in (given_, given_.astype(">i4"), np.array([1, 9, 2, 9])[::2], given_ == 1):
        found = runner.run({"x": array})["y"]
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, array.astype(int) + 1)


def test_an_optional_input_has_its_default(tmp_path: Path) -> None:
    exported = torch.export.export(torch.nn.ReLU(), (torch.rand(1, 3),)).run_decompositions({})
    declared = ct.TensorType("x", (1, 3), default_value=np.full((1, 3), 2.5, np.float32))
    runner = evaluator(exported, tmp_path, inputs=[declared], outputs=[ct.TensorType("y")])
    assert runner.run({})["y"].tolist() == [[2.5] * 3]
    assert runner.run({"x": np.ones((1, 3))})["y"].tolist() == [[1.0] * 3]


def test_what_is_given_back_is_a_copy(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        return mb.identity(x=x, name="y"), mb.const(val=np.ones(12, np.float32), name="ones")

    runner = one_input(body, tmp_path, (2,))
    given_ = np.zeros(2, np.float32)
    first = runner.run({"x": given_})
    for array in first.values():
        array[:] = 7
    assert given_.tolist() == [0, 0]
    assert runner.run({"x": given_})["ones"].tolist() == [1] * 12


def test_values_are_freed_after_their_last_use(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        kept = mb.add(x=x, y=np.float32(1), name="kept")
        last = kept
        for index in range(12):
            last = mb.mul(x=last, y=np.float32(2), name=f"step_{index}")
        return mb.add(x=last, y=kept, name="y")

    runner = one_input(body, tmp_path, (3,))
    alive: dict[str, Any] = {}
    most = []

    def observe(name: str, tensor: torch.Tensor) -> None:
        alive[name] = weakref.ref(tensor)
        most.append({each for each, reference in alive.items() if reference() is not None})

    found = runner.run({"x": np.zeros(3, np.float32)}, observe)["y"]
    assert found.tolist() == [2**12 + 1] * 3
    assert len(most) == 14
    assert max(map(len, most)) <= 3
    assert all("kept" in each for each in most)


def test_unknown_operators_are_named_at_once_and_up_front(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        def if_true() -> Any:
            return mb.sin(x=x, name="inner")

        first = mb.relu(x=x, name="first")
        return first, mb.cond(pred=np.bool_(True), _true_fn=if_true, _false_fn=if_true)

    program = mb.program(input_specs=[mb.TensorSpec((2,))], opset_version=ct.target.iOS17)(body)
    path = packages.converted(program, tmp_path, pass_pipeline=ct.PassPipeline.EMPTY)

    def rename(model: Any) -> None:
        for operation in packages.operations(model):
            if operation.type == "relu":
                operation.type = "fold_space"
            for block in operation.blocks:
                block.operations[-1].type = "warp"

    packages.change(path, rename)
    with pytest.raises(UnsupportedError, match=r"know: fold_space \('first'\), warp \('inner'\)"):
        Evaluator(read(path))


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        return mb.add(x=mb.relu(x=x, name="positive"), y=np.float32(1), name="y")

    return packages.converted(program, tmp_path_factory.mktemp("added"))


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    @mb.program(input_specs=[mb.TensorSpec((2,))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        return mb.while_loop(
            _cond=lambda index, value: mb.less(x=index, y=np.int32(3)),
            _body=lambda index, value: (mb.add(x=index, y=np.int32(1)), mb.relu(x=value)),
            loop_vars=(mb.const(val=np.int32(0)), x),
            name="loop",
        )

    folder = tmp_path_factory.mktemp("looped")
    return packages.converted(program, folder, pass_pipeline=ct.PassPipeline.EMPTY)


def _edited(package: Path, folder: Path, edit: Any) -> Evaluator:
    """An evaluator of a copy whose last operation is changed."""
    path = Path(shutil.copytree(package, folder / "edited.mlpackage"))
    packages.change(path, lambda model: edit(packages.operations(model)[-1]))
    return Evaluator(read(path))


def _other_size(operation: Any) -> None:
    operation.outputs[0].type.tensorType.dimensions[0].constant.size = 5


def _other_rank(operation: Any) -> None:
    del operation.outputs[0].type.tensorType.dimensions[1]


def _integers(operation: Any) -> None:
    operation.outputs[0].type.tensorType.dataType = 23


def _two_outputs(operation: Any) -> None:
    operation.outputs.add().CopyFrom(operation.outputs[0])
    operation.outputs[1].name = "z"


def _lacking(operation: Any) -> None:
    del operation.inputs["y"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_other_size, r"gives shape \(2, 3\) where \(5, 3\) is declared"),
        (_other_rank, r"gives shape \(2, 3\) where \(2,\) is declared"),
        (_integers, r"gives torch\.float32 where int32 is declared"),
        (_two_outputs, "gives 1 results where 2 are declared"),
        (_lacking, "lacks 'y'"),
    ],
)
def test_disagreeing_with_the_file_is_an_error(
    added: Path, tmp_path: Path, edit: Any, message: str
) -> None:
    runner = _edited(added, tmp_path, edit)
    with pytest.raises(ExecutionError, match=rf"operation 'y' \(add\): .*{message}") as caught:
        runner.run({"x": np.zeros((2, 3), np.float32)})
    assert "\n" not in str(caught.value)


def _no_block(operation: Any) -> None:
    del operation.blocks[1]


def _too_few_results(operation: Any) -> None:
    del operation.blocks[1].outputs[-1]


def _no_condition(operation: Any) -> None:
    del operation.blocks[0].outputs[:]


def _vector_as_condition(operation: Any) -> None:
    operation.blocks[0].outputs[0] = operation.blocks[0].inputs[1].name


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (_no_block, ProgramError),
        (_too_few_results, ProgramError),
        (_no_condition, ProgramError),
        (_vector_as_condition, ExecutionError),
    ],
)
def test_malformed_control_flow(
    looped: Path, tmp_path: Path, edit: Any, error: type[Exception]
) -> None:
    x = {"x": np.array([1, 2], np.float32)}
    assert Evaluator(read(looped)).run(x)["loop_0"] == 3
    with pytest.raises(error, match=r"'loop' \(while_loop\)"):
        _edited(looped, tmp_path, edit).run(x)


def test_a_name_that_nothing_computes(added: Path, tmp_path: Path) -> None:
    def edit(operation: Any) -> None:
        operation.inputs["x"].arguments[0].name = "absent"

    with pytest.raises(ProgramError, match="operation 'y' uses 'absent', which nothing computes"):
        _edited(added, tmp_path, edit)
