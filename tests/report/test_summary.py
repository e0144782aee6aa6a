"""The summary for CI: the Markdown page, what it leaves out, and GitHub's annotations."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from edgecheck.history.compare import compare_runs
from edgecheck.history.metrics import METRICS
from edgecheck.history.results import results_of
from edgecheck.judge.gate import count_verdicts, judge_gate
from edgecheck.report.summary import ANNOTATIONS, as_markdown, workflow_commands
from tests.report.test_terminal import record

law = settings(deadline=None, derandomize=True, max_examples=60)
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def document(*cases: dict[str, Any], **changes: Any) -> dict[str, Any]:
    gate = judge_gate(cases, accept_missing=False)
    return {
        "run": {
            "id": "f" * 32,
            "started": "2026-11-21T10:00:00+00:00",
            "host": {"cpu": "Some CPU"},
            "git": {"commit": "1" * 40, "branch": "main", "dirty": True},
        },
        "gate": {
            "verdict": "closed" if gate.closed else "passed",
            "reason": gate.line,
            "counts": count_verdicts(cases),
        },
        "cases": list(cases),
        "absences": [],
        "skipped_targets": {},
        **changes,
    }


FAILED = record(
    "failed",
    "parity",
    precision="int8",
    reason="sqnr 12 dB is not >= 20 dB (default)",
    failures=["sqnr 12 dB is not >= 20 dB (default)", "cosine 0.9 is not >= 0.99 (default)"],
)


def test_the_verdict_and_the_failures_come_first() -> None:
    text = as_markdown(document(record(), FAILED))
    lines = text.splitlines()
    assert lines[0] == "## ❌ edgecheck: gate closed: 1 of 2 cases failed"
    assert lines[2].strip() == "2 cases: 1 passed, 1 failed"
    assert "commit <code>1111111111</code> with changes on <code>main</code>" in lines[3]
    assert "Some CPU" in lines[3]
    assert text.index("### Failed (1)") < text.index("### Matrix")
    row = next(line for line in lines if "12 dB" in line)
    assert "<br>cosine 0.9 is not &gt;= 0.99 (default)" in row
    assert "<code>ort/int8/parity</code>" in row


def test_a_gate_that_passed_says_so_and_shows_no_failures() -> None:
    text = as_markdown(document(record(check="latency", measurements={"latency_p50_ms": 1.5})))
    assert text.startswith("## ✅ edgecheck: gate passed: 1 cases\n")
    assert "Failed" not in text
    assert "| <code>digits</code> | ort | fp32 |  | ok 1.5 ms |" in text


def test_what_failed_for_one_reason_is_one_row() -> None:
    cases = [
        record("failed", reason="it crashed", precision=precision, check=check)
        for precision in ("fp32", "fp16", "int8")
        for check in ("export", "parity", "memory")
    ]
    text = as_markdown(document(*cases))
    assert text.count("it crashed") == 1
    assert "and 3 more" in text


def test_what_was_not_checked_is_told_with_the_reason() -> None:
    text = as_markdown(
        document(
            record(),
            record("not_checked", target="trt", reason="no NVIDIA GPU", required=True),
            skipped_targets={"coreml": "needs macOS"},
            absences=[{"subject": "digits", "what": "accuracy", "reason": "no evaluation data"}],
        )
    )
    section = text[text.index("### Not checked") :]
    assert "1 cases of trt: no NVIDIA GPU (<code>digits/trt/fp32/parity</code>)" in section
    assert "target coreml: needs macOS" in section
    assert "no accuracy for <code>digits</code>: no evaluation data" in section


def test_accepted_failures_and_warnings_are_told() -> None:
    waived = record("failed", expected_failure="waived by ana until 2026-12-31: see #12")
    warned = record(check="latency", warnings=["the machine was busy"])
    text = as_markdown(document(waived, warned))
    assert text.startswith("## ✅")
    assert "### Accepted (1)" in text
    assert r"waived by ana until 2026-12-31: see \#12" in text
    assert "- <code>digits/ort/fp32/latency</code>: the machine was busy" in text


def test_regressions_come_before_the_matrix() -> None:
    def run(name: str, size_bytes: int) -> dict[str, Any]:
        case = record(check="export", measurements={"size_bytes": size_bytes})
        found = document(case)
        return {**found, "run": {**found["run"], "id": name * 32}}

    before, after = run("b", 1000), run("a", 2000)
    comparison = compare_runs(results_of(before), results_of(after), METRICS)
    text = as_markdown(after, comparison)
    assert "### Compared with run bbbbbbbb" in text
    assert "+100 %" in text
    assert text.index("+100 %") < text.index("### Matrix")


@law
@given(
    name=st.text(min_size=1, max_size=20),
    reason=st.text(max_size=40) | st.just("</td><script>alert(1)</script>|`*"),
)
def test_no_name_or_reason_breaks_the_page(name: str, reason: str) -> None:
    case = record("failed", model=name, reason=reason, warnings=[reason])
    absence = {"subject": name, "what": reason, "reason": reason}
    page = document(case, absences=[absence], skipped_targets={name: reason})
    tokens = PARSER.parse(as_markdown(page))
    html = {
        child.content
        for token in tokens
        if token.type == "inline"
        for child in token.children or ()
        if child.type == "html_inline"
    }
    assert html <= {"<code>", "</code>", "<br>"}
    kinds = [token.type for token in tokens]
    assert "html_block" not in kinds
    assert kinds.count("table_open") == 2
    assert kinds.count("heading_open") == 5
    # The failures' and the matrix's titles and one row each.
    assert kinds.count("tr_open") == 4


@pytest.mark.parametrize("limit_bytes", [300, 5_000, 20_000])
def test_a_page_that_is_too_large_is_cut_with_a_note(limit_bytes: int) -> None:
    cases = [record("failed", model=f"model-{number}", reason="ä" * 2000) for number in range(3000)]
    text = as_markdown(document(*cases), limit_bytes=limit_bytes)
    assert len(text.encode()) <= limit_bytes
    assert text.startswith("## ❌ edgecheck: gate closed: 3000 of 3000 cases failed")
    assert text.endswith("_The rest is left out: the summary would be too large._\n")


def test_the_largest_runs_fit_githubs_limit() -> None:
    cases = [
        record("failed", check, model=f"{'m' * 50}-{number}", reason=f"{number} {'x' * 5000}")
        for number in range(1500)
        for check in ("export", "parity", "latency")
    ]
    text = as_markdown(document(*cases))
    assert len(text.encode()) < 1 << 20
    assert "left out" not in text
    assert "and 1440 more" in text


# -- annotations

COMMAND = re.compile(r"::(?P<kind>error|notice) (?P<properties>[^\n\r]*?)::(?P<message>[^\n\r]*)")


def unescaped(text: str) -> str:
    for code, item in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, item)
    return text


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """As the runner reads a workflow command."""
    match = COMMAND.fullmatch(line)
    assert match is not None, line
    properties = dict(part.split("=", 1) for part in match["properties"].split(","))
    values = {name: unescaped(value) for name, value in properties.items()}
    return match["kind"], values, unescaped(match["message"])


def test_a_failed_case_is_an_error_in_its_file() -> None:
    error, notice = map(parsed, workflow_commands(document(record(), FAILED), "python"))
    assert error == (
        "error",
        {"file": "python/suites/test_digits.py", "title": "edgecheck digits/ort/int8/parity"},
        "sqnr 12 dB is not >= 20 dB (default)",
    )
    assert notice == (
        "notice",
        {"title": "edgecheck"},
        "gate closed: 1 of 2 cases failed",
    )


def test_a_gate_that_no_case_closed_is_an_error_itself() -> None:
    missing = record("not_checked", required=True, reason="no GPU")
    (line,) = workflow_commands(document(missing))
    assert parsed(line)[0] == "error"
    assert "gate incomplete: 1 required cases not checked" in line


def test_a_gate_that_passed_is_a_notice() -> None:
    waived = record("failed", expected_failure="waived")
    assert [parsed(line)[0] for line in workflow_commands(document(waived))] == ["notice"]


def test_there_are_no_more_errors_than_github_shows() -> None:
    cases = [record("failed", model=f"m{number}") for number in range(25)]
    kinds = [parsed(line)[0] for line in workflow_commands(document(*cases))]
    assert kinds == ["error"] * ANNOTATIONS + ["notice"]
    assert workflow_commands(document(*cases))[-1].endswith("15 of them not annotated")


@law
@given(
    reason=st.text("a:%,\r\n=0A2C3D5", min_size=1, max_size=30),
    model=st.text("a:%,\r\n=0A2C3D5", max_size=20),
)
def test_any_reason_arrives_as_it_is(reason: str, model: str) -> None:
    case = record("failed", reason=reason, model=model)
    kind, properties, message = parsed(workflow_commands(document(case))[0])
    assert (kind, message) == ("error", reason)
    assert properties["title"] == f"edgecheck {case['key']}"
