"""No record breaks a view, whatever its numbers and names are."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2")

from edgecheck.judge.gate import judge_gate
from edgecheck.report import html, junit, summary, terminal
from edgecheck.report.record import plain
from tests.report.documents import document, record

law = settings(
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)

NUMBERS = st.sampled_from(
    [math.inf, -math.inf, math.nan, 0.0, -0.0, -5.0, 1e308, -1e308, 5e-324, 12.0, 10**30]
)
NAMES = st.sampled_from(
    ["", "x" * 10_000, "\x1b[31m", "</script><img src=x>", "::error::", "a\nb", "|`*_", "\ud800"]
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A case whose limits, measurements and texts are extreme."""
    check = draw(st.sampled_from(["export", "parity", "accuracy", "latency", "memory"]))
    text = draw(NAMES)
    made = record(check, draw(st.sampled_from(["passed", "failed", "inconclusive"])), reason=text)
    number = NUMBERS.map(plain)
    for limit in made["limits"]:
        limit |= {
            "measured": draw(number),
            "limit": draw(NUMBERS.filter(math.isfinite)),
            "bound": draw(st.sampled_from(["min", "max"])),
            "subject": draw(NAMES),
            "interval": draw(st.none() | st.lists(number, min_size=2, max_size=2)),
        }
    if draw(st.booleans()):
        made["measurements"] = {
            name: draw(number) if isinstance(value, int | float) else value
            for name, value in made["measurements"].items()
        }
    return {**made, "warnings": [text] if text else [], "details": text}


@law
@given(st.lists(records(), min_size=1, max_size=4))
def test_every_view_shows_every_record(cases: list[dict[str, Any]]) -> None:
    for position, case in enumerate(cases):
        case["key"] = f"m{position}/ort/fp32/{case['check']}"
        case["model"] = f"m{position}"
    run = document(cases)
    assert "<html" in html.page(run)
    assert summary.as_markdown(run, None)
    gate = judge_gate(cases, accept_missing=False)
    assert terminal.summary_lines(cases, gate, [], {}, color=False)
    for case in cases:
        assert junit.properties(case)


@pytest.mark.parametrize("measured", [-5.0, "-inf", "nan"])
def test_a_negative_ratio_under_its_least_is_over_the_limit(measured: float | str) -> None:
    case = record("parity", "failed")
    case["limits"][0] |= {"measured": measured, "limit": 12.0}
    assert "<html" in html.page(document([case]))
