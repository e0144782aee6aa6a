"""Adversarial inputs: of the domain, found alike by the same seed, guided, and made small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.checks.fuzz_inputs import (
    LEVELS,
    PARTS,
    PATTERNS,
    Judged,
    Pattern,
    Recipe,
    build,
    describe,
    level,
    recipes,
    search,
)
from edgecheck.declare.model import Input

law = settings(deadline=None, derandomize=True, max_examples=60)
BOUNDS = {"batch": (1, 2, 5), "length": (2, 9)}


@st.composite
def inputs(draw: Any) -> Input:
    dtype = draw(st.sampled_from(["float32", "float16", "float64", "int64", "uint8", "bool"]))
    shape = draw(st.sampled_from([("batch", 7), ("batch", "length"), (3, 2, 2), ()]))
    if dtype == "bool":
        return Input("x", shape, dtype=dtype)
    ends: st.SearchStrategy[Any]
    if dtype in ("int64", "uint8"):
        ends = st.integers(0, 255) if dtype == "uint8" else st.integers(-(2**62), 2**62)
        low, high = sorted(draw(st.tuples(ends, ends)))
        return Input("x", shape, low=low, high=high, dtype=dtype)
    ends = st.floats(-1000, 1000, width=16)
    low, high = sorted(draw(st.tuples(ends, ends)))
    step = (high - low) / 255 if high - low > 1e-3 and draw(st.booleans()) else None
    return Input("x", shape, low=low, high=high, dtype=dtype, step=step)


@law
@given(inputs(), st.data())
def test_what_is_drawn_has_the_shape_the_dtype_and_the_domain(item: Input, data: Any) -> None:
    recipe = data.draw(recipes([item], BOUNDS))
    array = build([item], recipe)["x"]
    sizes = dict(recipe.sizes)
    assert array.shape == tuple(sizes.get(size, size) for size in item.shape)
    assert array.dtype == item.dtype
    assert sizes["batch"] in BOUNDS["batch"] and 2 <= sizes["length"] <= 9
    if item.dtype == "bool":
        return
    low, high = (np.dtype(item.dtype).type(end) for end in (item.low, item.high))
    assert (array >= low).all()
    slack = 2 * np.spacing(np.abs(array)) if item.step else 0  # the grid's own rounding
    assert (array <= high + slack).all()
    if item.step is not None and item.dtype == "float64":
        steps = (array - item.low) / item.step
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


@law
@given(inputs(), st.data())
def test_a_recipe_gives_the_same_array_each_time(item: Input, data: Any) -> None:
    recipe = data.draw(recipes([item], BOUNDS))
    np.testing.assert_array_equal(build([item], recipe)["x"], build([item], recipe)["x"])


def test_values_of_interest_are_those_of_the_domain() -> None:
    item = Input("x", (4,), low=-1, high=2)
    found = {name: float(level(item, name)) for name in LEVELS}
    assert (found["zero"], found["low"], found["high"], found["middle"]) == (0, -1, 2, 0.5)
    assert -1 < found["over low"] < -1 + 1e-6
    assert 2 - 1e-6 < found["under high"] < 2
    assert 0 < found["tiny"] < 1.2e-38  # below the smallest normal number
    assert [float(level(item, part)) for part in (0, PARTS // 2, PARTS)] == [-1, 0.5, 2]
    away = Input("x", (4,), low=3, high=5)
    assert {float(level(away, name)) for name in ("zero", "tiny", "low")} == {3.0}
    pixels = Input("x", (4,), high=1.0, step=1 / 255)
    assert level(pixels, "high") == 1.0
    assert float(level(pixels, "over low")) == pytest.approx(1 / 255)
    assert level(pixels, "tiny") == 0.0
    identifiers = Input("x", (4,), low=0, high=2**31, dtype="int64")
    assert level(identifiers, "odd") == 2**24 + 1
    assert level(Input("x", (4,), low=0, high=9, dtype="int64"), "odd") == 9
    assert level(Input("x", (4,), dtype="bool"), "high") == np.True_


def test_each_pattern_is_what_it_is_called() -> None:
    item = Input("x", (6,), low=0, high=1)

    def made(base: str, edits: tuple[tuple[int, str], ...] = (), lev: str = "zero") -> Any:
        return build([item], Recipe((), (Pattern(base, lev, 3, edits),)))["x"]

    assert made("constant", lev="high").tolist() == [1] * 6
    assert made("constant", ((7, "high"),)).tolist() == [0, 1, 0, 0, 0, 0]
    assert made("alternating").tolist() == [0, 1] * 3
    assert made("alternating", lev="high").tolist() == [1, 0] * 3
    assert made("blocks").tolist() == [0, 0, 0, 1, 1, 1]
    assert made("ramp").tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert set(made("extremes")) == {0, 1}
    assert len(set(made("random"))) == 6
    assert set(PATTERNS) == {"constant", "ramp", "alternating", "blocks", "extremes", "random"}


# -- search

X = Input("x", ("batch", 5, 4), low=-2, high=2)


def edge(arrays: Any) -> Judged:
    """Fails where a value is the upper bound."""
    error = float((arrays["x"] == 2).any())
    return Judged(10 * error, "too far" if error else "")


def test_a_fault_at_one_value_is_found_and_made_as_small_as_it_can_be() -> None:
    found = search([X], {"batch": (1, 2, 5)}, edge, count=200, seed=0)
    assert found.arrays is not None and found.judged == Judged(10.0, "too far")
    array = found.arrays["x"]
    assert array.shape == (1, 5, 4)
    assert sorted(array.ravel()) == [0] * 19 + [2]
    assert 1 <= found.examples <= 200


def test_inputs_that_are_valid_together_only_stay_valid_in_a_search() -> None:
    """`x` fails at a bound; `part` and `rest` add up to one, drawn or made small."""
    pair = [Input("part", ("batch",)), Input("rest", ("batch",))]
    fixed = Input("fixed", ("batch",), low=0, high=1, bounds=False)

    def draw(sizes: dict[str, int], rng: np.random.Generator) -> dict[str, Any]:
        part = rng.uniform(0, 1, sizes["batch"])
        return {"part": part, "rest": 1 - part}

    def judge(arrays: Any) -> Judged:
        np.testing.assert_allclose(arrays["part"] + arrays["rest"], 1, rtol=1e-6)
        assert ((arrays["fixed"] > 0) & (arrays["fixed"] < 1)).all()
        return edge(arrays)

    inputs = [X, *pair, fixed]
    found = search(inputs, {"batch": (1, 2)}, judge, count=60, seed=0, draw=draw)
    assert found.arrays is not None
    assert sorted(found.arrays["x"].ravel()) == [0] * 19 + [2]


@pytest.mark.parametrize("judge", [edge, lambda arrays: Judged(float(arrays["x"].std()))])
def test_the_same_seed_finds_the_same(judge: Any) -> None:
    one, other = (search([X], {"batch": (1, 2)}, judge, count=60, seed=7) for _ in range(2))
    assert (one.examples, one.score, one.label) == (other.examples, other.score, other.label)
    if one.arrays is not None and other.arrays is not None:
        np.testing.assert_array_equal(one.arrays["x"], other.arrays["x"])


def test_nothing_is_found_where_nothing_fails() -> None:
    seen = []

    def judge(arrays: Any) -> Judged:
        seen.append(arrays["x"].copy())
        return Judged(0.5)

    found = search([X], {"batch": (1, 2)}, judge, count=80, seed=0)
    assert (found.arrays, found.examples, found.score) == (None, len(seen), 0.5)
    assert 40 <= len(seen) <= 80
    assert {len(array) for array in seen} == {1, 2}


def test_the_score_guides_the_search() -> None:
    """To a place between the values of interest, of which blind draws come less close."""
    item = Input("x", (4,), low=0, high=1)

    def closest(seed: int, *, guided: bool) -> float:
        distances = []

        def judge(arrays: Any) -> Judged:
            distances.append(abs(float(arrays["x"][0]) - 0.7321))
            return Judged(1 / (distances[-1] + 1e-3) if guided else 0.0)

        search([item], {}, judge, count=150, seed=seed)
        return min(distances)

    guided, blind = (
        np.median([closest(seed, guided=way) for seed in range(5)]) for way in (True, False)
    )
    assert guided < blind / 2


def test_several_inputs_are_made_small_each() -> None:
    ids = Input("ids", ("batch", 6), low=0, high=2**26, dtype="int64")

    def judge(arrays: Any) -> Judged:
        bad = (arrays["ids"] > 2**24).any() and (arrays["x"] < 0).any()
        return Judged(2.0 * bad, "rounded" if bad else "")

    found = search([X, ids], {"batch": (1, 3)}, judge, count=200, seed=0)
    assert found.arrays is not None
    assert np.count_nonzero(found.arrays["x"]) == np.count_nonzero(found.arrays["ids"]) == 1


@pytest.mark.parametrize("score", [0.0, math.inf, 1e300, 5e-324])
def test_any_score_can_guide(score: float) -> None:
    assert search([X], {"batch": (1,)}, lambda _: Judged(score), count=5, seed=0).score == score


def test_a_candidate_that_varies_does_not_end_the_search() -> None:
    calls = []

    def judge(_: Any) -> Judged:
        calls.append(0)
        return Judged(3.0, "varies" if len(calls) % 3 == 0 else "")

    found = search([X], {"batch": (1, 2)}, judge, count=50, seed=0)
    assert found.arrays is not None and found.judged is not None
    assert found.judged.failure == "varies"


# -- describe


def test_inputs_are_told_in_words() -> None:
    array = np.zeros((2, 3), np.float32)
    assert describe({"x": array}) == "x: float32 (2, 3), all 0"
    array[1, 2] = 0.5
    assert describe({"x": array}) == "x: float32 (2, 3), 0 but for 0.5 at [1, 2]"
    many = np.arange(6).reshape(2, 3)
    assert describe({"x": many}) == "x: int64 (2, 3), 6 values in 0 .. 5"
    assert describe({"x": np.array(True)}) == "x: bool (), all 1"
