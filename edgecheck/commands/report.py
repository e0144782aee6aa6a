"""``edgecheck report``: a run that is over, shown again or written in another form."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgecheck.commands.common import RUN_HELP, add_history, is_terminal, print_lines, write_text


def add(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser(
        "report",
        help="show a run, or write it as HTML or Markdown",
        description="Show a run that is over. Exit code: 0, 2 where it can't be read.",
    )
    parser.add_argument("run_name", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--html", type=Path, metavar="PATH", help="write the HTML report")
    parser.add_argument("--summary", type=Path, metavar="PATH", help="write a Markdown summary")
    parser.add_argument("--baseline", metavar="RUN", default="", help="compare with this run")
    add_history(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return show(
        options.run_name,
        options.edge_history,
        baseline=options.baseline,
        html_path=options.html,
        summary_path=options.summary,
    )


def show(
    run_name: str,
    history: str,
    *,
    baseline: str = "",
    html_path: Path | None = None,
    summary_path: Path | None = None,
) -> int:
    """Print a run, and write it where paths are given."""
    from edgecheck.history import report_file
    from edgecheck.history.baseline import find_baseline, find_report
    from edgecheck.history.compare import compare_runs
    from edgecheck.history.metrics import METRICS
    from edgecheck.history.results import results_of
    from edgecheck.history.trends import trends_in
    from edgecheck.judge.gate import Gate
    from edgecheck.report import comparison as comparisons
    from edgecheck.report import html, summary, terminal

    with report_file.legible(run_name):
        document = find_report(run_name, history, Path.cwd())
        results = results_of(document)
        comparison = None
        if baseline:
            before, _ = find_baseline(baseline, history, Path.cwd())
            comparison = compare_runs(before, results, METRICS)
        gate = Gate(document["gate"]["verdict"] == "closed", document["gate"]["reason"])
        absences = [
            (item["subject"], item["what"], item["reason"]) for item in document.get("absences", [])
        ]
        lines = terminal.summary_lines(
            document["cases"],
            gate,
            absences,
            document.get("skipped_targets", {}),
            color=is_terminal(),
        )
        if comparison is not None:
            lines += ["", *comparisons.table_lines(comparison, is_terminal())]
        print_lines([f"{results.run.name}, {results.run.started}", "", *lines, gate.line])
        if summary_path:
            write_text(summary_path, summary.as_markdown(document, comparison))
        if html_path:
            html_path.parent.mkdir(parents=True, exist_ok=True)
            trends = trends_in(history, results)
            html.write(html_path, document, comparison=comparison, trends=trends)
    return 0
