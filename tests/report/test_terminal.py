"""The terminal summary: the gate's verdict, the matrix, and the lines of what failed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.judge.gate import Gate, count_verdicts, judge_gate
from edgecheck.names import CHECKS, PRECISIONS
from edgecheck.report.terminal import failure_lines, matrix_lines, summary_lines

law = settings(deadline=None, derandomize=True, max_examples=40)

VERDICTS = ("passed", "failed", "not_checked", "unsupported", "inconclusive")
BAD = ("failed", "unsupported", "inconclusive")
TARGETS = ("ort", "tflite", "executorch", "ort-web")
OPEN = Gate(False, "gate passed: 1 cases")


def record(verdict: str = "passed", check: str = "parity", **changes: Any) -> dict[str, Any]:
    model, variant = changes.get("model", "digits"), changes.get("variant", "")
    target, precision = changes.get("target", "ort"), changes.get("precision", "fp32")
    name = f"{model}:{variant}" if variant else model
    return {
        "key": f"{name}/{target}/{precision}/{check}",
        "nodeid": "suites/test_digits.py::TestDigits::test_parity[ort-fp32]",
        "model": model,
        "variant": variant,
        "target": target,
        "precision": precision,
        "check": check,
        "required": False,
        "verdict": verdict,
        "reason": "" if verdict == "passed" else "it is broken",
        "failures": [],
        "warnings": [],
        "limits": [],
        "measurements": {},
        "details": "",
        "artifact": None,
        "timings": {},
        "expected_failure": None,
        **changes,
    }


MEASUREMENTS = {
    "parity": {"outputs": {"logits": {"sqnr_db": 123.4}}},
    "accuracy": {"candidate": 0.9712, "reference": 0.98},
    "latency": {"latency_p50_ms": 123.4},
    "memory": {"peak_memory_bytes": 123_400_000},
    "export": {},
}


@st.composite
def runs(draw: st.DrawFn, longest: int = 4, fewest: int = 0) -> list[dict[str, Any]]:
    """Records of some candidates, each with some of the five checks."""
    found = []
    words = st.text("abcdefghij_-.", min_size=1, max_size=longest)
    identities = st.tuples(
        words, st.just("") | words, st.sampled_from(TARGETS), st.sampled_from(PRECISIONS)
    )
    for model, variant, target, precision in draw(
        st.lists(identities, min_size=fewest, max_size=6, unique=True)
    ):
        for check in draw(st.sets(st.sampled_from(CHECKS), min_size=1)):
            found.append(
                record(
                    draw(st.sampled_from(VERDICTS)),
                    check,
                    **{"model": model, "variant": variant, "target": target},
                    precision=precision,
                    required=draw(st.booleans()),
                    reason=draw(st.text(max_size=150)),
                    measurements=MEASUREMENTS[check] if draw(st.booleans()) else {},
                    artifact={"size_bytes": 123_400_000} if draw(st.booleans()) else None,
                )
            )
    return found


# -- the gate


@law
@given(runs(), st.booleans())
def test_the_gate_closes_on_any_bad_verdict_and_on_required_cases_not_checked(
    found: list[Any], accept: bool
) -> None:
    bad = any(item["verdict"] in BAD for item in found)
    missing = any(item["verdict"] == "not_checked" and item["required"] for item in found)
    gate = judge_gate(found, accept_missing=accept)
    assert gate.closed == (bad or (missing and not accept))
    assert gate.line.startswith(
        "gate closed" if bad else "gate incomplete" if gate.closed else "gate passed"
    )


@law
@given(runs(), st.booleans())
def test_a_further_failure_never_opens_the_gate(found: list[Any], accept: bool) -> None:
    before = judge_gate(found, accept_missing=accept)
    after = judge_gate([*found, record("failed")], accept_missing=accept)
    assert after.closed
    assert after.closed >= before.closed


@pytest.mark.parametrize("verdict", BAD)
def test_each_bad_verdict_closes_the_gate_also_where_not_required(verdict: str) -> None:
    gate = judge_gate([record(), record(verdict)], accept_missing=True)
    assert gate == Gate(True, "gate closed: 1 of 2 cases failed")


def test_errors_of_the_selection_close_the_gate_whatever_passed() -> None:
    gate = judge_gate([record()], accept_missing=True, errors=["no model 'x'", "no target"])
    assert gate == Gate(True, "gate closed: no model 'x'; no target")


def test_required_cases_not_checked_are_told_once_a_reason() -> None:
    found = [
        record("not_checked", check, target=target, reason=reason, required=True)
        for target, reason in (("trt", "no NVIDIA GPU"), ("coreml", "no Mac"))
        for check in CHECKS
    ]
    gate = judge_gate([record(), *found], accept_missing=False)
    assert gate == Gate(
        True,
        "gate incomplete: 10 required cases not checked (coreml: no Mac; trt: no NVIDIA GPU)",
    )
    accepted = judge_gate([record(), *found], accept_missing=True)
    assert accepted == Gate(False, "gate passed: 1 cases, 10 not checked")


def test_what_nobody_required_may_stay_unchecked_and_is_told() -> None:
    gate = judge_gate([record(), record("not_checked")], accept_missing=False)
    assert gate == Gate(False, "gate passed: 1 cases, 1 not checked")


def test_failures_are_told_before_what_is_missing() -> None:
    found = [record("failed"), record("not_checked", required=True)]
    assert judge_gate(found, accept_missing=False).line == "gate closed: 1 of 2 cases failed"


def test_an_expected_failure_does_not_close_the_gate_and_is_told() -> None:
    gate = judge_gate(
        [record(), record("failed", expected_failure="issue 7")], accept_missing=False
    )
    assert gate == Gate(False, "gate passed: 1 cases, 1 expected failures")


def noisy(**changes: Any) -> dict[str, Any]:
    """A case whose noise ``--edge-noise=warn`` accepts."""
    return record("inconclusive", "latency", expected_failure="--edge-noise=warn", **changes)


def test_noise_that_is_accepted_does_not_close_the_gate_and_is_told() -> None:
    gate = judge_gate([record(), noisy()], accept_missing=False)
    assert gate == Gate(False, "gate passed: 1 cases, 1 inconclusive")


def test_noise_is_told_apart_from_expected_failures() -> None:
    found = [record(), noisy(), noisy(), record("failed", expected_failure="issue 7")]
    gate = judge_gate(found, accept_missing=False)
    assert gate == Gate(False, "gate passed: 1 cases, 1 expected failures, 2 inconclusive")


def test_noise_that_is_accepted_does_not_excuse_another_case() -> None:
    for other in BAD:
        assert judge_gate([noisy(), record(other)], accept_missing=True).closed


def test_noise_that_is_accepted_is_no_failure_in_the_summary() -> None:
    lines = summary_lines([record(model="a"), noisy(model="b")], OPEN, [], {}, color=False)
    assert lines[0].startswith("model")
    assert "?" in next(line for line in lines if line.startswith("b"))
    assert "xfail" not in "\n".join(lines)


def test_an_expected_failure_does_not_excuse_another_case() -> None:
    found = [record("failed", expected_failure="issue 7"), record("failed")]
    assert judge_gate(found, accept_missing=False).closed


def test_an_expected_failure_whose_check_passed_does_not_excuse_another_case() -> None:
    """A user's own test may pass a check and then fail, as its xfail mark says."""
    found = [record("passed", expected_failure="issue 7"), record("failed")]
    assert judge_gate(found, accept_missing=False).closed


