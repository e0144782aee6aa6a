"""Views of two compared runs: what they tell, in which order, and that nothing gets lost."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from edgecheck.history.compare import CaseComparison, Change, Direction, RunComparison, compare_runs
from edgecheck.history.metrics import METRICS, value_text
from edgecheck.history.results import CaseResult, Reading, RunInfo, RunResults
from edgecheck.report.comparison import (
    as_data,
    as_markdown,
    change_text,
    needed_text,
    table_lines,
    verdict_line,
    worst_first,
)
from edgecheck.report.markdown import code, escape, table

law = settings(deadline=None, derandomize=True, max_examples=60)

BEFORE = RunInfo("b" * 32, "2026-11-01T10:00:00+00:00", "1" * 40, "main")
AFTER = RunInfo("a" * 32, "2026-11-02T10:00:00+00:00", "2" * 40, "main", dirty=True, gate="closed")
NAMES = st.text(min_size=1, max_size=12)


def change(
    metric: str = "size_bytes", before: float = 1000.0, after: float = 1100.0, **changes: Any
) -> Change:
    values = {
        "key": "digits/ort/fp32/export",
        "metric": metric,
        "subject": "",
        "before": before,
        "after": after,
        "direction": Direction.REGRESSION,
        "needed": 0.01,
        "share": not METRICS[metric].absolute,
    }
    return Change(**{**values, **changes})


def comparison(*changes: Change, **fields: Any) -> RunComparison:
    cases: dict[str, CaseComparison] = {}
    for item in changes:
        known = cases.get(item.key, CaseComparison(item.key)).changes
        cases[item.key] = CaseComparison(item.key, (*known, item))
    return RunComparison(BEFORE, AFTER, {**cases, **fields.pop("cases", {})}, **fields)


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("latency_p50_ms", 0.0123456, "12.35 us"),
        ("latency_p50_ms", 1234.5, "1.234 s"),
        ("size_bytes", 1_234_567, "1.235 MB"),
        ("sqnr_db", 41.23456, "41.23 dB"),
        ("sqnr_db", 42.5, "42.5 dB"),
        ("throughput_per_s", 12345.6, "1.235e+04 /s"),
        ("top1_agreement", 0.99123, "0.9912"),
    ],
)
def test_values_have_the_unit_of_their_metric(metric: str, value: float, shown: str) -> None:
    assert value_text(metric, value) == shown


@pytest.mark.parametrize(
    ("item", "shown", "needed"),
    [
        (change(), "+10 %", "1 %"),
        (change(before=1000.0, after=250.0), "-75 %", "1 %"),
        (change(before=0.0, after=5.0), "from nothing", "1 %"),
        (change("sqnr_db", 40.0, 35.5, needed=3.0), "-4.5 dB", "3 dB"),
        (change("top1_agreement", 0.99, 0.95, needed=0.01), "-0.04", "0.01"),
    ],
)
def test_changes_are_shares_or_in_the_unit_of_the_metric(
    item: Change, shown: str, needed: str
) -> None:
    assert (change_text(item), needed_text(item)) == (shown, needed)


def test_the_worst_comes_first_whatever_its_unit() -> None:
    mild = change(after=1020.0, key="a")
    grave = change("sqnr_db", 40.0, 20.0, needed=3.0, key="b")
    worst = change(before=0.0, key="c")
    assert worst_first([mild, grave, worst]) == [worst, grave, mild]


def test_everything_is_told_in_every_view() -> None:
    found = comparison(
        change(key="digits/ort/fp32/export"),
        change(key="digits/ort/int8/export", after=900.0, direction=Direction.IMPROVEMENT),
        cases={
            "digits/ort/fp32/parity": CaseComparison("", worse=("passed", "failed")),
            "digits/ort/fp32/latency": CaseComparison("", incomparable="another device: cores 2"),
        },
        vanished=["gone/ort/fp32/export"],
        new=["fresh/ort/fp32/export"],
    )
    shown = "\n".join(table_lines(found, color=False))
    for text in (shown, as_markdown(found)):
        for told in (
            "run bbbbbbbb, commit 1111111111",
            "run aaaaaaaa, commit 2222222222",
            "+10 %",
            "-10 %",
            "1 kB",
            "1.1 kB",
            "another device: cores 2",
            "gone/ort/fp32/export",
            "fresh/ort/fp32/export",
            "regression: 1 number got worse, 1 case passes no more, numbers of 1 case not "
            "compared, 1 case vanished",
        ):
            assert told in " ".join(text.split()), told
    assert [shown.index(word) for word in ("worse", "passes no more", "better", "vanished")] == (
        sorted(shown.index(word) for word in ("worse", "passes no more", "better", "vanished"))
    )
    data = json.loads(json.dumps(as_data(found), allow_nan=False))
    assert data["regression"] is True
    assert data["regressions"] == [
        {
            "key": "digits/ort/fp32/export",
            "metric": "size_bytes",
            "subject": "",
            "unit": "bytes",
            "before": 1000.0,
            "after": 1100.0,
            "change": pytest.approx(0.1),
            "needed": 0.01,
            "share": True,
        }
    ]
    assert [item["change"] for item in data["improvements"]] == [pytest.approx(-0.1)]
    assert data["worse_verdicts"] == [
        {"key": "digits/ort/fp32/parity", "before": "passed", "after": "failed"}
    ]
    assert (data["vanished"], data["new"]) == (list(found.vanished), list(found.new))
    assert data["incomparable"] == [
        {"reason": "another device: cores 2", "keys": ["digits/ort/fp32/latency"]}
    ]
    assert data["after"]["dirty"] is True


def test_a_change_from_nothing_is_text_in_json() -> None:
    data = as_data(comparison(change(before=0.0, after=5.0)))
    assert json.loads(json.dumps(data, allow_nan=False))["regressions"][0]["change"] == "inf"


def test_runs_without_a_case_in_common_say_so() -> None:
    found = comparison(vanished=["a"], new=["b"])
    assert verdict_line(found) == "no regression: 1 case vanished, no case in both"


def test_results_that_are_compared_show_as_compared() -> None:
    def run(info: RunInfo, size_bytes: float) -> RunResults:
        reading = Reading("size_bytes", "", size_bytes, "lower")
        return RunResults(info, {"k": CaseResult("k", "passed", readings=(reading,))})

    same = compare_runs(run(BEFORE, 1000.0), run(AFTER, 1000.0), METRICS)
    worse = compare_runs(run(BEFORE, 1000.0), run(AFTER, 2000.0), METRICS)
    assert table_lines(same, color=False)[-1] == "no regression: 1 case compared"
    assert as_data(same)["unchanged"] == 1
    assert table_lines(worse, color=False)[-1] == "regression: 1 number got worse"


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_table_keeps_its_width_and_no_name_or_figure_is_cut(width: int) -> None:
    key = f"{'long_model_name_' * 3}:variant/tflite/int8-dynamic/latency"
    item = change("latency_p95_ms", 12.5, 99.75, key=key, subject="logits", needed=0.45)
    lines = table_lines(comparison(item), color=False, width=width)
    assert all(len(line) <= width for line in lines)
    joined = "\n".join(lines)
    for figure in ("12.5 ms", "99.75 ms", "+698 %", "45 %"):
        assert figure in joined
    # The name goes on in the lines below, in its column.
    column = "".join(re.split(r"\s", line)[0] for line in lines if not line.startswith("    "))
    assert key in column.replace("before:after:worsecase", "")


def test_color_is_only_used_where_it_is_asked_for() -> None:
    found = comparison(change())
    assert "\x1b[" not in "\n".join(table_lines(found, color=False))
    assert "\x1b[" in "\n".join(table_lines(found, color=True))


def test_long_lists_are_cut_with_a_count() -> None:
    changes = [change(key=f"model-{number:04}/ort/fp32/export") for number in range(250)]
    found = comparison(*changes, vanished=[f"gone-{number:03}" for number in range(50)])
    text = as_markdown(found)
    assert "**Worse** (250)" in text
    assert text.count("model-") == 100
    assert "and 150 more" in text
    assert "and 30 more" in text


# -- Markdown

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def text_of(tokens: list[Any]) -> tuple[str, set[str]]:
    """What a reader sees of parsed Markdown, and the kinds of markup there are."""
    shown, kinds = "", set()
    for token in tokens:
        if token.type == "inline":
            for child in token.children:
                kinds.add(child.type)
                shown += child.content if child.type in ("text", "text_special") else ""
        else:
            kinds.add(token.type)
    return shown, kinds


def plain(text: str) -> str:
    shown = "".join(item if item.isprintable() else " " for item in text)
    return " ".join(shown.split())


PUNCTUATED = st.text(st.sampled_from("a1 \\`*_{}[]()<>#+-=.!|&~:/\n\t\"'@$;"), max_size=30)


@law
@given(text=PUNCTUATED | st.text(max_size=30))
def test_any_text_shows_as_it_is_in_a_list(text: str) -> None:
    shown, kinds = text_of(PARSER.parse(f"- {escape(text)}\n"))
    assert shown.replace("\u200b", "") == plain(text)
    assert kinds <= {
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
        *("paragraph_open", "paragraph_close", "text", "text_special"),
    }


@law
@given(texts=st.lists(PUNCTUATED, min_size=2, max_size=2))
def test_any_text_stays_within_its_cell(texts: list[str]) -> None:
    lines = table(("one", "two"), [[escape(item) for item in texts]])
    tokens = PARSER.parse("\n".join(lines))
    cells = [token for token in tokens if token.type == "inline"][2:]
    shown = [text_of([cell])[0].replace("\u200b", "") for cell in cells]
    assert shown == [plain(item) for item in texts]


def test_code_is_escaped_and_mentions_nobody() -> None:
    assert code("<b>|@me") == r"<code>&lt;b&gt;\|@&#8203;me</code>"
    assert escape("mail ana@example.com") == "mail ana@example.com"
    assert len(escape("x" * 10_000)) == 500


@law
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True), reason=NAMES)
def test_no_name_breaks_the_markdown(names: list[str], reason: str) -> None:
    found = comparison(
        *(change(key=name, subject=reason) for name in names),
        vanished=names,
        cases={"x": CaseComparison("x", incomparable=f"<script>{reason}")},
    )
    tokens = PARSER.parse(as_markdown(found))
    rows = [token for token in tokens if token.type == "tr_open"]
    assert len(rows) == 1 + len({*names} - {"x"})
    html = {
        child.content
        for token in tokens
        if token.type == "inline"
        for child in token.children or ()
        if child.type == "html_inline"
    }
    assert html <= {"<code>", "</code>"}
    assert not [token for token in tokens if token.type == "html_block"]


@law
@given(
    before=st.floats(0, 1e12),
    after=st.floats(0, 1e12),
    metric=st.sampled_from(sorted(METRICS)),
)
def test_any_number_can_be_shown(before: float, after: float, metric: str) -> None:
    item = change(metric, before, after, subject="y")
    found = comparison(item)
    assert value_text(metric, after) in "\n".join(table_lines(found, color=False))
    assert change_text(item) in as_markdown(found)
    stated = as_data(found)["regressions"][0]["change"]
    assert stated == (item.change if math.isfinite(item.change) else str(item.change))
