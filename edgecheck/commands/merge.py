"""``edgecheck merge``: one report from the shards of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser(
        "merge",
        help="make one report of the shards of a run",
        description="Make one JSON report of those of several jobs or machines, and judge the "
        "gate anew. Exit code: 0, 1 where the gate is closed or a shard ended with an error, "
        "2 where a report can't be read or they don't belong together.",
    )
    parser.add_argument("reports", nargs="+", type=Path, help="JSON reports")
    parser.add_argument("--output", "-o", type=Path, required=True, help="the JSON report to write")
    parser.add_argument(
        "--accept-dirty",
        action="store_true",
        help="accept shards whose files differed from the commit",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from edgecheck.history import report_file
    from edgecheck.history.merge import merge

    report_file.check_writable(options.output)
    documents = [report_file.read(path) for path in options.reports]
    with report_file.legible(", ".join(map(str, options.reports))):
        found = merge(documents, accept_dirty=options.accept_dirty)
    report_file.write(options.output, found)
    print(found["gate"]["reason"])
    return int(found["gate"]["verdict"] == "closed" or found["run"]["exit_status"] != 0)
