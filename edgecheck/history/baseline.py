"""The run that others are compared with: a branch's last that passed, a tag's, a run, or a report.

See also `edgecheck.history.compare`, which compares them.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.errors import HistoryError
from edgecheck.history import report_file
from edgecheck.history.results import RunResults, results_of

if TYPE_CHECKING:
    from edgecheck.history.database import History, StoredRun

_KINDS = ("run", "branch", "tag")
# A shorter beginning of a run's id might as well be a branch's name.
_LEAST_ID = 6


def is_file(spec: str) -> bool:
    """Whether a baseline names a JSON report, not a run in the history."""
    return spec.endswith(".json")


def find_baseline(spec: str, history: str, root: Path) -> tuple[RunResults, dict[str, Any]]:
    """The results of the run that is meant, and its whole report.

    Args:
        spec: the path of a JSON report, or a run in the history (see `find_run`).
        history: its URL or path.
        root: the directory of the git repository, to find a tag's commit.

    Raises:
        HistoryError: there is none.
    """
    if is_file(spec):
        document = report_file.read(Path(spec))
        return results_of(document), document
    with _opened(spec, history) as opened:
        run = find_run(spec, opened, root)
        return opened.results(run), opened.document(run.id)


def find_results(spec: str, history: str, root: Path, *, spreads: bool) -> RunResults:
    """The same without the report.

    Args:
        spreads: whether readings say how far they varied, as those of the earlier run should.
    """
    if is_file(spec):
        return results_of(report_file.read(Path(spec)))
    with _opened(spec, history) as opened:
        return opened.results(find_run(spec, opened, root), spreads=spreads)


def _opened(spec: str, history: str) -> History:
    from edgecheck.history.database import History

    if not history:
        raise HistoryError(f"baseline {spec!r}: no history is kept to find it in")
    return History(history, create=False)


def find_run(spec: str, history: History, root: Path) -> StoredRun:
    """The run that is meant.

    Args:
        spec: ``run:ID`` (or the beginning of an id), ``branch:NAME`` (its last run that passed),
            ``tag:NAME`` (the last one that passed at its commit), or the name alone, which is
            looked for in this order: run, tag, branch.

    Raises:
        HistoryError: there is none, or more than one.
    """
    kind, colon, name = spec.partition(":")
    kinds = (kind,) if colon and kind in _KINDS else ("run", "tag", "branch")
    name = name if len(kinds) == 1 else spec
    if not name:
        raise HistoryError(f"baseline {spec!r} names nothing after {kind}:")
    for item in kinds:
        if item == "run" and len(kinds) > 1 and len(name) < _LEAST_ID:
            continue
        if runs := _runs_of(item, name, history, root):
            return runs[0]
    raise HistoryError(f"no run fits {spec!r}: {_offer(history, kinds)}")


def _runs_of(kind: str, name: str, history: History, root: Path) -> list[StoredRun]:
    """The runs that a name means as one of `_KINDS`, the newest first.

    Raises:
        HistoryError: several runs have ids that begin with the name.
    """
    if kind == "branch":
        return history.runs(branch=name, gate="passed")
    if kind == "tag":
        commit = _commit_of_tag(name, root)
        return history.runs(commit=commit, gate="passed") if commit else []
    runs = history.runs()
    matching = [run for run in runs if run.id == name]
    matching = matching or [run for run in runs if run.id.startswith(name)]
    if len(matching) > 1:
        raise HistoryError(f"{len(matching)} runs have ids that begin with {name!r}")
    return matching


def _offer(history: History, kinds: tuple[str, ...]) -> str:
    """What there is instead."""
    runs = history.runs()
    if not runs:
        return "the history is empty"
    passed = sorted({run.branch for run in runs if run.gate == "passed" and run.branch})
    if kinds == ("run",):
        return f"the newest is {runs[0].id} ('edgecheck history list' shows all)"
    if not passed:
        return f"none of its {len(runs)} runs passed"
    return f"branches with a run that passed: {', '.join(passed)}"


def _commit_of_tag(name: str, root: Path) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    try:
        done = subprocess.run(
            [git, "rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{commit}}"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
