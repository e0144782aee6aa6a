"""Records: what is told about each case and about the run, as plain JSON data.

The published shape is ``schema/report-1.schema.json``. Numbers that differ between runs of the same
models are kept under ``measurements`` (latency, memory) and ``timings``.
"""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck import __version__
from edgecheck.targets.base import Target, versions
from edgecheck.targets.registry import all_targets

if TYPE_CHECKING:
    from edgecheck.build.builder import Built
    from edgecheck.declare.case import Case
    from edgecheck.history.compare import CaseComparison, Change
    from edgecheck.judge.verdict import Comparison, Verdict

Record = dict[str, Any]
# Where CI systems name the branch: GitHub's (of a pull request first), GitLab's, Jenkins's.
_BRANCH = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BRANCH_NAME")


def identity(case: Case, check: str, nodeid: str, required: bool) -> Record:
    """The part of a record that is known before the case runs."""
    return {
        "key": f"{case.candidate}/{check}",
        "nodeid": nodeid,
        "model": case.model_name,
        "variant": case.variant,
        "target": case.target.name,
        "precision": case.precision,
        "check": check,
        "required": required,
    }


def unjudged(base: Mapping[str, Any], verdict: str, reason: str) -> Record:
    """The record of a case without a verdict of a check."""
    return {
        **base,
        "verdict": verdict,
        "reason": reason,
        "failures": [reason] if verdict in ("failed", "unsupported") else [],
        "warnings": [],
        "limits": [],
        "measurements": {},
        "details": "",
        "artifact": None,
        "timings": {},
        "expected_failure": None,
        "device": None,
        "regression": None,
        "waiver": None,
        "inputs_sha256": None,
        "reused": None,
    }


def judged(base: Mapping[str, Any], verdict: Verdict, built: Built | None) -> Record:
    """The record of a verdict."""
    record = unjudged(base, str(verdict.outcome), verdict.reason)
    record |= {
        "failures": list(verdict.failures),
        "warnings": list(verdict.warnings),
        "limits": [_limit(item) for item in verdict.comparisons],
        "measurements": plain(verdict.measurements),
        "details": verdict.details,
    }
    if built is not None:
        record["artifact"] = {
            "file": built.path.name,
            "sha256": built.sha256,
            "size_bytes": built.size_bytes,
            "origin": "given" if built.cached is None else "built",
        }
        record["timings"] = {"build_s": built.build_s, "cached": built.cached}
    return record


def add_past(
    record: Record,
    *,
    inputs_sha256: str | None,
    reused: Mapping[str, Any] | None,
    comparison: CaseComparison | None,
) -> None:
    """Add what the baseline has to do with a case."""
    record["inputs_sha256"] = inputs_sha256
    if reused is not None:
        record["limits"] = reused["limits"]
        record["reused"] = reused["run"]
    if comparison is not None and (comparison.regressions or comparison.improvements):
        record["regression"] = {
            "regressions": [_change(item) for item in comparison.regressions],
            "improvements": [_change(item) for item in comparison.improvements],
        }


def _change(change: Change) -> Record:
    return {
        "metric": change.metric,
        "subject": change.subject,
        "before": plain(change.before),
        "after": plain(change.after),
        "change": plain(change.change),
        "needed": change.needed,
        "share": change.share,
    }


def _limit(comparison: Comparison) -> Record:
    limit = comparison.limit
    return {
        "name": limit.name,
        "subject": comparison.subject,
        "measured": plain(comparison.measured),
        "bound": limit.bound,
        "limit": limit.value,
        "unit": limit.unit,
        "origin": limit.origin,
        "passed": comparison.passed,
        "outcome": str(comparison.outcome),
        "interval": None
        if comparison.low is None
        else [plain(comparison.low), plain(comparison.high)],
        "resolution": comparison.resolution,
    }


def plain(value: Any) -> Any:
    """Data that JSON can hold: NumPy scalars unwrapped, NaN and infinities as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def host() -> Record:
    """This machine."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def device(target: Target, threads: int, cpus: Sequence[int]) -> Record:
    """What numbers of time and memory depend on, besides the model file.

    Neither the runtime's patch level nor the system's is part of it, nor what this machine is
    called: two alike give numbers that can be compared.
    """
    runtime = target.runtime
    executor = {"executor": runtime.executor} if runtime.executor else {}
    known = {**runtime.other_versions(), **versions((runtime.package,))} if runtime.package else {}
    version = ".".join(known.get(runtime.package, "").split(".")[:2])
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "cpus": list(cpus),
        "runtime": f"{runtime.package} {version}" if version else "",
        **executor,
    }


@cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def tool_versions() -> dict[str, str]:
    """Versions of edgecheck and of the packages that decide results."""
    names = {"pytest", "numpy", "execnet"}
    for target in all_targets().values():
        names |= {*target.build.distributions, target.runtime.package}
    return {"edgecheck": __version__, **versions(tuple(sorted(filter(None, names))))}


def git_commit(directory: Path) -> Record | None:
    """Commit, branch, and whether the tree has changes; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                [git, *arguments], cwd=directory, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    branch = ask("rev-parse", "--abbrev-ref", "HEAD")
    if branch == "HEAD":  # detached, as CI systems check out; they name the branch themselves
        branch = next((found for name in _BRANCH if (found := os.environ.get(name))), None)
    return {
        "commit": commit,
        "branch": branch,
        "dirty": bool(ask("status", "--porcelain", "--untracked-files=no")),
    }


def without_password(text: str) -> str:
    """A text with the passwords of the URLs in it hidden: reports are passed around."""
    text = re.sub(r"(://[^:/@\s]*:)[^@\s]*@", r"\1***@", text)
    return re.sub(r"(?i)(password=)[^&\s]*", r"\1***", text)


def run_header(run_id: str, started: str, options: Mapping[str, Any], directory: Path) -> Record:
    """What is known of a run at its start."""
    return {
        "id": run_id,
        "started": started,
        "command": [Path(sys.argv[0]).name, *map(without_password, sys.argv[1:])],
        "options": {name: without_password(str(value)) for name, value in options.items()},
        "host": host(),
        "tools": tool_versions(),
        "git": git_commit(directory),
    }
