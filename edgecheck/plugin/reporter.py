"""The hooks of the process where all reports come together: verdict on the run, and its reports."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgecheck.plain import plain
from edgecheck.plugin.config import history_of, run_of, started
from edgecheck.plugin.options import DEFAULT_HISTORY

if TYPE_CHECKING:
    from edgecheck.history.compare import RunComparison
    from edgecheck.judge.gate import Gate
    from edgecheck.plugin.run import Run

# Keys that the terminal names of a list.
_NAMED = 3


# Also where the collection failed: nothing was run then.
_UNFINISHED = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)


class Reporter:
    """Hooks of the process that is not an xdist worker."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._gate: Gate | None = None
        self._records: list[dict[str, Any]] = []
        self._comparison: RunComparison | None = None
        self._notes: list[str] = []
        self._commands: list[str] = []
        self._session: pytest.Session | None = None

    def pytest_report_header(self) -> str | None:
        """Say what is going to be judged."""
        if not started(self._config):
            return None
        run = run_of(self._config)
        names = ", ".join(target.name for target in run.selection.targets)
        line = f"edgecheck: targets {names or 'none'}; cache {run.cache}"
        if run.past.baseline is not None:
            line += f"; baseline {run.past.baseline.name}"
        return line

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the record of each case; a worker that died leaves none."""
        catalog = getattr(report, "edgecheck_catalog", None)
        if catalog is not None:
            run_of(self._config).receive_catalog(catalog)
        record = getattr(report, "edgecheck_record", None)
        if record is not None:
            run_of(self._config).records[report.nodeid] = record
        elif report.when not in ("setup", "call", "teardown"):
            run_of(self._config).crashes[report.nodeid] = str(report.longrepr)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what an xdist worker collected that ran no test."""
        catalog = getattr(node, "workeroutput", {}).get("edgecheck")
        if catalog is not None:
            run_of(self._config).receive_catalog(catalog)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Judge the gate, and write the reports whatever ended the run."""
        if started(self._config) and not self._config.option.collectonly:
            self._finish(session)
        return (yield)

    def _finish(self, session: pytest.Session) -> None:
        self._session = session
        from edgecheck.judge.gate import judge_gate
        from edgecheck.report import benchmark, second_opinion

        run = run_of(self._config)
        self._records = second_opinion.added(run.all_records())
        benchmark.add(self._config, self._records)
        errors = [*run.catalog.errors, *self._unknown_waivers(run)]
        self._comparison = self._compare(run)
        self._gate = judge_gate(
            self._records,
            accept_missing=run.options.missing == "skip",
            interrupted=session.exitstatus in _UNFINISHED,
            errors=errors,
            faults=[
                *self._not_reached(),
                *run.unjudged(self._records),
                *self._not_compared(run),
                *self._vanished(run),
                *self._stale_waivers(run),
            ],
        )
        if self._comparison is not None:
            gate = "closed" if self._gate.closed else "passed"
            after = replace(self._comparison.after, gate=gate)
            self._comparison = replace(self._comparison, after=after)
        if self._gate.closed and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = (
                pytest.ExitCode.USAGE_ERROR if errors else pytest.ExitCode.TESTS_FAILED
            )
        # Where nothing was judged there is nothing to report, unless a report was asked for.
        if self._records or self._gate.closed or run.options.json or run.options.html:
            self._write(run, session)

    def _write(self, run: Run, session: pytest.Session) -> None:
        """Write all reports that were asked for; if one can't be, the others still are."""
        from edgecheck.history import report_file
        from edgecheck.judge.gate import count_verdicts
        from edgecheck.report import comparison as comparisons
        from edgecheck.report import summary

        assert self._gate is not None
        gate = {
            "verdict": "closed" if self._gate.closed else "passed",
            "reason": self._gate.line,
            "counts": count_verdicts(self._records),
        }
        document = run.document(self._records, gate, int(session.exitstatus))
        comparison = self._comparison
        document["comparison"] = comparison and comparisons.as_data(comparison)
        here = self._config.invocation_params.dir
        options = run.options
        writers: list[tuple[str, bool, Callable[[], object]]] = []
        if options.json:
            path = here / options.json
            writers.append(("json", True, lambda: report_file.write(path, document)))
        history = history_of(self._config, options)
        if history and self._records:
            asked = options.history != DEFAULT_HISTORY
            writers.append(("history", asked, lambda: _remember(history, document)))
        if options.html:
            write_html = partial(self._write_html, here / options.html, document, history)
            writers.append(("html", True, write_html))
        target = here / options.summary if options.summary else os.environ.get(_SUMMARY, "")
        if target:
            writers.append(
                (
                    "summary",
                    bool(options.summary),
                    lambda: _append(Path(target), summary.as_markdown(document, comparison)),
                )
            )
        paths = {"json": options.json, "html": options.html, "history": history}
        for what, asked, write in writers:
            if (problem := _problem(write, str(paths.get(what, target)))) is not None:
                self._note_failure(f"no {what} written: {problem.text}", asked or problem.internal)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            self._shown("annotations", lambda: self._annotate(document))

    def _write_html(self, path: Path, document: dict[str, Any], history: str) -> None:
        # Templates and the database take a quarter of a second to import.
        from edgecheck.history.results import results_of
        from edgecheck.history.trends import trends_in
        from edgecheck.report import html

        trends = trends_in(history, results_of(document))
        html.write(path, document, comparison=self._comparison, trends=trends)

    def _annotate(self, document: dict[str, Any]) -> None:
        from edgecheck.report import summary

        self._commands = summary.workflow_commands(document)

    def _note_failure(self, line: str, closes: bool) -> None:
        """Say in the terminal that a report is missing; one that was asked for fails the run."""
        self._notes.append(line)
        session = self._session
        if closes and session is not None and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _shown(self, what: str, show: Callable[[], object]) -> None:
        """Show a part of the run; if it can't be shown, the parts beside it still are."""
        if (problem := _problem(show, "")) is not None:
            self._note_failure(f"no {what} shown: {problem.text}", closes=True)

    # -- what closes the gate beside the cases ------------------------------------------------

    def _compare(self, run: Run) -> RunComparison | None:
        """The run against its baseline; what was not selected has not vanished."""
        from edgecheck.history.results import RunInfo

        git = {**run.git, "dirty": bool(run.git.get("dirty"))}
        found = run.past.compare_all(self._records, RunInfo(run.run_id, run.started, **git))
        if found is None:
            return None
        known = set(run.catalog.known)
        models = set(map(_model_of, known))
        gone = [
            key
            for key in found.vanished
            if key not in known
            and run.selects(key)
            and (_model_of(key) in models or self._collects_all())
        ]
        return replace(found, vanished=gone)

    def _collects_all(self) -> bool:
        """Whether a model that was not collected is one that there is no more."""
        config, root = self._config, self._config.rootpath
        return not config.getoption("lf", False) and all(
            Path(item).is_dir() and Path(item).resolve().parent in (root, root.parent)
            for item in config.args
        )

    def _not_reached(self) -> list[str]:
        """That the run ended before some cases, as by `pytest.exit`, whatever its exit code."""
        from edgecheck.plugin.run import NOT_REACHED

        count = sum(item["reason"] == NOT_REACHED for item in self._records)
        return [f"the run ended before {count} of {len(self._records)} cases"] if count else []

    def _not_compared(self, run: Run) -> list[str]:
        """That no regression could have been found, where one fails."""
        found = self._comparison
        if found is None or found.cases or "regression" not in run.past.fail_on:
            return []
        return [f"nothing was compared: {found.before.name} has none of these cases"]

    def _vanished(self, run: Run) -> list[str]:
        if self._comparison is None or not self._comparison.vanished:
            return []
        keys = self._comparison.vanished
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        line = f"{len(keys)} cases of the baseline are gone: {', '.join(keys[:_NAMED])}{more}"
        if "vanished" in run.past.fail_on:
            return [line]
        self._notes.append(line)
        return []

    def _stale_waivers(self, run: Run) -> list[str]:
        from edgecheck.history import waivers
        from edgecheck.targets.registry import all_targets

        past = run.past
        runnable = {name for name, target in all_targets().items() if not target.missing()}
        could_be = [item for item in run.catalog.declared if item["target"] in runnable]
        judged = waivers.judge(past.waivers, self._records, could_be, past.today)
        stale = [item.line for item in judged if item.state is waivers.State.STALE]
        self._notes += [item.line for item in judged if item.line]
        return stale if "stale-waiver" in past.fail_on else []

    def _unknown_waivers(self, run: Run) -> list[str]:
        """Waivers that name what there is not; of models only where all were collected."""
        from edgecheck.history import waivers

        if not run.past.waivers or not run.catalog.declared:
            return []
        everything = self._collects_all()
        found = waivers.unknown(run.past.waivers, run.catalog.declared, all_models=everything)
        return [f"waivers: {line}" for line in found]

    # -- the terminal -------------------------------------------------------------------------

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show what failed and why, the matrix, what changed, and the gate."""
        if self._gate is None or not (self._records or self._gate.closed):
            return
        from edgecheck.report import comparison as comparisons
        from edgecheck.report import terminal

        run = run_of(self._config)
        terminalreporter.section("edgecheck")
        gate, comparison, color = self._gate, self._comparison, terminalreporter.hasmarkup
        lines: list[str] = []
        self._shown(
            "table",
            lambda: lines.extend(
                terminal.summary_lines(
                    self._records,
                    gate,
                    run.catalog.absences,
                    run.skipped_targets(),
                    color=color,
                )
            ),
        )
        if comparison is not None:
            self._shown(
                "comparison", lambda: lines.extend(comparisons.table_lines(comparison, color))
            )
        if reused := sum(item["reused"] is not None for item in self._records):
            lines.append(f"{reused} of {len(self._records)} cases taken over from the baseline")
        for line in [*lines, *self._notes]:
            terminalreporter.write_line(line)
        style = {"red": True} if self._gate.closed else {"green": True}
        terminalreporter.write_line(self._gate.line, bold=True, **style)
        for line in self._commands:
            terminalreporter.write_line(line)


_SUMMARY = "GITHUB_STEP_SUMMARY"


def _model_of(key: str) -> str:
    return re.split("[:/]", key, maxsplit=1)[0]


def _remember(history: str, document: dict[str, Any]) -> None:
    from edgecheck.history.database import History

    with History(history) as opened:
        opened.add(document)


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


@dataclass(frozen=True)
class _Problem:
    """Why something could not be written, in one line; ``internal`` if that is our own fault."""

    text: str
    internal: bool = False


def _problem(write: Callable[[], object], path: str) -> _Problem | None:
    from edgecheck.errors import EdgecheckError

    try:
        write()
    except EdgecheckError as error:
        return _Problem(str(error))
    except OSError as error:
        return _Problem(plain(f"{error.filename or path}: {error.strerror or error}"))
    except Exception as error:  # a view that breaks must not take the others along
        text = " ".join(str(error).split())[:200]
        text = plain(f"{type(error).__name__}: {text}")
        return _Problem(f"internal error, please report it: {text}", True)
    return None
