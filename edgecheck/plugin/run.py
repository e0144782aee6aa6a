"""One pytest run: what was selected, what is known of its cases, and what became of them."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import fnmatch
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.build.artifact_cache import Store
from edgecheck.declare.case import Case, Matrix, Selection, expand
from edgecheck.declare.device_classes import DEVICE_CLASSES
from edgecheck.declare.model import artifact_key
from edgecheck.errors import EdgecheckError
from edgecheck.judge.unjudged import Statement, unjudged
from edgecheck.names import CHECKS, PRECISIONS, SCHEMA, model_name_of, resolve
from edgecheck.plugin.options import Options
from edgecheck.plugin.target_options import check_target_options
from edgecheck.process import scratch
from edgecheck.process.lock import MachineLock, default_path
from edgecheck.report import record as records
from edgecheck.targets.base import Target
from edgecheck.targets.registry import all_targets
from edgecheck.units import parse_quantity

if TYPE_CHECKING:
    from edgecheck.history.past import Past
    from edgecheck.plugin.conformance import Conformance
    from edgecheck.workbench import Workbench


NOT_REACHED = "the run ended before this case"


@dataclass
class Catalog:
    """What a run is going to do, known once it is collected; plain data.

    Attributes:
        cases: the first part of each case's record by node id.
        absences: what has no case, as (subject, what, reason).
        errors: what is wrong with the selection.
        expanded: number of candidates before pytest's own selection.
        known: keys of all cases before pytest's own selection, where there is a baseline.
        stated: the limits of the models' budgets, as the fields of `Statement`.
        declared: the first parts of the records of all cases that the models could have on any
            target, where there are waivers.
    """

    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    absences: list[tuple[str, str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    expanded: int = 0
    known: list[str] = field(default_factory=list)
    stated: list[dict[str, Any]] = field(default_factory=list)
    declared: list[dict[str, Any]] = field(default_factory=list)


class Run:
    """The state of a run in one process.

    Attributes:
        scratch: the run's directory, shared by its processes on this machine.
        records: by node id, of the cases that were judged.
        crashes: by node id, why a pytest worker died on a case.

    Args:
        options: as given.
        root: pytest's root directory.
        run_id: of the run.
        past: what it is held against besides its limits.
        sharers: how many processes of the run share the machine.
        tell: see `edgecheck.workbench.Settings`.
    """

    def __init__(
        self,
        options: Options,
        root: Path,
        run_id: str,
        past: Past,
        *,
        sharers: int = 1,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options
        self._tell = tell
        self.scratch = scratch.path_of(run_id)
        self.run_id = run_id
        self._presence: int | None = None
        self.past = past
        self.selection = options.selection()
        self.timeout_s = options.timeout_s()
        self._lock_path = root / options.lock if options.lock else default_path()
        MachineLock(self._lock_path).close()  # a path that can't be locked is told before anything
        self._timing: dict[str, Any] = {
            "threads": options.thread_count(),
            "cpus": options.cpu_list(),
            "timing_limit_s": options.timing_limit_s(),
        }
        self._cache_limit_bytes = int(parse_quantity(options.cache_size, "bytes"))
        self._file_limit_bytes = int(parse_quantity(options.file_limit, "bytes"))
        self.records: dict[str, dict[str, Any]] = {}
        self.crashes: dict[str, str] = {}
        self.catalog = Catalog()
        self._root = root
        self._sharers = sharers
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._matrices: dict[type, Matrix] = {}
        self._owners: dict[str, type] = {}
        # Models by the precision that was named and why they can't be had in it.
        self._lacking: dict[tuple[str, str], list[str]] = {}
        self._devices: dict[str, dict[str, Any]] = {}

    # -- collection ---------------------------------------------------------------------------

    def matrix(self, suite: type[Conformance]) -> Matrix:
        """The cases of a Conformance class.

        Raises:
            EdgecheckError: it declares no model, or one under another class's name.
        """
        if suite in self._matrices:
            return self._matrices[suite]
        model = getattr(suite, "model", None)
        if model is None:
            raise EdgecheckError(f"{suite.__qualname__} declares no model")
        name = self.model_name(suite)
        owner = self._owners.setdefault(name, suite)
        if owner is not suite:
            raise EdgecheckError(
                f"{suite.__module__}.{suite.__qualname__} and {owner.__module__}."
                f"{owner.__qualname__} both declare a model {name!r}: pass Model(name=...)"
            )
        suite.budget.check_words(
            [
                *all_targets(),
                *PRECISIONS,
                *model.outputs,
                *(part for name in model.outputs for part in model.output(name).parts),
                *model.variants,
                *DEVICE_CLASSES,
            ],
            suite.__qualname__,
        )
        keys = (*model.artifacts, *model.builders, *model.baselines, *(model.targets or {}))
        for key in keys:
            resolve(artifact_key(key)[0], all_targets(), "target")
        check_target_options(model)
        matrix = expand(name, model, suite.budget, self.selection)
        self.catalog.expanded += len(matrix.cases)
        self._matrices[suite] = matrix
        self.catalog.absences += [
            (item.subject, item.what, item.reason) for item in matrix.absences
        ]
        self._note_what_is_stated(name, suite, matrix)
        return matrix

    def _note_what_is_stated(self, name: str, suite: type[Conformance], matrix: Matrix) -> None:
        """Note the limits, and that a precision which was named or declared can't be judged."""
        if matrix.cases:
            self.catalog.stated += [
                asdict(Statement(name, limit, key, tuple(suite.model.outputs)))
                for limit, key in suite.budget.statements()
            ]
        judged = {case.precision for case in matrix.cases}
        for precision in self.selection.precisions or ():
            reasons = [item.reason for item in matrix.absences if item.what == precision]
            if reasons and precision not in judged:
                self._lacking.setdefault((precision, reasons[0]), []).append(name)
        targets = suite.model.targets or {}
        for item in matrix.absences:
            declared = targets.get(item.subject.removeprefix(f"{name}/"), ())
            if item.what in declared and item.what not in (self.selection.precisions or ()):
                self.catalog.errors.append(
                    f"{item.subject} declares {item.what}, and it can't be had: {item.reason}"
                )

    def unjudged(self, found: Sequence[Mapping[str, Any]]) -> list[str]:
        """What was stated and not judged, by the records of the run."""
        absent = {(subject, what) for subject, what, _ in self.catalog.absences}
        statements = [
            Statement(**{**item, "outputs": tuple(item["outputs"])}) for item in self.catalog.stated
        ]
        return unjudged(statements, found, self.selection.checks, absent)

    def cases_for(self, suite: type[Conformance], check: str) -> list[Case]:
        """The cases of a class that get a check (or a test of the user's own)."""
        cases = self.matrix(suite).cases
        if self.past.waivers:
            self._declare(suite, check)
        if check in CHECKS and check not in self.selection.checks:
            return []
        if check == "accuracy":
            cases = tuple(case for case in cases if case.model.evaluation is not None)
        if self.past.baseline is not None:
            self.catalog.known += [f"{case.candidate}/{check}" for case in cases]
        return list(cases)

    def _declare(self, suite: type[Conformance], check: str) -> None:
        """Note all cases of a check that there could be, so that waivers can be held against."""
        if check == "accuracy" and suite.model.evaluation is None:
            return
        selection = Selection(tuple(all_targets().values()))
        name = self.model_name(suite)
        everything = expand(name, suite.model, suite.budget, selection).cases
        self.catalog.declared += [
            records.identity(case, check, "", required=False)
            for case in (*everything, *self.matrix(suite).cases)
        ]

    def model_name(self, suite: type[Conformance]) -> str:
        """What reports call the model of a Conformance class."""
        return suite.model.name or model_name_of(suite.__name__)

    def finish_collection(self, selected: Mapping[str, tuple[Case, str]]) -> None:
        """Note the selected cases and their checks by node id, for all processes of the run."""
        required = self.selection.required
        self.catalog.cases = {
            nodeid: records.identity(case, check, nodeid, required)
            for nodeid, (case, check) in selected.items()
        }
        self._check_globs()
        self.catalog.errors += [
            f"{precision} was named, and {', '.join(names)} can't be had in it: {reason}"
            for (precision, reason), names in self._lacking.items()
        ]
        if self._matrices and not self.catalog.expanded and self.selection.required:
            names = ", ".join(target.name for target in self.selection.targets)
            self.catalog.errors.append(f"no model has a case on {names} as selected")
        if self._matrices:
            self.prepare_scratch()

    def _check_globs(self) -> None:
        """Globs that select nothing are errors: a typing mistake must not pass a release."""
        names = {
            f"{owner}:{variant}" if variant else owner
            for owner, suite in self._owners.items()
            for variant in ("", *suite.model.variants)  # type: ignore[attr-defined]
        }
        if names:
            self.catalog.errors += [
                f"--edge-models {glob!r} matches no model (models: {', '.join(sorted(names))})"
                for glob in self.selection.models
                if not fnmatch.filter(names, glob)
            ]

    # -- work ---------------------------------------------------------------------------------

    def prepare_scratch(self) -> None:
        """Make the run's directory, for this user only, and hold it (see `close`)."""
        if self._presence is None:
            scratch.remove_abandoned(self.scratch.parent)
            self._presence = scratch.hold(self.scratch)

    @cached_property
    def workbench(self) -> Workbench:
        """This process's workbench."""
        from edgecheck.declare.settings import Settings
        from edgecheck.workbench import Workbench

        self.prepare_scratch()
        return Workbench(
            Settings(
                cache=self.cache,
                scratch=self.scratch,
                timeout_s=self.timeout_s,
                file_limit_bytes=self._file_limit_bytes,
                lock=self._lock_path,
                tell=self._tell,
                sharers=self._sharers,
                vacuous=self.options.vacuous,
                explain=self.options.explain == "yes",
                rebuild=self.options.rebuild == "yes",
                fuzz=self.options.fuzz_count(),
                fuzz_folder=self._root / ".edgecheck/fuzz",
                replay=self._root / self.options.replay if self.options.replay else None,
                **self._timing,
            )
        )

    @property
    def cache(self) -> Path:
        """The directory of the artifact cache."""
        return self._root / (self.options.cache or ".edgecheck/cache")

    def device(self, target: Target) -> dict[str, Any]:
        """What numbers of time and memory depend on here (see `edgecheck.report.record.device`)."""
        if target.name not in self._devices:
            timing = self._timing
            self._devices[target.name] = records.device(target, timing["threads"], timing["cpus"])
        return self._devices[target.name]

    def close(self, *, last: bool) -> None:
        """End this process's children; the last process leaves nothing behind but the cache.

        The processes of a run on one machine hold its directory locked shared: whoever can lock it
        exclusively is the last. A machine that the controller does not run on has no other hint.

        Args:
            last: whether this is surely the last on this machine: the controller, which may never
                have held the directory, and outlives its workers.
        """
        if "workbench" in self.__dict__:
            self.workbench.close()
        if self._presence is not None:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
                last = True
        if last:
            if self.cache.is_dir():
                Store(self.cache, self.scratch).prune(self._cache_limit_bytes, keep_s=3600)
            shutil.rmtree(self.scratch, ignore_errors=True)
        if self._presence is not None:
            os.close(self._presence)
            self._presence = None

    # -- after the run ------------------------------------------------------------------------

    def receive_catalog(self, catalog: Mapping[str, Any]) -> None:
        """Take what a worker collected, in a process that does not collect; all collect alike."""
        if not self.catalog.cases:
            self.catalog = Catalog(**catalog)

    def all_records(self) -> list[dict[str, Any]]:
        """A record for every selected case, sorted by key: also for those that never ran."""
        complete = {
            nodeid: self._crash_record(nodeid)
            or self.records.get(nodeid)
            or records.unjudged(base, "not_checked", NOT_REACHED)
            for nodeid, base in self.catalog.cases.items()
        }
        return sorted(complete.values(), key=lambda item: (item["key"], item["nodeid"]))

    def _crash_record(self, nodeid: str) -> dict[str, Any] | None:
        if nodeid not in self.crashes:
            return None
        return records.unjudged(self.catalog.cases[nodeid], "failed", self.crashes[nodeid])

    def document(
        self, found: Sequence[Mapping[str, Any]], gate: Mapping[str, Any], exit_status: int
    ) -> dict[str, Any]:
        """The whole run as the JSON report."""
        return {
            "schema": SCHEMA,
            "run": {
                **records.run_header(self.run_id, self.started, vars(self.options), self._root),
                "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "exit_status": exit_status,
            },
            "gate": gate,
            "cases": list(found),
            "absences": [
                {"subject": subject, "what": what, "reason": reason}
                for subject, what, reason in sorted(self.catalog.absences)
            ],
            "skipped_targets": self.skipped_targets(),
        }

    @cached_property
    def git(self) -> dict[str, Any]:
        """Commit, branch and whether files differ from it, of the root directory."""
        found = records.git_commit(self._root) or {}
        return {name: value or "" for name, value in found.items()}

    def selects(self, key: str) -> bool:
        """Whether a case of this key would be selected by the options, were there one."""
        parts = key.rsplit("/", 3)
        if len(parts) < 4:
            return False
        model, target, precision, check = parts
        chosen = self.selection
        allowed = chosen.precisions or (chosen.profile and chosen.profile.precisions)
        return (
            target in (item.name for item in chosen.targets)
            and (not allowed or precision in allowed)
            and (check in chosen.checks or check not in CHECKS)
            and (
                not chosen.models or any(fnmatch.fnmatchcase(model, glob) for glob in chosen.models)
            )
        )

    def skipped_targets(self) -> dict[str, str]:
        """Targets that exist, were not asked for, and can't run here, with the reason."""
        if self.selection.required:
            return {}
        judged = {base["target"] for base in self.catalog.cases.values()}  # maybe by other machines
        return {
            name: target.missing()
            for name, target in all_targets().items()
            if target.missing() and name not in judged
        }
