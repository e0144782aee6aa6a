"""What a pytest config holds for edgecheck: the run of this process, made on first use."""

from __future__ import annotations

import contextlib
import datetime
import signal
import sys
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edgecheck.plugin.options import DEFAULT_HISTORY, OPTIONS, Options

if TYPE_CHECKING:
    from edgecheck.history.past import Past
    from edgecheck.plugin.run import Run

_RUN = pytest.StashKey["Run"]()
_RUN_ID = pytest.StashKey[str]()
_CATALOG_SENT = pytest.StashKey[bool]()


def started(config: pytest.Config) -> bool:
    """Whether this process has a run: an option was given, or a Conformance class collected."""
    return _RUN in config.stash


def _options_of(config: pytest.Config) -> Options:
    values = {}
    for name, _, _, _ in OPTIONS:
        given = config.getoption(f"edge_{name}")
        if given is None:
            given = config.getini(f"edge_{name}")
        values[name] = ",".join(given) if isinstance(given, list) else str(given)
    return Options(**values)


def run_of(config: pytest.Config) -> Run:
    """The run's state in this process, made on first use.

    Raises:
        pytest.UsageError: what was asked for can't be.
    """
    if _RUN in config.stash:
        return config.stash[_RUN]
    from edgecheck.errors import EdgecheckError
    from edgecheck.plugin.run import Run
    from edgecheck.process.orphans import end_with_parent
    from edgecheck.targets import built_in_names
    from edgecheck.targets.registry import all_targets

    options = _options_of(config)
    try:
        options.check_words()
        past = _past(config, options)
        run = Run(
            options,
            config.rootpath,
            run_id(config),
            past,
            sharers=worker_count(config),
            tell=_teller(config),
        )
        if is_worker(config):
            end_with_parent()
        else:
            _check_reports(config, options)
            _end_in_order(config)
    except EdgecheckError as error:
        raise pytest.UsageError(f"edgecheck: {error}") from None
    for name in all_targets().keys() - set(built_in_names()):
        config.addinivalue_line("markers", f"{name}: cases of the target {name} (edgecheck)")
    config.stash[_RUN] = run
    return run


def _end_in_order(config: pytest.Config) -> None:
    """Take SIGTERM, by which CI cancels a job, as Ctrl-C is taken: what is known is reported."""
    alone = threading.current_thread() is threading.main_thread()
    if alone and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)

        def restore() -> None:
            signal.signal(signal.SIGTERM, before)

        config.add_cleanup(restore)


def _teller(config: pytest.Config) -> Callable[[str], None]:
    """A function that writes a line past pytest's capture, while a test runs."""

    def tell(text: str) -> None:
        capture = config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(f"\nedgecheck: {text}", file=sys.stderr, flush=True)

    return tell


def _check_reports(config: pytest.Config, options: Options) -> None:
    """Make sure before the run that its reports can be written after it."""
    from edgecheck.history import report_file

    for path in (options.json, options.html, options.summary):
        if path:
            report_file.check_writable(config.invocation_params.dir / path)
    if options.html:
        from edgecheck.report import html

        html.check_available()
    history = history_of(config, options)
    if history and options.history != DEFAULT_HISTORY:
        from edgecheck.history.database import History

        History(history).close()


def history_of(config: pytest.Config, options: Options) -> str:
    """The URL or path of the history; "" for none."""
    if options.history in ("", "none") or "://" in options.history:
        return options.history.removeprefix("none")
    return str(config.rootpath / options.history)


def _past(config: pytest.Config, options: Options) -> Past:
    """What the run is held against: read once, and sent to the workers."""
    from edgecheck.history import past, waivers
    from edgecheck.history.baseline import find_baseline, find_report, is_file
    from edgecheck.history.metrics import with_effects
    from edgecheck.names import split_names

    metrics, fail_on = with_effects(options.effects), frozenset(split_names(options.fail_on))
    given = config.workerinput["edgecheck_past"] if is_worker(config) else None  # type: ignore[attr-defined]
    if given is not None:
        return past.from_data(given, metrics, fail_on)
    baseline, taken_over = None, dict[str, dict[str, Any]]()
    if options.baseline:
        spec = options.baseline
        if is_file(spec):
            spec = str(config.invocation_params.dir / spec)
        history = history_of(config, options)
        baseline, names = find_baseline(spec, history, config.rootpath)
        if options.reuse == "yes":
            for run in [f"run:{name}" for name in names] or [spec]:
                document = find_report(run, history, config.rootpath)
                for item in document["cases"]:
                    if item["verdict"] == "passed" and item.get("inputs_sha256"):
                        taken_over.setdefault(item["key"], {**item, "run": document["run"]["id"]})
    path = config.rootpath / (options.waivers or "waivers.toml")
    wanted = options.waivers != "none" and (bool(options.waivers) or path.is_file())
    return past.Past(
        baseline,
        taken_over,
        metrics,
        fail_on,
        waivers.load(path) if wanted else (),
        datetime.datetime.now(datetime.UTC).date(),
    )


def past_data(config: pytest.Config) -> dict[str, Any] | None:
    """The run's past, to be sent to workers; None where nothing says yet that there is a run."""
    if not started(config):
        return None
    from edgecheck.history import past

    return past.as_data(run_of(config).past)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's workers."""
    return hasattr(config, "workerinput")


def worker_count(config: pytest.Config) -> int:
    """How many workers the run has, this process being one; 1 without pytest-xdist."""
    return int(config.workerinput["workercount"]) if is_worker(config) else 1  # type: ignore[attr-defined]


def run_id(config: pytest.Config) -> str:
    """The run's id, the same in all its processes."""
    if is_worker(config):
        given: str = config.workerinput["edgecheck"]  # type: ignore[attr-defined]
        return given
    return config.stash.setdefault(_RUN_ID, uuid.uuid4().hex)


def catalog_to_send(config: pytest.Config) -> dict[str, Any] | None:
    """What this xdist worker collected, once: the controller does not collect."""
    if not is_worker(config) or not started(config) or _CATALOG_SENT in config.stash:
        return None
    config.stash[_CATALOG_SENT] = True
    return vars(run_of(config).catalog)
