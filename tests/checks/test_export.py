"""The export check's judgement: a file must hold the precision that it is said to have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.checks.export import (
    download_bytes,
    judge_layers,
    judge_memory,
    judge_placement,
    judge_precision,
    judge_provider,
    judged_bytes,
)
from edgecheck.declare.budget import Limit
from edgecheck.names import PRECISIONS
from edgecheck.targets.common.static_arena import Buffer, Operator, chart, describe, plan
from tests.conftest import Judge

law = settings(deadline=None, derandomize=True, max_examples=50)

QUANTIZED = tuple(name for name in PRECISIONS if name.startswith("int"))
STORED_AS = {
    **{"fp16": "float16", "int8-dynamic": "int8", "int8": "int8", "int8-qat": "int8"},
    **{"int8-weights": "int8", "int16x8": "int8", "int4": "int4"},
}


def contents(
    elements: dict[str, Any] | None = None, operators: dict[str, int] | None = None
) -> dict[str, Any]:
    return {"weight_elements": elements or {}, "quantized_operators": operators or {}}


@pytest.mark.parametrize("precision", STORED_AS)
def test_a_file_with_all_weights_at_its_precision_passes(precision: str) -> None:
    held = contents({STORED_AS[precision]: 1000}, {"Conv": 3})
    assert judge_precision(precision, held) == ([], 1.0)


@pytest.mark.parametrize("precision", STORED_AS)
def test_a_file_with_float_weights_only_is_not_what_it_says(precision: str) -> None:
    (failure,), share = judge_precision(precision, contents({"float32": 1000}, {"Conv": 3}))
    assert failure == f"nothing in the file is {precision}: its weights are 1000 float32"
    assert share == 0.0


@pytest.mark.parametrize("precision", STORED_AS)
@pytest.mark.parametrize("elements", [{}, {"float32": 0}])
@pytest.mark.parametrize(("quantized", "half"), [(0, 0), (0, None), (3, 0), (0, 3)])
def test_a_file_without_weights_is_judged_by_what_it_computes_in(
    precision: str, elements: dict[str, Any], quantized: int, half: int | None
) -> None:
    held = {**contents(elements, {"Mul": quantized} if quantized else {}), "half_operators": half}
    failures, share = judge_precision(precision, held)
    assert share is None
    asked = {"fp16": half != 0, "int8": quantized, "int8-qat": quantized, "int16x8": quantized}
    assert len(failures) == (not asked.get(precision, True))
    if failures:
        assert failures[0].startswith(f"nothing in the file is {precision}: it has no weights")


@law
@given(
    st.sampled_from(sorted(STORED_AS)),
    st.integers(1, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
)
def test_the_share_is_that_of_elements_not_of_tensors(
    precision: str, stored: int, floats: int, biases: int
) -> None:
    elements = {STORED_AS[precision]: stored, "float32": floats, "int32": biases}
    failures, share = judge_precision(precision, contents(elements, {"Gemm": 1}))
    assert failures == []
    assert share == pytest.approx(stored / (stored + floats + biases))


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int8-qat"])
def test_int4_weights_count_for_int8(precision: str) -> None:
    assert judge_precision(precision, contents({"int8": 1, "int4": 3}, {"Gemm": 1})) == ([], 1.0)


def test_int8_weights_do_not_count_for_int4() -> None:
    failures, share = judge_precision("int4", contents({"int8": 3}, {"Gemm": 1}))
    assert failures and share == 0.0
    assert judge_precision("int4", contents({"int8": 3, "int4": 1}, {"Gemm": 1})) == ([], 0.25)


def test_bfloat16_counts_for_fp16() -> None:
    assert judge_precision("fp16", contents({"bfloat16": 5})) == ([], 1.0)


@pytest.mark.parametrize("precision", QUANTIZED)
def test_quantized_weights_that_no_operator_uses_fail(precision: str) -> None:
    held = contents({STORED_AS[precision]: 1000})
    (failure,), share = judge_precision(precision, held)
    assert f"no operator of the file works on its {precision} weights" in failure
    assert share == 1.0


def test_fp16_needs_no_quantized_operators() -> None:
    assert judge_precision("fp16", contents({"float16": 1000})) == ([], 1.0)


@pytest.mark.parametrize("precision", ["int8", "int8-qat", "int16x8"])
def test_a_static_file_with_float_activations_is_not_what_it_says(precision: str) -> None:
    (failure,), warnings = judge_layers(precision, {"integer": [], "float": ["Conv a", "Gemm b"]})
    assert "no layer computes on integers: the activations of all 2 layers are float" in failure
    assert warnings == []


def test_single_layers_in_float_are_named() -> None:
    layers = {"integer": ["Conv a"], "float": [f"Gemm {index}" for index in range(7)]}
    failures, (warning,) = judge_layers("int8", layers)
    assert failures == []
    assert warning == (
        "7 of 8 layers compute in float: Gemm 0, Gemm 1, Gemm 2, Gemm 3, Gemm 4, ..."
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-dynamic", "int8-weights", "int4"])
def test_other_precisions_may_have_float_activations(precision: str) -> None:
    assert judge_layers(precision, {"integer": [], "float": ["Conv a"]}) == ([], [])


def test_files_whose_layers_are_not_known_are_not_judged_by_them() -> None:
    assert judge_layers("int8", None) == ([], [])


def test_an_fp32_file_of_floats_passes_without_a_share() -> None:
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
def test_an_fp32_file_that_is_quantized_is_not_what_it_says(held: dict[str, Any]) -> None:
    (failure,), share = judge_precision("fp32", held)
    assert failure.startswith("the file is not fp32 throughout: it has")
    assert share is None


def test_an_fp32_file_with_half_precision_weights_is_not_what_it_says() -> None:
    failures, _ = judge_precision("fp32", contents({"float16": 1000}))
    assert failures


# -- placement


@pytest.mark.parametrize(
    "placement", [{}, {"undelegated_operators": 0, "operators": 3}, {"operators": 3}]
)
def test_operators_that_all_run_where_they_should_give_no_warning(
    placement: dict[str, Any],
) -> None:
    assert judge_placement(placement) == []


def test_operators_that_are_not_delegated_are_told_by_type() -> None:
    (warning,) = judge_placement(
        {
            "operators": 9,
            "undelegated_operators": 3,
            "undelegated_operators_by_type": {"GELU": 2, "PAD": 1},
        }
    )
    assert warning == "3 of 9 operators are not delegated: 2 GELU, 1 PAD"


def test_a_provider_that_runs_nothing_is_not_the_one_that_was_asked_for() -> None:
    ran = {"CPUExecutionProvider": 9}
    asked = {"operators_by_provider": ran, "asked_provider": "CPUExecutionProvider"}
    assert judge_provider({}) == judge_provider(asked) == []
    (failure,) = judge_provider({**asked, "asked_provider": "AzureExecutionProvider"})
    assert failure == (
        "no operator runs on AzureExecutionProvider, which target_options ask for: "
        "9 on CPUExecutionProvider"
    )


# -- activation memory


def memory(arena_bytes: int = 1000, variables_bytes: int = 0, **options: Any) -> dict[str, Any]:
    buffers = [Buffer("wide", arena_bytes - 16, 0, 1, (1, arena_bytes - 16), "int8")]
    operators = {0: Operator(-1, "the start of the graph", ""), 1: Operator(0, "CONV_2D", "wide")}
    return {**describe(plan(buffers), operators, variables_bytes), **options}


def at_most(limit_bytes: int | None) -> Limit:
    assert limit_bytes is not None
    return Limit("activation_memory", limit_bytes, "max", "bytes", "profile mcu")


def test_variables_count_with_the_arena() -> None:
    held = memory(arena_bytes=1600, variables_bytes=400)
    assert judged_bytes(held) == held["arena_bytes"] + 400
    assert judge_memory(held, at_most(judged_bytes(held))) == ([], "")
    assert judge_memory(held, at_most(held["arena_bytes"]))[1] == chart(held)


def test_it_is_the_devices_own_plan_that_is_judged_not_a_better_one() -> None:
    held = memory(best_bytes=10, lower_bound_bytes=10)
    assert judged_bytes(held) == held["arena_bytes"] > 10


def test_a_file_without_a_plan_fails_a_limit_and_says_why() -> None:
    held = {"unplanned": "operator If 'gate' has a graph inside"}
    assert judged_bytes(held) is None
    assert judge_memory(held, None) == ([], "")
    (failure,), details = judge_memory(held, at_most(524288))
    assert failure == (
        "activation_memory can't be planned, so it is not <= 524 kB (profile mcu): "
        "operator If 'gate' has a graph inside"
    )
    assert details == ""


# -- the whole check


def test_a_profile_fails_a_model_whose_activations_do_not_fit(judge: Judge) -> None:
    suite = """
    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.spread = torch.nn.Conv2d(1, 64, 3, padding=63)
            self.output = torch.nn.Linear(64, 4)

        def forward(self, x):
            wide = torch.relu(self.spread(x.reshape(-1, 1, 4, 4)))
            return self.output(wide.mean((2, 3)))

    def wide():
        torch.manual_seed(0)
        return Wide().eval()

    class TestWide(Conformance):
        model = model(wide, calibration=inputs)
    """
    options = ("--edge-profile=mcu", "--edge-precisions=int8", "--edge-checks=export")
    run = judge(suite, "--edge-targets=tflite", *options)
    assert run.status == 1
    (case,) = run.cases.values()
    assert case["limits"], run.output
    (broken,) = [item for item in case["limits"] if not item["passed"]]
    assert (broken["name"], broken["origin"]) == ("activation_memory", "profile mcu")
    # The widest tensor alone: 128 x 128 positions, 64 channels, int8.
    assert broken["measured"] == case["measurements"]["activation_memory_bytes"] >= 2**20
    flash = case["measurements"]["flash_estimate_bytes"]
    assert flash == case["measurements"]["size_bytes"] + 16 * 1024
    assert case["details"].splitlines()[0].startswith("activation arena ")
    assert case["details"] in run.output
    assert "1x128x128x64 int8" in run.output


def test_weights_and_flash_are_limited_and_what_can_not_be_planned_fails(judge: Judge) -> None:
    suite = """
    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.output = torch.nn.Linear(16, 4)

        def forward(self, x):
            return self.output(x).mean(1)

    class TestPooled(Conformance):
        model = Model(
            Pooled,
            inputs=[Input("x", ("batch", "time", 16))],
            outputs=["logits"],
            dims={"time": (2, 8)},
            targets={"ort": ["fp32"]},
        )
        budget = Budget(weights="271 B", flash="16 KiB", activation_memory="1 MB")
    """
    run = judge(suite, "--edge-targets=ort", "--edge-checks=export")
    (case,) = run.cases.values()
    measured = case["measurements"]
    assert measured["weights_bytes"] == 4 * (16 * 4 + 4)
    passed = {item["name"]: item["passed"] for item in case["limits"]}
    assert (passed["weights"], passed["flash"]) == (False, False)
    assert "activation_memory" not in passed
    (told,) = [line for line in case["failures"] if line.startswith("activation_memory")]
    assert "can't be planned, so it is not <= 1 MB (budget): tensor 'x' has no static shape" in told
    assert measured["activation_memory"]["unplanned"] in told


def test_a_download_is_the_file_and_the_runtime_that_comes_with_it() -> None:
    told = {"runtime_download_bytes": 14_000, "runtime_download_gzip_bytes": 3_000}
    assert download_bytes(500, 400, told) == {"download_size": 14_500, "download_size_gzip": 3_400}
    # A runtime that is on the device already is not downloaded.
    assert download_bytes(500, 400, {}) == {"download_size": 500, "download_size_gzip": 400}
    assert download_bytes(500, 400, None) == {}
