"""Finding the baseline: a report, a run, a tag, a branch, and what is said where there is none."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecheck.errors import HistoryError
from edgecheck.history.baseline import find_baseline, find_report, find_run, is_file
from edgecheck.history.database import History
from edgecheck.history.past import Past, as_data, from_data
from tests.history.test_merge import record, shard

DAY = "2026-11-{:02}T10:00:00+00:00"


def report(
    name: str, day: int, branch: str = "main", commit: str = "1" * 40, failed: bool = False
) -> dict[str, Any]:
    """A report of a run, whose id begins with its name."""
    document = copy.deepcopy(shard("a", record("failed" if failed else "passed")))
    document["run"] |= {
        "id": name.ljust(32, "0"),
        "started": DAY.format(day),
        "git": {"commit": commit, "branch": branch, "dirty": False},
    }
    return document


def keep(path: Path, *documents: dict[str, Any]) -> History:
    history = History(str(path))
    for item in documents:
        assert history.add(item)
    return history


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a commit that has both kinds of tags, and a later one without."""
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "-q", "-b", "main")
    git(root, "commit", "-q", "--allow-empty", "-m", "first")
    git(root, "tag", "v1")
    git(root, "tag", "-a", "v1-annotated", "-m", "a release")
    git(root, "tag", "main")  # the name of a branch too
    git(root, "commit", "-q", "--allow-empty", "-m", "second")
    git(root, "tag", "v2")
    return root


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[History]:
    first = git(repository, "rev-parse", "v1^{commit}")
    with keep(
        tmp_path_factory.mktemp("history") / "history.db",
        report("aaaaaaa1", 1, commit=first),
        report("aaaaaaa2", 2, commit=first),
        report("bbbbbbbb", 3, branch="feature/x"),
        report("cccccccc", 4, commit=first, failed=True),
        report("dddddddd", 5, branch="tag", failed=True),
    ) as opened:
        yield opened


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("run:bbbbbbbb", "bbbbbbbb"),
        ("run:b", "bbbbbbbb"),
        ("bbbbbb", "bbbbbbbb"),
        ("run:aaaaaaa1", "aaaaaaa1"),
        # Not the one that failed at the same commit since.
        ("tag:v1", "aaaaaaa2"),
        ("tag:v1-annotated", "aaaaaaa2"),
        ("v1", "aaaaaaa2"),
        ("branch:main", "aaaaaaa2"),
        ("branch:feature/x", "bbbbbbbb"),
        ("feature/x", "bbbbbbbb"),
        # A run may be named that did not pass: whoever writes its id means it.
        ("run:cccccccc", "cccccccc"),
    ],
)
def test_what_names_a_run(history: History, repository: Path, spec: str, found: str) -> None:
    assert find_run(spec, history, repository).id.startswith(found)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("run:a", "2 runs have ids that begin with 'a'"),
        ("aaaaaaa", "2 runs have ids that begin with 'aaaaaaa'"),
        ("run:", "baseline 'run:' names nothing after run:"),
        ("branch:", "names nothing after branch:"),
        ("run:e", "no run fits 'run:e': the newest is dddddddd"),
        ("tag:v2", "no run fits 'tag:v2': branches with a run that passed: feature/x, main"),
        ("tag:v9", "no run fits 'tag:v9'"),
        ("branch:bbbbbbbb", "no run fits 'branch:bbbbbbbb'"),
        ("branch:tag", "no run fits 'branch:tag'"),  # its only run failed
        ("tag:--help", "no run fits 'tag:--help'"),
        ("bbbbb", "no run fits 'bbbbb'"),  # too short for an id
    ],
)
def test_what_names_no_run(history: History, repository: Path, spec: str, says: str) -> None:
    with pytest.raises(HistoryError) as caught:
        find_run(spec, history, repository)
    assert says in str(caught.value)


def test_a_name_is_a_run_then_a_tag_then_a_branch(tmp_path: Path, repository: Path) -> None:
    first = git(repository, "rev-parse", "v1^{commit}")
    name = "abcdef"
    documents = [report(name, 1, branch="x"), report("1" * 8, 2, branch=name)]
    with keep(tmp_path / "a.db", *documents) as history:
        assert find_run(name, history, repository).branch == "x"
        assert find_run(f"branch:{name}", history, repository).id.startswith("1111")
    documents = [report("2" * 8, 1, branch="x", commit=first), report("3" * 8, 2, branch="main")]
    with keep(tmp_path / "b.db", *documents) as history:
        assert find_run("main", history, repository).branch == "x"
        assert find_run("branch:main", history, repository).branch == "main"


def test_a_whole_id_is_that_run_though_another_begins_with_it(tmp_path: Path) -> None:
    documents = [report("a" * 6, 1), report("a" * 7, 2)]
    documents[0]["run"]["id"], documents[1]["run"]["id"] = "a" * 6, "a" * 7
    with keep(tmp_path / "history.db", *documents) as history:
        assert find_run("run:aaaaaa", history, tmp_path).id == "a" * 6