@law
@given(runs())
def test_every_case_is_counted_under_its_verdict(found: list[Any]) -> None:
    counts = count_verdicts(found)
    assert set(counts) == set(VERDICTS)
    assert sum(counts.values()) == len(found)


# -- the matrix


def rows(found: list[dict[str, Any]]) -> list[str]:
    return matrix_lines(found, color=False)[1:]


@law
@given(runs(longest=60, fewest=1))
def test_no_line_of_the_matrix_is_wider_than_a_hundred_columns(found: list[dict[str, Any]]) -> None:
    assert all(len(line) <= 100 for line in matrix_lines(found, color=False))


@law
@given(runs(fewest=1))
def test_the_matrix_has_one_row_a_candidate_and_one_column_a_check(
    found: list[dict[str, Any]],
) -> None:
    header, *body = matrix_lines(found, color=False)
    candidates = {
        (item["model"], item["variant"], item["target"], item["precision"]) for item in found
    }
    assert len(body) == len(candidates)
    made = [check for check in CHECKS if any(item["check"] == check for item in found)]
    assert header.split() == ["model", "target", "precision", "size", *made]


@law
@given(runs(fewest=1))
def test_no_verdict_and_no_figure_is_ever_cut(found: list[dict[str, Any]]) -> None:
    texts = "\n".join(rows(found))
    for text, figure, check in (
        ("123 dB", "outputs", "parity"),
        ("0.971", "candidate", "accuracy"),
        ("123 ms", "latency_p50_ms", "latency"),
        ("123 MB", "peak_memory_bytes", "memory"),
    ):
        shown = sum(item["check"] == check and figure in item["measurements"] for item in found)
        assert len(re.findall(rf"(?:ok|FAIL|skip|none|\?) {text}", texts)) == shown


