"""The databases that the history's tests run on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql

from tests.history import postgresql


@pytest.fixture(scope="session")
def server() -> Iterator[postgresql.Server]:
    """One PostgreSQL server for all tests of this process."""
    if reason := postgresql.missing():
        pytest.skip(reason)
    with postgresql.server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for a history, in either database."""
    if request.param == "sqlite":
        return str(tmp_path / "history.db")
    return str(request.getfixturevalue("server").new_database())


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    """What a database has, asked without edgecheck."""
    if "://" not in url:
        connection = sqlite3.connect(url)
        try:
            return list(connection.execute(query))
        finally:
            connection.close()
    engine = sql.create_engine(sql.make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connected:
            return [tuple(row) for row in connected.exec_driver_sql(query)]
    finally:
        engine.dispose()


def assert_whole(url: str) -> list[str]:
    """That each stored run has all that its report has; the ids of the runs."""
    from edgecheck.history.database import History
    from edgecheck.history.results import RunInfo, results_of

    with History(url, create=False) as history:
        names = [item.id for item in history.runs()]
        for name in names:
            expected = results_of(history.document(name))
            assert history.results(RunInfo(name, ""), spreads=False).cases == expected.cases
    orphans = """
        SELECT count(*) FROM results WHERE run_id NOT IN (SELECT id FROM runs)
        UNION ALL
        SELECT count(*) FROM measurements WHERE result_id NOT IN (SELECT id FROM results)
    """
    assert rows(url, orphans) == [(0,), (0,)]
    if "://" not in url:
        assert rows(url, "PRAGMA integrity_check") == [("ok",)]
    return names
