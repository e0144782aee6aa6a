"""The summary of a run for CI: a Markdown page and GitHub's annotations, from the JSON report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecheck.history.compare import RunComparison
from edgecheck.judge.gate import closes
from edgecheck.report import comparison as comparisons
from edgecheck.report.markdown import code, counted, escape, table
from edgecheck.report.terminal import cell_text, matrix_of, size_text

# GitHub refuses a step's summary of more than 1 MiB; a workflow may add to it before and after.
LIMIT_BYTES = 1_000_000
# GitHub shows 10 errors of a step and drops the rest.
ANNOTATIONS = 10
_ROWS = 300
_REASONS = 60
_NAMED = 6
_ALSO = 3
_WARNINGS = 20
_WORDS = {"not_checked": "not checked"}

Document = Mapping[str, Any]
Record = Mapping[str, Any]


def as_markdown(
    document: Document, comparison: RunComparison | None = None, limit_bytes: int = LIMIT_BYTES
) -> str:
    """The run as GitHub-flavoured Markdown: verdict, failures, regressions, matrix, the unchecked.

    Args:
        document: a JSON report (see `edgecheck.history.report_file.read`).
        comparison: with the baseline, where there is one.
        limit_bytes: of UTF-8; what is beyond is cut, with a note.
    """
    lines = _verdict(document)
    lines += _failures(document["cases"])
    if comparison is not None:
        lines += ["", *comparisons.as_markdown(comparison, "###").splitlines()]
    lines += _matrix(document["cases"])
    lines += _accepted(document["cases"])
    lines += _unchecked(document)
    lines += _warnings(document["cases"])
    return _cut([*lines, ""], limit_bytes)


def _verdict(document: Document) -> list[str]:
    run, gate = document["run"], document["gate"]
    counts = [
        f"{number} {_WORDS.get(verdict, verdict)}"
        for verdict, number in gate["counts"].items()
        if number
    ]
    git = run["git"] or {}
    facts = [f"run {escape(run['id'][:8])}", escape(run["started"])]
    if git:
        branch = f" on {code(git['branch'])}" if git.get("branch") else ""
        changed = " with changes" if git.get("dirty") else ""
        facts.append(f"commit {code(git['commit'][:10])}{changed}{branch}")
    facts += [escape(run["host"].get("cpu") or "")]
    return [
        f"## {'❌' if gate['verdict'] == 'closed' else '✅'} edgecheck: {escape(gate['reason'])}",
        "",
        f"{len(document['cases'])} cases: {', '.join(counts) or 'none'}  ",
        " · ".join(filter(None, facts)),
    ]


def _failures(records: Sequence[Record]) -> list[str]:
    """One row for each model and reason, with the cases that it failed."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for item in records:
        if closes(item):
            others = [line for line in item["failures"] if line != item["reason"]]
            reasons = (item["reason"], *counted(others, _ALSO))
            model, _, case = item["key"].partition("/")
            groups.setdefault((model, item["verdict"], *reasons), []).append(case)
    if not groups:
        return []
    rows = [
        [
            code(model),
            escape(_WORDS.get(verdict, verdict)),
            "<br>".join(map(escape, reasons)),
            ", ".join(counted(list(map(code, cases)), _NAMED)),
        ]
        for (model, verdict, *reasons), cases in groups.items()
    ]
    failed = sum(map(len, groups.values()))
    return _section(f"Failed ({failed})", ("model", "verdict", "reason", "cases"), rows, _REASONS)


def _matrix(records: Sequence[Record]) -> list[str]:
    checks, ordered = matrix_of(records)
    rows = []
    for (model, target, precision), cells in ordered:
        shown = [(cells.get(check), escape(cell_text(cells.get(check))[0])) for check in checks]
        rows.append(
            [
                code(model),
                escape(target),
                escape(precision),
                size_text(cells),
                *(f"**{text}**" if item and closes(item) else text for item, text in shown),
            ]
        )
    titles = ("model", "target", "precision", "size", *map(escape, checks))
    return _section("Matrix", titles, rows, _ROWS) if rows else []


