"""The tables of the history, and how an older database is brought up to date."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sql

from edgecheck.errors import HistoryError

metadata = sql.MetaData()

versions = sql.Table("edgecheck_version", metadata, sql.Column("version", sql.Integer))

runs = sql.Table(
    "runs",
    metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("uid", sql.String(64), nullable=False, unique=True),
    # ISO 8601 in UTC, which sorts as text.
    sql.Column("started", sql.String(40), nullable=False, index=True),
    sql.Column("branch", sql.Text, nullable=False, index=True),
    sql.Column("commit", sql.String(64), nullable=False, index=True),
    sql.Column("dirty", sql.Boolean, nullable=False),
    sql.Column("gate", sql.String(16), nullable=False),
    sql.Column("cases", sql.Integer, nullable=False),
    sql.Column("failed", sql.Integer, nullable=False),
    # The JSON report without single latencies, packed by zlib.
    sql.Column("report", sql.LargeBinary, nullable=False),
)

cases = sql.Table(
    "cases",
    metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("key", sql.Text, nullable=False, unique=True),
)

devices = sql.Table(
    "devices",
    metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("fingerprint", sql.String(16), nullable=False, unique=True),
    sql.Column("description", sql.Text, nullable=False),
)

metrics = sql.Table(
    "metrics",
    metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.String(64), nullable=False),
    sql.Column("subject", sql.Text, nullable=False),
    sql.Column("better", sql.String(8), nullable=False),
    sql.UniqueConstraint("name", "subject", "better"),
)

results = sql.Table(
    "results",
    metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("run_id", sql.ForeignKey("runs.id"), nullable=False, index=True),
    sql.Column("case_id", sql.ForeignKey("cases.id"), nullable=False),
    sql.Column("device_id", sql.ForeignKey("devices.id"), nullable=False),
    sql.Column("verdict", sql.String(16), nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("accepted", sql.Text, nullable=False),
    sql.Column("artifact_sha256", sql.String(64), nullable=False),
    # Whether the numbers are another run's, taken over: no new point of a series.
    sql.Column("reused", sql.Boolean, nullable=False),
    sql.UniqueConstraint("run_id", "case_id"),
    sql.Index("results_of_case", "case_id", "run_id"),
)

measurements = sql.Table(
    "measurements",
    metadata,
    sql.Column("result_id", sql.ForeignKey("results.id"), primary_key=True),
    sql.Column("metric_id", sql.ForeignKey("metrics.id"), primary_key=True),
    sql.Column("value", sql.Double, nullable=False),
    sql.Column("low", sql.Double),
    sql.Column("high", sql.Double),
    sqlite_with_rowid=False,
)


def _create(connection: sql.Connection) -> None:
    metadata.create_all(connection)


# Each brings a database from the version of its position to the next. Once released, a step is not
# changed: steps after the first state their own statements, not today's tables.
STEPS: tuple[Callable[[sql.Connection], None], ...] = (_create,)


def is_current(connection: sql.Connection) -> bool:
    """Whether a database is up to date, so that nothing is to be written to open it."""
    return _version(connection) == len(STEPS)


def migrate(connection: sql.Connection, *, create: bool) -> None:
    """Bring a database up to date, within the caller's transaction.

    Raises:
        HistoryError: a later edgecheck or another program wrote it, or it is empty and `create`
            is false.
    """
    if connection.dialect.name == "postgresql":
        # Two that create the tables at once would fail; the number is ours alone.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(6017320)")
    version = _version(connection)
    if version == len(STEPS):
        return
    if version == 0:
        if others := sql.inspect(connection).get_table_names():
            raise HistoryError(
                f"it is another program's database (its tables: {', '.join(sorted(others)[:3])})"
            )
        if not create:
            raise HistoryError("there is no history in it yet")
    for step in STEPS[version:]:
        step(connection)
    connection.execute(sql.delete(versions))
    connection.execute(sql.insert(versions).values(version=len(STEPS)))


def _version(connection: sql.Connection) -> int:
    """0 where there are no tables of the history."""
    if not sql.inspect(connection).has_table(versions.name):
        return 0
    version: int = connection.execute(sql.select(versions.c.version)).scalar_one()
    if not 0 < version <= len(STEPS):
        raise HistoryError(
            f"it has version {version}, and this edgecheck knows up to {len(STEPS)}: "
            "update edgecheck"
        )
    return version
