"""Binding: declared inputs and outputs match a file's one to one, or there is an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgecheck.declare.model import Artifact, Input
from edgecheck.devices.binding import Binding, bind
from edgecheck.errors import ArtifactError

law = settings(deadline=None, derandomize=True, max_examples=50)
words = st.text("abc", min_size=1, max_size=3)


def tensor(
    name: str,
    shape: Sequence[int | None] = (None, 4),
    dtype: str = "float32",
    scale: float | None = None,
) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": dtype, "scale": scale}


def bind_inputs(inputs: list[Input], tensors: list[dict[str, Any]], /, **stated: Any) -> Binding:
    return bind(inputs, ["y"], tensors, [tensor("y")], Artifact("m", **stated))


X = Input("x", ("batch", 4))


# -- names


@st.composite
def names_and_mapping(draw: st.DrawFn) -> tuple[list[str], list[str], dict[str, str]]:
    count = draw(st.integers(1, 5))
    declared, present = (
        draw(st.lists(words, min_size=count, max_size=count, unique=True)) for _ in range(2)
    )
    pairs = list(zip(declared, draw(st.permutations(present)), strict=True))
    stated = dict(pairs[: draw(st.integers(0, count))])
    return declared, present, stated


@law
@given(names_and_mapping())
def test_names_match_one_to_one(drawn: tuple[list[str], list[str], dict[str, str]]) -> None:
    declared, present, stated = drawn
    inputs = [Input(name, ("batch", 4)) for name in declared]
    tensors = [tensor(name) for name in present]
    binding = bind(inputs, declared, tensors, tensors, Artifact("m", inputs=stated, outputs=stated))
    for side in (binding.inputs, binding.outputs):
        assert list(side) == declared
        assert sorted(side.values()) == sorted(present)
        assert stated.items() <= side.items()


@law
@given(names_and_mapping())
def test_an_equal_name_is_matched_unless_the_mapping_says_otherwise(
    drawn: tuple[list[str], list[str], dict[str, str]],
) -> None:
    declared, present, stated = drawn
    tensors = [tensor(name) for name in present]
    inputs = [Input(name, ("batch", 4)) for name in declared]
    binding = bind_inputs(inputs, tensors, inputs=stated)
    for name in declared:
        if name not in stated and name in present and name not in stated.values():
            assert binding.inputs[name] == name


@law
@given(st.lists(words, min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_a_files_tensors_does_not_matter_where_names_are_equal(
    names: list[str], random: Any
) -> None:
    shuffled = random.sample(names, len(names))
    inputs = [Input(name, ("batch", 4)) for name in names]
    binding = bind_inputs(inputs, [tensor(name) for name in shuffled])
    assert binding.inputs == {name: name for name in names}


def test_what_no_name_matches_is_matched_by_position() -> None:
    inputs = [Input(name, ("batch", 4)) for name in ("a", "b", "c")]
    binding = bind_inputs(inputs, [tensor("b"), tensor("first"), tensor("second")])
    assert binding.inputs == {"a": "first", "b": "b", "c": "second"}


@pytest.mark.parametrize(
    ("tensors", "stated", "told"),
    [
        ([tensor("x"), tensor("z")], {}, "the file has 2 inputs"),
        ([], {}, "the file has 0 inputs"),
        ([tensor("x")], {"inputs": {"z": "x"}}, "mapping names inputs \\['z'\\]"),
        ([tensor("x")], {"inputs": {"x": "z"}}, "mapped to 'z', but the file has"),
        ([tensor("x")], {"outputs": {"y": "z"}}, "output 'y' is mapped to 'z'"),
        ([tensor("x")], {"transpose": {"z": (0, 1)}}, "not declared inputs or outputs"),
    ],
)
def test_names_that_can_not_match_are_an_error(
    tensors: list[Any], stated: dict[str, Any], told: str
) -> None:
    with pytest.raises(ArtifactError, match=told):
        bind_inputs([X], tensors, **stated)


def test_two_declared_inputs_can_not_be_mapped_to_one_tensor() -> None:
    inputs = [Input("a", ("batch", 4)), Input("b", ("batch", 4))]
    with pytest.raises(ArtifactError):
        bind_inputs(inputs, [tensor("p"), tensor("q")], inputs={"a": "p", "b": "p"})


# -- dtypes


@pytest.mark.parametrize(
    ("declared", "present"),
    [("float32", "float16"), ("float64", "float32"), ("int64", "int32"), ("uint8", "int64")],
)
def test_another_width_of_the_same_kind_fits(declared: str, present: str) -> None:
    item = Input("x", ("batch", 4), dtype=declared)
    assert bind_inputs([item], [tensor("x", dtype=present)]).inputs == {"x": "x"}


@pytest.mark.parametrize(
    ("declared", "present"),
    [("float32", "int8"), ("int64", "float32"), ("bool", "int8"), ("float32", "bool")],
)
def test_another_kind_does_not_fit(declared: str, present: str) -> None:
    item = Input("x", ("batch", 4), dtype=declared)
    with pytest.raises(ArtifactError, match=f"declared {declared}, but 'x' is {present}"):
        bind_inputs([item], [tensor("x", dtype=present)])


def test_a_quantized_input_takes_floats_where_the_file_has_its_scale() -> None:
    assert bind_inputs([X], [tensor("x", dtype="int8", scale=0.1)]).inputs == {"x": "x"}


def test_a_quantized_input_does_not_make_an_integer_one_fit_a_float_file() -> None:
    item = Input("x", ("batch", 4), dtype="int8")
    with pytest.raises(ArtifactError):
        bind_inputs([item], [tensor("x", dtype="float32", scale=0.1)])


# -- shapes


@law
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_static_shape_fits_itself_with_any_axis_dynamic_in_the_file(
    shape: list[int], data: st.DataObject
) -> None:
    present = [data.draw(st.sampled_from([size, None])) for size in shape]
    binding = bind_inputs([Input("x", tuple(shape))], [tensor("x", present)])
    assert binding.fixed == {}
    assert binding.batch == shape[0]
    assert binding.batched == ("x",)


@law
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_any_other_static_shape_is_an_error(shape: list[int], present: list[int]) -> None:
    assume(shape != present)
    with pytest.raises(ArtifactError, match="is declared"):
        bind_inputs([Input("x", tuple(shape))], [tensor("x", present)])


def test_sizes_that_a_file_gives_to_named_dimensions_are_found() -> None:
    inputs = [Input("a", ("batch", "time")), Input("b", ("batch", 3))]
    binding = bind_inputs(inputs, [tensor("a", (2, 7)), tensor("b", (None, 3))])
    assert binding.fixed == {"batch": 2, "time": 7}
    assert binding.batch == 2
    assert binding.batched == ("a", "b")


def test_a_dynamic_file_fixes_nothing() -> None:
    binding = bind_inputs([Input("x", ("batch", "time"))], [tensor("x", (None, None))])
    assert (binding.fixed, binding.batch) == ({}, None)


@pytest.mark.parametrize(
    "shapes",
    [[(2, 7), (3, 7)], [(2, 7), (None, 8)]],
)
def test_one_named_dimension_can_not_have_two_sizes(shapes: list[Any]) -> None:
    inputs = [Input("a", ("batch", "time")), Input("b", ("batch", "time"))]
    tensors = [tensor(name, shape) for name, shape in zip("ab", shapes, strict=True)]
    with pytest.raises(ArtifactError, match="'b' is declared \\(batch, time\\)"):
        bind_inputs(inputs, tensors)


def test_inputs_without_batch_axis_are_not_batched() -> None:
    inputs = [X, Input("table", (7, 2))]
    binding = bind_inputs(inputs, [tensor("x"), tensor("table", (7, 2))])
    assert binding.batched == ("x",)
    assert binding.batch is None


def test_different_static_first_axes_are_no_batch() -> None:
    inputs = [Input("a", (2, 3)), Input("b", (5, 3))]
    binding = bind_inputs(inputs, [tensor("a", (2, 3)), tensor("b", (5, 3))])
    assert (binding.batch, binding.batched) == (None, ())


# -- transposes


@st.composite
def shapes_and_axes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    return tuple(shape), tuple(draw(st.permutations(range(len(shape)))))


@law
@given(shapes_and_axes())
def test_a_transpose_means_what_numpy_transpose_means(
    drawn: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    shape, axes = drawn
    present = np.zeros(shape).transpose(axes).shape
    binding = bind_inputs([Input("x", shape)], [tensor("x", present)], transpose={"x": axes})
    assert binding.transpose == {"x": axes}
    assert binding.for_runner()["inputs"]["x"]["transpose"] == list(axes)


@law
@given(shapes_and_axes())
def test_the_suggested_transpose_would_fit(drawn: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape, axes = drawn
    present = np.zeros(shape).transpose(axes).shape
    assume(present != shape)
    with pytest.raises(ArtifactError) as caught:
        bind_inputs([Input("x", shape)], [tensor("x", present)])
    _, found, rest = str(caught.value).partition("transpose={'x': ")
    assert found
    suggested = eval(rest.partition("}")[0])
    bind_inputs([Input("x", shape)], [tensor("x", present)], transpose={"x": suggested})


def test_a_dimension_is_fixed_by_its_name_also_under_a_transpose() -> None:
    item = Input("x", ("batch", 3, "height", "width"))
    binding = bind_inputs([item], [tensor("x", (1, 224, 160, 3))], transpose={"x": (0, 2, 3, 1)})
    assert binding.fixed == {"batch": 1, "height": 224, "width": 160}


@pytest.mark.parametrize("axes", [(0,), (0, 0), (0, 2), (1, 2), (0, 1, 2), ()])
def test_axes_that_permute_nothing_are_an_error(axes: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError, match="transpose"):
        bind_inputs([X], [tensor("x")], transpose={"x": axes})


@pytest.mark.parametrize(
    "axes",
    [
        (0, 0),
        (1, 2),
        pytest.param(
            (0, 1, 2),
        ),
    ],
)
def test_axes_of_an_output_that_permute_nothing_are_an_error(axes: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError, match="transpose"):
        bind_inputs([X], [tensor("x")], transpose={"y": axes})


def test_nothing_is_suggested_where_no_transpose_fits() -> None:
    with pytest.raises(ArtifactError) as caught:
        bind_inputs([Input("x", (2, 3))], [tensor("x", (2, 4))])
    assert "would fit" not in str(caught.value)


# -- for the driver


def test_the_driver_gets_plain_data() -> None:
    binding = bind(
        [Input("image", ("batch", 3, 8, 8))],
        ["scores", "boxes"],
        [tensor("in:0", (1, 8, 8, 3))],
        [tensor("boxes"), tensor("out:0")],
        Artifact("m", transpose={"image": (0, 2, 3, 1)}),
    )
    assert binding.for_runner() == {
        "inputs": {"image": {"name": "in:0", "transpose": [0, 2, 3, 1]}},
        "outputs": {
            "scores": {"name": "out:0", "transpose": None},
            "boxes": {"name": "boxes", "transpose": None},
        },
        "batched": ["image"],
        "batch": 1,
    }
