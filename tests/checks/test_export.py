"""The export check's judgement: a file must hold the precision that it is said to have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.checks.export import judge_placement, judge_precision
from edgecheck.names import PRECISIONS

law = settings(deadline=None, derandomize=True, max_examples=50)

QUANTIZED = tuple(name for name in PRECISIONS if name.startswith("int"))
STORED_AS = {
    **{"fp16": "float16", "int8-dynamic": "int8", "int8": "int8", "int8-qat": "int8"},
    "int4": "int4",
}


def contents(elements=None, operators=None):
    return {"weight_elements": elements or {}, "quantized_operators": operators or {}}


@pytest.mark.parametrize("precision", STORED_AS)
def test_a_file_with_all_weights_at_its_precision_passes(precision):
    held = contents({STORED_AS[precision]: 1000}, {"Conv": 3})
    assert judge_precision(precision, held) == ([], 1.0)


@pytest.mark.parametrize("precision", STORED_AS)
def test_a_file_with_float_weights_only_is_not_what_it_says(precision):
    (failure,), share = judge_precision(precision, contents({"float32": 1000}, {"Conv": 3}))
    assert failure == f"nothing in the file is {precision}: its weights are 1000 float32"
    assert share == 0.0


@pytest.mark.parametrize("precision", STORED_AS)
@pytest.mark.parametrize("elements", [{}, {"float32": 0}])
def test_a_file_without_weights_is_not_what_it_says(precision, elements):
    failures, share = judge_precision(precision, contents(elements, {"Conv": 3}))
    assert len(failures) == 1
    assert share == 0.0


@law
@given(
    st.sampled_from(sorted(STORED_AS)),
    st.integers(1, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
)
def test_the_share_is_that_of_elements_not_of_tensors(precision, stored, floats, biases):
    elements = {STORED_AS[precision]: stored, "float32": floats, "int32": biases}
    failures, share = judge_precision(precision, contents(elements, {"Gemm": 1}))
    assert failures == []
    assert share == pytest.approx(stored / (stored + floats + biases))


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int8-qat"])
def test_int4_weights_count_for_int8(precision):
    assert judge_precision(precision, contents({"int8": 1, "int4": 3}, {"Gemm": 1})) == ([], 1.0)


def test_int8_weights_do_not_count_for_int4():
    failures, share = judge_precision("int4", contents({"int8": 3}, {"Gemm": 1}))
    assert failures and share == 0.0
    assert judge_precision("int4", contents({"int8": 3, "int4": 1}, {"Gemm": 1})) == ([], 0.25)


def test_bfloat16_counts_for_fp16():
    assert judge_precision("fp16", contents({"bfloat16": 5})) == ([], 1.0)


@pytest.mark.parametrize("precision", QUANTIZED)
def test_quantized_weights_that_no_operator_uses_fail(precision):
    held = contents({STORED_AS[precision]: 1000})
    (failure,), share = judge_precision(precision, held)
    assert f"no operator of the file works on its {precision} weights" in failure
    assert share == 1.0


def test_fp16_needs_no_quantized_operators():
    assert judge_precision("fp16", contents({"float16": 1000})) == ([], 1.0)


def test_an_fp32_file_of_floats_passes_without_a_share():
    assert judge_precision("fp32", contents({"float32": 1000, "int64": 8})) == ([], None)
    assert judge_precision("fp32", contents()) == ([], None)


@pytest.mark.parametrize(
    "held",
    [
        contents({"float32": 5}, {"ConvInteger": 2}),
        contents({"float32": 5, "int8": 7}),
        contents({"int4": 7}),
    ],
)
def test_an_fp32_file_that_is_quantized_is_not_what_it_says(held):
    (failure,), share = judge_precision("fp32", held)
    assert failure.startswith("the file is not fp32 throughout: it has")
    assert share is None


def test_an_fp32_file_with_half_precision_weights_is_not_what_it_says():
    failures, _ = judge_precision("fp32", contents({"float16": 1000}))
    assert failures


# -- placement


@pytest.mark.parametrize(
    "placement", [{}, {"undelegated_operators": 0, "operators": 3}, {"operators": 3}]
)
def test_operators_that_all_run_where_they_should_give_no_warning(placement):
    assert judge_placement(placement) == []


def test_operators_that_are_not_delegated_are_told_by_type():
    (warning,) = judge_placement(
        {
            "operators": 9,
            "undelegated_operators": 3,
            "undelegated_operators_by_type": {"GELU": 2, "PAD": 1},
        }
    )
    assert warning == "3 of 9 operators are not delegated: 2 GELU, 1 PAD"
