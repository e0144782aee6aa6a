"""What a pytest config holds for edgecheck: the run of this process, made on first use.

Not for hooks: those are `edgecheck.plugin` and `edgecheck.reporter`.
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecheck.options import OPTIONS, Options

if TYPE_CHECKING:
    from edgecheck.session import Run

_RUN = pytest.StashKey["Run"]()
_SCRATCH = pytest.StashKey[tuple[str, str]]()


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
    from edgecheck.names import resolve
    from edgecheck.report import json as json_report
    from edgecheck.session import Run

    run_id, scratch = run_place(config)
    options = _options_of(config)
    try:
        resolve(options.missing, ("fail", "skip"), "value of --edge-missing")
        resolve(options.noise, ("fail", "warn", "skip"), "value of --edge-noise")
        run = Run(options, config.rootpath, Path(scratch), run_id, crowded=is_crowded(config))
        if options.json and not is_worker(config):
            json_report.check_writable(config.invocation_params.dir / options.json)
    except EdgecheckError as error:
        raise pytest.UsageError(f"edgecheck: {error}") from None
    config.stash[_RUN] = run
    return run


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's workers."""
    return hasattr(config, "workerinput")


def is_crowded(config: pytest.Config) -> bool:
    """Whether this is one of several workers."""
    return is_worker(config) and int(config.workerinput["workercount"]) > 1  # type: ignore[attr-defined]


def run_place(config: pytest.Config) -> tuple[str, str]:
    """Run id and scratch directory, the same in all processes of a run."""
    if is_worker(config):
        given: tuple[str, str] = config.workerinput["edgecheck"]  # type: ignore[attr-defined]
        return given
    if _SCRATCH not in config.stash:
        run_id = uuid.uuid4().hex
        config.stash[_SCRATCH] = (run_id, str(Path(tempfile.gettempdir()) / f"edgecheck-{run_id}"))
    return config.stash[_SCRATCH]
