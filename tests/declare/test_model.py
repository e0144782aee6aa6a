"""Declarations: what Input, Evaluation and Model accept, derive, and refuse with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.capture.data import random_inputs
from edgecheck.declare import metrics
from edgecheck.declare.model import Artifact, Evaluation, Input, Model, artifact_key, as_artifact
from edgecheck.errors import DeclarationError

law = settings(deadline=None, derandomize=True, max_examples=50)
X = Input("x", ("batch", 4))


def source() -> None:
    raise AssertionError("a declaration must not call its source")


def model(**changes: Any) -> Model:
    return Model(**{"source": source, "inputs": [X], "outputs": ["y"], **changes})


# -- Input


@law
@given(st.lists(st.integers(1, 100), max_size=5))
def test_any_shape_of_positive_sizes_is_accepted_as_a_tuple(sizes: Any) -> None:
    declared = Input("x", sizes)
    assert declared.shape == tuple(sizes)
    assert not declared.batched


def test_only_a_first_axis_named_batch_makes_the_batch_dynamic() -> None:
    assert Input("x", ("batch", 3)).batched
    assert not Input("x", ("time", 3)).batched
    assert not Input("x", (1, 3)).batched
    assert not Input("x", ()).batched


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((0, 3), "size 0"),
        ((-1, 3), "size -1"),
        ((3, "batch"), "first axis"),
        ((True, 3), "True"),
        ((1.0, 3), "1.0"),
        ((None, 3), "None"),
    ],
)
def test_an_impossible_shape_is_refused(shape: Any, told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        Input("x", shape)


@pytest.mark.parametrize(
    "dtype", ["float", "int", "bfloat16", "complex64", "object", "", "Float32"]
)
def test_an_unknown_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(DeclarationError, match="unknown dtype"):
        Input("x", (1,), dtype=dtype)


@pytest.mark.parametrize(
    ("low", "high"),
    [(1, 0), (float("nan"), 1), (0, float("nan")), (0, float("inf")), (float("-inf"), 0)],
)
def test_a_range_without_values_is_refused(low: float, high: float) -> None:
    with pytest.raises(DeclarationError, match="range"):
        Input("x", (1,), low=low, high=high)


def test_a_range_of_a_single_value_is_accepted() -> None:
    assert Input("x", (1,), low=2.0, high=2.0).high == 2.0


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint8", -1, 0), ("uint8", 0, 256), ("int8", -129, 0), ("int64", 0, 2**63)],
)
def test_a_range_that_overflows_an_integer_dtype_is_refused(
    dtype: str, low: int, high: int
) -> None:
    with pytest.raises(DeclarationError, match=f"overflows {dtype}"):
        Input("x", (1,), low=low, high=high, dtype=dtype)


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
def test_the_whole_range_of_an_integer_dtype_is_accepted(dtype: str) -> None:
    bounds = np.iinfo(dtype)
    declared = Input("x", (1,), low=bounds.min, high=bounds.max, dtype=dtype)
    assert (declared.low, declared.high) == (bounds.min, bounds.max)


@pytest.mark.parametrize(("dtype", "high"), [("float16", 1e6), ("float32", 1e39)])
@pytest.mark.filterwarnings("error")
def test_a_range_that_overflows_a_float_dtype_is_refused(dtype: str, high: float) -> None:
    with pytest.raises(DeclarationError):
        Input("x", (1,), high=high, dtype=dtype)


# -- Evaluation


def test_a_bare_metric_function_becomes_a_metric() -> None:
    evaluation = Evaluation([1], [1], metric=max)
    assert isinstance(evaluation.metric, metrics.Metric)
    assert evaluation.metric.name == "max"


def test_a_metric_that_can_not_be_called_is_refused() -> None:
    with pytest.raises(DeclarationError, match="not callable"):
        Evaluation([1], [1], metric=cast(Any, 0.5))


def test_a_metric_goes_by_its_name() -> None:
    assert Evaluation([1], [1], metric="top1").metric is metrics.top1
    with pytest.raises(DeclarationError, match="did you mean 'roc_auc'"):
        Evaluation([1], [1], metric="roc-auc")


def test_an_unknown_drop_policy_is_refused() -> None:
    with pytest.raises(DeclarationError, match="point, upper-bound"):
        Evaluation([1], [1], metric=max, drop_policy="upper")


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(DeclarationError, match="batch_size"):
        Evaluation([1], [1], metric=max, batch_size=size)


# -- Model


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inputs": []}, "at least one input"),
        ({"outputs": []}, "at least one output"),
        ({"inputs": [X, X]}, "repeat"),
        ({"outputs": ["y", "z", "y"]}, "repeat: \\['y'\\]"),
        ({"outputs": [""]}, "output names must be non-empty strings"),
        ({"source": "model.h5"}, "HDF5 file, which may hold code"),
        ({"source": "model.pb"}, "neither a callable"),
        ({"source": 5}, "neither a callable"),
        ({"source": None}, "needs reference="),
        ({"reference": "ort"}, "is not an artifact"),
        ({"reference": ("ort", "int8"), "artifacts": {"ort": "m.onnx"}}, "is not an artifact"),
        ({"dims": {"time": (1, 2)}}, "dims names"),
        ({"fuzz": -1}, "fuzz is -1"),
        ({"dims": {"batch": (0, 2)}}, "no range"),
        ({"dims": {"batch": (3, 2)}}, "no range"),
        ({"batch_sizes": []}, "batch_sizes"),
        ({"batch_sizes": (0,)}, "batch_sizes"),
        ({"batch_sizes": (1, 65)}, "batch_sizes"),
        ({"dims": {"batch": (1, 4)}, "batch_sizes": (1, 5)}, "batch_sizes"),
        ({"evaluation": Evaluation([1], [1], metric=max, output="z")}, "scores output 'z'"),
        ({"name": ""}, "can't name"),
        ({"name": "a/b"}, "can't name"),
        ({"name": "a b"}, "can't name"),
        ({"name": "a:b"}, "can't name"),
        ({"variants": {"a*": source}}, "can't name"),
        ({"variants": {"": source}}, "can't name"),
        ({"variants": {"a\n": source}}, "can't name"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(
    changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(DeclarationError, match=told):
        model(**changes)


@pytest.mark.parametrize("path", ["m.pt2", "m.onnx", Path("dir/m.onnx")])
def test_a_program_or_onnx_path_is_a_source(path: str | Path) -> None:
    assert model(source=path).source == path


def test_a_model_of_artifacts_only_is_accepted_with_a_reference() -> None:
    declared = model(
        source=None, reference="ort", artifacts={"ort": "m.onnx", "tflite": "m.tflite"}
    )
    assert declared.reference == "ort"


def test_a_bare_target_and_a_pair_with_fp32_are_the_same_reference() -> None:
    assert model(reference=("ort", "fp32"), artifacts={"ort": "m.onnx"}).reference
    assert artifact_key("ort") == artifact_key(("ort", "fp32")) == ("ort", "fp32")
    assert artifact_key(("ort", "int8")) == ("ort", "int8")


def test_a_dimension_without_stated_range_has_the_default_one() -> None:
    declared = model(inputs=[Input("x", ("batch", "time"))], dims={"time": (3, 9)})
    assert declared.dim_range("time") == (3, 9)
    assert declared.dim_range("batch") == (1, 64)


def test_the_batch_is_dynamic_where_any_input_has_it() -> None:
    assert model(inputs=[Input("a", (1, 2)), X]).dynamic_batch
    assert not model(inputs=[Input("a", (1, 2))]).dynamic_batch


def test_a_qat_source_holds_for_every_target_unless_given_by_target() -> None:
    assert model(qat=source).qat_source("ort") is source
    by_target = model(qat={"ort": source})
    assert by_target.qat_source("ort") is source
    assert by_target.qat_source("tflite") is None
    assert model().qat_source("ort") is None


def test_the_classifier_output_is_known_only_where_scores_are_scored() -> None:
    scores = Evaluation([1], [1], metric=metrics.top1)
    named = Evaluation([1], [1], metric=metrics.top1, output="b")
    plain = Evaluation([1], [1], metric=max)
    assert model(evaluation=scores).classifier_output == "y"
    assert model(evaluation=scores, outputs=["a", "b"]).classifier_output is None
    assert model(evaluation=named, outputs=["a", "b"]).classifier_output == "b"
    assert model(evaluation=plain).classifier_output is None
    assert model().classifier_output is None


@pytest.mark.parametrize("what", ["artifacts", "builders", "baselines"])
def test_two_keys_of_one_candidate_are_refused(what: str) -> None:
    given: Any = {"ort": "a.onnx", ("ort", "int8"): "c.onnx", ("ort", "fp32"): "b.onnx"}
    with pytest.raises(DeclarationError, match=rf"{what}: 'ort' and \('ort', 'fp32'\) mean the"):
        model(**{what: given})


def test_a_bare_path_becomes_an_artifact_and_an_artifact_stays() -> None:
    assert as_artifact("m.onnx") == Artifact("m.onnx")
    stated = Artifact("m.onnx", inputs={"x": "X"})
    assert as_artifact(stated) is stated


@pytest.mark.parametrize("name", ["targets", "target_options"])
def test_what_is_by_target_is_a_dict(name: str) -> None:
    with pytest.raises(DeclarationError, match=f"{name} is a list; it is a dict by target name"):
        model(**{name: ["ort"]})


@given(st.floats(0.0, 0.5), st.integers(2, 300), st.integers(0, 2**32 - 1))
def test_random_inputs_keep_to_the_declared_step(low: float, levels: int, seed: int) -> None:
    step = 1.0 / levels
    pixels = Input("x", (7, 9), low=low, high=low + 1.0, step=step)
    drawn = random_inputs([pixels], {}, np.random.default_rng(seed))["x"]
    steps = (drawn.astype(np.float64) - low) / step
    assert np.abs(steps - np.rint(steps)).max() < 1e-3 * levels
    assert np.rint(steps).min() >= 0
    assert np.rint(steps).max() <= levels


@pytest.mark.parametrize(("dtype", "step"), [("float32", 0.0), ("float32", 3.0), ("int8", 1.0)])
def test_a_step_that_is_no_spacing_is_refused(dtype: str, step: float) -> None:
    with pytest.raises(DeclarationError, match=r"is not a spacing of floats in 0\.0\.\.1\.0"):
        Input("x", (3,), dtype=dtype, step=step)
