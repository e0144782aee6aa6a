"""The options of a run: names, defaults and help for pytest, and what they select.

Imported by every pytest run on the machine, so it imports nothing of edgecheck at the top.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecheck.declare.case import Selection

DEFAULT_HISTORY = ".edgecheck/history.db"

# name, default, metavar, help
OPTIONS = (
    (
        "targets",
        "",
        "NAMES",
        "targets to judge, comma-separated (ort, tflite, ...); each one named "
        "is required. Default: those that this machine can run",
    ),
    (
        "precisions",
        "",
        "NAMES",
        "precisions to judge (fp32, fp16, int16x8, int8-dynamic, int8-weights, int8, int8-qat, "
        "int4, palettized). Default: all that a target has",
    ),
    ("models", "", "GLOBS", "models to judge, as globs; model:variant names a variant"),
    ("checks", "", "NAMES", "checks to make (export, parity, accuracy, latency, memory)"),
    (
        "missing",
        "fail",
        "fail|skip",
        "what a required target gets that this machine can't run: "
        "'fail' ends the run with an error, 'skip' accepts it",
    ),
    ("json", "", "PATH", "write the report to this JSON file"),
    ("cache", "", "DIR", "artifact cache. Default: .edgecheck/cache below the root directory"),
    (
        "cache_size",
        "10 GB",
        "SIZE",
        "what the artifact cache may keep; the least recently used goes first. Default: 10 GB",
    ),
    (
        "file_limit",
        "16 GB",
        "SIZE",
        "the largest model file that is read. Default: 16 GB",
    ),
    (
        "profile",
        "",
        "NAME",
        "device class whose budget holds besides the models' own (mcu, mobile, "
        "sbc, edge-gpu, edge-tpu, browser)",
    ),
    ("timeout", "300", "SECONDS", "time limit of one build or one run. Default: 300"),
    (
        "noise",
        "fail",
        "fail|warn|skip",
        "what a latency case gets whose limit lies within the noise after all attempts. "
        "Default: fail",
    ),
    (
        "vacuous",
        "grave",
        "grave|warn|fail",
        "what becomes of a comparison that says nothing (a reference that does not react, "
        "calibration data of another range, ...): 'grave' fails where nothing at all was compared "
        "and warns of the rest; 'warn' and 'fail' do that for all. Default: grave",
    ),
    (
        "fuzz",
        "",
        "N",
        "adversarial inputs that the parity check tries on each candidate. Default: what the "
        "model says, which is none unless it states Model(fuzz=N)",
    ),
    (
        "replay",
        "",
        "PATH",
        "a saved adversarial input, below the root directory: the parity check tries it, and no "
        "others of --edge-fuzz",
    ),
    (
        "explain",
        "yes",
        "yes|no",
        "whether a parity or accuracy failure names the layer that it comes from, which takes "
        "some seconds for each candidate. Default: yes",
    ),
    (
        "rebuild",
        "no",
        "yes|no",
        "whether the parity check builds each file a second time and compares: a build that is not "
        "reproducible is told, one whose outputs vary fails. Default: no",
    ),
    ("threads", "1", "N", "threads of the runtime while it is timed and weighed. Default: 1"),
    ("cpus", "", "LIST", "cores to time on, as in 0,2-3. Default: all"),
    (
        "timing_limit",
        "10",
        "SECONDS",
        "the most that one attempt at a latency verdict measures. Default: 10",
    ),
    (
        "lock",
        "",
        "PATH",
        "the lock file with which timing has the machine to itself; the same for all who share "
        "the machine. Default: one in the directory for temporary files",
    ),
    (
        "history",
        DEFAULT_HISTORY,
        "URL",
        "where results are kept: an SQLite file or a postgresql:// URL; 'none' keeps none. "
        "Default: .edgecheck/history.db below the root directory",
    ),
    (
        "baseline",
        "",
        "RUN",
        "compare with a JSON report, with run:ID of the history, or with tag:NAME or branch:NAME: "
        "the newest result of each case that passed there, in whatever run",
    ),
    (
        "fail_on",
        "",
        "NAMES",
        "what else fails: regression (a number worse than the baseline's), vanished (a case of "
        "the baseline that is gone), stale-waiver",
    ),
    (
        "effects",
        "",
        "LIST",
        "least changes that count as regressions, as in latency_p50_ms=3%%,sqnr_db=1",
    ),
    (
        "reuse",
        "no",
        "yes|no",
        "take over what passed in the baseline from the same file, inputs and limits, instead of "
        "measuring it again",
    ),
    (
        "waivers",
        "",
        "PATH",
        "accepted failures; 'none' for none. Default: waivers.toml in the root directory, if it "
        "is there",
    ),
    ("html", "", "PATH", "write the report to this HTML file"),
    (
        "summary",
        "",
        "PATH",
        "append a Markdown summary to this file. Default: where GITHUB_STEP_SUMMARY says, if set",
    ),
)

FAIL_ON = ("regression", "vanished", "stale-waiver")


@dataclass(frozen=True)
class Options:
    """The options of a run as text, from the command line or the ini file; "" where not given."""

    targets: str = ""
    precisions: str = ""
    models: str = ""
    checks: str = ""
    missing: str = "fail"
    json: str = ""
    cache: str = ""
    cache_size: str = "10 GB"
    file_limit: str = "16 GB"
    profile: str = ""
    timeout: str = "300"
    noise: str = "fail"
    vacuous: str = "grave"
    fuzz: str = ""
    replay: str = ""
    explain: str = "yes"
    rebuild: str = "no"
    threads: str = "1"
    cpus: str = ""
    timing_limit: str = "10"
    lock: str = ""
    history: str = DEFAULT_HISTORY
    baseline: str = ""
    fail_on: str = ""
    effects: str = ""
    reuse: str = "no"
    waivers: str = ""
    html: str = ""
    summary: str = ""

    def check_words(self) -> None:
        """Make sure that options with a choice of words have one of them.

        Raises:
            SelectionError: one has not.
        """
        from edgecheck.errors import SelectionError
        from edgecheck.names import resolve, split_names

        resolve(self.missing, ("fail", "skip"), "value of --edge-missing")
        resolve(self.noise, ("fail", "warn", "skip"), "value of --edge-noise")
        resolve(self.vacuous, ("grave", "warn", "fail"), "value of --edge-vacuous")
        resolve(self.explain, ("yes", "no"), "value of --edge-explain")
        resolve(self.rebuild, ("yes", "no"), "value of --edge-rebuild")
        resolve(self.reuse, ("yes", "no"), "value of --edge-reuse")
        self.fuzz_count()
        for name in split_names(self.fail_on):
            resolve(name, FAIL_ON, "value of --edge-fail-on")
        if not self.baseline:
            if {"regression", "vanished"} & set(split_names(self.fail_on)):
                raise SelectionError(f"--edge-fail-on={self.fail_on} needs --edge-baseline")
            if self.reuse == "yes":
                raise SelectionError("--edge-reuse needs --edge-baseline")

    def timeout_s(self) -> float:
        """The time limit in seconds.

        Raises:
            SelectionError: it is not a positive number.
        """
        return _seconds(self.timeout, "--edge-timeout")

    def timing_limit_s(self) -> float:
        """The limit of one attempt at a timing in seconds.

        Raises:
            SelectionError: it is not a positive number.
        """
        return _seconds(self.timing_limit, "--edge-timing-limit")

    def thread_count(self) -> int:
        """The number of threads.

        Raises:
            SelectionError: it is not a positive whole number.
        """
        from edgecheck.errors import SelectionError

        if not (self.threads.isdecimal() and int(self.threads) >= 1):
            raise SelectionError(f"--edge-threads {self.threads!r} is not a positive whole number")
        return int(self.threads)

    def fuzz_count(self) -> int | None:
        """The number of adversarial inputs; None for what each model says.

        Raises:
            SelectionError: it is not a whole number.
        """
        from edgecheck.errors import SelectionError

        if self.fuzz and not self.fuzz.isdecimal():
            raise SelectionError(f"--edge-fuzz {self.fuzz!r} is not a whole number")
        return int(self.fuzz) if self.fuzz else None

    def cpu_list(self) -> tuple[int, ...]:
        """The cores to time on; none for all.

        Raises:
            SelectionError: the list can't be read, or names a core that there is not.
        """
        from edgecheck.errors import SelectionError
        from edgecheck.names import split_names

        spans: list[range] = []
        for part in split_names(self.cpus):
            first, dash, last = part.partition("-")
            whole = first.isdecimal() and (last.isdecimal() if dash else True)
            if not whole or int(last or first) < int(first):
                raise SelectionError(
                    f"--edge-cpus {self.cpus!r} is not a list of cores, as in 0,2-3"
                )
            spans.append(range(int(first), int(last or first) + 1))
        if not spans:
            return ()
        if not hasattr(os, "sched_getaffinity"):
            raise SelectionError("--edge-cpus: this system can't keep a process to cores")
        present = os.sched_getaffinity(0)
        for span in spans:
            # At most one more than there are: a span may be as long as anyone types.
            absent = next((core for core in span if core not in present), None)
            if absent is not None:
                raise SelectionError(
                    f"--edge-cpus names {absent}; the cores of this process are {sorted(present)}"
                )
        return tuple(sorted({core for span in spans for core in span}))

    def selection(self) -> Selection:
        """What the options select.

        Raises:
            SelectionError: a name does not exist, or nothing that was asked for can exist.
        """
        from edgecheck.declare.case import Selection
        from edgecheck.declare.device_classes import find_device_class
        from edgecheck.errors import SelectionError
        from edgecheck.names import CHECKS, PRECISIONS, resolve, split_names
        from edgecheck.targets.registry import all_targets, find_target

        named = [find_target(name) for name in split_names(self.targets)]
        targets = list({target.name: target for target in named or all_targets().values()}.values())
        precisions = [
            resolve(name, PRECISIONS, "precision") for name in split_names(self.precisions)
        ]
        checks = [resolve(name, CHECKS, "check") for name in split_names(self.checks)]
        for name in precisions:
            if not any(name in target.build.precisions for target in targets):
                raise SelectionError(
                    f"no selected target has precision {name!r} "
                    f"(targets: {', '.join(target.name for target in targets)})"
                )
        return Selection(
            targets=tuple(target for target in targets if named or not target.missing()),
            required=bool(named),
            precisions=tuple(precisions) or None,
            models=tuple(split_names(self.models)),
            checks=tuple(check for check in CHECKS if not checks or check in checks),
            profile=find_device_class(self.profile) if self.profile else None,
        )


def _seconds(text: str, option: str) -> float:
    from edgecheck.errors import SelectionError

    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise SelectionError(f"{option} {text!r} is not a positive number of seconds")
    return seconds
