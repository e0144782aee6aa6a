"""Views of two compared runs: a table for the terminal, Markdown, and plain data."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgecheck.history.compare import Change, Direction, RunComparison
from edgecheck.history.metrics import value_text
from edgecheck.history.results import RunInfo
from edgecheck.report.markdown import code, counted, escape, table
from edgecheck.report.record import plain

SCHEMA = "edgecheck-comparison/1"
# Rows of each Markdown table, and keys of each list; the rest is counted.
_ROWS = 100
_KEYS = 20
_TITLES = ("case", "metric", "before", "after", "change", "counts from")


def change_text(change: Change) -> str:
    """By how much a number changed."""
    if math.isinf(change.change):
        return "from nothing"
    return _difference_text(change, change.change, sign="+")


def needed_text(change: Change) -> str:
    """The least change of a number that counts; a share of the earlier value has a percent sign."""
    return _difference_text(change, change.needed)


def _difference_text(change: Change, amount: float, sign: str = "") -> str:
    if change.share:
        return f"{100 * amount:{sign}.3g} %"
    unit = " dB" if change.metric.endswith("_db") else ""
    return f"{amount:{sign}.3g}{unit}"


def metric_text(change: Change) -> str:
    """A metric and, where there is one, the output that it is of."""
    return f"{change.metric} ({change.subject})" if change.subject else change.metric


def worst_first(changes: Iterable[Change]) -> list[Change]:
    """Changes by how many times as large they are as what counts, the largest first."""

    def size(change: Change) -> float:
        return abs(change.change) / change.needed if change.needed else math.inf

    return sorted(
        changes,
        key=lambda item: (-size(item), -abs(item.change), item.key, item.metric, item.subject),
    )


def verdict_line(comparison: RunComparison) -> str:
    """What came of it, in one line."""
    numbers, verdicts = len(comparison.regressions), len(comparison.worse_verdicts)
    told = []
    if numbers:
        told.append(_count(numbers, "number got worse", "numbers got worse"))
    if verdicts:
        told.append(_count(verdicts, "case passes no more", "cases pass no more"))
    left_out = sum(map(len, comparison.incomparable.values()))
    if left_out:
        told.append(f"numbers of {_count(left_out, 'case', 'cases')} not compared")
    if comparison.vanished:
        told.append(_count(len(comparison.vanished), "case vanished", "cases vanished"))
    if not comparison.cases:
        told.append("no case in both")
    head = "regression" if comparison.is_regression else "no regression"
    compared = f"{_count(len(comparison.cases), 'case', 'cases')} compared"
    return f"{head}: {', '.join(told or [compared])}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _run_text(run: RunInfo) -> str:
    where = f" on {run.branch}" if run.branch else ""
    return f"{run.name}{where}, {run.started}, gate {run.gate}"


# -- the terminal


def table_lines(comparison: RunComparison, color: bool, width: int = 100) -> list[str]:
    """The comparison as lines of at most so many columns, regressions first."""
    lines = [
        *_wrap(f"before: {_run_text(comparison.before)}", width),
        *_wrap(f"after:  {_run_text(comparison.after)}", width),
    ]
    regressions = worst_first(comparison.regressions)
    improvements = worst_first(comparison.improvements)
    if regressions:
        lines += ["", "worse", *_draw(_TITLES, _rows(regressions), color, width, "red")]
    if comparison.worse_verdicts:
        rows = [list(item) for item in comparison.worse_verdicts]
        lines += ["", "passes no more"]
        lines += _draw(("case", "before", "after"), rows, color, width, "red")
    if improvements:
        lines += ["", "better", *_draw(_TITLES, _rows(improvements), color, width, "green")]
    lists = {"vanished": comparison.vanished, "new": comparison.new}
    lists |= {f"not compared, {why}": keys for why, keys in comparison.incomparable.items()}
    for name, keys in lists.items():
        if keys:
            lines += ["", *_wrap(f"{name}: {', '.join(counted(keys, _KEYS))}", width)]
    return [*lines, "", *_wrap(verdict_line(comparison), width)]


def _rows(changes: Sequence[Change]) -> list[list[str]]:
    return [
        [
            item.key,
            metric_text(item),
            value_text(item.metric, item.before),
            value_text(item.metric, item.after),
            change_text(item),
            needed_text(item),
        ]
        for item in changes
    ]


def _draw(
    titles: Sequence[str], rows: Sequence[Sequence[str]], color: bool, width: int, style: str
) -> list[str]:
    """Names may go on in the next line; figures stay whole."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for title in titles:
        named = title in ("case", "metric")
        drawn.add_column(title, no_wrap=not named, overflow="fold", ratio=1 if named else None)
    shown = titles.index("change" if "change" in titles else "after")
    for row in rows:
        drawn.add_row(*(Text(cell, style if i == shown else "") for i, cell in enumerate(row)))
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=color, no_color=not color)
    console.print(drawn)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="    ", break_on_hyphens=False)


