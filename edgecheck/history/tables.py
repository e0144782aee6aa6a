"""The tables of the history, and how an older database is brought up to date.

Not for what is written to them: that is `edgecheck.history.database`.
"""

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
    # The whole JSON report, packed by zlib.
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


def migrate(connection: sql.Connection) -> None:
    """Bring a database up to date, within the caller's transaction.

    Raises:
        HistoryError: a later edgecheck wrote it.
    """
    if connection.dialect.name == "postgresql":
        # Two that create the tables at once would fail; the number is ours alone.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(6017320)")
    known = sql.inspect(connection).has_table(versions.name)
    version = connection.execute(sql.select(versions.c.version)).scalar_one() if known else 0
    if version > len(STEPS):
        raise HistoryError(
            f"the history has version {version}, and this edgecheck knows up to {len(STEPS)}: "
            "update edgecheck"
        )
    if version == len(STEPS):
        return
    for step in STEPS[version:]:
        step(connection)
    connection.execute(sql.delete(versions))
    connection.execute(sql.insert(versions).values(version=len(STEPS)))
