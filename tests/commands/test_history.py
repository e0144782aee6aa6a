"""The commands on past runs, as a person types them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecheck.commands.cli import main
from tests.report.documents import candidate, document, record

DEVICE = {
    "system": "Linux",
    "machine": "x86_64",
    "cpu": "a processor",
    "cores": 2,
    "threads": 1,
    "cpus": [],
    "runtime": "onnxruntime 1.30",
}
KEY = "digits/ort/fp32/latency"


def run_of(
    number: int, p50_ms: float = 0.02, branch: str = "main", **changes: Any
) -> dict[str, Any]:
    """A run on one day, with one candidate of which the median latency is stated."""
    cases = [{**item, "device": DEVICE} for item in candidate(**changes)]
    for item in cases:
        if item["check"] == "latency":
            item["measurements"] = {"latency_p50_ms": p50_ms}
        item["artifact"] = {**item["artifact"], "sha256": f"{number:064x}"}
    found = document(cases, run_id=f"{number:08d}" + "a" * 24)
    found["run"]["started"] = f"2026-01-{1 + number // 24:02d}T{number % 24:02d}:00:00+00:00"
    found["run"]["git"] = {"commit": f"{number:040x}", "branch": branch, "dirty": False}
    return copy.deepcopy(found)


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with sixty runs in its history, slower by half from the fortieth on."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    reports = []
    for number in range(60):
        p50_ms = (0.02 if number < 40 else 0.03) * rng.normal(1, 0.03)
        reports.append(tmp_path / f"{number}.json")
        reports[-1].write_text(json.dumps(run_of(number, p50_ms)))
    assert main(["history", "import", *map(str, reports)]) == 0
    return tmp_path


def test_reports_are_imported_once(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    (history / "new.json").write_text(json.dumps(run_of(60)))
    assert main(["history", "import", "3.json", "new.json"]) == 0
    assert capsys.readouterr().out == "1 runs added, 1 known already\n"


def test_a_file_that_is_no_report_is_refused_and_none_of_the_others_is_kept(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (history / "new.json").write_text(json.dumps(run_of(60)))
    (history / "torn.json").write_text(json.dumps(run_of(61))[:-100])
    capsys.readouterr()
    assert main(["history", "import", "new.json", "torn.json"]) == 2
    assert "torn.json is not JSON" in capsys.readouterr().err
    assert main(["history", "list"]) == 0
    assert "60 runs, 30 shown" in capsys.readouterr().out


def test_runs_are_listed_newest_first(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["history", "list", "--branch", "main", "--limit", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "00000059aaaa", "00000058aaaa", "60"]
    assert main(["history", "list", "--branch", "other"]) == 0
    assert "0 runs" in capsys.readouterr().out


def test_the_shift_is_found_with_its_commits_and_fails(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["history", "check", "--format", "json"]) == 1
    (shift,) = json.loads(capsys.readouterr().out)
    assert (shift["key"], shift["metric"], shift["worse"]) == (KEY, "latency_p50_ms", True)
    before, after = (int(commit, 16) for commit in shift["commits"])
    assert before < 40 <= after
    assert shift["after"] / shift["before"] == pytest.approx(1.5, rel=0.05)
    assert main(["history", "check"]) == 1
    printed = capsys.readouterr().out
    assert f"worse  {KEY} latency_p50_ms: 19.92 us -> 30.37 us" in printed
    assert "5 cases: 1 shifts for the worse, 0 for the better" in printed


def test_a_check_of_what_did_not_shift_passes(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "check", "*/export"]) == 0
    assert main(["history", "check", "--metric", "size*"]) == 0
    assert main(["history", "check", "--runs", "20"]) == 0
    capsys.readouterr()
    assert main(["history", "check", "digts/*"]) == 2
    assert "no case in the history fits digts/*" in capsys.readouterr().err


def test_a_run_and_a_case_are_shown(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["history", "show", "run:00000059"]) == 0
    printed = capsys.readouterr().out
    assert "run 00000059, commit 0000000000" in printed
    assert "gate passed: 5 cases" in printed
    assert main(["history", "show", KEY]) == 0
    assert capsys.readouterr().out.count("latency_p50_ms") == 10
    assert main(["history", "show", "digits/ort/fp16/latency"]) == 2
    assert "no numbers of digits/ort/fp16/latency" in capsys.readouterr().err


def test_a_run_comes_out_as_it_went_in(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "export", "branch:main", "-o", "out.json"]) == 0
    assert json.loads((history / "out.json").read_text()) == json.loads(
        (history / "59.json").read_text()
    )


def test_old_runs_are_pruned(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["history", "prune", "--keep", "7"]) == 0
    assert capsys.readouterr().out == "removed 53 runs\n"
    with pytest.raises(SystemExit):
        main(["history", "prune", "--keep", "-1"])


def test_a_slower_run_is_a_regression_with_exit_code_1(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["compare", "run:00000030", "59.json"]) == 1
    assert "latency_p50" in capsys.readouterr().out
    assert main(["compare", "run:00000030", "run:00000031"]) == 0
    capsys.readouterr()
    assert main(["compare", "run:00000059", "run:00000030", "--format", "markdown"]) == 0
    assert capsys.readouterr().out.count("|") > 4
    assert main(["compare", "run:00000030", "59.json", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["schema"] == "edgecheck-comparison/1"


def test_the_same_file_is_no_slower_than_itself(history: Path) -> None:
    slower = run_of(30, 0.04)
    slower["run"]["id"] = "f" * 32
    (history / "slower.json").write_text(json.dumps(slower))
    assert main(["compare", "run:00000030", "slower.json"]) == 0


def test_what_counts_can_be_set(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    effects = "--edge-effects=latency_p50_ms=80%"
    assert main(["compare", "run:00000030", "59.json", effects]) == 0
    capsys.readouterr()
    assert main(["compare", "run:00000030", "59.json", "--edge-effects=latency=80%"]) == 2
    assert "latency_p50_ms" in capsys.readouterr().err


def test_runs_that_are_not_there_are_told(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["compare", "branch:mian", "59.json"]) == 2
    assert "branches with a run that passed: main" in capsys.readouterr().err
    assert main(["compare", "missing.json", "59.json"]) == 2
    assert "can't read missing.json: No such file" in capsys.readouterr().err


def test_without_a_history_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["history", "list"]) == 2
    assert "there is no history at .edgecheck/history.db" in capsys.readouterr().err
    assert not (tmp_path / ".edgecheck").exists()


def test_a_run_is_written_as_html_and_markdown(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--html", "out/r.html", "--summary", "out/r.md", "--baseline", "run:00000030"]
    assert main(["report", "branch:main", *options]) == 0
    assert "<html" in (history / "out/r.html").read_text()
    assert "gate passed" in (history / "out/r.md").read_text()
    assert "latency_p50" in capsys.readouterr().out


def test_shards_are_merged_and_judged_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = run_of(1), run_of(2, target="tflite")
    two["run"]["git"] = one["run"]["git"]
    for name, found in (("1.json", one), ("2.json", two)):
        (tmp_path / name).write_text(json.dumps(found))
    paths = [str(tmp_path / name) for name in ("1.json", "2.json")]
    output = tmp_path / "all.json"
    assert main(["merge", *paths, "--output", str(output)]) == 0
    assert "gate passed: 10 cases" in capsys.readouterr().out
    assert len(json.loads(output.read_text())["cases"]) == 10

    broken = document([record(verdict="failed")], run_id="f" * 32)
    broken["run"]["git"] = one["run"]["git"]
    (tmp_path / "3.json").write_text(json.dumps(broken))
    merged = ["merge", paths[1], str(tmp_path / "3.json"), "--output", str(output)]
    assert main(merged) == 1
    assert "gate closed" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "history" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error(history: Path) -> None:
    command = f"{sys.executable} -m edgecheck.commands.cli history list --limit 60 | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=history, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