def _accepted(records: Sequence[Record]) -> list[str]:
    """Cases that did not pass and do not close the gate, with the reason why not."""
    rows = [
        [code(item["key"]), escape(item["reason"]), escape(item["expected_failure"])]
        for item in records
        if item["expected_failure"] is not None and item["verdict"] != "passed"
    ]
    titles = ("case", "reason", "accepted")
    return _section(f"Accepted ({len(rows)})", titles, rows, _REASONS) if rows else []


def _unchecked(document: Document) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for item in document["cases"]:
        if item["verdict"] == "not_checked":
            groups.setdefault((item["target"], item["reason"]), []).append(item["key"])
    told = [
        f"{len(keys)} cases of {escape(target)}: {escape(reason)} "
        f"({', '.join(counted(list(map(code, keys)), _NAMED))})"
        for (target, reason), keys in groups.items()
    ]
    told += [
        f"target {escape(name)}: {escape(reason)}"
        for name, reason in document["skipped_targets"].items()
    ]
    absences: dict[tuple[str, str], list[str]] = {}
    for item in document["absences"]:
        absences.setdefault((item["what"], item["reason"]), []).append(item["subject"])
    told += [
        f"no {escape(what)} for {', '.join(counted(list(map(code, subjects)), _NAMED))}: "
        f"{escape(reason)}"
        for (what, reason), subjects in absences.items()
    ]
    return _bullets("Not checked", told, _REASONS)


def _warnings(records: Sequence[Record]) -> list[str]:
    told = [f"{code(item['key'])}: {escape(line)}" for item in records for line in item["warnings"]]
    return _bullets(f"Warnings ({len(told)})", told, _WARNINGS)


def _section(
    title: str, titles: Sequence[str], rows: Sequence[Sequence[str]], most: int
) -> list[str]:
    lines = ["", f"### {title}", "", *table(titles, rows[:most])]
    return lines if len(rows) <= most else [*lines, "", f"and {len(rows) - most} more"]


def _bullets(title: str, told: Sequence[str], most: int) -> list[str]:
    if not told:
        return []
    return ["", f"### {title}", "", *(f"- {line}" for line in counted(told, most))]


def _cut(lines: Sequence[str], limit_bytes: int) -> str:
    """Whole lines, as many as fit beside the note that the rest is left out."""
    text = "\n".join(lines)
    if len(text.encode()) <= limit_bytes:
        return text
    note = "\n_The rest is left out: the summary would be too large._\n"
    left = limit_bytes - len(note.encode())
    kept = []
    for line in lines:
        left -= len(line.encode()) + 1
        if left < 0:
            break
        kept.append(line)
    return "\n".join([*kept, note])


# -- GitHub's annotations


def workflow_commands(document: Document, directory: str = "") -> list[str]:
    """Workflow commands that show failed cases beside the suites' files in a pull request.

    The form and escapes are those of GitHub's "Workflow commands" and its actions/toolkit. Records
    have no line numbers: a case is a row of a matrix, not a line.

    Args:
        directory: of pytest's root within the repository, "" where they are the same.

    Returns:
        At most `ANNOTATIONS` errors, then a notice with the gate's verdict and the number of
        cases that are not listed; to be printed to standard output, one a line.
    """
    failed = [item for item in document["cases"] if closes(item)]
    lines = [
        _command(
            "error",
            item["reason"] or item["verdict"],
            file=_path(directory, item["nodeid"]),
            title=f"edgecheck {item['key']}",
        )
        for item in failed[:ANNOTATIONS]
    ]
    gate = document["gate"]
    left = len(failed) - len(lines)
    more = f"; {left} of them not annotated" if left else ""
    # Where no case is at fault, the gate's own reason is the error.
    kind = "error" if gate["verdict"] == "closed" and not failed else "notice"
    return [*lines, _command(kind, f"{gate['reason']}{more}", title="edgecheck")]


def _path(directory: str, nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return f"{directory.rstrip('/')}/{file}" if directory not in ("", ".") else file


def _command(kind: str, message: str, **properties: str) -> str:
    told = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    return f"::{kind} {told}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
