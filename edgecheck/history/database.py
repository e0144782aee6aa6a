"""The history: runs and their numbers in SQLite or PostgreSQL.

A run is written in one transaction, so that one that is killed leaves nothing half-written and two
that write at once lose nothing.
"""

from __future__ import annotations

import fnmatch
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sql

from edgecheck.errors import HistoryError
from edgecheck.history import reading, tables, writing
from edgecheck.history.engine import WRITES, open_engine, shown, told
from edgecheck.history.metrics import METRICS
from edgecheck.history.results import CaseResult, RunInfo, RunResults, results_of

_CLOSES = ("failed", "unsupported", "inconclusive")


@dataclass(frozen=True)
class StoredRun(RunInfo):
    """A run in the history.

    Attributes:
        cases: how many it judged.
        failed: how many of them closed the gate.
    """

    cases: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Point:
    """A number of a case in one run."""

    run: RunInfo
    value: float
    low: float | None
    high: float | None
    better: str
    artifact_sha256: str


class History:
    """An open history; a context manager.

    Args:
        url: a database URL as SQLAlchemy takes it, or the path of an SQLite file.
        create: whether to make it where there is none.

    Raises:
        HistoryError: it can't be opened, or is not a history. So do all methods where it fails.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = url
        self._engine = open_engine(url, create=create)
        try:
            with self._transaction() as connection:
                current = tables.is_current(connection)
            if not current:
                with self._transaction(write=True) as connection:
                    tables.migrate(connection, create=create)
        except HistoryError:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sql.Connection]:
        options: dict[str, Any] = {WRITES: write}
        if not write and self._engine.dialect.name == "postgresql":
            # All queries of a reader see the same runs, as they do on SQLite.
            options["isolation_level"] = "REPEATABLE READ"
        try:
            with (
                self._engine.connect() as connection,
                connection.execution_options(**options).begin(),
            ):
                yield connection
        except sql.exc.SQLAlchemyError as error:
            raise HistoryError(f"history {shown(self._engine.url)}: {told(error)}") from error
        except HistoryError as error:
            raise HistoryError(f"history {shown(self._engine.url)}: {error}") from None

    # -- writing ------------------------------------------------------------------------------

    def add(self, document: Mapping[str, Any]) -> bool:
        """Keep a run's JSON report without its single latencies; False where it is there already.

        Raises:
            HistoryError: it can't be written; nothing of it was.
        """
        found = results_of(document)
        run = found.run
        closing = sum(
            item.verdict in _CLOSES and not item.accepted for item in found.cases.values()
        )
        with self._transaction(write=True) as connection:
            known = writing.insert(
                connection,
                tables.runs,
                [
                    {
                        "uid": run.id,
                        "started": run.started,
                        "branch": run.branch,
                        "commit": run.commit,
                        "dirty": run.dirty,
                        "gate": run.gate,
                        "cases": len(found.cases),
                        "failed": closing,
                        "report": zlib.compress(json.dumps(_without_samples(document)).encode()),
                    }
                ],
            )
            if not known:
                return False
            run_id = connection.execute(
                sql.select(tables.runs.c.id).where(tables.runs.c.uid == run.id)
            ).scalar_one()
            writing.add_cases(connection, run_id, list(found.cases.values()))
        return True

    def forget(self, pattern: str) -> list[str]:
        """Remove all results of cases, as of a model that is shipped no more.

        Args:
            pattern: a glob over keys.

        Returns the keys.
        """
        with self._transaction(write=True) as connection:
            c = tables.cases.c
            known = connection.execute(sql.select(c.id, c.key).order_by(c.key)).all()
            found = {ident: key for ident, key in known if fnmatch.fnmatchcase(key, pattern)}
            results = sql.select(tables.results.c.id).where(tables.results.c.case_id.in_(found))
            for table, condition in (
                (tables.measurements, tables.measurements.c.result_id.in_(results)),
                (tables.results, tables.results.c.case_id.in_(found)),
                (tables.cases, c.id.in_(found)),
            ):
                connection.execute(sql.delete(table).where(condition))
        return list(found.values())

    def prune(self, *, keep: int) -> list[StoredRun]:
        """Remove all but the newest runs, and those that a branch's baseline is made of.

        Args:
            keep: how many of the newest stay.

        Returns those that were removed.
        """
        stored = self.runs()
        kept = {item.id for item in stored[:keep]}
        for branch in {item.branch for item in stored}:
            passed = [item.id for item in stored if (item.branch, item.gate) == (branch, "passed")]
            kept.update(passed[:1], self.last_passed(branch=branch).values())
        removed = [item for item in stored if item.id not in kept]
        with self._transaction(write=True) as connection:
            for item in removed:
                run_ids = sql.select(tables.runs.c.id).where(tables.runs.c.uid == item.id)
                result_ids = sql.select(tables.results.c.id).where(
                    tables.results.c.run_id.in_(run_ids)
                )
                for table, condition in (
                    (tables.measurements, tables.measurements.c.result_id.in_(result_ids)),
                    (tables.results, tables.results.c.run_id.in_(run_ids)),
                    (tables.runs, tables.runs.c.uid == item.id),
                ):
                    connection.execute(sql.delete(table).where(condition))
        return removed

    # -- reading ------------------------------------------------------------------------------

    def runs(self, *, branch: str = "", commit: str = "", gate: str = "") -> list[StoredRun]:
        """Runs, the newest first."""
        query = sql.select(
            *(tables.runs.c[name] for name in (*_RUN_COLUMNS, "cases", "failed"))
        ).order_by(tables.runs.c.started.desc(), tables.runs.c.id.desc())
        for name, value in (("branch", branch), ("commit", commit), ("gate", gate)):
            if value:
                query = query.where(tables.runs.c[name] == value)
        with self._transaction() as connection:
            return [StoredRun(*row) for row in connection.execute(query)]

    def last_passed(self, *, branch: str = "", commit: str = "") -> dict[str, str]:
        """By key of a case the id of the newest run that it passed in, or failed as accepted.

        A run may be partial, and its gate closed by other cases.
        """
        run, result = tables.runs.c, tables.results.c
        query = (
            sql.select(tables.cases.c.key, run.uid)
            .join(tables.results, result.case_id == tables.cases.c.id)
            .join(tables.runs, run.id == result.run_id)
            .where(sql.or_(result.verdict == "passed", result.accepted != ""))
            .order_by(run.started.desc(), run.id.desc())
        )
        if branch:
            query = query.where(run.branch == branch)
        if commit:
            query = query.where(run.commit == commit)
        newest: dict[str, str] = {}
        with self._transaction() as connection:
            for key, uid in connection.execute(query):
                newest.setdefault(key, uid)
        return newest

    def document(self, run_id: str) -> dict[str, Any]:
        """The JSON report of a run.

        Raises:
            HistoryError: there is no such run.
        """
        query = sql.select(tables.runs.c.report).where(tables.runs.c.uid == run_id)
        with self._transaction() as connection:
            packed = connection.execute(query).scalar_one_or_none()
            if packed is None:
                raise HistoryError(f"there is no run {run_id}")
        found: dict[str, Any] = json.loads(zlib.decompress(packed))
        return found

    def results(self, run: RunInfo, *, spreads: bool = True) -> RunResults:
        """A run's results; readings of the machine know how far they varied before.

        Args:
            spreads: whether to find that out: only the earlier run of a comparison needs it.
        """
        c = tables.results.c
        with self._transaction() as connection:
            run_id = self._run_id(connection, run)
            query = (
                sql.select(
                    c.id,
                    c.case_id,
                    tables.cases.c.key,
                    c.device_id,
                    tables.devices.c.description,
                    c.verdict,
                    c.reason,
                    c.accepted,
                    c.artifact_sha256,
                    c.reused,
                )
                .join(tables.cases, tables.cases.c.id == c.case_id)
                .join(tables.devices, tables.devices.c.id == c.device_id)
                .where(c.run_id == run_id)
            )
            rows = connection.execute(query).all()
            readings = reading.readings_of(connection, run_id)
            known = reading.spreads_of(connection, run, run_id) if spreads else {}
        devices: dict[str, dict[str, Any]] = {}
        found = {}
        for result_id, case_id, key, device_id, description, *rest in rows:
            device = devices.setdefault(description, json.loads(description))
            verdict, reason, accepted, sha256, reused = rest
            found[key] = CaseResult(
                key=key,
                verdict=verdict,
                reason=reason,
                accepted=accepted,
                artifact_sha256=sha256,
                reused=reused,
                device=device,
                readings=tuple(
                    replace(item, spread=known.get((case_id, device_id, metric_id)))
                    if METRICS[item.metric].of_device
                    else item
                    for metric_id, item in sorted(
                        readings.get(result_id, ()), key=lambda pair: pair[1].place
                    )
                    if item.metric in METRICS
                ),
            )
        return RunResults(run, found)

    def _run_id(self, connection: sql.Connection, run: RunInfo) -> int:
        query = sql.select(tables.runs.c.id).where(tables.runs.c.uid == run.id)
        found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise HistoryError(f"there is no run {run.id}")
        return int(found)

    def metrics_of(self, key: str) -> list[tuple[str, str, str]]:
        """Metric, subject and device fingerprint of all that was ever measured of a case."""
        r, m = tables.results.c, tables.measurements.c
        query = (
            sql.select(
                tables.metrics.c.name, tables.metrics.c.subject, tables.devices.c.fingerprint
            )
            .select_from(tables.measurements)
            .join(tables.results, r.id == m.result_id)
            .join(tables.metrics, tables.metrics.c.id == m.metric_id)
            .join(tables.devices, tables.devices.c.id == r.device_id)
            .join(tables.cases, tables.cases.c.id == r.case_id)
            .where(tables.cases.c.key == key)
            .distinct()
        )
        with self._transaction() as connection:
            return sorted(
                (name, subject, device) for name, subject, device in connection.execute(query)
            )

    def case_keys(self) -> list[str]:
        """All cases that were ever judged."""
        with self._transaction() as connection:
            return sorted(connection.execute(sql.select(tables.cases.c.key)).scalars())

    def series(
        self,
        key: str,
        metric: str,
        subject: str = "",
        *,
        device: str = "",
        branch: str = "",
        limit: int = 500,
    ) -> list[Point]:
        """A number of a case over the newest runs that measured it, the oldest first.

        Args:
            device: its fingerprint; numbers of all devices without it.
        """
        r, m = tables.results.c, tables.measurements.c
        query = (
            sql.select(
                *(tables.runs.c[name] for name in _RUN_COLUMNS),
                m.value,
                m.low,
                m.high,
                tables.metrics.c.better,
                r.artifact_sha256,
            )
            .select_from(tables.results)
            .join(tables.cases, tables.cases.c.id == r.case_id)
            .join(tables.runs, tables.runs.c.id == r.run_id)
            .join(tables.measurements, m.result_id == r.id)
            .join(tables.metrics, tables.metrics.c.id == m.metric_id)
            .where(
                tables.cases.c.key == key,
                tables.metrics.c.name == metric,
                tables.metrics.c.subject == subject,
                r.reused.is_(False),
            )
            .order_by(tables.runs.c.started.desc(), tables.runs.c.id.desc())
            .limit(limit)
        )
        if branch:
            query = query.where(tables.runs.c.branch == branch)
        if device:
            query = query.join(tables.devices, tables.devices.c.id == r.device_id).where(
                tables.devices.c.fingerprint == device
            )
        width = len(_RUN_COLUMNS)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return [Point(RunInfo(*row[:width]), *row[width:]) for row in reversed(rows)]


def _without_samples(document: Mapping[str, Any]) -> dict[str, Any]:
    """A report without the single latencies, nearly all of its size; JSON files keep them."""
    cases = [
        {
            **item,
            "measurements": {
                name: value for name, value in item["measurements"].items() if name not in _SAMPLES
            },
        }
        for item in document["cases"]
    ]
    return {**document, "cases": cases}


_SAMPLES = ("samples_ns", "cpu_samples_ns")
_RUN_COLUMNS = ("uid", "started", "commit", "branch", "dirty", "gate")
