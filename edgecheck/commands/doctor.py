"""``edgecheck doctor``: what this machine can build and run, and what would bring the rest.

The words are those of the reports' skip reasons.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from typing import Any

from edgecheck import __version__
from edgecheck.commands.common import print_lines, table_lines
from edgecheck.names import CHECKS
from edgecheck.targets.base import Target, versions
from edgecheck.targets.registry import all_targets, find_target


def add(commands: Any) -> None:
    """Add the parser."""
    doctor = commands.add_parser(
        "doctor",
        help="what this machine can build and run, and what is missing",
        description="What this machine can build and run for each target, and what is missing. "
        "Exit code 0; 1 if a target that is named can't have all its checks here.",
    )
    doctor.add_argument("targets", nargs="*", metavar="TARGET", help="those to look at (all)")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_run)


def examine(target: Target) -> dict[str, Any]:
    """What this machine can do for a target.

    Returns a dict of ``target``, ``title``, ``precisions``, ``versions`` (of what is installed),
    ``missing`` (what it takes to build, or ""), ``builds``, ``runs``, ``runtime``, ``executor``
    (what runs the files), and ``not_checked`` (reason by check that can't be made here).
    """
    missing = target.missing()
    wanted = (*target.build.distributions, *target.host.packages.values(), target.runtime.package)
    gaps = {} if missing else {name: target.gap(name) for name in CHECKS}
    return {
        "target": target.name,
        "title": target.title,
        "precisions": list(target.build.precisions),
        "versions": {
            **versions(tuple(dict.fromkeys(filter(None, wanted)))),
            **target.runtime.other_versions(),
        },
        "missing": missing,
        "builds": not missing,
        "runs": not missing and not target.gap("run"),
        "runtime": target.runtime.package,
        "executor": target.runtime.executor or target.runtime.package,
        "not_checked": {name: reason for name, reason in gaps.items() if reason},
    }


def _run(options: argparse.Namespace) -> int:
    named = [find_target(name) for name in options.targets]
    found = [examine(target) for target in named or all_targets().values()]
    if options.json:
        print(json.dumps({"edgecheck": __version__, "targets": found}, indent=1))
    else:
        machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        print_lines([f"edgecheck {__version__} on {machine}", "", *_table(found)])
    short = any(item["missing"] or item["not_checked"] for item in found)
    return 1 if named and short else 0


def _table(found: list[dict[str, Any]]) -> list[str]:
    rows = []
    for item in found:
        rows.append(
            [
                item["target"],
                _version(item),
                "yes" if item["builds"] else "no",
                _runs(item),
                "\n".join(_notes(item)) or "ready",
            ]
        )
    return table_lines(["target", "version", "builds", "runs", "what is missing"], rows)


def _version(item: Mapping[str, Any]) -> str:
    """The version of the runtime, or of the first package that is there."""
    installed = item["versions"]
    name = item["runtime"] if item["runtime"] in installed else next(iter(installed), "")
    return f"{name} {installed[name]}" if name and not item["missing"] else "-"


def _runs(item: Mapping[str, Any]) -> str:
    if not item["runs"]:
        return "no"
    partial = bool(item["not_checked"])
    return "partly" if partial else "yes"


def _notes(item: Mapping[str, Any]) -> list[str]:
    """What is missing, and each reason why checks are not made, with the checks."""
    if item["missing"]:
        return [item["missing"]]
    checks: dict[str, list[str]] = {}
    for name, reason in item["not_checked"].items():
        checks.setdefault(reason, []).append(name)
    return [f"{', '.join(names)} not checked: {reason}" for reason, names in checks.items()]