@law
@given(runs(fewest=1))
def test_failing_rows_come_first(found: list[dict[str, Any]]) -> None:
    marks = [any(word in line for word in ("FAIL", "none", "?")) for line in rows(found)]
    assert marks == sorted(marks, reverse=True)
    assert any(marks) == any(item["verdict"] in BAD for item in found)


@pytest.mark.parametrize("verdict", BAD)
def test_every_row_that_closes_the_gate_comes_first(verdict: str) -> None:
    found = [record(model="a"), record(verdict, model="b")]
    assert rows(found)[0].startswith("b")


def test_a_row_that_is_expected_to_fail_does_not_come_first() -> None:
    found = [
        record(model="a"),
        record("failed", model="b", expected_failure="issue 7"),
        record("failed", model="c"),
    ]
    assert [line.split()[0] for line in rows(found)] == ["c", "a", "b"]


def test_rows_that_pass_are_in_order_of_model_target_and_precision() -> None:
    found = [
        record(model=model, target=target, precision=precision)
        for model in ("b", "a")
        for target in ("tflite", "ort")
        for precision in reversed(PRECISIONS)
    ]
    shown = [tuple(line.split()[:3]) for line in rows(found)]
    assert shown == [
        (model, target, precision)
        for model in ("a", "b")
        for target in ("ort", "tflite")
        for precision in PRECISIONS
    ]


def test_a_row_shows_each_check_in_a_word_and_a_figure() -> None:
    artifact = {"size_bytes": 1_500_000}
    found = [
        record("passed", "export", artifact=artifact),
        record("failed", "parity", measurements=MEASUREMENTS["parity"]),
        record("passed", "accuracy", measurements=MEASUREMENTS["accuracy"]),
        record("not_checked", "latency"),
        record("failed", "memory", expected_failure="issue 7"),
        record("passed", "export", model="other"),
    ]
    first, second = rows(found)
    words = "digits ort fp32 1.5 MB ok FAIL 123 dB ok 0.971 skip xfail"
    assert first.split() == words.split()
    assert second.split() == ["other", "ort", "fp32", "ok", "-", "-", "-", "-"]


def test_parity_shows_the_worst_output() -> None:
    outputs = {"a": {"sqnr_db": 60.0}, "b": {"sqnr_db": 12.3}, "c": {"sqnr_db": "inf"}}
    assert "ok 12 dB" in rows([record(measurements={"outputs": outputs})])[0]


def test_an_accuracy_and_a_time_of_exactly_zero_are_shown() -> None:
    found = [
        record("failed", "accuracy", measurements={"candidate": 0.0}),
        record("passed", "latency", measurements={"latency_p50_ms": 0.0}),
    ]
    assert "FAIL 0 " in rows(found)[0]
    assert "ok 0 ns" in rows(found)[0]


def test_a_measurement_that_is_no_number_does_not_break_the_summary() -> None:
    """Records hold NaN as text."""
    found = [record("failed", "accuracy", measurements={"candidate": "nan"})]
    assert "FAIL" in rows(found)[0]


@pytest.mark.parametrize("length", [20, 30, 60, 200])
def test_a_long_model_name_is_cut_and_nothing_else(length: int) -> None:
    found = [
        record(
            "failed",
            check,
            **{"model": "m" * length, "target": "tflite", "precision": "int8-dynamic"},
            measurements=MEASUREMENTS[check],
            artifact={"size_bytes": 123_400_000},
        )
        for check in CHECKS
    ]
    (line,) = rows(found)
    assert len(line) <= 100
    assert line.startswith("mmmmmmmm") and ("…" in line or "m" * length in line)
    rest = "tflite int8-dynamic 123 MB FAIL FAIL 123 dB FAIL 0.971 FAIL 123 ms FAIL 123 MB"
    assert line.split()[1:] == rest.split()


def test_tests_of_the_users_own_get_columns_after_the_standard_ones() -> None:
    found = [record(check="zebra"), record(check="apple"), record(check="export")]
    header = matrix_lines(found, color=False)[0]
    assert header.split()[-3:] == ["export", "apple", "zebra"]


def test_many_tests_of_the_users_own_do_not_make_the_matrix_wider() -> None:
    found = [record(check=f"a_test_of_my_own_{number}") for number in range(12)]
    assert all(len(line) <= 100 for line in matrix_lines(found, color=False))