def test_outside_a_repository_there_are_no_tags(history: History, tmp_path: Path) -> None:
    assert find_run("main", history, tmp_path).id.startswith("aaaaaaa2")
    with pytest.raises(HistoryError, match="no run fits 'tag:v1'"):
        find_run("tag:v1", history, tmp_path)


def test_a_history_without_a_run_that_fits_says_what_it_has(tmp_path: Path) -> None:
    with History(str(tmp_path / "history.db")) as history:
        with pytest.raises(HistoryError, match="'main': the history is empty"):
            find_run("main", history, tmp_path)
        history.add(report("a", 1, failed=True))
        with pytest.raises(HistoryError, match="'main': none of its 1 runs passed"):
            find_run("main", history, tmp_path)


# -- with its results


def test_the_results_of_a_run_in_the_history(history: History, repository: Path) -> None:
    results, names = find_baseline("feature/x", history.url, repository)
    document = find_report("feature/x", history.url, repository)
    assert [results.run.id] == names == [document["run"]["id"]] == ["bbbbbbbb".ljust(32, "0")]
    assert list(results.cases) == ["digits/ort/fp32/parity"]


def test_a_branch_has_each_cases_newest_result_that_passed(tmp_path: Path) -> None:
    whole, partial, red = report("aaaa", 1), report("bbbb", 2), report("cccc", 3, failed=True)
    others = [record(key="a"), record(key="b"), record(key="c")]
    whole["cases"] = others
    partial["cases"] = [record(key="a"), record("failed", key="c")]
    red["cases"] = [record("failed", key="a"), record(key="b")]
    accepted = record("failed", key="c", expected_failure="known")
    later = report("dddd", 4)
    later["cases"] = [accepted]
    foreign = report("eeee", 5, branch="other")
    foreign["cases"] = others
    with keep(tmp_path / "history.db", whole, partial, red, later, foreign):
        found, names = find_baseline("branch:main", str(tmp_path / "history.db"), tmp_path)
    runs = {key: found.run_of(key).id[:4] for key in found.cases}
    assert runs == {"a": "bbbb", "b": "cccc", "c": "dddd"}
    assert [name[:4] for name in names] == ["dddd", "cccc", "bbbb"]
    assert found.name.endswith(" and 2 earlier runs")
    sent = from_data(as_data(Past(found)), {}, frozenset()).baseline
    assert sent is not None and sent.name == found.name
    assert {key: sent.run_of(key).id[:4] for key in sent.cases} == runs


def test_a_branch_of_which_no_case_passed_is_no_baseline(tmp_path: Path) -> None:
    empty = report("aaaa", 1)
    empty["cases"] = [record("not_checked")]
    with keep(tmp_path / "history.db", empty), pytest.raises(HistoryError, match="no case of its"):
        find_baseline("branch:main", str(tmp_path / "history.db"), tmp_path)


def test_the_results_of_a_report(tmp_path: Path) -> None:
    path = tmp_path / "edge.json"
    path.write_text(json.dumps(report("aaaa", 1)))
    assert is_file(str(path))
    results, names = find_baseline(str(path), "", tmp_path)
    assert results.run.id.startswith("aaaa") and names == []
    assert find_report(str(path), "", tmp_path) == report("aaaa", 1)


def test_no_history_is_made_to_find_a_baseline_in_it(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="baseline 'main': no history is kept"):
        find_baseline("main", "", tmp_path)
    path = tmp_path / "history.db"
    with pytest.raises(HistoryError, match="there is no history at"):
        find_baseline("main", str(path), tmp_path)
    assert not path.exists()


TORN = json.dumps(report("aaaa", 1))[:500]
RUN = {key: value for key, value in report("a", 1)["run"].items() if key != "git"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "can't read {path}: No such file or directory"),
        ("", "{path} is not JSON"),
        (TORN, "{path} is not JSON"),
        ("\udcff", "{path} is not JSON"),
        ("[" * 100_000, "{path} is not JSON"),
        (
            "[]",
            "{path} is not a report of pytest --edge-json (edgecheck-report/1): it does not say",
        ),
        ('{"schema": "edgecheck-report/2"}', "it says 'edgecheck-report/2'"),
        (json.dumps({**report("a", 1), "run": None}), "{path}: run: None is not of type 'object'"),
        (json.dumps({**report("a", 1), "run": RUN}), "{path}: run: 'git' is a required property"),
        (json.dumps({**report("a", 1), "cases": {}}), "{path}: cases: {{}} is not of type 'array'"),
        (
            json.dumps({**report("a", 1), "cases": [{}]}),
            "{path}: cases[0]: 'key' is a required property",
        ),
        (
            json.dumps({**report("a", 1), "cases": [{**record(), "measurements": 3}]}),
            "{path}: cases[0].measurements: 3 is not of type 'object'",
        ),
    ],
)
def test_a_file_that_is_no_report_is_one_clear_error(
    tmp_path: Path, text: str | None, says: str
) -> None:
    path = tmp_path / "base.json"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(HistoryError) as caught:
        find_baseline(str(path), "", tmp_path)
    assert says.format(path=path) in str(caught.value)


def test_a_folder_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "base.json").mkdir()
    with pytest.raises(HistoryError, match="Is a directory"):
        find_baseline(str(tmp_path / "base.json"), "", tmp_path)
