"""Reports with wrong fields: one line that names the file, never a traceback."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecheck.commands.cli import main
from tests.report import documents

JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**400, "", "x" * 10_000, "\x1b[31m", "::error::", "../../x"),
    *([], {}, [[]], {"a": {"b": []}}, float("nan"), float("inf"), "2026-01-01", "<script>"),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All paths to values of a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:3])
    for key, inner in items:
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))
        else:
            yield (*path, key)


def mutated(document: dict[str, Any], rng: random.Random) -> Any:
    """The document with one to three values replaced or missing."""
    changed: Any = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(list(places(changed)))
        if not path:
            return rng.choice(JUNK)
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        if rng.random() < 0.2:
            del holder[path[-1]]
        else:
            holder[path[-1]] = rng.choice(JUNK)
    return changed


def commands(report: Path, sound: Path, folder: Path) -> list[list[str]]:
    """All commands that read a report."""
    given = [str(report)]
    return [
        ["report", *given, "--edge-history=none", f"--html={folder / 'r.html'}"],
        ["report", *given, "--edge-history=none", f"--summary={folder / 'r.md'}"],
        ["report", *given, "--edge-history=none", f"--baseline={sound}"],
        ["compare", str(sound), *given, "--edge-history=none"],
        ["compare", *given, str(sound), "--edge-history=none"],
        ["merge", *given, str(sound), f"--output={folder / 'merged.json'}"],
        ["history", "import", *given, f"--edge-history={folder / 'history.db'}"],
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_mutated_report_is_shown_or_refused_in_one_line(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = documents.document(documents.candidate())
    sound, report = tmp_path / "sound.json", tmp_path / "report.json"
    sound.write_text(json.dumps(document))
    report.write_text(json.dumps(mutated(document, random.Random(seed))))
    for command in commands(report, sound, tmp_path):
        code = main(command)
        said = capsys.readouterr().err.strip()
        assert code in (0, 1, 2)
        if code == 2:
            assert said.startswith("edgecheck: ") and "\n" not in said, said


def test_a_report_that_is_nested_without_end_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    report.write_text('{"schema": "edgecheck-report/1", "cases": ' + "[" * 100_000)
    assert main(["report", str(report), "--edge-history=none"]) == 2
    assert str(report) in capsys.readouterr().err
