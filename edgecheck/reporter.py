"""The hooks of the process where all reports come together: verdict on the run, and its reports.

Not for the hooks of every process: those are `edgecheck.plugin`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from edgecheck.config import run_of, started


class Reporter:
    """The hooks of the process where all reports come together (not in xdist's workers)."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._gate: Any = None
        self._records: list[dict[str, Any]] = []

    def pytest_report_header(self) -> str | None:
        """Say what is going to be judged."""
        if not started(self._config):
            return None
        run = run_of(self._config)
        names = ", ".join(target.name for target in run.selection.targets)
        return f"edgecheck: targets {names or 'none'}; cache {run.cache}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the record of each case; a worker that died leaves none."""
        record = getattr(report, "edgecheck_record", None)
        if record is not None:
            run_of(self._config).records[report.nodeid] = record
        elif report.when not in ("setup", "call", "teardown"):
            run_of(self._config).crashed(report.nodeid, str(report.longrepr))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Judge the gate, and write the report whatever ended the run."""
        if started(self._config) and not self._config.option.collectonly:
            self._finish(session)
        return (yield)

    def _finish(self, session: pytest.Session) -> None:
        from edgecheck.report import benchmark, terminal
        from edgecheck.report import json as json_report

        run = run_of(self._config)
        run.load_catalog()
        self._records = run.all_records()
        benchmark.add(self._config, self._records)
        run.prune_cache()
        self._gate = terminal.judge_gate(
            self._records,
            accept_missing=run.options.missing == "skip",
            errors=run.catalog.errors,
        )
        if self._gate.closed and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = (
                pytest.ExitCode.USAGE_ERROR if run.catalog.errors else pytest.ExitCode.TESTS_FAILED
            )
        if run.options.json:
            path = self._config.invocation_params.dir / run.options.json
            gate = {
                "verdict": "closed" if self._gate.closed else "passed",
                "reason": self._gate.line,
                "counts": terminal.count_verdicts(self._records),
            }
            json_report.write(path, run.document(self._records, gate, int(session.exitstatus)))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show what failed and why, the matrix, and the gate."""
        if self._gate is None or not (self._records or self._gate.closed):
            return
        from edgecheck.report import terminal

        run = run_of(self._config)
        terminalreporter.section("edgecheck")
        lines = terminal.summary_lines(
            self._records,
            self._gate,
            run.catalog.absences,
            run.skipped_targets(),
            color=terminalreporter.hasmarkup,
        )
        for line in lines:
            terminalreporter.write_line(line)
        style = {"red": True} if self._gate.closed else {"green": True}
        terminalreporter.write_line(self._gate.line, bold=True, **style)
