"""The pytest plugin: options and hooks. Thin: what they do is in `edgecheck.session`.

Imports nothing heavy, since every pytest run on the machine loads it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgecheck.options import OPTIONS, Options

if TYPE_CHECKING:
    from edgecheck.case import Case
    from edgecheck.conformance import CaseRun
    from edgecheck.session import Run

_RUN = pytest.StashKey["Run"]()
_SCRATCH = pytest.StashKey[tuple[str, str]]()
_CASE_RUN = pytest.StashKey["CaseRun"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and their ini keys."""
    group = parser.getgroup("edgecheck", "release gate for models on edge devices")
    for name, default, metavar, text in OPTIONS:
        flag = f"--edge-{name.replace('_', '-')}"
        group.addoption(flag, dest=f"edge_{name}", default=None, metavar=metavar, help=text)
        parser.addini(f"edge_{name}", f"default of {flag}", default=default)


def _options(config: pytest.Config) -> Options:
    values = {}
    for name, _, _, _ in OPTIONS:
        given = config.getoption(f"edge_{name}")
        if given is None:
            given = config.getini(f"edge_{name}")
        values[name] = ",".join(given) if isinstance(given, list) else str(given)
    return Options(**values)


def pytest_configure(config: pytest.Config) -> None:
    """Register markers; check what was asked for before anything runs."""
    from edgecheck.names import CHECKS, PRECISIONS, TARGET_NAMES

    for name in TARGET_NAMES:
        config.addinivalue_line("markers", f"{name}: cases of the target {name} (edgecheck)")
    for name in PRECISIONS:
        config.addinivalue_line("markers", f"{name}: cases at precision {name} (edgecheck)")
    for name in CHECKS:
        config.addinivalue_line("markers", f"{name}: the {name} checks (edgecheck)")
    if not _is_worker(config):
        config.pluginmanager.register(Reporter(config), "edgecheck-reporter")
    if any(
        (config.getoption(f"edge_{name}") is not None) or config.getini(f"edge_{name}") != default
        for name, default, _, _ in OPTIONS
    ):
        _run(config)


def _run(config: pytest.Config) -> Run:
    """The run's state in this process, made on first use."""
    if _RUN in config.stash:
        return config.stash[_RUN]
    from edgecheck.errors import EdgecheckError
    from edgecheck.names import resolve
    from edgecheck.report import json as json_report
    from edgecheck.session import Run

    run_id, scratch = _run_place(config)
    options = _options(config)
    try:
        resolve(options.missing, ("fail", "skip"), "value of --edge-missing")
        resolve(options.noise, ("fail", "warn", "skip"), "value of --edge-noise")
        run = Run(options, config.rootpath, Path(scratch), run_id, crowded=_is_crowded(config))
        if options.json and not _is_worker(config):
            json_report.check_writable(config.invocation_params.dir / options.json)
    except EdgecheckError as error:
        raise pytest.UsageError(f"edgecheck: {error}") from None
    config.stash[_RUN] = run
    return run


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _is_crowded(config: pytest.Config) -> bool:
    """Whether this is one of several workers."""
    return _is_worker(config) and int(config.workerinput["workercount"]) > 1  # type: ignore[attr-defined]


def _run_place(config: pytest.Config) -> tuple[str, str]:
    """Run id and scratch directory, the same in all processes of a run."""
    if _is_worker(config):
        given: tuple[str, str] = config.workerinput["edgecheck"]  # type: ignore[attr-defined]
        return given
    if _SCRATCH not in config.stash:
        run_id = uuid.uuid4().hex
        config.stash[_SCRATCH] = (run_id, str(Path(tempfile.gettempdir()) / f"edgecheck-{run_id}"))
    return config.stash[_SCRATCH]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker which run it belongs to."""
    node.workerinput["edgecheck"] = _run_place(node.config)


def _suite(cls: Any) -> bool:
    """Whether a class is a Conformance; nothing can be where that was never imported."""
    module = sys.modules.get("edgecheck.conformance")
    return module is not None and isinstance(cls, type) and issubclass(cls, module.Conformance)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Turn each test of a Conformance class into one per case."""
    if "case" not in metafunc.fixturenames or not _suite(metafunc.cls):
        return
    from edgecheck.errors import EdgecheckError

    check = metafunc.function.__name__.removeprefix("test_")
    try:
        cases = _run(metafunc.config).cases_for(metafunc.cls, check)
    except EdgecheckError as error:
        pytest.fail(f"edgecheck: {error}", pytrace=False)
    metafunc.parametrize(
        "case",
        [pytest.param(case, id=case.id, marks=_marks(case, check)) for case in cases],
        indirect=True,
    )


def _marks(case: Case, check: str) -> list[pytest.MarkDecorator]:
    from edgecheck.names import CHECKS

    names = [case.target.name, case.precision, *([check] if check in CHECKS else [])]
    return [getattr(pytest.mark, name) for name in names]


def _case(item: pytest.Item) -> Case | None:
    callspec = getattr(item, "callspec", None)
    if callspec is None or not _suite(getattr(item, "cls", None)):
        return None
    case: Case | None = callspec.params.get("case")
    return case


