"""A slice of the attacks: `make hostile` has all of them."""

from __future__ import annotations

from pathlib import Path

from tests.hostile import kills, mutants


def test_mutated_files_end_no_run_and_pass_only_where_they_are_right(tmp_path: Path) -> None:
    tally = mutants.run(24, 1, tmp_path / "mutants", workers=1)
    assert tally.problems == []
    assert sum(tally.verdicts.values()) == 24
    assert {kind for kind, _ in tally.verdicts} >= {*mutants.TARGETS}


def test_stopped_runs_claim_nothing_and_leave_nothing(tmp_path: Path) -> None:
    assert kills.run(5, 1, tmp_path / "kills") == []
