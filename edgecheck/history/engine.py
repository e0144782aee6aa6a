"""How a history's database is opened: SQLite made safe for many writers, or PostgreSQL.

Not for what is in it: that is `edgecheck.history.tables`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sql

from edgecheck.errors import HistoryError

# How long one writer waits for the others.
_BUSY_S = 60
# The execution option of connections that are going to write.
WRITES = "edgecheck_writes"


def open_engine(url: str, *, create: bool) -> sql.Engine:
    """The engine of a URL or path (see `edgecheck.history.database.History`).

    Raises:
        HistoryError: it can't be, or there is none and `create` is false.
    """
    try:
        parsed = sql.make_url(url if "://" in url else f"sqlite:///{url}")
    except sql.exc.ArgumentError as error:
        raise HistoryError(f"history {url!r} is no path and no database URL: {error}") from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise HistoryError(
            f"history {parsed.render_as_string(hide_password=True)}: "
            "only sqlite and postgresql are supported"
        )
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        if not path.name or parsed.database == ":memory:":
            raise HistoryError("a history needs a file: one in memory would be lost")
        if not path.is_file() and not create:
            raise HistoryError(f"there is no history at {path}: name it with --edge-history URL")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HistoryError(f"history {path}: {error.strerror or error}") from None
    try:
        engine = sql.create_engine(
            parsed,
            connect_args={"timeout": _BUSY_S} if parsed.get_backend_name() == "sqlite" else {},
        )
    except ModuleNotFoundError as error:
        raise HistoryError(
            f"PostgreSQL needs {error.name}: pip install 'edgecheck[postgres]'"
        ) from None
    if engine.dialect.name == "sqlite":
        sql.event.listen(engine, "connect", _prepare_sqlite)
        sql.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    # We say ourselves when a transaction begins: see _begin_sqlite.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    # Readers go on while one writes; where the file system can't do that, SQLite keeps its own way.
    connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: sql.Connection) -> None:
    """A writer takes its turn at the start: one that reads first could not become a writer."""
    write = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def told(error: sql.exc.SQLAlchemyError) -> str:
    """The database's own words, without the statement."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