# -- Markdown


def as_markdown(comparison: RunComparison, heading: str = "##") -> str:
    """The comparison as GitHub-flavoured Markdown; long lists are cut, with a count."""
    lines = [
        f"{heading} Compared with {escape(comparison.before.name)}",
        "",
        f"**{escape(verdict_line(comparison))}**",
        "",
        f"- before: {escape(_run_text(comparison.before))}",
        f"- after: {escape(_run_text(comparison.after))}",
    ]
    lines += _markdown_changes("Worse", worst_first(comparison.regressions))
    if comparison.worse_verdicts:
        rows = [
            [code(key), escape(before), f"**{escape(after)}**"]
            for key, before, after in comparison.worse_verdicts
        ]
        lines += _cut_table("Passes no more", ("case", "before", "after"), rows)
    lines += _markdown_changes("Better", worst_first(comparison.improvements))
    for title, keys in (("Vanished", comparison.vanished), ("New", comparison.new)):
        if keys:
            lines += ["", f"**{title}:** {_markdown_keys(keys)}"]
    for reason, keys in comparison.incomparable.items():
        lines += ["", f"**Not compared**, {escape(reason)}: {_markdown_keys(keys)}"]
    return "\n".join(lines) + "\n"


def _markdown_changes(title: str, changes: Sequence[Change]) -> list[str]:
    if not changes:
        return []
    rows = [
        [code(key), code(metric), escape(before), escape(after), f"**{change}**", needed]
        for key, metric, before, after, change, needed in _rows(changes)
    ]
    return _cut_table(title, _TITLES, rows)


def _cut_table(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["", f"**{title}** ({len(rows)})", "", *table(titles, rows[:_ROWS])]
    return lines if len(rows) <= _ROWS else [*lines, "", f"and {len(rows) - _ROWS} more"]


def _markdown_keys(keys: Sequence[str]) -> str:
    return ", ".join(counted([code(key) for key in keys], _KEYS))


# -- data


def as_data(comparison: RunComparison) -> dict[str, Any]:
    """The comparison as plain JSON data.

    Returns:
        ``schema``: "edgecheck-comparison/1".
        ``before``, ``after``: ``id``, ``started`` (ISO 8601), ``commit``, ``branch``, ``dirty``,
        ``gate`` of each run.
        ``regression``: whether anything got worse.
        ``compared``: number of cases in both runs; ``unchanged``: of numbers that did not change.
        ``regressions``, ``improvements``, the largest first: ``key``, ``metric`` (its unit is in
        the name), ``subject`` (an output, or ""), ``unit``, ``before``, ``after``, ``change`` and
        ``needed`` (the least that counts), the latter two as a share of the earlier value where
        ``share``, else in the metric's unit; infinite changes as text.
        ``worse_verdicts``: ``key``, ``before``, ``after``.
        ``vanished``, ``new``: keys.
        ``incomparable``: ``reason``, ``keys`` of cases whose numbers were left out.
    """
    return {
        "schema": SCHEMA,
        "before": _run_data(comparison.before),
        "after": _run_data(comparison.after),
        "regression": comparison.is_regression,
        "compared": len(comparison.cases),
        "unchanged": sum(
            change.direction is Direction.UNCHANGED
            for case in comparison.cases.values()
            for change in case.changes
        ),
        "regressions": [_change_data(item) for item in worst_first(comparison.regressions)],
        "improvements": [_change_data(item) for item in worst_first(comparison.improvements)],
        "worse_verdicts": [
            {"key": key, "before": before, "after": after}
            for key, before, after in comparison.worse_verdicts
        ],
        "vanished": list(comparison.vanished),
        "new": list(comparison.new),
        "incomparable": [
            {"reason": reason, "keys": keys} for reason, keys in comparison.incomparable.items()
        ],
    }


def _run_data(run: RunInfo) -> dict[str, Any]:
    names = ("id", "started", "commit", "branch", "dirty", "gate")
    return {name: getattr(run, name) for name in names}


_UNITS = {"_ms": "ms", "_bytes": "bytes", "_db": "dB", "_per_s": "/s"}


def _change_data(change: Change) -> dict[str, Any]:
    units = [unit for end, unit in _UNITS.items() if change.metric.endswith(end)]
    return {
        "key": change.key,
        "metric": change.metric,
        "subject": change.subject,
        "unit": units[0] if units else "",
        "before": change.before,
        "after": change.after,
        "change": plain(change.change),
        "needed": change.needed,
        "share": change.share,
    }
