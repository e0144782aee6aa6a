"""The terminal summary: what failed first and why, then the matrix, then the gate.

Plain lines of at most 100 columns; rich lays out the table.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgecheck.judge.gate import Gate, closes
from edgecheck.names import CHECKS, PRECISIONS

WIDTH = 100
_MODEL_WIDTH = 12
RowKey = tuple[str, str, str]
Cells = Mapping[str, Mapping[str, Any]]
Rows = dict[RowKey, dict[str, Mapping[str, Any]]]
_CELLS = {
    "passed": ("ok", "green"),
    "failed": ("FAIL", "bold red"),
    "not_checked": ("skip", "yellow"),
    "unsupported": ("none", "bold red"),
    "inconclusive": ("?", "yellow"),
}
# Reasons, cases named for each, and warnings that the summary lists; the rest is counted.
_LISTED = 40
_NAMED = 3
_LISTED_WARNINGS = 5


def summary_lines(
    records: Sequence[Mapping[str, Any]],
    gate: Gate,
    absences: Sequence[Sequence[str]],
    skipped_targets: Mapping[str, str],
    *,
    color: bool,
) -> list[str]:
    """The whole summary but the gate's line."""
    lines = failure_lines(records)
    if lines:
        lines.append("")
    if records:
        lines += [*matrix_lines(records, color=color), ""]
    warnings = [f"{item['key']}: {line}" for item in records for line in item["warnings"]]
    # What could not be measured says how much the other lines are worth, so it comes first.
    warnings.sort(key=lambda line: " is unknown, so " not in line)
    for line in warnings[:_LISTED_WARNINGS]:
        lines += _wrap(f"warning {line}")
    if len(warnings) > _LISTED_WARNINGS:
        lines.append(f"... and {len(warnings) - _LISTED_WARNINGS} more warnings (--edge-json)")
    lines += _absence_lines(absences)
    for name, reason in skipped_targets.items():
        lines += _wrap(f"target {name} not run: {reason}")
    return lines


def _absence_lines(absences: Sequence[Sequence[str]]) -> list[str]:
    """What was not made for lack of data, by reason."""
    subjects: dict[tuple[str, str], list[str]] = {}
    for subject, what, reason in absences:
        subjects.setdefault((what, reason), []).append(subject)
    lines: list[str] = []
    for (what, reason), names in sorted(subjects.items()):
        lines += _wrap(f"no {what} for {', '.join(sorted(names))}: {reason}")
    return lines


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ")


def failure_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """One entry for each model and reason, with the cases that it failed, wrapped."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in records:
        if closes(item):
            model, _, case = item["key"].partition("/")
            groups.setdefault((model, item["reason"]), []).append(case)
    lines: list[str] = []
    for (model, reason), cases in list(groups.items())[:_LISTED]:
        named = ", ".join(cases[:_NAMED])
        more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
        lines += _wrap(f"{model}: {reason} ({named}{more})")
    if len(groups) > _LISTED:
        lines.append(f"... and {len(groups) - _LISTED} more reasons")
    return lines


def matrix_of(
    records: Sequence[Mapping[str, Any]],
) -> tuple[list[str], list[tuple[RowKey, Cells]]]:
    """The checks, and by model[:variant], target and precision the record of each; failed first."""
    rows: Rows = {}
    for item in records:
        name = f"{item['model']}:{item['variant']}" if item["variant"] else item["model"]
        rows.setdefault((name, item["target"], item["precision"]), {})[item["check"]] = item
    checks = [name for name in CHECKS if any(item["check"] == name for item in records)]
    checks += sorted({item["check"] for item in records} - set(CHECKS))
    return checks, sorted(rows.items(), key=_row_order)


def matrix_lines(records: Sequence[Mapping[str, Any]], *, color: bool) -> list[str]:
    """The table: one row a candidate, one column a check, what failed first.

    A model's name may be cut; a verdict or figure never is: where the checks of one's own make too
    many columns, they go on in a second table.
    """
    checks, ordered = matrix_of(records)
    columns = {
        "target": [Text(key[1]) for key, _ in ordered],
        "precision": [Text(key[2]) for key, _ in ordered],
        "size": [Text(size_text(cells)) for _, cells in ordered],
    }
    left = WIDTH - _MODEL_WIDTH - sum(_column_width(*column) for column in columns.items())
    tables: list[dict[str, list[Text]]] = [{}]
    room = left
    for check in checks:
        column = [Text(*cell_text(cells.get(check))) for _, cells in ordered]
        width = _column_width(check, column)
        if width > room and tables[-1]:
            tables.append({})
            room = left
        tables[-1][check] = column
        room -= width
    names = [key[0] for key, _ in ordered]
    return [line for table in tables for line in _draw(names, {**columns, **table}, color=color)]


def _column_width(title: str, cells: Sequence[Text]) -> int:
    return max([len(title), *(len(cell) for cell in cells)]) + 1


def _draw(names: Sequence[str], columns: Mapping[str, Sequence[Text]], *, color: bool) -> list[str]:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    room = WIDTH - sum(_column_width(*column) for column in columns.items()) - 1
    width = min(room, max([len("model"), *map(len, names)]))
    table.add_column("model", no_wrap=True, overflow="ellipsis", width=max(width, _MODEL_WIDTH))
    for title, cells in columns.items():
        table.add_column(title, no_wrap=True, width=_column_width(title, cells) - 1)
    for name, *cells in zip(names, *columns.values(), strict=True):
        table.add_row(Text(name), *cells)
    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, force_terminal=color, no_color=not color)
    console.print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def _row_order(
    row: tuple[tuple[str, str, str], Mapping[str, Mapping[str, Any]]],
) -> tuple[Any, ...]:
    """What failed first; then by model, target, and precision from the widest down."""
    (model, target, precision), cells = row
    position = PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)
    return not _broken(cells), model, target, position


def cell_text(record: Mapping[str, Any] | None) -> tuple[str, str]:
    """Text and style of one check of one candidate; of none where it was not made."""
    if record is None:
        return "-", "dim"
    if record["expected_failure"] is not None and record["verdict"] != "inconclusive":
        return "xfail", "yellow"
    text, style = _CELLS[record["verdict"]]
    figure = _figure(record)
    return (f"{text} {figure}" if figure else text), style


def _broken(cells: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(closes(item) for item in cells.values())


def size_text(cells: Cells) -> str:
    """The size of a candidate's file; "" where there is none."""
    from edgecheck.units import format_bytes

    for record in cells.values():
        if record["artifact"]:
            return format_bytes(record["artifact"]["size_bytes"])
    return ""


def _figure(record: Mapping[str, Any]) -> str:
    """The one number of a check that a person looks at."""
    from edgecheck.units import format_bytes, format_time

    values = record["measurements"]
    match record["check"]:
        case "parity" if values.get("outputs"):
            outputs = values["outputs"].values()
            if decibels := [float(item["sqnr_db"]) for item in outputs if "sqnr_db" in item]:
                return f"{min(decibels):.0f} dB"
            shares = [item["label_agreement"] for item in outputs if "label_agreement" in item]
            return f"{min(shares):.1%} same" if shares else ""
        case "accuracy" if "candidate" in values:
            return f"{float(values['candidate']):.3g}"
        case "latency" if "latency_p50_ms" in values:
            return format_time(float(values["latency_p50_ms"]))
        case "memory" if "peak_memory_bytes" in values:
            return format_bytes(float(values["peak_memory_bytes"]))
    return ""
