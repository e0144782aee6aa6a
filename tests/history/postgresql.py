"""A PostgreSQL server of one's own: made in a temporary directory, on a Unix socket, gone after.

Not for how edgecheck uses it: that is `tests.history.test_postgresql`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sql

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
# The server refuses to run as root.
_USER = "postgres"
_WAIT_S = "60"


def missing() -> str:
    """Why there can be no server here, or ""."""
    if _programs() is None:
        return "PostgreSQL's server is not installed (Debian: apt install postgresql)"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and there is no setpriv to become another user"
    return ""


@contextmanager
def server() -> Iterator[Server]:
    """A running server, where there can be one (see `missing`)."""
    programs = _programs()
    assert programs is not None, missing()
    # The name of a socket must be short, so that it can't be below pytest's directories.
    directory = Path(tempfile.mkdtemp(prefix="edgecheck-pg-"))
    data = directory / "data"
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, _USER)
        _run(
            programs / "initdb",
            "--auth=trust",
            "--no-sync",
            f"--username={_USER}",
            "-D",
            data,
            cwd=directory,
        )
        options = f"-k {directory} -c listen_addresses='' -c max_connections=40"
        control = (programs / "pg_ctl", "-D", data, "-w", "-t", _WAIT_S)
        _run(*control, "-l", directory / "log", "-o", options, "start", cwd=directory)
        try:
            yield Server(directory)
        finally:
            _run(*control, "-m", "immediate", "stop", cwd=directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Server:
    """A running server; `directory` is where its socket is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made = 0

    def url(self, database: str) -> str:
        """The URL of a database, as --edge-history takes it."""
        return f"postgresql://{_USER}@/{database}?host={self.directory}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        name = f"history_{self._made}"
        engine = sql.create_engine(
            sql.make_url(self.url("postgres")).set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self.url(name)


def _programs() -> Path | None:
    """The newest version's directory; Debian keeps it out of PATH."""
    found = [item for place in _PLACES for item in Path("/").glob(place.lstrip("/"))]
    if (known := shutil.which("pg_ctl")) is not None:
        found.append(Path(known).parent)
    usable = [item for item in found if (item / "initdb").exists() and (item / "pg_ctl").exists()]
    return max(usable, default=None, key=lambda item: item.parts)


def _run(*command: str | Path, cwd: Path) -> None:
    become = (
        ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups")
        if os.geteuid() == 0
        else ()
    )
    # The server inherits what pg_ctl was given: a pipe of ours would stay open with it.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [*become, *map(str, command)], cwd=cwd, stdout=output, stderr=subprocess.STDOUT
        )
        output.seek(0)
        assert done.returncode == 0, output.read().decode(errors="replace")
