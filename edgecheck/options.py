"""The options of a run: names, defaults and help for pytest, and what they select.

Imported by every pytest run on the machine, so it imports nothing of edgecheck at the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecheck.case import Selection

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
        "precisions to judge (fp32, fp16, int8-dynamic, int8, int8-qat, "
        "int4). Default: all that a target has",
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
        "profile",
        "",
        "NAME",
        "device class whose budget holds besides the models' own (mcu, mobile, "
        "sbc, edge-gpu, edge-tpu, browser)",
    ),
    ("timeout", "300", "SECONDS", "time limit of one build or one run. Default: 300"),
)


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
    profile: str = ""
    timeout: str = "300"

    def timeout_s(self) -> float:
        """The time limit in seconds.

        Raises:
            SelectionError: it is no positive number.
        """
        from edgecheck.errors import SelectionError

        try:
            seconds = float(self.timeout)
        except ValueError:
            seconds = 0.0
        if not 0.0 < seconds < float("inf"):
            raise SelectionError(
                f"--edge-timeout {self.timeout!r} is no positive number of seconds"
            )
        return seconds

    def selection(self) -> Selection:
        """What the options select.

        Raises:
            SelectionError: a name does not exist, or nothing that was asked for can exist.
        """
        from edgecheck.case import Selection, find_profile
        from edgecheck.errors import SelectionError
        from edgecheck.names import CHECKS, PRECISIONS, resolve, split_names
        from edgecheck.targets import all_targets, find_target

        named = [find_target(name) for name in split_names(self.targets)]
        targets = list({target.name: target for target in named or all_targets().values()}.values())
        precisions = [
            resolve(name, PRECISIONS, "precision") for name in split_names(self.precisions)
        ]
        checks = [resolve(name, CHECKS, "check") for name in split_names(self.checks)]
        for name in precisions:
            if not any(name in target.precisions for target in targets):
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
            profile=find_profile(self.profile) if self.profile else None,
        )
