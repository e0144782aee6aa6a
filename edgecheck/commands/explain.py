"""``edgecheck explain``: where a candidate departs from its reference.

The suite is collected by pytest, with the plugin, and no test is run.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.commands.common import print_lines, table_lines
from edgecheck.errors import EdgecheckError, SelectionError
from edgecheck.plain import plain

if TYPE_CHECKING:
    import pytest

    from edgecheck.declare.case import Case
    from edgecheck.plugin.conformance import Conformance
    from edgecheck.plugin.run import Run

_NEAREST = 5


def add(commands: Any) -> None:
    """Add the parser."""
    explain = commands.add_parser(
        "explain",
        help="where a candidate departs from its reference: the first layer that breaks",
        description="Where a candidate departs from its reference: runs both on the inputs where "
        "they differ most, compares their intermediate tensors, and names the first layer whose "
        "inputs agree and whose output does not. Exit code 0 if the outputs agree, else 1.",
    )
    explain.add_argument("suite", metavar="SUITE", help="a file or folder of Conformance classes")
    explain.add_argument(
        "candidate", metavar="MODEL/TARGET/PRECISION", help="such as digits/tflite/int8"
    )
    explain.add_argument("--all", action="store_true", help="show all layers")
    explain.add_argument(
        "--sensitivity",
        action="store_true",
        help="of a quantized candidate: which layers, kept in float, bring it inside its limits; "
        "exit code 0 if it is inside, or some do",
    )
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return in_session(
        options.suite, lambda run, suites: _explain(run, find(options.candidate, suites), options)
    )


def in_session(
    suite: str, work: Callable[[Run, dict[str, Case]], int], arguments: tuple[str, ...] = ()
) -> int:
    """Collect a suite as pytest does, and do something in the session in place of its tests.

    Args:
        work: gets the run, and all candidates that the suite could have, by name.

    Raises:
        EdgecheckError: the suite can't be collected, or has no Conformance class.
    """
    import pytest

    if not Path(suite).exists():
        raise SelectionError(f"there is no suite {suite}")
    session = _Session(work)
    quiet = ["-p", "no:terminal", "-p", "no:edgecheck-reporter", "--capture=no"]
    status = pytest.main([suite, *quiet, "--edge-history=none", *arguments], plugins=[session])
    if session.error is not None:
        raise session.error
    if session.status is None:
        raise EdgecheckError(f"pytest can't collect {suite}: exit code {int(status)}")
    return session.status


class _Session:
    """A plugin that works in place of the tests."""

    def __init__(self, work: Callable[[Run, dict[str, Case]], int]) -> None:
        self._work = work
        self._suites: list[type[Conformance]] = []
        self._problems: list[str] = []
        self.status: int | None = None
        self.error: EdgecheckError | None = None

    def pytest_pycollect_makeitem(self, name: str, obj: Any) -> None:
        """Note the Conformance classes."""
        from edgecheck.plugin.collection import is_suite

        if name.startswith("Test") and is_suite(obj) and obj not in self._suites:
            self._suites.append(obj)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what can't be collected."""
        if report.failed:
            lines = [line for line in str(report.longrepr).splitlines() if line.strip()]
            self._problems.append(f"{report.nodeid}: {lines[-1].strip() if lines else 'failed'}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Work, with the run's children and directories, and run no test."""
        from edgecheck.plugin.config import run_of

        try:
            if self._problems:
                raise EdgecheckError(f"pytest can't collect {self._problems[0]}")
            if not self._suites:
                raise EdgecheckError("there is no Conformance class in the suite")
            run = run_of(session.config)
            run.prepare_scratch()
            self.status = self._work(run, _candidates(run, self._suites))
        except EdgecheckError as error:
            self.error = error
        return True


def _candidates(run: Run, suites: list[type[Conformance]]) -> dict[str, Case]:
    """All candidates that there could be on any target, by name."""
    from edgecheck.declare.case import Selection, expand
    from edgecheck.targets.registry import all_targets

    selection = Selection(tuple(all_targets().values()))
    found: dict[str, Case] = {}
    for suite in suites:
        if getattr(suite, "model", None) is None:
            continue
        cases = expand(run.model_name(suite), suite.model, suite.budget, selection).cases
        found.update({case.candidate: case for case in cases})
    return found


def find(name: str, candidates: dict[str, Case]) -> Case:
    """The candidate of a name.

    Raises:
        SelectionError: there is none; the message has the nearest ones.
    """
    if name in candidates:
        return candidates[name]
    near = difflib.get_close_matches(name, candidates, n=_NEAREST, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = f" (near: {', '.join(near)})" if len(near) > 1 else ""
    raise SelectionError(
        f"no candidate {name!r} in the suite, of MODEL/TARGET/PRECISION{hint}{shown}"
    )


def _explain(run: Run, case: Case, options: argparse.Namespace) -> int:
    from edgecheck.localization import description, locate

    if case.unsupported:
        raise EdgecheckError(f"{case.candidate}: {case.unsupported}")
    if reason := case.target.missing():
        raise EdgecheckError(f"{case.candidate}: {reason}")
    if options.sensitivity:
        return _sensitivity(run, case, options)
    found = locate.localize(run.workbench, case, _progress)
    _progress("")
    if options.json:
        print(
            json.dumps(
                {"sentence": description.sentence(found), **description.as_data(found)}, indent=1
            )
        )
        return 0 if found.kind in ("none", "faint") else 1
    lines = description.shortened(
        [
            f"{case.candidate}: {description.sentence(found)}",
            "",
            f"{found.calls} inferences, those with the largest errors, of {found.inputs}; "
            + (found.note or "as it runs")
            + "; errors are relative, of the root mean square",
        ]
    )
    table = description.rows(found, everything=options.all)
    print_lines([*map(plain, lines), "", *table_lines(description.TITLES, table)])
    return 0 if found.kind in ("none", "faint") else 1


def _sensitivity(run: Run, case: Case, options: argparse.Namespace) -> int:
    from edgecheck.localization import description
    from edgecheck.sensitivity import description as words
    from edgecheck.sensitivity import sensitivity

    found = sensitivity.find(run.workbench, case, _progress)
    _progress("")
    status = 0 if found.kind in ("holds", "found") else 1
    if options.json:
        print(json.dumps(words.as_data(found, case), indent=1))
        return status
    lines: list[str] = []
    for line in words.sentences(found, case):
        # What is to be copied stays on its line.
        lines += [line] if line.startswith(" ") else description.shortened([line])
    table = table_lines(*words.table(found, everything=options.all))
    legend = words.legend(found, everything=options.all)
    print_lines([*map(plain, lines), "", *table, "", *map(plain, legend)])
    return status


def _progress(text: str) -> None:
    """One line on the terminal that is rewritten; "" clears it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{plain(text)}", end="", file=sys.stderr, flush=True)