def _check_name(item: pytest.Item) -> str:
    return getattr(item, "originalname", item.name).removeprefix("test_")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the place-holders of empty matrices; keep the cases of one model file together.

    What one check builds and loads is still warm for the next. Timing, for which the other workers
    of a run must wait, comes last.
    """
    if _RUN not in config.stash:
        return
    from edgecheck.case import Case

    kept: list[pytest.Item] = []
    groups: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        if not (_suite(getattr(item, "cls", None)) and "case" in getattr(item, "fixturenames", ())):
            kept.append(item)
            continue
        case = item.callspec.params.get("case")  # type: ignore[attr-defined]
        if not isinstance(case, Case):
            continue
        place = (item.nodeid.rpartition("::")[0], case.id)
        if place not in groups:
            groups[place] = []
            kept.append(item)
        groups[place].append(item)
    items[:] = [member for item in kept for member in _group_of(item, groups)]
    if _is_crowded(config):
        items.sort(key=lambda item: _case(item) is not None and _check_name(item) == "latency")


def _group_of(
    item: pytest.Item, groups: dict[tuple[str, str], list[pytest.Item]]
) -> list[pytest.Item]:
    case = _case(item)
    if case is None:
        return [item]
    return groups[(item.nodeid.rpartition("::")[0], case.id)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which cases are going to run."""
    if _RUN not in session.config.stash:
        return
    selected = {
        item.nodeid: (case, _check_name(item))
        for item in session.items
        if (case := _case(item)) is not None
    }
    _run(session.config).finish_collection(selected)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold the machine's lock beside other work, so that a measurement anywhere waits for it."""
    run = item.config.stash.get(_RUN, None)
    # Whoever sits at a debugger's prompt must not hold up other people's runs.
    at_prompt = item.config.getoption("usepdb", False) or item.config.getoption("trace", False)
    if run is None or not run.catalog.cases or at_prompt:
        return (yield)
    with run.workbench.lock.shared():
        return (yield)


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> CaseRun:
    """One candidate of a Conformance class: a model on a target at a precision."""
    from edgecheck.conformance import CaseRun

    if not hasattr(request, "param"):
        pytest.fail("the fixture 'case' is for tests in a Conformance class", pytrace=False)
    run = _run(request.config)
    chosen: Case = request.param
    if chosen.unsupported:
        pytest.fail(f"unsupported: {chosen.unsupported}", pytrace=False)
    if reason := chosen.target.missing():
        pytest.skip(reason)
    made = CaseRun(chosen, run.workbench, tmp_path, run.options.noise)
    request.node.stash[_CASE_RUN] = made
    return made


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the case's record to its report, which crosses xdist."""
    report = yield
    chosen = _case(item)
    if chosen is None or not (
        report.when == "call" or (report.when == "setup" and not report.passed)
    ):
        return report
    from edgecheck.report import junit

    record = _record(item, chosen, report)
    report.edgecheck_record = record  # type: ignore[attr-defined]
    for pair in junit.properties(record):
        item.user_properties.append(pair)
        report.user_properties.append(pair)
    return report


def _record(item: pytest.Item, chosen: Case, report: pytest.TestReport) -> dict[str, Any]:
    from edgecheck.report import record as records

    run = _run(item.config)
    base = records.identity(chosen, _check_name(item), item.nodeid, run.selection.required)
    made = item.stash.get(_CASE_RUN, None)
    if made is not None and made.verdict is not None:
        record = records.judged(base, made.verdict, made.built)
        accepted = record["verdict"] == "inconclusive" and run.options.noise != "fail"
        if report.failed and (accepted or record["verdict"] == "passed"):
            record |= {"verdict": "failed", "reason": _first_line(report)}
    elif report.passed:
        record = records.unjudged(base, "passed", "")
    elif report.skipped and not hasattr(report, "wasxfail"):
        record = records.unjudged(base, "not_checked", _first_line(report))
    else:
        verdict = "unsupported" if chosen.unsupported else "failed"
        record = records.unjudged(base, verdict, _first_line(report))
    if hasattr(report, "wasxfail") and not report.passed:
        record["expected_failure"] = report.wasxfail
    elif record["verdict"] == "inconclusive" and run.options.noise != "fail":
        record["expected_failure"] = f"--edge-noise={run.options.noise}"
    record["timings"] = {**record["timings"], "duration_s": round(report.duration, 3)}
    return record


def _first_line(report: pytest.TestReport) -> str:
    """Why a test did not pass, in one line."""
    if isinstance(report.longrepr, tuple):  # a skip: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    return next((line.strip() for line in text.splitlines() if line.strip()), "").removeprefix(
        "Failed: "
    )


class Reporter:
    """The hooks of the process where all reports come together (not in xdist's workers)."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._gate: Any = None
        self._records: list[dict[str, Any]] = []

    def pytest_report_header(self) -> str | None:
        """Say what is going to be judged."""
        if _RUN not in self._config.stash:
            return None
        run = _run(self._config)
        names = ", ".join(target.name for target in run.selection.targets)
        return f"edgecheck: targets {names or 'none'}; cache {run.cache}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the record of each case; a worker that died leaves none."""
        record = getattr(report, "edgecheck_record", None)
        if record is not None:
            _run(self._config).records[report.nodeid] = record
        elif report.when not in ("setup", "call", "teardown"):
            _run(self._config).crashed(report.nodeid, str(report.longrepr))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Judge the gate, and write the report whatever ended the run."""
        if _RUN in self._config.stash and not self._config.option.collectonly:
            self._finish(session)
        return (yield)

    def _finish(self, session: pytest.Session) -> None:
        from edgecheck.report import benchmark, terminal
        from edgecheck.report import json as json_report

        run = _run(self._config)
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

        run = _run(self._config)
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


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the children; the controller removes the run's directory."""
    if _RUN not in config.stash:
        return
    run = _run(config)
    run.close()
    if not _is_worker(config):
        shutil.rmtree(run.scratch, ignore_errors=True)
