"""Control flow, lists, states, casts and classifiers of ML Programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecheck.mil.call import Call, TensorType, UnsupportedError
from edgecheck.mil.control import HANDLERS
from edgecheck.mil.evaluator import Evaluator, InputError
from edgecheck.mil.program import ProgramError
from edgecheck.mil.reader import read
from edgecheck.mil.values import ExecutionError, stored
from tests.mil import packages
from tests.mil.packages import evaluator, mb, one_input


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """Doubles ``x`` ``turns`` times and keeps each turn's value in a list."""

    @mb.program(
        input_specs=[mb.TensorSpec((2,)), mb.TensorSpec((1,), dtype=types.int32)],
        opset_version=ct.target.iOS17,
    )
    def program(x: Any, turns: Any) -> Any:
        count = mb.squeeze(x=turns, axes=[0])
        unit = mb.add(x=x, y=np.float32(0))  # used in the loop, defined outside
        history = mb.make_list(init_length=2, dynamic_length=True, elem_shape=(2,), dtype="fp32")

        def more(index: Any, value: Any, history: Any) -> Any:
            return mb.less(x=index, y=count)

        def turn(index: Any, value: Any, history: Any) -> Any:
            value = mb.add(x=value, y=mb.mul(x=unit, y=np.float32(2)))
            written = mb.list_write(ls=history, index=index, value=value)
            return mb.add(x=index, y=np.int32(1)), value, written

        start = mb.const(val=np.int32(0))
        index, value, history = mb.while_loop(_cond=more, _body=turn, loop_vars=(start, x, history))
        both = mb.list_gather(ls=history, indices=[1, 0], name="first_two")
        swapped = mb.list_scatter(ls=history, indices=[0, 1], value=both)
        chosen = mb.cond(
            pred=mb.greater(x=index, y=np.int32(3)),
            _true_fn=lambda: mb.mul(x=value, y=np.float32(-1)),
            _false_fn=lambda: mb.add(x=unit, y=np.float32(100)),
            name="chosen",
        )
        return (
            mb.identity(x=value, name="value"),
            mb.list_length(ls=history, name="length"),
            both,
            mb.list_read(ls=swapped, index=0, name="second"),
            chosen,
        )

    return evaluator(program, tmp_path_factory.mktemp("loop"))


