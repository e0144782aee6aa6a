"""The pytest plugin: options and hooks. Thin: what they do is in `edgecheck.plugin.run`.

Imports nothing heavy, since every pytest run on the machine loads it.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgecheck.plugin.collection import arrange, case_of, check_of, is_suite, marks_of
from edgecheck.plugin.config import (
    catalog_to_send,
    is_worker,
    past_data,
    run_id,
    run_of,
    started,
    worker_count,
)
from edgecheck.plugin.options import OPTIONS

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.history.past import Past
    from edgecheck.plugin.conformance import CaseRun

_CASE_RUN = pytest.StashKey["CaseRun"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and their ini keys."""
    group = parser.getgroup("edgecheck", "release gate for models on edge devices")
    for name, default, metavar, text in OPTIONS:
        flag = f"--edge-{name.replace('_', '-')}"
        # A switch may be given without its word.
        word = {"nargs": "?", "const": "yes"} if metavar == "yes|no" else {}
        group.addoption(flag, dest=f"edge_{name}", default=None, metavar=metavar, help=text, **word)
        parser.addini(f"edge_{name}", f"default of {flag}", default=default)


def pytest_configure(config: pytest.Config) -> None:
    """Register markers; check what was asked for before anything runs."""
    from edgecheck.names import CHECKS, PRECISIONS
    from edgecheck.targets import built_in_names

    for name in built_in_names():
        config.addinivalue_line("markers", f"{name}: cases of the target {name} (edgecheck)")
    for name in PRECISIONS:
        config.addinivalue_line("markers", f"{name}: cases at precision {name} (edgecheck)")
    for name in CHECKS:
        config.addinivalue_line("markers", f"{name}: the {name} checks (edgecheck)")
    if not is_worker(config):
        from edgecheck.plugin.reporter import Reporter

        config.pluginmanager.register(Reporter(config), "edgecheck-reporter")
    if any(
        (config.getoption(f"edge_{name}") is not None) or config.getini(f"edge_{name}") != default
        for name, default, _, _ in OPTIONS
    ):
        run_of(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker which run it belongs to."""
    node.workerinput["edgecheck"] = run_id(node.config)
    node.workerinput["edgecheck_past"] = past_data(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker a stretch of the cases, where no way of sharing them was asked for."""
    if not started(config) or config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Turn each test of a Conformance class into one per case."""
    if "case" not in metafunc.fixturenames or not is_suite(metafunc.cls):
        return
    from edgecheck.errors import EdgecheckError

    check = metafunc.function.__name__.removeprefix("test_")
    try:
        cases = run_of(metafunc.config).cases_for(metafunc.cls, check)
    except EdgecheckError as error:
        pytest.fail(f"edgecheck: {error}", pytrace=False)
    metafunc.parametrize(
        "case",
        [pytest.param(case, id=case.id, marks=marks_of(case, check)) for case in cases],
        indirect=True,
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the cases into the order in which they cost least."""
    if started(config):
        items[:] = arrange(items, crowded=worker_count(config) > 1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which cases are going to run."""
    if not started(session.config):
        return
    selected = {
        item.nodeid: (case, check_of(item))
        for item in session.items
        if (case := case_of(item)) is not None
    }
    run_of(session.config).finish_collection(selected)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller what was collected where no test's report has done so."""
    catalog = catalog_to_send(session.config)
    if catalog is not None:
        session.config.workeroutput["edgecheck"] = catalog  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold the machine's lock beside other work, so that a measurement anywhere waits for it."""
    run = run_of(item.config) if started(item.config) else None
    # Whoever sits at a debugger's prompt must not hold up other people's runs.
    at_prompt = item.config.getoption("usepdb", False) or item.config.getoption("trace", False)
    if run is None or not run.catalog.cases or at_prompt:
        return (yield)
    with run.workbench.lock.shared():
        return (yield)


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> CaseRun:
    """One candidate of a Conformance class: a model on a target at a precision."""
    from edgecheck.plugin.conformance import CaseRun

    if not hasattr(request, "param"):
        pytest.fail("the fixture 'case' is for tests in a Conformance class", pytrace=False)
    run = run_of(request.config)
    chosen: Case = request.param
    if chosen.unsupported:
        pytest.fail(f"unsupported: {chosen.unsupported}", pytrace=False)
    if reason := chosen.target.missing():
        pytest.skip(reason)
    made = CaseRun(
        chosen, run.workbench, tmp_path, run.options, run.past, run.device(chosen.target)
    )
    request.node.stash[_CASE_RUN] = made
    return made


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the case's record to its report, which crosses xdist; to the first, the catalog."""
    report = yield
    catalog = catalog_to_send(item.config)
    if catalog is not None:
        report.edgecheck_catalog = catalog  # type: ignore[attr-defined]
    chosen = case_of(item)
    if chosen is None or not (
        report.when == "call" or (report.when == "setup" and not report.passed)
    ):
        return report
    from edgecheck.report import junit

    record = _waived(_record(item, chosen, report), report, run_of(item.config).past)
    report.edgecheck_record = record  # type: ignore[attr-defined]
    for pair in junit.properties(record):
        item.user_properties.append(pair)
        report.user_properties.append(pair)
    return report


def _record(item: pytest.Item, chosen: Case, report: pytest.TestReport) -> dict[str, Any]:
    from edgecheck.report import record as records

    run = run_of(item.config)
    base = records.identity(chosen, check_of(item), item.nodeid, run.selection.required)
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
    record["device"] = run.device(chosen.target)
    if made is not None and made.verdict is not None:
        records.add_past(
            record,
            inputs_sha256=made.inputs_sha256,
            reused=made.reused,
            comparison=made.comparison,
        )
    return record


def _waived(record: dict[str, Any], report: pytest.TestReport, past: Past) -> dict[str, Any]:
    """Accept a failure that a waiver covers; where that has expired, the failure says so."""
    from edgecheck.history import waivers

    if not past.waivers or not report.failed:
        return record
    waived = waivers.waived(record, past.waivers, past.today)
    if waived["waiver"] is not None:
        report.outcome = "skipped"
        report.wasxfail = waived["expected_failure"]
    elif waived["reason"] != record["reason"]:
        report.sections.append(("waiver", waived["reason"]))
    return waived


def _first_line(report: pytest.TestReport) -> str:
    """Why a test did not pass, in one line."""
    if isinstance(report.longrepr, tuple):  # a skip: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    return next((line.strip() for line in text.splitlines() if line.strip()), "").removeprefix(
        "Failed: "
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the children; the last process of the run on a machine removes its directory."""
    if started(config):
        run_of(config).close(last=not is_worker(config))
