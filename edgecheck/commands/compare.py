"""``edgecheck compare``: two runs side by side; exit code 1 where anything got worse."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edgecheck.commands.common import RUN_HELP, add_history, is_terminal, print_lines


def add(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser(
        "compare",
        help="compare two runs",
        description="Compare two runs. Exit code: 0, 1 where a number or a verdict got worse, "
        "2 where a run can't be read.",
    )
    parser.add_argument("before", help=RUN_HELP)
    parser.add_argument("after", help="likewise")
    parser.add_argument(
        "--format",
        choices=("table", "markdown", "json"),
        default="table",
        help="how to show it (default: table)",
    )
    parser.add_argument(
        "--edge-effects",
        default="",
        metavar="LIST",
        help="least changes that count, as in latency_p50_ms=3%%,sqnr_db=1",
    )
    add_history(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from edgecheck.history.baseline import find_baseline
    from edgecheck.history.compare import compare_runs
    from edgecheck.history.metrics import with_effects
    from edgecheck.report import comparison as views

    metrics = with_effects(options.edge_effects)
    before = find_baseline(options.before, options.edge_history, Path.cwd())[0]
    after = find_baseline(options.after, options.edge_history, Path.cwd(), spreads=False)[0]
    found = compare_runs(before, after, metrics)
    if options.format == "json":
        print(json.dumps(views.as_data(found), indent=1))
    elif options.format == "markdown":
        print(views.as_markdown(found), end="")
    else:
        print_lines(views.table_lines(found, is_terminal()))
    return int(found.is_regression)
