"""Rows read within a transaction: the readings of a run, and how far they varied before it."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sql

from edgecheck.history import tables
from edgecheck.history.compare import spread_of
from edgecheck.history.metrics import METRICS
from edgecheck.history.results import Reading, RunInfo

# Runs before the baseline that show how far values vary.
_SPREAD_RUNS = 20


def readings_of(connection: sql.Connection, run_id: int) -> dict[int, list[tuple[int, Reading]]]:
    """Readings with the ids of their metrics by result."""
    known = {
        number: (name, subject, better)
        for number, name, subject, better in connection.execute(sql.select(tables.metrics))
    }
    m = tables.measurements.c
    query = (
        sql.select(m.result_id, m.metric_id, m.value, m.low, m.high)
        .join(tables.results, tables.results.c.id == m.result_id)
        .where(tables.results.c.run_id == run_id)
    )
    found: dict[int, list[tuple[int, Reading]]] = defaultdict(list)
    for result_id, metric_id, value, low, high in connection.execute(query).all():
        name, subject, better = known[metric_id]
        found[result_id].append((metric_id, Reading(name, subject, value, better, low, high)))
    return found


def spreads_of(
    connection: sql.Connection, run: RunInfo, run_id: int
) -> dict[tuple[int, int, int], float]:
    """How far values varied by case, device and metric in this run and those before it."""
    recent = (
        sql.select(tables.runs.c.id)
        .where(tables.runs.c.branch == run.branch, tables.runs.c.started <= run.started)
        .order_by(tables.runs.c.started.desc())
        .limit(_SPREAD_RUNS)
    )
    ids = connection.execute(recent).scalars().all()
    of_device = [name for name, metric in METRICS.items() if metric.of_device]
    metric_ids = connection.execute(
        sql.select(tables.metrics.c.id).where(tables.metrics.c.name.in_(of_device))
    )
    wanted = metric_ids.scalars().all()
    if len(ids) < 2 or run_id not in ids:
        return {}
    r, m = tables.results.c, tables.measurements.c
    place = (r.case_id, r.device_id, m.metric_id)
    query = (
        # A row for each series, not for each of hundreds of thousands of values; the 15 digits
        # that SQLite writes are more than a spread needs.
        sql.select(*place, sql.func.aggregate_strings(sql.cast(m.value, sql.Text), ","))
        .join(tables.measurements, r.id == m.result_id)
        # The sum keeps SQLite from a search for each metric of each result.
        .where(r.run_id.in_(ids), r.reused.is_(False), (m.metric_id + 0).in_(wanted))
        .group_by(*place)
    )
    found = (
        (tuple(key), spread_of([float(item) for item in values.split(",")]))
        for *key, values in connection.execute(query)
    )
    return {key: spread for key, spread in found if spread is not None}
