"""Parts of an output: what is lost beside larger values, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.declare.outputs import Output
from edgecheck.errors import DeclarationError
from edgecheck.judge.parts import PartAgreement, failure

law = settings(deadline=None, derandomize=True, max_examples=30)
LIMIT_DB = 10.0


def quantized(values: np.ndarray) -> np.ndarray:
    """Rounded to 256 levels over the range of the whole array."""
    step = float(values.max() - values.min()) / 255
    return (np.round(values / step) * step).astype(np.float32)


def compared(values: np.ndarray, **declared: object) -> PartAgreement:
    agreement = PartAgreement(**declared)  # type: ignore[arg-type]
    agreement.add(quantized(values), values)
    return agreement


def uniform(*scales: float, samples: int = 40) -> np.ndarray:
    """Channels of uniform values from 0 to each scale, with six places each."""
    drawn = np.random.default_rng(0).uniform(0, 1, (samples, len(scales), 6))
    return (drawn * np.array(scales)[:, None]).astype(np.float32)


@law
@given(
    large=st.integers(1, 5), small=st.integers(1, 5), ratio=st.floats(300, 1e5), first=st.booleans()
)
def test_channels_under_a_step_of_the_output_are_lost(
    large: int, small: int, ratio: float, first: bool
) -> None:
    scales = [2.0] * small + [2.0 * ratio] * large
    lost = compared(uniform(*(scales if first else scales[::-1]))).lost(LIMIT_DB)
    start = 0 if first else large
    assert [part.index for part in lost[1]] == list(range(start, start + small))
    assert max(part.levels for part in lost[1]) < 1.01


def test_the_failure_names_indices_levels_and_what_to_do() -> None:
    agreement = compared(uniform(640, 640, 640, 640, 1, 1, 1))
    sentence = failure("pred", 1, agreement.lost(LIMIT_DB)[1], agreement.step)
    assert "output 'pred': indices 4..6 of axis 1" in sentence
    assert "one step of the output is 2.5" in sentence
    assert "levels" in sentence and "keep the head in float" in sentence


@law
@given(scales=st.lists(st.floats(1, 60), min_size=2, max_size=8))
def test_channels_of_nearly_one_scale_keep_their_information(scales: list[float]) -> None:
    assert compared(uniform(*scales)).lost(LIMIT_DB) == {}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(uniform(600, 600, 0), id="a dead channel"),
        pytest.param(uniform(600, 600, 1, samples=2), id="too few values"),
        pytest.param(uniform(600, 1, 600, 1, 600), id="weak channels between others"),
        pytest.param(uniform(600, 100, 30, 8, 2), id="channels of all scales"),
        pytest.param(uniform(0.9, 0.9, 0.001), id="a class that no sample shows"),
        pytest.param(
            uniform(100, 1) - np.array([[0], [50]], np.float32), id="a nearly constant score"
        ),
    ],
)
def test_sound_outputs_lose_nothing(values: np.ndarray) -> None:
    assert compared(values).lost(LIMIT_DB) == {}


def test_floats_have_no_step() -> None:
    agreement = PartAgreement()
    values = uniform(600, 600, 1, samples=400)
    agreement.add(values + np.float32(1e-5), values)
    assert agreement.step == 0.0
    assert agreement.lost(LIMIT_DB) == {}


def test_named_parts_are_measured_each() -> None:
    slices = {"boxes": slice(0, 4), "scores": slice(4, None)}
    boxes, scores = compared(uniform(640, 640, 640, 640, 1, 1, 1), slices=slices).named()
    assert (boxes.name, scores.name) == ("boxes", "scores")
    assert boxes.sqnr_db > 40 and scores.sqnr_db < 3
    assert boxes.levels == pytest.approx(255, abs=1)


def test_calls_add_up_whatever_their_size() -> None:
    values = uniform(640, 1, 1)
    whole, halves = PartAgreement(), PartAgreement()
    candidate = quantized(values)
    whole.add(candidate, values)
    halves.add(candidate[:7], values[:7])
    halves.add(candidate[7:], values[7:])
    for one, other in zip(whole.indices()[1], halves.indices()[1], strict=True):
        assert one.sqnr_db == pytest.approx(other.sqnr_db)


def test_a_part_that_was_not_judged_is_a_failure() -> None:
    agreement = compared(uniform(1, 2), slices={"scores": slice(4, None)})
    assert "part 'scores' was not judged" in agreement.missing("pred")[0]
    flat = PartAgreement(slices={"a": slice(1)}, axis=2)
    flat.add(np.ones((50, 2)), np.ones((50, 2)))
    assert "too few for axis 2" in flat.missing("pred")[0]


@pytest.mark.parametrize(
    "declared",
    [{"nonfinite": "ok"}, {"parts": {"a/b": slice(1)}}, {"parts": {"a": 1}}, {"axis": 0}],
)
def test_an_impossible_declaration_is_refused(declared: dict[str, object]) -> None:
    with pytest.raises(DeclarationError, match="output 'y'"):
        Output("y", **declared)  # type: ignore[arg-type]
