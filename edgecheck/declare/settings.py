"""How a run works: where its files are, and the limits of what it does. Not of what it judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgecheck.process.lock import default_path

# Enough for the largest models that run on edge devices; a typing mistake or a device file is more.
FILE_LIMIT_BYTES = 16 * 10**9


@dataclass(frozen=True)
class Settings:
    """How a run works.

    Attributes:
        cache: directory of the artifact cache.
        scratch: directory of this run, shared by its processes.
        timeout_s: limit of one build or one call to a device.
        file_limit_bytes: of a model file that the user names.
        lock: the machine's lock file.
        tell: takes a sentence for whoever watches, on what is waited for; from any thread.
        sharers: processes of the run on this machine; one alone starts device processes ahead.
        threads, cpus: of timing and weighing; no cores for all of them.
        timing_limit_s: the most that one attempt at a timing takes.
        vacuous: what becomes of comparisons that say nothing (see `edgecheck.judge.vacuity.sort`).
        fuzz: adversarial inputs to try; None for as many as each model says.
        fuzz_folder: where failing ones are kept.
        replay: the saved input that is tried instead.
        explain: whether to look for the layer that a failed comparison comes from.
        rebuild: whether to build each file twice, and compare.
    """

    cache: Path
    scratch: Path
    timeout_s: float = 300.0
    file_limit_bytes: int = FILE_LIMIT_BYTES
    lock: Path = field(default_factory=default_path)
    tell: Callable[[str], None] | None = None
    sharers: int = 1
    threads: int = 1
    cpus: tuple[int, ...] = ()
    timing_limit_s: float = 10.0
    vacuous: str = "grave"
    fuzz: int | None = None
    fuzz_folder: Path = Path(".edgecheck/fuzz")
    replay: Path | None = None
    explain: bool = True
    rebuild: bool = False
