"""What all benchmarks share: rows of the table, and pytest runs as subprocesses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ("-p", "edgecheck.plugin.hooks")
_TAIL_CHARACTERS = 2000


class BenchmarkError(Exception):
    """A run that was to be measured did not do what it should."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        limit: "" where the figure is only reported.
    """

    what: str
    measured: str
    limit: str = ""
    ok: bool = True


def at_most(what: str, value: float, limit: float, unit: str) -> Row:
    """A figure that is held against its upper limit."""
    return Row(what, f"{value:.3g} {unit}", f"<= {limit:g} {unit}", value <= limit)


def at_least(what: str, value: float, limit: float, unit: str) -> Row:
    """A figure that is held against its lower limit."""
    return Row(what, f"{value:.3g} {unit}", f">= {limit:g} {unit}", value >= limit)


def within(what: str, ratio: float, low: float, high: float) -> Row:
    """A ratio that is to be about one."""
    return Row(what, f"{ratio:.3f}", f"{low:g} .. {high:g}", low <= ratio <= high)


@dataclass(frozen=True)
class Finished:
    """A finished subprocess: what it printed, and what it took with all its own children."""

    output: str
    wall_s: float
    cpu_s: float


def environment(*paths: Path, **variables: str) -> dict[str, str]:
    """This process's environment with the repository and `paths` importable.

    Bytecode is cached, as on any installation: compiling edgecheck anew is no cost of using it.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS")
    }
    search = os.pathsep.join(map(str, (ROOT, *paths)))
    return {**inherited, "PYTHONPATH": search, **variables}


def python(arguments: Sequence[str], *, cwd: Path, env: dict[str, str]) -> Finished:
    """Run this Python and wait.

    Raises:
        BenchmarkError: it ended with an error; the message has the end of its output.
    """
    before, start = _children_cpu_s(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall_s, cpu_s = time.perf_counter() - start, _children_cpu_s() - before
    if done.returncode != 0:
        raise BenchmarkError(
            f"{' '.join(arguments)} ended with {done.returncode}:\n"
            f"{done.stdout[-_TAIL_CHARACTERS:]}"
        )
    return Finished(done.stdout, wall_s, cpu_s)


def _children_cpu_s() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pytest(arguments: Sequence[str], *, cwd: Path, env: dict[str, str]) -> Finished:
    """Run pytest with no plugin but those named in `arguments`."""
    alone = {**env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return python(["-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=cwd, env=alone)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say on stderr what is being measured, and how long it took."""
    print(f"{what} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
