"""``edgecheck history``: look at past runs, carry them in and out, find when a number shifted."""

from __future__ import annotations

import argparse
import fnmatch
import json
from pathlib import Path
from typing import Any

from edgecheck.commands.common import RUN_HELP, add_history, print_lines, table_lines
from edgecheck.errors import HistoryError


def add(commands: Any) -> None:
    """Add the parser."""
    history = commands.add_parser("history", help="past runs: list, show, import, check ...")
    actions = history.add_subparsers(title="actions", required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="the runs, the newest first")
    listing.add_argument("--branch", default="", help="only this branch")
    listing.add_argument("--limit", type=_count, default=30, metavar="N", help="default: 30")
    listing.set_defaults(run=_list)

    show = actions.add_parser("show", help="a run, or a case's numbers over time")
    show.add_argument("what", metavar="RUN|CASE", help=f"{RUN_HELP}; or a case's key")
    show.add_argument("--branch", default="", help="of a case: only this branch")
    show.set_defaults(run=_show)

    export = actions.add_parser("export", help="write a run's JSON report")
    export.add_argument("run_name", metavar="RUN", help=RUN_HELP)
    export.add_argument("--output", "-o", type=Path, help="default: standard output")
    export.set_defaults(run=_export)

    importing = actions.add_parser("import", help="keep runs from JSON reports")
    importing.add_argument("reports", nargs="+", type=Path, help="JSON reports")
    importing.set_defaults(run=_import)

    prune = actions.add_parser(
        "prune", help="remove old runs; those that a branch is compared with stay"
    )
    prune.add_argument("--keep", type=_count, required=True, metavar="N", help="newest that stay")
    prune.set_defaults(run=_prune)

    forget = actions.add_parser(
        "forget", help="remove all results of cases, as of a model that is shipped no more"
    )
    forget.add_argument("cases", metavar="GLOB", help="over keys, as in 'old-model/*'")
    forget.set_defaults(run=_forget)

    check = actions.add_parser(
        "check",
        help="find when numbers shifted",
        description="Find when the level of a case's numbers shifted, and between which commits. "
        "Exit code: 0, 1 where one shifted for the worse, 2 where the history can't be read.",
    )
    check.add_argument("cases", nargs="*", default=["*"], help="globs over keys (default: all)")
    check.add_argument("--branch", default="", help="only runs of this branch")
    check.add_argument("--metric", default="*", help="glob over metrics, as in latency_*")
    check.add_argument(
        "--runs", type=_count, default=200, metavar="N", help="newest runs to look at; default: 200"
    )
    check.add_argument("--format", choices=("table", "json"), default="table")
    check.set_defaults(run=_check)

    for action in (listing, show, export, importing, prune, forget, check):
        add_history(action)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _list(options: argparse.Namespace) -> int:
    from edgecheck.history.database import History

    with History(options.edge_history, create=False) as history:
        runs = history.runs(branch=options.branch)
    rows = [
        (
            run.id[:12],
            run.started[:16].replace("T", " "),
            run.gate,
            f"{run.cases}",
            f"{run.failed}",
            f"{run.commit[:10]}{'+' if run.dirty else ''}",
            run.branch,
        )
        for run in runs[: options.limit]
    ]
    print_lines(
        table_lines(("run", "started (UTC)", "gate", "cases", "failed", "commit", "branch"), rows)
    )
    print(f"{len(runs)} runs" + (f", {len(rows)} shown" if len(rows) < len(runs) else ""))
    return 0


def _show(options: argparse.Namespace) -> int:
    from edgecheck.commands import report
    from edgecheck.history.database import History

    if options.what.count("/") < 3:
        return report.show(options.what, options.edge_history)
    with History(options.edge_history, create=False) as history:
        known = history.metrics_of(options.what)
        if not known:
            raise HistoryError(f"the history has no numbers of {options.what}")
        rows = []
        for name, subject, device in known:
            points = history.series(
                options.what, name, subject, device=device, branch=options.branch, limit=10
            )
            label = f"{name} {subject}".strip()
            rows += [
                (
                    label,
                    f"{point.value:.6g}",
                    device[:6],
                    point.run.id[:8],
                    point.run.commit[:10],
                    point.run.started[:16].replace("T", " "),
                )
                for point in points
            ]
    print_lines(table_lines(("metric", "value", "device", "run", "commit", "started (UTC)"), rows))
    return 0


def _export(options: argparse.Namespace) -> int:
    from edgecheck.history import report_file
    from edgecheck.history.baseline import find_run
    from edgecheck.history.database import History

    if options.output:
        report_file.check_writable(options.output)
    with History(options.edge_history, create=False) as history:
        document = history.document(find_run(options.run_name, history, Path.cwd()).id)
    if options.output:
        report_file.write(options.output, document)
    else:
        print(json.dumps(document, indent=1))
    return 0


def _import(options: argparse.Namespace) -> int:
    from edgecheck.history import report_file
    from edgecheck.history.database import History

    documents = [report_file.read(path) for path in options.reports]
    with History(options.edge_history) as history:
        added = 0
        for path, document in zip(options.reports, documents, strict=True):
            with report_file.legible(str(path)):
                added += history.add(document)
    print(f"{added} runs added, {len(documents) - added} known already")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from edgecheck.history.database import History

    with History(options.edge_history, create=False) as history:
        removed = history.prune(keep=options.keep)
    print(f"removed {len(removed)} runs")
    return 0


def _forget(options: argparse.Namespace) -> int:
    from edgecheck.history.database import History

    with History(options.edge_history, create=False) as history:
        forgotten = history.forget(options.cases)
    if not forgotten:
        raise HistoryError(f"the history has no case {options.cases!r}")
    print("\n".join(f"forgotten: {key}" for key in forgotten))
    return 0


def _check(options: argparse.Namespace) -> int:
    from edgecheck.history.database import History
    from edgecheck.history.trends import shifts_in

    with History(options.edge_history, create=False) as history:
        keys = [
            key
            for key in history.case_keys()
            if any(fnmatch.fnmatchcase(key, glob) for glob in options.cases)
        ]
        if not keys:
            raise HistoryError(f"no case in the history fits {' '.join(options.cases)}")
        found = list(
            shifts_in(
                history, keys, metric=options.metric, branch=options.branch, limit=options.runs
            )
        )
    if options.format == "json":
        print(json.dumps([item.as_data() for item in found], indent=1))
    else:
        for item in sorted(found, key=lambda item: (not item.worse, item.key)):
            print_lines(item.lines())
        worse = sum(item.worse for item in found)
        print(
            f"{len(keys)} cases: {worse} shifts for the worse, {len(found) - worse} for the better"
        )
    return int(any(item.worse for item in found))
