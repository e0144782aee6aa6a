"""Rows written within a transaction: what is shared by many runs is written once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from edgecheck.history import tables
from edgecheck.history.results import CaseResult, fingerprint

# Rows of one statement: PostgreSQL's protocol takes 65,535 parameters, older SQLite 32,766.
_AT_ONCE = 500


def add_cases(connection: sql.Connection, run_id: int, found: Sequence[CaseResult]) -> None:
    """Write the results of a run and their readings."""
    case_ids = _ids(connection, tables.cases, ("key",), ({"key": item.key} for item in found))
    device_ids = _ids(
        connection,
        tables.devices,
        ("fingerprint",),
        (
            {
                "fingerprint": fingerprint(item.device),
                "description": json.dumps(dict(item.device), sort_keys=True),
            }
            for item in found
        ),
    )
    metric_ids = _ids(
        connection,
        tables.metrics,
        ("name", "subject", "better"),
        (
            {"name": item.metric, "subject": item.subject, "better": item.better}
            for case in found
            for item in case.readings
        ),
    )
    rows = [
        {
            "run_id": run_id,
            "case_id": case_ids[(item.key,)],
            "device_id": device_ids[(fingerprint(item.device),)],
            "verdict": item.verdict,
            "reason": _storable(item.reason),
            "accepted": _storable(item.accepted),
            "artifact_sha256": item.artifact_sha256,
            "reused": item.reused,
        }
        for item in found
    ]
    if not rows:
        return
    connection.execute(sql.insert(tables.results), rows)
    ids = sql.select(tables.results.c.case_id, tables.results.c.id).where(
        tables.results.c.run_id == run_id
    )
    result_ids = dict(connection.execute(ids).all())
    values = [
        {
            "result_id": result_ids[case_ids[(case.key,)]],
            "metric_id": metric_ids[(item.metric, item.subject, item.better)],
            "value": item.value,
            "low": item.low,
            "high": item.high,
        }
        for case in found
        for item in case.readings
    ]
    if values:
        connection.execute(sql.insert(tables.measurements), values)


def _storable(text: str) -> str:
    """What crashed may have said anything: databases take no lone surrogates, and one no NUL."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _ids(
    connection: sql.Connection,
    table: sql.Table,
    names: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
) -> dict[tuple[Any, ...], int]:
    """The ids of rows by their unique columns; those that are missing are added."""
    wanted = {tuple(row[name] for name in names): row for row in rows}
    columns = [table.c[name] for name in names]

    def known() -> dict[tuple[Any, ...], int]:
        found: dict[tuple[Any, ...], int] = {}
        firsts = sorted({key[0] for key in wanted})
        for start in range(0, len(firsts), _AT_ONCE):
            query = sql.select(table.c.id, *columns).where(
                columns[0].in_(firsts[start : start + _AT_ONCE])
            )
            found |= {tuple(key): number for number, *key in connection.execute(query)}
        return found

    found = known()
    # In one order for all writers, or two of them could wait for each other for ever.
    missing = [dict(wanted[key]) for key in sorted(wanted.keys() - found.keys())]
    if not missing:
        return found
    insert(connection, table, missing)
    return known()


def insert(connection: sql.Connection, table: sql.Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert the rows that are not there yet; how many those were."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    added = 0
    for start in range(0, len(rows), _AT_ONCE):
        statement = make(table).values(list(rows[start : start + _AT_ONCE]))
        done = connection.execute(
            statement.on_conflict_do_nothing(),
            # Without it PostgreSQL's count of a single row is lost.
            execution_options={"preserve_rowcount": True},
        )
        added += done.rowcount
    return added
