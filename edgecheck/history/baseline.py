"""What runs are compared with: what last passed on a branch or at a tag, a run, or a report.

See also `edgecheck.history.compare`, which compares them.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.errors import HistoryError
from edgecheck.history import report_file
from edgecheck.history.results import CaseResult, RunInfo, RunResults, results_of
from edgecheck.plain import plain_data

if TYPE_CHECKING:
    from edgecheck.history.database import History, StoredRun

_KINDS = ("run", "branch", "tag")
# A shorter beginning of a run's id might as well be a branch's name.
_LEAST_ID = 6


def is_file(spec: str) -> bool:
    """Whether a baseline names a JSON report, not a run in the history."""
    return spec.endswith(".json")


def find_report(spec: str, history: str, root: Path) -> dict[str, Any]:
    """The report of the run that is meant (see `find_run`), or the file.

    Raises:
        HistoryError: there is none.
    """
    if is_file(spec):
        return report_file.read(Path(spec))
    with _opened(spec, history) as opened:
        found: dict[str, Any] = plain_data(opened.document(find_run(spec, opened, root).id))
    return found


def find_baseline(
    spec: str, history: str, root: Path, *, spreads: bool = True
) -> tuple[RunResults, list[str]]:
    """The results to compare with, and the runs that they are of, the newest first.

    Of a branch, and of a tag's commit, each case's newest result that passed: runs may be partial
    (one model, one machine of several), and what the newest left out was judged before.

    Args:
        spec: the path of a JSON report, or runs in the history (see `find_run`).
        history: its URL or path.
        root: the directory of the git repository, to find a tag's commit.
        spreads: whether readings say how far they varied, as those of the earlier run should.

    Raises:
        HistoryError: there are none.
    """
    if is_file(spec):
        return results_of(report_file.read(Path(spec))), []
    with _opened(spec, history) as opened:
        kind, name = _meant(spec, opened, root)
        if kind == "run":
            run = _runs_of("run", name, opened, root)[0]
            return opened.results(run, spreads=spreads), [run.id]
        if kind == "branch":
            chosen = opened.last_passed(branch=name)
        else:
            chosen = opened.last_passed(commit=_commit_of_tag(name, root))
        if not chosen:
            raise HistoryError(f"baseline {spec!r}: no case of its runs passed")
        runs = [run for run in opened.runs() if run.id in set(chosen.values())]
        cases: dict[str, CaseResult] = {}
        earlier: dict[str, RunInfo] = {}
        for run in runs:
            results = opened.results(run, spreads=spreads).cases
            own = {key: item for key, item in results.items() if chosen.get(key) == run.id}
            cases |= own
            if run is not runs[0]:
                earlier |= dict.fromkeys(own, run)
        return RunResults(runs[0], cases, earlier), [run.id for run in runs]


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
    return _runs_of(*_meant(spec, history, root), history, root)[0]


def _meant(spec: str, history: History, root: Path) -> tuple[str, str]:
    """One of `_KINDS`, and the name after it.

    Raises:
        HistoryError: the history has nothing of that name.
    """
    kind, colon, name = spec.partition(":")
    kinds = (kind,) if colon and kind in _KINDS else ("run", "tag", "branch")
    name = name if len(kinds) == 1 else spec
    if not name:
        raise HistoryError(f"baseline {spec!r} names nothing after {kind}:")
    for item in kinds:
        if item == "run" and len(kinds) > 1 and len(name) < _LEAST_ID:
            continue
        if _runs_of(item, name, history, root):
            return item, name
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
