"""One pytest run: what was selected, what is known of its cases, and what became of them.

Not for pytest's hooks: those are `edgecheck.plugin`, which holds one `Run` per process.
"""

from __future__ import annotations

import datetime
import fnmatch
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.budget import PROFILES
from edgecheck.case import Case, Matrix, expand
from edgecheck.errors import EdgecheckError
from edgecheck.lock import MachineLock, default_path
from edgecheck.model import artifact_key
from edgecheck.names import CHECKS, PRECISIONS, resolve
from edgecheck.options import Options
from edgecheck.report import record as records
from edgecheck.store import Store
from edgecheck.targets import all_targets
from edgecheck.units import parse_quantity

if TYPE_CHECKING:
    from edgecheck.conformance import Conformance
    from edgecheck.workbench import Workbench


@dataclass
class Catalog:
    """What a run is going to do, known once it is collected; plain data.

    Attributes:
        cases: the first part of each case's record by node id.
        absences: what has no case, as (subject, what, reason).
        errors: what is wrong with the selection.
        expanded: number of candidates before pytest's own selection.
    """

    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    absences: list[tuple[str, str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    expanded: int = 0

    def save(self, path: Path) -> None:
        """Write it, whole or not at all: workers of one run write the same file."""
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, delete=False, encoding="utf-8"
        ) as stream:
            stream.write(json.dumps(vars(self)))
        Path(stream.name).replace(path)

    @classmethod
    def load(cls, path: Path) -> Catalog:
        """Read it; empty where no worker got so far."""
        if not path.is_file():
            return cls()
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class Run:
    """The state of a run in one process.

    Args:
        options: as given.
        root: pytest's root directory.
        scratch: the run's directory, shared by its processes.
        run_id: of the run.
        crowded: whether other processes of the run keep the machine's cores busy.
    """

    def __init__(
        self, options: Options, root: Path, scratch: Path, run_id: str, *, crowded: bool = False
    ) -> None:
        self.options = options
        self.scratch = scratch
        self.run_id = run_id
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
        self.records: dict[str, dict[str, Any]] = {}
        self.catalog = Catalog()
        self._root = root
        self._crowded = crowded
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._matrices: dict[type, Matrix] = {}
        self._owners: dict[str, type] = {}
        self._matched: set[str] = set()

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
        name = model.name or _model_name(suite.__name__)
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
                *model.variants,
                *PROFILES,
            ],
            suite.__qualname__,
        )
        keys = (*model.artifacts, *model.builders, *model.baselines, *(model.targets or {}))
        for key in keys:
            resolve(artifact_key(key)[0], all_targets(), "target")
        matrix = expand(name, model, suite.budget, self.selection)
        self.catalog.expanded += len(matrix.cases)
        self._matrices[suite] = matrix
        self.catalog.absences += [
            (item.subject, item.what, item.reason) for item in matrix.absences
        ]
        return matrix

    def cases_for(self, suite: type[Conformance], check: str) -> list[Case]:
        """The cases of a class that get a check (or a test of the user's own)."""
        if check in CHECKS and check not in self.selection.checks:
            return []
        cases = self.matrix(suite).cases
        if check == "accuracy":
            return [case for case in cases if case.model.evaluation is not None]
        return list(cases)

    def finish_collection(self, selected: Mapping[str, tuple[Case, str]]) -> None:
        """Note the selected cases and their checks by node id, for all processes of the run."""
        required = self.selection.required
        self.catalog.cases = {
            nodeid: records.identity(case, check, nodeid, required)
            for nodeid, (case, check) in selected.items()
        }
        self._check_globs()
        if self._matrices and not self.catalog.expanded and self.selection.required:
            names = ", ".join(target.name for target in self.selection.targets)
            self.catalog.errors.append(f"no model has a case on {names} as selected")
        if self._matrices:
            self.prepare_scratch()
            self.catalog.save(self._catalog_path)

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
        """Make the run's directory, for this user only."""
        self.scratch.mkdir(mode=0o700, exist_ok=True)

    @cached_property
    def workbench(self) -> Workbench:
        """This process's workbench."""
        from edgecheck.workbench import Settings, Workbench

        self.prepare_scratch()
        return Workbench(
            Settings(
                cache=self.cache,
                scratch=self.scratch,
                timeout_s=self.timeout_s,
                lock=self._lock_path,
                spare=not self._crowded,
                **self._timing,
            )
        )

    @property
    def cache(self) -> Path:
        """The directory of the artifact cache."""
        return self._root / (self.options.cache or ".edgecheck/cache")

    def prune_cache(self) -> None:
        """Keep the cache within its limit."""
        if self.cache.is_dir():
            Store(self.cache, self.scratch).prune(self._cache_limit_bytes, keep_s=3600)

    def close(self) -> None:
        """End this process's children."""
        if "workbench" in self.__dict__:
            self.workbench.close()

    # -- after the run ------------------------------------------------------------------------

    @property
    def _catalog_path(self) -> Path:
        return self.scratch / "catalog.json"

    def load_catalog(self) -> None:
        """Read what the workers collected, in a process that does not collect."""
        if not self.catalog.cases:
            self.catalog = Catalog.load(self._catalog_path)

    def all_records(self) -> list[dict[str, Any]]:
        """A record for every selected case, sorted by key: also for those that never ran."""
        complete = {
            nodeid: self.records.get(nodeid)
            or records.unjudged(base, "not_checked", "the run ended before this case")
            for nodeid, base in self.catalog.cases.items()
        }
        return sorted(complete.values(), key=lambda item: (item["key"], item["nodeid"]))

    def crashed(self, nodeid: str, reason: str) -> None:
        """Note a case whose pytest worker died."""
        self.load_catalog()
        base = self.catalog.cases.get(nodeid)
        if base is not None:
            self.records[nodeid] = records.unjudged(base, "failed", reason)

    def document(
        self, found: Sequence[Mapping[str, Any]], gate: Mapping[str, Any], exit_status: int
    ) -> dict[str, Any]:
        """The whole run as the JSON report."""
        return {
            "schema": records.SCHEMA,
            "run": {
                **records.run_header(self.run_id, self._started, vars(self.options), self._root),
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

    def skipped_targets(self) -> dict[str, str]:
        """Targets that exist, were not asked for, and can't run here, with the reason."""
        if self.selection.required:
            return {}
        return {
            name: target.missing() for name, target in all_targets().items() if target.missing()
        }


def _model_name(class_name: str) -> str:
    """``TestDigitsCNN`` -> ``digits_cnn``."""
    stem = class_name.removeprefix("Test") or class_name
    letters: list[str] = []
    for position, letter in enumerate(stem):
        previous = stem[position - 1] if position else ""
        following = stem[position + 1 : position + 2]
        starts = letter.isupper() and (
            previous.islower() or previous.isdigit() or (previous.isupper() and following.islower())
        )
        if position and starts:
            letters.append("_")
        letters.append(letter.lower())
    return "".join(letters)
