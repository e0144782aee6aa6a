"""The rule of the first broken layer, on chains and branches of steps with given errors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.localization import judgement
from edgecheck.localization.judgement import judge, judge_faint, permuted_outputs, tolerances
from edgecheck.localization.matching import Pair
from edgecheck.runtime.trace import INPUT, Step

LIMIT = 0.01


def step(*sources: int, noise: float | None = None) -> Step:
    return Step("aten.conv2d", "", "", "", (1, 4), "float32", sources, noise, "")


def pairs(*errors: float | None) -> list[list[Pair]]:
    """One tensor of the candidate for each step, or none where it was fused away."""
    return [
        [] if error is None else [Pair(index, (0, 1), error, False)]
        for index, error in enumerate(errors)
    ]


def chain(*errors: float | None) -> judgement.FaultLocation:
    steps = [step(index - 1 if index else INPUT) for index in range(len(errors))]
    return judge(steps, pairs(*errors), [LIMIT] * len(errors))


def test_nothing_is_broken_where_the_last_output_agrees() -> None:
    assert chain(0.001, None, None, 0.002).broken == ()


def test_the_first_layer_after_what_agrees_is_broken() -> None:
    found = chain(0.001, 0.002, 0.4, 0.5)
    assert found.broken == (2,)
    assert found.stands_out
    assert (found.layers[2].before, found.error) == (0.002, 0.4)
    assert not found.from_input


def test_a_fused_layer_is_named_and_measured_at_what_the_candidate_makes() -> None:
    found = chain(0.001, None, 0.4, 0.5)
    assert found.broken == (1,)
    assert found.measured_at == 2
    assert found.error == 0.4


def test_a_candidate_that_makes_nothing_alike_is_infinitely_off() -> None:
    found = chain(0.001, None, None)
    assert found.broken == (1,)
    assert math.isinf(found.error)


def test_a_step_that_can_not_be_found_in_any_candidate_is_not_the_cause() -> None:
    steps = [step(-1), step(0)]
    alone = judge(steps, pairs(0.001, None), [LIMIT] * 2, unseen={1})
    assert alone.broken == ()
    after = judge([*steps, step(1)], pairs(0.001, None, 0.5), [LIMIT] * 3, unseen={1})
    assert after.broken == (2,)


def test_a_model_that_is_broken_from_its_input_on() -> None:
    found = chain(0.4, 0.4)
    assert found.broken == (0,)
    assert found.from_input


def test_an_error_that_grows_by_and_by_stands_out_nowhere() -> None:
    found = chain(0.006, 0.008, 0.012, 0.015)
    assert found.broken == (2,)
    assert not found.stands_out


def test_a_branch_that_agrees_does_not_hide_the_one_that_does_not() -> None:
    # 0 is read by 1 and by 2; 3 joins them.
    steps = [step(INPUT), step(0), step(0), step(1, 2), step(3)]
    found = judge(steps, pairs(0.001, 0.001, 0.5, 0.3, 0.3), [LIMIT] * 5)
    assert found.broken == (2,)


def test_a_tensor_that_is_another_steps_is_no_agreement() -> None:
    steps = [step(INPUT), step(0)]
    found = judge(steps, [[Pair(0, (0,), 0.0, False)], [Pair(0, (0,), 0.005, True)]], [LIMIT] * 2)
    assert found.broken == (1,)


@settings(deadline=None, max_examples=60)
@given(
    before=st.lists(st.none() | st.floats(1e-6, LIMIT), max_size=6),
    after=st.lists(st.none() | st.floats(0.1, 2.0), max_size=6),
)
def test_a_jump_is_found_behind_anything_that_was_fused(
    before: list[float | None], after: list[float | None]
) -> None:
    """The broken layer is the one after the last that agrees, up to what was fused with it."""
    found = chain(*before, 0.004, 0.9, *after)
    assert found.broken == (len(before) + 1,)
    assert found.stands_out


def test_tolerances_are_multiples_of_the_simulated_rounding() -> None:
    steps = [step(INPUT, noise=1e-3), step(0, noise=0.0), replace(step(1), noise=None)]
    fp32, int8 = tolerances(steps, "fp32"), tolerances(steps, "int8")
    assert fp32[0] == pytest.approx(judgement.MULTIPLE["fp32"] * 1e-3)
    assert fp32[1] == judgement.FLOOR["fp32"]
    assert int8[1] > fp32[1]
    assert fp32[2] >= judgement.FLOOR["fp32"]


NOISE = 0.02


def faint(*errors: float | None, noise: float = NOISE) -> judgement.FaultLocation | None:
    steps = [step(index - 1 if index else INPUT, noise=noise) for index in range(len(errors))]
    return judge_faint(steps, pairs(*errors), tolerances(steps, "int8"))


def test_a_faint_fault_jumps_within_tolerance_and_stays() -> None:
    found = faint(0.025, 0.03, 0.09, 0.08)
    assert found is not None
    assert found.broken == (2,)
    assert max(0.025, 0.03, 0.09, 0.08) < tolerances([step(INPUT, noise=NOISE)], "int8")[0]


@pytest.mark.parametrize(
    "errors",
    [
        (0.025, 0.03, 0.09, 0.025),  # what follows agrees
        (0.025, 0.03, 0.045, 0.045),  # as rounding makes it
        (0.01, 0.01, 0.045, 0.045),  # twice the rounding, which sound files have
        (0.01, 0.01, 0.2, 0.2),  # beyond tolerance: no faint one, or not this layer's tensor
        (0.03, 0.045, 0.06, 0.075, 0.09),  # by and by
        (0.09, 0.09),  # from the input on: other ranges
    ],
)
def test_what_rounding_may_do_is_no_faint_fault(errors: tuple[float, ...]) -> None:
    assert faint(*errors) is None


def test_a_layer_that_rounds_less_than_what_it_reads_is_none() -> None:
    steps = [step(INPUT, noise=0.02), step(0, noise=0.04), step(1, noise=0.01)]
    assert judge_faint(steps, pairs(0.03, 0.06, 0.055), tolerances(steps, "int8")) is None


def test_swapped_outputs_are_told_from_broken_ones() -> None:
    errors = {"boxes": {"boxes": 1.4, "scores": 0.0}, "scores": {"boxes": 0.0, "scores": 1.4}}
    assert permuted_outputs(errors, LIMIT) == {"boxes": "scores", "scores": "boxes"}
    broken = {"boxes": {"boxes": 1.4, "scores": 1.5}, "scores": {"boxes": 1.4, "scores": 0.0}}
    assert permuted_outputs(broken, LIMIT) == {}
    assert permuted_outputs({"only": {}}, LIMIT) == {}
