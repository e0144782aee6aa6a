"""Budgets: how limits parse, which one holds for a case, and what a limit allows."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.declare.budget import DEFAULTS, KINDS, Budget, Limit
from edgecheck.declare.case import limits_for
from edgecheck.declare.device_classes import DEVICE_CLASSES, DeviceClass
from edgecheck.declare.limits import Bound
from edgecheck.errors import DeclarationError
from edgecheck.names import PRECISIONS

law = settings(deadline=None, derandomize=True, max_examples=50)
finite = st.floats(-1e9, 1e9, allow_nan=False)
bounds = st.sampled_from(["max", "min"])
units = st.sampled_from(["", "dB", "ms", "bytes", "/s"])
WORDS = ("ort", "tflite", "int8", "fp32", "pruned", "logits")


def limit(
    value: float,
    bound: Bound = "max",
    unit: str = "",
    name: str = "accuracy_drop",
    origin: str = "budget",
) -> Limit:
    return Limit(name, value, bound, unit, origin)


# -- Limit


@law
@given(finite, bounds, units)
def test_a_value_exactly_at_the_limit_is_allowed(value: float, bound: Bound, unit: str) -> None:
    assert limit(value, bound, unit).allows(value)


@law
@given(finite, finite, finite, bounds, units)
def test_what_a_limit_allows_it_allows_also_when_better(
    value: float, one: float, other: float, bound: Bound, unit: str
) -> None:
    better, worse = sorted([one, other], reverse=bound == "min")
    held = limit(value, bound, unit)
    assert held.allows(better) or not held.allows(worse)


@law
@given(finite, finite, finite, bounds, units)
def test_a_stricter_limit_allows_nothing_more(
    one: float, other: float, measured: float, bound: Bound, unit: str
) -> None:
    strict, loose = sorted([one, other], reverse=bound == "min")
    assert limit(loose, bound, unit).allows(measured) or not limit(strict, bound, unit).allows(
        measured
    )


@law
@given(st.floats(allow_nan=False), bounds, units)
def test_nan_keeps_no_limit(value: float, bound: Bound, unit: str) -> None:
    assert not limit(value, bound, unit).allows(math.nan)


@law
@given(finite, units)
def test_infinity_breaks_every_upper_and_keeps_every_lower_limit(value: float, unit: str) -> None:
    assert not limit(value, "max", unit).allows(math.inf)
    assert limit(value, "min", unit).allows(math.inf)
    assert limit(value, "max", unit).allows(-math.inf)
    assert not limit(value, "min", unit).allows(-math.inf)


@law
@given(finite, st.floats(1e-6, 1e6), bounds, units)
def test_a_value_visibly_beyond_the_limit_is_not_allowed(
    value: float, excess: float, bound: Bound, unit: str
) -> None:
    beyond = excess * max(1.0, abs(value))
    measured = value + beyond if bound == "max" else value - beyond
    assert not limit(value, bound, unit).allows(measured)


@law
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_rounding_of_a_difference_of_accuracies_does_not_break_a_limit(
    reference: int, candidate: int
) -> None:
    drop = reference / 10_000 - candidate / 10_000
    stated = float(f"{(reference - candidate) / 10_000:.4f}")
    assert limit(stated).allows(drop)


@pytest.mark.parametrize("name", ["max_abs_error", "max_relative_error"])
@pytest.mark.parametrize(("value", "measured"), [(0.0, 5e-10), (1e-12, 5e-10)])
def test_a_tiny_error_limit_is_not_drowned_by_what_is_forgiven(
    name: str, value: float, measured: float
) -> None:
    assert not limit(value, name=name).allows(measured)


def test_an_error_of_zero_keeps_a_limit_of_zero() -> None:
    assert limit(0.0, name="max_abs_error").allows(0.0)


@law
@given(st.floats(-1e6, 1e6), st.floats(0, 1), finite, bounds)
def test_a_limit_that_is_widened_allows_all_that_it_did(
    value: float, share: float, measured: float, bound: Bound
) -> None:
    held = limit(value, bound)
    assert held.widened(share).allows(measured) or not held.allows(measured)


@law
@given(st.floats(-1e6, 1e6), bounds)
def test_a_limit_widened_by_nothing_is_the_same(value: float, bound: Bound) -> None:
    assert limit(value, bound).widened(0.0) == limit(value, bound)


def test_a_limit_is_widened_by_a_share_of_itself() -> None:
    assert limit(1.05).widened(0.02).value == pytest.approx(1.071)
    assert limit(100.0, "min").widened(0.02).value == pytest.approx(98.0)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("ms", 5.0, "5 ms"),
        ("x", 1.05, "1.05 x"),
        ("bytes", 1e6, "1 MB"),
        ("dB", 12.0, "12 dB"),
        ("/s", 200.0, "200 /s"),
        ("", 0.02, "0.02"),
    ],
)
def test_a_limit_prints_in_its_unit(unit: str, value: float, text: str) -> None:
    assert limit(value, unit=unit).texts(value) == (text, text)


@law
@given(finite, finite, bounds, units)
def test_a_measured_value_and_its_limit_print_alike_only_where_they_are_equal(
    value: float, measured: float, bound: Bound, unit: str
) -> None:
    one, other = limit(value, bound, unit).texts(measured)
    assert one != other or limit(value, bound, unit).allows(measured)


# -- parsing


def test_every_field_of_a_budget_has_a_kind_and_the_reverse() -> None:
    assert {item.name for item in fields(Budget)} == set(KINDS)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_limit_reads_its_own_kind_of_value(name: str) -> None:
    kind = KINDS[name]
    examples = {"time": "3 ms", "bytes": "3 B", "rate": "3 /s", None: 3}
    stated: dict[str, Any] = {name: examples[kind.quantity]}
    (found,) = Budget(**stated).select(frozenset(), "budget").values()
    assert found == Limit(name, 3.0, kind.bound, kind.unit, "budget")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency_p95", 5),
        ("latency_p95", "5"),
        ("latency_p95", "5 MB"),
        ("peak_memory", "64"),
        ("size", 1000),
        ("throughput", "5 ms"),
        ("load_time", 5),
        ("first_inference", "5 /s"),
        ("latency_vs_fp32", "1.0"),
        ("latency_vs_fp32", "5 %"),
        ("latency_vs_baseline", math.nan),
        ("accuracy_drop", "0.02"),
        ("accuracy_drop", True),
        ("accuracy_drop", math.nan),
        ("accuracy_floor", math.inf),
        ("sqnr_db", "30 dB"),
        ("sqnr_db", [30]),
    ],
)
@pytest.mark.parametrize("by_word", [False, True])
def test_a_value_that_its_limit_can_not_read_is_refused_by_name(
    name: str, value: Any, by_word: bool
) -> None:
    with pytest.raises(DeclarationError, match=f"budget {name}"):
        Budget(**{name: {"int8": value} if by_word else value})


@pytest.mark.parametrize("name", ["latency_p95", "size", "throughput"])
def test_an_infinite_quantity_is_refused(name: str) -> None:
    unit = {"latency_p95": "s", "size": "GB", "throughput": "/s"}[name]
    with pytest.raises(DeclarationError):
        Budget(**{name: f"1e999 {unit}"})


def test_a_limit_of_zero_is_a_limit() -> None:
    found = Budget(accuracy_drop=0.0, max_abs_error=0).select(frozenset(), "budget")
    assert (found["accuracy_drop"].value, found["max_abs_error"].value) == (0.0, 0.0)


def test_a_budget_that_states_nothing_has_no_limits() -> None:
    assert Budget().select(frozenset(WORDS), "budget") == {}
    assert Budget(size={}).select(frozenset(WORDS), "budget") == {}


# -- selecting by words


@st.composite
def stated_by_words(draw: st.DrawFn) -> dict[str, float]:
    keys = st.one_of(
        st.just("default"),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True).map("/".join),
    )
    values = st.integers(-100, 100).map(float)
    return draw(st.dictionaries(keys, values, max_size=8))


@law
@given(stated_by_words(), st.sets(st.sampled_from(WORDS)), st.booleans())
def test_most_words_win_and_among_equally_many_the_strictest(
    stated: dict[str, float], words: set[str], upper: bool
) -> None:
    name = "accuracy_drop" if upper else "accuracy_floor"
    found = Budget(**{name: stated}).select(frozenset(words), "budget")
    matching = [
        (0 if key == "default" else len(key.split("/")), value)
        for key, value in stated.items()
        if key == "default" or set(key.split("/")) <= words
    ]
    if not matching:
        assert found == {}
        return
    most = max(count for count, _ in matching)
    strictest = (min if upper else max)(value for count, value in matching if count == most)
    assert found[name].value == strictest


@pytest.mark.parametrize(
    ("name", "strictest"), [("accuracy_drop", 0.1), ("accuracy_floor", 0.9), ("sqnr_db", 0.9)]
)
def test_among_words_that_say_as_much_the_strictest_value_holds(
    name: str, strictest: float
) -> None:
    stated = {"ort": 0.1, "int8": 0.9, "logits": 0.5, "default": 0.0, "tflite/int8": 2.0}
    found = Budget(**{name: stated}).select(frozenset({"ort", "int8", "logits"}), "budget")
    assert found[name].value == strictest


def test_the_order_of_words_in_a_key_does_not_matter() -> None:
    words = frozenset({"tflite", "int8"})
    one = Budget(size={"tflite/int8": "1 B", "default": "9 B"}).select(words, "budget")
    other = Budget(size={"int8/tflite": "1 B", "default": "9 B"}).select(words, "budget")
    assert one == other and one["size"].value == 1.0


def test_a_limit_for_one_precision_does_not_hold_for_another() -> None:
    assert Budget(accuracy_drop={"int8": 0.5}).select(frozenset({"fp32"}), "budget") == {}


def test_known_words_pass_the_check() -> None:
    Budget(size={"tflite/int8": "1 B", "default": "2 B"}).check_words(WORDS, "TestX")


@pytest.mark.parametrize("key", ["int9", "tflite/int9", "", "tflite/", "INT8"])
def test_a_word_that_means_nothing_is_an_error_that_says_where(key: str) -> None:
    with pytest.raises(DeclarationError, match="TestX: budget size: unknown word"):
        Budget(size={key: "1 B"}).check_words(WORDS, "TestX")


@pytest.mark.parametrize("key", ["default/int8", "int8/default"])
def test_a_key_that_passes_the_check_can_select_something(key: str) -> None:
    budget = Budget(size={key: "1 B"})
    try:
        budget.check_words(WORDS, "TestX")
    except DeclarationError:
        return
    assert budget.select(frozenset(WORDS), "budget")


# -- defaults, budget and profile together


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_has_default_limits_on_accuracy_and_agreement(precision: str) -> None:
    found = limits_for(precision, frozenset({precision}), Budget(), None)
    assert found["accuracy_drop"].value > 0.0
    assert found["sqnr_db"].value > 0.0
    assert {item.origin for item in found.values()} == {"default"}


def test_an_unknown_precision_has_no_defaults() -> None:
    assert limits_for("fp8", frozenset(), Budget(), None) == {}


def test_quantized_precisions_must_store_weights_as_they_say() -> None:
    for precision in set(PRECISIONS) - {"fp32"}:
        assert "quantized_weights" in DEFAULTS[precision].select(frozenset(), "default")


@law
@given(st.sampled_from(PRECISIONS), st.floats(-1.0, 1.0))
def test_what_the_budget_states_replaces_the_default_even_where_looser(
    precision: str, stated: float
) -> None:
    found = limits_for(precision, frozenset({precision}), Budget(accuracy_drop=stated), None)
    assert (found["accuracy_drop"].value, found["accuracy_drop"].origin) == (stated, "budget")


def test_a_budget_for_other_cases_leaves_the_default() -> None:
    budget = Budget(accuracy_drop={"tflite": 0.5})
    found = limits_for("int8", frozenset({"ort", "int8"}), budget, None)
    assert found["accuracy_drop"].origin == "default"


@law
@given(st.none() | st.integers(1, 10**9), st.integers(1, 10**9))
def test_of_budget_and_profile_the_stricter_upper_limit_holds(
    stated: int | None, profiled: int
) -> None:
    budget = Budget() if stated is None else Budget(size=f"{stated} B")
    profile = DeviceClass("toy", Budget(size=f"{profiled} B"), None, "")
    held = limits_for("fp32", frozenset({"fp32"}), budget, profile)["size"]
    assert held.value == (profiled if stated is None else min(stated, profiled))
    from_budget = stated is not None and stated <= profiled
    assert held.origin == ("budget" if from_budget else "profile toy")


@law
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_of_budget_and_profile_the_stricter_lower_limit_holds(stated: int, profiled: int) -> None:
    profile = DeviceClass("toy", Budget(throughput=f"{profiled} /s"), None, "")
    budget = Budget(throughput=f"{stated} /s")
    held = limits_for("fp32", frozenset(), budget, profile)["throughput"]
    assert held.value == max(stated, profiled)


def test_a_budget_for_a_device_class_holds_for_that_class_only() -> None:
    budget = Budget(latency_p95={"default": "20 ms", "mobile": "5 ms", "mobile/int8": "2 ms"})
    held = [
        budget.select(frozenset({"ort", *words}), "budget")["latency_p95"].value
        for words in ((), ("mobile",), ("int8",), ("mobile", "int8"), ("sbc",))
    ]
    assert held == [20.0, 5.0, 20.0, 2.0, 20.0]


def test_a_profile_does_not_loosen_a_default() -> None:
    profile = DeviceClass("lax", Budget(accuracy_drop=0.9), None, "")
    found = limits_for("fp32", frozenset({"fp32"}), Budget(), profile)
    assert found["accuracy_drop"].value < 0.9


@pytest.mark.parametrize("name", sorted(DEVICE_CLASSES))
def test_every_profile_is_sound(name: str) -> None:
    profile = DEVICE_CLASSES[name]
    assert profile.name == name
    assert profile.source
    assert set(profile.precisions or ()) <= set(PRECISIONS)
    found = limits_for("int8", frozenset({"int8"}), Budget(), profile)
    assert any(item.origin == f"profile {name}" for item in found.values())


def test_the_bundled_tables_can_not_be_changed() -> None:
    for table in (DEFAULTS, DEVICE_CLASSES, KINDS):
        with pytest.raises(TypeError):
            table["new"] = None  # type: ignore[index]
