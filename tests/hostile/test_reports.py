"""Reports with wrong fields: one line that names the file, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecheck.commands.cli import main
from tests.hostile.reports import problems


@pytest.mark.parametrize("seed", range(40))
def test_a_mutated_report_is_shown_or_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    assert problems(seed, tmp_path) == []


def test_a_report_that_is_nested_without_end_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    report.write_text('{"schema": "edgecheck-report/1", "cases": ' + "[" * 100_000)
    assert main(["report", str(report), "--edge-history=none"]) == 2
    assert str(report) in capsys.readouterr().err
