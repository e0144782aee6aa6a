"""What is kept of a report: its numbers, whatever else it holds, and which device they are of."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecheck.history.metrics import HIGHER, LOWER, METRICS
from edgecheck.history.results import (
    ENOUGH_DB,
    Reading,
    case_result,
    case_results,
    fingerprint,
    number,
    results_of,
)
from tests.history.test_merge import COMMIT, record, shard

DEVICE = {"system": "Linux", "cpu": "A", "cores": 2, "threads": 1, "runtime": "onnxruntime 1.31"}


def readings(measurements: dict[str, Any]) -> dict[tuple[str, str], Reading]:
    found = case_result(record(measurements=measurements)).readings
    return {item.place: item for item in found}


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_a_finite_number_is_kept_as_it_is(value: float) -> None:
    assert number(value) == value


@pytest.mark.parametrize(
    "value", [None, True, "1.5", "inf", "nan", math.inf, -math.inf, math.nan, 10**400, [1], {}]
)
def test_what_is_no_finite_number_is_none(value: Any) -> None:
    assert number(value) is None
    assert readings({"size_bytes": value}) == {}


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_whatever_stands_where_numbers_should_a_report_can_be_read(
    value: float | list[str | bool | float | None] | None,
) -> None:
    measurements = {
        "latency_p50_ms": 1.0,
        "latency_p50_interval_ms": value,
        "candidate": value,
        "higher_is_better": value,
        "outputs": {"y": value, "z": {"sqnr_db": value, "top1_agreement": value}},
        **{name: value for name in METRICS if name != "latency_p50_ms"},
    }
    # As Python reads it: with NaN and Infinity, which JSON does not have.
    for item in readings(json.loads(json.dumps(measurements))).values():
        assert math.isfinite(item.value)
    assert readings({"outputs": value}) == {}


def test_numbers_have_their_interval() -> None:
    found = readings(
        {
            "latency_p50_ms": 2.0,
            "latency_p50_interval_ms": [1.9, 2.2],
            "throughput_per_s": 500,
            "peak_memory_bytes": 4096,
            "not_followed_ms": 3.0,
        }
    )
    assert found == {
        ("latency_p50_ms", ""): Reading("latency_p50_ms", "", 2.0, LOWER, 1.9, 2.2),
        ("throughput_per_s", ""): Reading("throughput_per_s", "", 500.0, HIGHER),
        ("peak_memory_bytes", ""): Reading("peak_memory_bytes", "", 4096.0, LOWER),
    }


def test_each_output_has_numbers_of_its_own() -> None:
    outputs = {
        "boxes": {"sqnr_db": 31.5, "top1_agreement": None},
        "scores": {"sqnr_db": 28.0, "top1_agreement": 0.98},
    }
    found = {place: item.value for place, item in readings({"outputs": outputs}).items()}
    assert found == {
        ("sqnr_db", "boxes"): 31.5,
        ("sqnr_db", "scores"): 28.0,
        ("top1_agreement", "scores"): 0.98,
    }


@pytest.mark.parametrize("value", [ENOUGH_DB, 132.0, 400.0])
def test_beyond_what_matters_one_sqnr_is_as_good_as_another(value: float) -> None:
    (found,) = readings({"outputs": {"y": {"sqnr_db": value}}}).values()
    assert found.value == ENOUGH_DB


@pytest.mark.parametrize(("higher", "better"), [(True, HIGHER), (False, LOWER)])
def test_an_accuracy_says_itself_which_way_is_better(higher: bool, better: str) -> None:
    measurements = {"metric": "wer", "higher_is_better": higher, "candidate": 0.2, "reference": 0.1}
    (found,) = readings(measurements).values()
    assert found == Reading("accuracy", "wer", 0.2, better)


def test_the_run_and_its_cases() -> None:
    case = record("failed", expected_failure="a known bug", reason="slow", device=DEVICE)
    found = results_of(shard("a", case, artifact=None))
    assert (found.run.commit, found.run.branch, found.run.dirty) == (COMMIT, "main", False)
    assert found.run.gate == "passed"
    assert found.run.name == "run aaaaaaaa, commit 1111111111"
    (result,) = found.cases.values()
    assert (result.verdict, result.accepted, result.reason) == ("failed", "a known bug", "slow")
    assert result.device == DEVICE


def test_outside_a_repository_a_run_has_no_commit() -> None:
    found = results_of(shard("a", git=None)).run
    assert (found.commit, found.branch, found.name) == ("", "", "run aaaaaaaa")


def test_of_results_with_one_key_the_worst_counts() -> None:
    # A test of the user's own has a case for each of its parameters.
    passed, accepted, failed = record(), record("failed", expected_failure="x"), record("failed")
    for order in ([passed, accepted, failed], [failed, passed, accepted], [accepted, failed]):
        (found,) = case_results(order).values()
        assert (found.verdict, found.accepted) == ("failed", "")
    (found,) = case_results([accepted, passed]).values()
    assert found.accepted == "x"


@pytest.mark.parametrize("device", [None, {}, "a Raspberry Pi", ["x"]])
def test_a_device_that_is_not_known_has_no_fingerprint(
    device: str | dict[Any, Any] | list[str] | None,
) -> None:
    assert fingerprint(case_result(record(device=device)).device) == ""


devices = st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text()))


@given(devices, devices)
def test_fingerprints_differ_where_devices_do(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert (fingerprint(left) == fingerprint(right)) == (left == right)
    assert fingerprint(dict(reversed(left.items()))) == fingerprint(left)
    assert len(fingerprint(left)) in (0, 16)
