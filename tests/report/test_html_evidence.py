"""What the page tells of a case: limits as judged, samples binned, every measurement kept."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.report.page import figures, histogram
from edgecheck.report.page.evidence import evidence_of
from edgecheck.report.page.matrix import groups_of, rows_of
from edgecheck.report.page.status import headline, status_of, tightest
from tests.report.documents import MEASUREMENTS, candidate, record

law = settings(deadline=None, derandomize=True, max_examples=60)


def chart(evidence: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(item for item in evidence["charts"] if item["kind"] == kind)


def test_a_limit_shows_what_was_measured_its_bound_and_how_much_is_used_up() -> None:
    assert evidence_of(record("latency"))["limits"] == [
        {
            "name": "latency_p95",
            "measured": "26.8 us",
            "limit": "≤ 20 ms",
            "interval": "26 us to 28 us",
            "origin": "budget",
            "outcome": "passed",
            "used": 0.0013,
        }
    ]
    parity = evidence_of(record("parity"))["limits"][0]
    assert (parity["name"], parity["limit"]) == ("sqnr_db of logits", "≥ 30 dB")
    assert parity["used"] == pytest.approx(30 / 69.8, abs=1e-4)


@pytest.mark.parametrize(
    ("bound", "measured", "limit", "used"),
    [
        ("max", 5.0, 10.0, 0.5),
        ("max", 20.0, 10.0, 2.0),
        ("max", -1.0, 10.0, 0.0),
        ("max", 0.0, 0.0, 0.0),
        ("max", 1.0, 0.0, math.inf),
        ("min", 40.0, 30.0, 0.75),
        ("min", 15.0, 30.0, 2.0),
        ("min", "inf", 30.0, 0.0),
        ("min", 0.0, 30.0, math.inf),
        ("max", "nan", 10.0, math.inf),
        ("min", 0.99, 0.95, 0.2),
        ("min", 1.0, 1.0, 0.0),
        ("min", 0.9, 0.95, 2.0),
    ],
)
def test_how_much_of_a_limit_is_used_up(
    bound: str, measured: str | float, limit: float, used: float
) -> None:
    found = figures.used({"bound": bound, "measured": measured, "limit": limit, "unit": ""})
    assert found == pytest.approx(used)


@law
@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=300),
    st.sampled_from(["samples_ns", "cpu_samples_ns"]),
)
def test_a_histogram_counts_every_sample_or_says_how_many_it_leaves_out(
    samples: list[int], other: str
) -> None:
    values = {"cpu_samples_ns": samples} if other == "cpu_samples_ns" else {}
    found = histogram.of_latency(values, samples)
    counted = sum(item["samples"] for item in found["values"] if item["series"] == "wall time")
    slower = sum(value > np.quantile(samples, 0.995) for value in samples)
    assert counted == len(samples) - slower
    assert ("slower" in found["note"]) == bool(slower)
    assert len(found["values"]) <= 120
    assert {item["series"] for item in found["values"]} <= {"wall time", "CPU time"}


def test_quantiles_and_limits_are_marked_where_they_are_drawn() -> None:
    values = MEASUREMENTS["latency"]
    marks = histogram.of_latency(values, values["samples_ns"], [("p95", 0.025), ("p99", 20.0)])
    assert [item["mark"] for item in marks["marks"]] == ["p50", "p95", "limit of p95"]
    assert marks["unit"] == "us"
    assert marks["marks"][0]["at"] == 20.3


def test_memory_growth_is_drawn_from_its_first_reading() -> None:
    found = chart(evidence_of(record("memory")), "growth")["values"]
    assert found[:2] == [{"inferences": 0, "kB": 0.0}, {"inferences": 25, "kB": 4.096}]


def test_the_tensors_at_the_peak_of_activation_memory_are_drawn() -> None:
    found = chart(evidence_of(record("export")), "live")
    assert found["note"] == "At Relu, operator 4 of 9; 1 tensors take 4.1 kB."
    assert found["values"] == [{"tensor": "1. relu", "kB": 4.096, "type": "1x32 float32"}]


def test_a_histogram_of_errors_is_drawn_where_the_record_has_one() -> None:
    output = {"sqnr_db": 30.0, "error_histogram": {"edges": [-1, 0, 1], "counts": [3, 4]}}
    found = evidence_of(record("parity", measurements={"outputs": {"y": output}}))
    assert chart(found, "errors")["values"] == [
        {"from": -1, "to": 0, "elements": 3},
        {"from": 0, "to": 1, "elements": 4},
    ]


def test_parity_is_a_table_of_outputs_and_names_the_worst_element() -> None:
    tables = {item["caption"]: item for item in evidence_of(record("parity"))["tables"]}
    outputs = tables["Outputs against the reference"]
    assert outputs["head"] == ["output", "max abs error", "SQNR"]
    assert outputs["rows"] == [["logits", "0.007", "69.8 dB"]]
    assert tables["The worst element"]["rows"] == [["logits", "samples", "0, 4", "-2.4", "-2"]]


def test_a_batch_that_could_not_be_timed_says_why() -> None:
    table = evidence_of(record("latency"))["tables"][0]
    assert table["rows"] == [["4", "50 us", "80,000 /s"], ["16", "", "it crashed"]]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_p50_ms", 0.0203, "20.3 us"),
        ("peak_memory_bytes", 1_810_432, "1.81 MB"),
        ("memory_growth_bytes_per_inference", -12.0, "-12 B per inference"),
        ("wait_share", 0.0409, "4.09 %"),
        ("throughput_per_s", 46533.07, "46,533 /s"),
        ("sqnr_db", "inf", "∞ dB"),
        ("sqnr_db", 69.82, "69.82 dB"),
        ("anything", "nan", "NaN"),
        ("steady", True, "yes"),
        ("rounds", 3000, "3,000"),
        ("seed", None, "not known"),
    ],
)
def test_a_measurement_is_told_with_the_unit_of_its_name(
    name: str, value: str | bool | float | None, text: str
) -> None:
    assert figures.quantity(name, value) == text


@law
@given(
    st.recursive(
        st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False) | st.text() | st.none()),
        lambda inner: st.dictionaries(st.text(max_size=8), inner | st.lists(inner)),
        max_leaves=8,
    )
)
def test_measurements_of_ones_own_checks_can_always_be_shown(measurements: dict[str, Any]) -> None:
    finite = json.loads(json.dumps(measurements), parse_constant=str)
    found = evidence_of(record("my_own_check", measurements=finite))
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))


# -- status and matrix


@pytest.mark.parametrize(
    ("verdict", "expected_failure", "status"),
    [
        ("passed", None, "passed"),
        ("failed", None, "failed"),
        ("failed", "waived", "accepted"),
        ("inconclusive", "--edge-noise=warn", "accepted"),
        ("not_checked", None, "not_checked"),
        ("unsupported", None, "unsupported"),
    ],
)
def test_status(verdict: str, expected_failure: str | None, status: str) -> None:
    assert status_of(record(verdict=verdict, expected_failure=expected_failure)) == status


def test_headlines() -> None:
    found = [headline(item)[0] for item in candidate()]
    assert found == ["107 kB", "70 dB", "0.98", "20.3 us", "1.81 MB"]
    exact = record("parity", measurements={"outputs": {"y": {"sqnr_db": "inf"}}})
    assert headline(exact)[0] == "identical"
    assert headline(record("parity", "not_checked")) == ("", None)


def test_the_tightest_limit_is_the_one_nearest_to_its_bound() -> None:
    case = record("latency")
    near = {**case["limits"][0], "name": "latency_p99", "measured": 19.0}
    assert tightest({**case, "limits": [case["limits"][0], near]}) == ("latency_p99", 0.95)
    assert tightest({**case, "limits": []}) is None


def test_cases_that_failed_alike_are_one_group_named_with_a_count() -> None:
    cases = [
        record("latency", "failed", precision=f"p{number}", reason="too slow")
        for number in range(15)
    ]
    ((group,), left) = groups_of([*cases, record()], ("failed",))
    assert (group.reason, len(group.cases), group.more, left) == ("too slow", 12, 3, 0)


@law
@given(st.permutations(candidate() + candidate(precision="int8") + candidate(target="tflite")))
def test_the_matrix_does_not_depend_on_the_order_of_cases(cases: list[dict[str, Any]]) -> None:
    rows = rows_of(cases, frozenset())
    assert [(row.target, row.precision) for row in rows] == [
        ("ort", "fp32"),
        ("ort", "int8"),
        ("tflite", "fp32"),
    ]
    assert all(len(row.cells) == 5 for row in rows)
