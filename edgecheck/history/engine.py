"""How a history's database is opened: SQLite made safe for many writers, or PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from edgecheck.errors import HistoryError

# How long one writer waits for the others.
_BUSY_S = 60
_RETRY_S = 0.05
# How long a server may take to answer at all; a URL's own connect_timeout goes before it.
_CONNECT_S = 15
# The execution option of connections that are going to write.
WRITES = "edgecheck_writes"
_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


def open_engine(url: str, *, create: bool) -> sql.Engine:
    """The engine of a URL or path (see `edgecheck.history.database.History`).

    Raises:
        HistoryError: it can't be, or there is none and `create` is false.
    """
    parsed = _parse(url)
    if parsed.drivername == "sqlite":
        _check_file(parsed.database or "", create=create)
        options = {"timeout": _BUSY_S}
    else:
        options = {} if "connect_timeout" in parsed.query else {"connect_timeout": _CONNECT_S}
    try:
        engine = sql.create_engine(parsed, connect_args=options)
    except ModuleNotFoundError as error:
        raise HistoryError(
            f"PostgreSQL needs {error.name}: pip install 'edgecheck[postgres]'"
        ) from None
    if engine.dialect.name == "sqlite":
        sql.event.listen(engine, "connect", _prepare_sqlite)
        sql.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _parse(url: str) -> sql.URL:
    scheme, colon, _ = url.partition("://")
    if not colon:
        return sql.URL.create("sqlite", database=url)
    if scheme not in _DRIVERS:
        raise HistoryError(
            f"history {scheme}://...: it is an SQLite file's path, sqlite:///PATH, or "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    try:
        return sql.make_url(url).set(drivername=_DRIVERS[scheme])
    except (sql.exc.ArgumentError, ValueError):
        # What can't be taken apart may hold a password anywhere: it is not shown.
        raise HistoryError(f"history {scheme}://...: this is not a valid database URL") from None


def _check_file(name: str, *, create: bool) -> None:
    path = Path(name)
    if not path.name or name == ":memory:" or name.startswith("file:"):
        raise HistoryError("a history needs a file's path: one in memory would be lost")
    try:
        if path.is_dir():
            raise HistoryError(f"history {path}: it is a directory, not a file")
        if not path.exists() and not create:
            raise HistoryError(f"there is no history at {path}: name it with --edge-history URL")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = error.strerror or error
        raise HistoryError(f"history {path}: can't make its directory: {problem}") from None


def shown(url: sql.URL) -> str:
    """A database's path, or its URL without passwords."""
    if url.drivername == "sqlite":
        return str(url.database)
    secrets = {name: "***" for name in url.query if "password" in name}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


def _prepare_sqlite(connection: Any, _: object) -> None:
    # We say ourselves when a transaction begins: see _begin_sqlite.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    # Readers go on while one writes; where the file system can't do that, SQLite keeps its own way.
    # Of several that change a new file's mode at once SQLite refuses all but one without waiting.
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # its extended codes too
            if not locked or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def _begin_sqlite(connection: sql.Connection) -> None:
    """A writer takes its turn at the start: one that reads first could not become a writer."""
    write = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def told(error: sql.exc.SQLAlchemyError) -> str:
    """The database's own words, without the statement."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