@given(st.integers(0, 9), st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
@settings(max_examples=25, deadline=None)
def test_loops_lists_and_branches(loop: Evaluator, turns: int, start: tuple[int, int]) -> None:
    x = np.array(start, np.float32)
    found = loop.run({"x": x, "turns": np.array([turns], np.int32)})
    values = [x * (1 + 2 * turn) for turn in range(turns + 1)]
    written = [*values[1:], np.zeros(2), np.zeros(2)][: max(turns, 2)]
    np.testing.assert_array_equal(found["value"], values[-1])
    assert found["length"] == max(turns, 2)
    np.testing.assert_array_equal(found["first_two"], [written[1], written[0]])
    np.testing.assert_array_equal(found["second"], written[1])
    np.testing.assert_array_equal(found["chosen"], -values[-1] if turns > 3 else x + 100)


def test_a_list_of_fixed_length_does_not_grow(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        items = mb.make_list(init_length=2, dynamic_length=False, elem_shape=(2,), dtype="fp32")
        return mb.list_read(ls=mb.list_write(ls=items, index=2, value=x, name="late"), index=0)

    runner = one_input(body, tmp_path, (2,))
    with pytest.raises(ExecutionError, match=r"'late' \(list_write\): IndexError: .*\[2\].* of 2"):
        runner.run({"x": np.zeros(2)})


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adds ``x`` to a state and gives the sum."""

    @mb.program(
        input_specs=[
            mb.TensorSpec((2,), dtype=types.fp16),
            mb.StateTensorSpec((2,), dtype=types.fp16),
        ],
        opset_version=ct.target.iOS18,
    )
    def program(x: Any, total: Any) -> Any:
        more = mb.add(x=mb.read_state(input=total), y=x)
        return mb.mul(x=mb.coreml_update_state(state=total, value=more), y=np.float16(2), name="y")

    folder = tmp_path_factory.mktemp("state")
    return packages.converted(program, folder, minimum_deployment_target=ct.target.iOS18)


def test_states_live_on_until_they_are_reset(counter: Path) -> None:
    program = read(counter)
    runner, other = Evaluator(program), Evaluator(program)
    x = {"x": np.array([1, 0.5], np.float16)}
    assert [runner.run(x)["y"].tolist() for _ in range(3)] == [[2, 1], [4, 2], [6, 3]]
    assert other.run(x)["y"].tolist() == [2, 1]
    runner.reset_state()
    assert runner.run(x)["y"].tolist() == [2, 1]
    with pytest.raises(InputError, match=r"it takes \['x'\]"):
        runner.run({**x, "total": np.zeros(2)})


def test_functions_are_chosen_by_name(counter: Path, tmp_path: Path) -> None:
    descriptor = ct.utils.MultiFunctionDescriptor()
    descriptor.add_function(str(counter), "main", "first")
    descriptor.add_function(str(counter), "main", "second")
    descriptor.default_function_name = "first"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    program = read(tmp_path / "both.mlpackage")
    assert Evaluator(program, "second").run({"x": np.ones(2)})["y"].tolist() == [2, 2]
    with pytest.raises(ProgramError, match=r"no function 'third'; there are \['first', 'second'\]"):
        Evaluator(program, "third")


@pytest.mark.parametrize("labels", [["cat", "dog", "hen"], [4, 2, 9]])
def test_a_classifier_gives_label_and_probabilities(tmp_path: Path, labels: list[Any]) -> None:
    exported = torch.export.export(torch.nn.Softmax(1), (torch.rand(1, 3),)).run_decompositions({})
    configuration = ct.ClassifierConfig(labels)
    runner = evaluator(
        exported,
        tmp_path,
        inputs=[ct.TensorType("x", (1, 3))],
        classifier_config=configuration,
        compute_precision=ct.precision.FLOAT16,
    )
    x = np.array([[0.5, 2, 1]], np.float32)
    found = runner.run({"x": x})
    assert found["classLabel"] == labels[1]
    probabilities = found["classLabel_probs"]
    assert list(probabilities) == labels
    expected = torch.softmax(torch.from_numpy(x), 1)[0]
    np.testing.assert_allclose(list(probabilities.values()), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("int32", [-1, 0, 1, 2**31 - 1, -(2**31), 0, 300]),
        ("int8", [-1, 0, 1, 127, -128, 0, 127]),
        ("uint8", [0, 0, 1, 255, 0, 0, 255]),
        ("int16", [-1, 0, 1, 32767, -32768, 0, 300]),
        ("uint16", [0, 0, 1, 65535, 0, 0, 300]),
        ("bool", [True, False, True, True, True, True, True]),
        ("fp16", [-1.7001953125, 0, 1.900390625, np.inf, -np.inf, np.nan, 300]),
    ],
)
def test_cast(dtype: str, expected: list[Any]) -> None:
    values = torch.tensor([-1.7, 0, 1.9, 1e10, -1e10, float("nan"), 300])
    declared = TensorType(dtype, (7,))
    call = Call("cast", "c", {"x": values, "dtype": dtype}, [declared])
    np.testing.assert_array_equal(stored(HANDLERS["cast"](call), declared).numpy(), expected)


def test_cast_disagreeing_with_its_declaration() -> None:
    call = Call("cast", "c", {"x": torch.ones(1), "dtype": "int8"}, [TensorType("int32", (1,))])
    with pytest.raises(UnsupportedError, match="'c': cast to int8 where int32 is declared"):
        HANDLERS["cast"](call)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["int8", "uint8", "int16", "uint16", "int32"]), st.integers(-(2**40), 2**40))
def test_integers_wrap_as_their_type_does(dtype: str, value: int) -> None:
    found = stored(torch.tensor(value), TensorType(dtype, ()))
    assert found.item() == np.array(value, np.int64).astype(dtype).item()