def test_color_is_made_of_escapes_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    found = [record("failed"), record(check="export")]
    plain = matrix_lines(found, color=False)
    assert "\x1b" not in "\n".join(plain)
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    colored = matrix_lines(found, color=True)
    assert "\x1b" in "\n".join(colored)
    stripped = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in colored]
    assert stripped == plain


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    assert rows([record(model="a[red]b")])[0].startswith("a[red]b")


# -- failures


@law
@given(runs())
def test_there_is_one_entry_for_each_model_and_reason_of_what_failed(found: list[Any]) -> None:
    expected = {
        (item["key"].partition("/")[0], item["reason"]) for item in found if item["verdict"] in BAD
    }
    entries = [line for line in failure_lines(found) if not line.startswith("    ")]
    assert len(entries) == len(expected)


@law
@given(runs(longest=60))
def test_no_line_of_the_summary_is_wider_than_a_hundred_columns(found: list[Any]) -> None:
    absences = [("digits/ort", "int8", "no calibration data: " + "x " * 90)]
    lines = summary_lines(found, OPEN, absences, {"trt": "no GPU " * 30}, color=False)
    assert all(len(line) <= 100 for line in lines)


def test_a_failure_is_told_with_its_model_reason_and_cases() -> None:
    (line,) = failure_lines([record("failed"), record(), record("failed", "export")])
    assert line == "digits: it is broken (ort/fp32/parity, ort/fp32/export)"


def test_a_long_reason_is_wrapped_under_its_model() -> None:
    first, *rest = failure_lines([record("failed", reason="word " * 60)])
    assert first.startswith("digits: word")
    assert rest and all(line.startswith("    ") for line in rest)


def test_many_cases_that_failed_alike_are_counted() -> None:
    precisions = ("fp32", "fp16", "int8-dynamic", "int8", "int4")
    found = [record("failed", precision=precision) for precision in precisions]
    (line,) = failure_lines(found)
    assert line == (
        "digits: it is broken "
        "(ort/fp32/parity, ort/fp16/parity, ort/int8-dynamic/parity and 2 more)"
    )


def test_expected_failures_are_not_listed() -> None:
    assert failure_lines([record("failed", expected_failure="issue 7")]) == []


def test_only_the_first_reasons_are_listed_and_the_rest_counted() -> None:
    lines = failure_lines([record("failed", model=f"m{number}") for number in range(45)])
    assert len(lines) == 41
    assert lines[0].startswith("m0: ")
    assert lines[-1] == "... and 5 more reasons"


# -- the whole summary


def test_what_failed_comes_before_the_matrix() -> None:
    found = [record(model="a"), record("failed", model="b")]
    lines = summary_lines(found, OPEN, [], {}, color=False)
    assert lines[0] == "b: it is broken (ort/fp32/parity)"
    assert lines[1] == ""
    assert lines[2].startswith("model")


def test_absences_are_gathered_by_reason() -> None:
    absences = [
        ("b/ort", "int8", "no calibration data"),
        ("a/ort", "int8", "no calibration data"),
        ("a/ort", "int8-qat", "no QAT-converted program"),
    ]
    assert summary_lines([], OPEN, absences, {}, color=False) == [
        "no int8 for a/ort, b/ort: no calibration data",
        "no int8-qat for a/ort: no QAT-converted program",
    ]


def test_targets_that_were_left_out_are_told_with_the_reason() -> None:
    lines = summary_lines([], OPEN, [], {"trt": "no NVIDIA GPU"}, color=False)
    assert lines == ["target trt not run: no NVIDIA GPU"]


def test_only_the_first_warnings_are_listed_and_the_rest_counted() -> None:
    found = [record(warnings=[f"look {number}" for number in range(7)])]
    lines = summary_lines(found, OPEN, [], {}, color=False)
    assert sum(line.startswith("warning digits/ort/fp32/parity: look") for line in lines) == 5
    assert "... and 2 more warnings (--edge-json)" in lines


def test_a_run_without_anything_to_tell_tells_nothing() -> None:
    assert summary_lines([], OPEN, [], {}, color=False) == []


def test_what_could_not_be_measured_is_listed_before_other_warnings() -> None:
    unknown = "the model's own rounding noise is unknown, so the fixed limits of fp32 hold: no"
    found = [record(warnings=[*(f"look {number}" for number in range(7)), unknown])]
    lines = summary_lines(found, OPEN, [], {}, color=False)
    first = next(line for line in lines if line.startswith("warning "))
    assert "rounding noise is unknown" in first
