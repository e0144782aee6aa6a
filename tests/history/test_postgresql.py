"""Many writers at once, on both databases; and what only a server can do wrong."""

import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest

from edgecheck.errors import HistoryError
from edgecheck.history.database import History
from edgecheck.history.reading import readings_of
from tests.history import postgresql
from tests.history.conftest import assert_whole, rows
from tests.history.runs import document, write_each

WRITERS, RUNS_EACH = 8, 50
CASES = 4


def write_together(url: str, names_by_writer: list[list[str]]) -> None:
    """Write from as many processes at once, none of which has opened the database before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.history.runs"])
    barrier = context.Barrier(len(names_by_writer))
    writers = [
        context.Process(target=write_each, args=(url, names, barrier, CASES))
        for names in names_by_writer
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(180)
    assert [writer.exitcode for writer in writers] == [0] * len(writers)


def test_eight_writers_lose_and_double_nothing(url: str) -> None:
    names = [[f"run-{writer}-{n}" for n in range(RUNS_EACH)] for writer in range(WRITERS)]
    write_together(url, names)  # the first ones also create the tables
    stored = assert_whole(url)
    assert len(stored) == WRITERS * RUNS_EACH
    assert set(stored) == {name for each in names for name in each}
    # Half of a run's cases are shared by all.
    assert rows(url, "SELECT count(*) FROM cases") == [(CASES // 2 * (1 + len(stored)),)]
    assert rows(url, "SELECT count(*) FROM devices") == [(1,)]


def test_a_run_that_all_write_is_stored_once(url: str) -> None:
    names = [f"run-{n}" for n in range(5)]
    write_together(url, [names] * WRITERS)
    assert sorted(assert_whole(url)) == names


def test_a_reader_sees_whole_runs_while_another_is_written_and_removed(url: str) -> None:
    with History(url) as reader, History(url) as writer:
        writer.add(document("one"))
        with reader._transaction() as connection:
            assert reader._run_id(connection, reader.runs()[0]) == 1
            writer.add(document("two", hour=1))
            writer.prune(keep=0)
            # What was there when it began to read still is.
            assert len(readings_of(connection, 1)[1]) == 3
        assert [item.id for item in reader.runs()] == ["two"]


def test_a_server_that_is_not_there_is_said_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(HistoryError) as caught:
        History(f"postgresql://me:secret@/history?host={tmp_path}&password=hidden")
    text = str(caught.value)
    assert "connection" in text
    assert "\n" not in text
    assert "secret" not in text
    assert "hidden" not in text


def test_a_url_with_a_broken_port_is_said_without_the_password() -> None:
    with pytest.raises(HistoryError, match="not a valid database URL") as caught:
        History("postgresql://me:secret@host:port/history")
    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_there_is_said(server: postgresql.Server) -> None:
    with pytest.raises(HistoryError, match='database "nothing" does not exist'):
        History(server.url("nothing"))


def test_an_empty_database_is_a_history_only_where_one_is_to_be_made(
    server: postgresql.Server,
) -> None:
    url = server.new_database()
    with pytest.raises(HistoryError, match="there is no history in it yet"):
        History(url, create=False)
    History(url).close()
    History(url, create=False).close()


def test_a_new_file_whose_first_writer_is_at_work_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself does not wait where one process writes and another changes the file's mode."""
    path = tmp_path / "history.db"
    first = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, first.rollback)
    release.start()
    try:
        with History(str(path)) as history:
            assert history.add(document("one"))
    finally:
        release.join()
        first.close()
