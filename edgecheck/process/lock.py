"""The machine's lock: timing happens alone, all other work side by side.

Work holds the lock shared, a measurement holds it exclusively; among threads, xdist's workers and
independent pytest runs of one machine alike. The locks are flock(2)'s, which the kernel frees when
the holder dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from edgecheck.errors import EdgecheckError

# How long a wait is that nobody asks about.
_PATIENCE_S = 2.0
# A line of /proc/locks (proc_locks(5)): the process, and the inode of the file.
_FLOCK = re.compile(r"FLOCK\s+ADVISORY\s+\w+\s+(\d+)\s+\w+:\w+:(\d+)\b")


def default_path() -> Path:
    """The lock of this machine, the same for all its users."""
    return Path(tempfile.gettempdir()) / "edgecheck-machine.lock"


class MachineLock:
    """A readers-writer lock over a file, fair to the writer. Not for use by several threads.

    A writer first takes the gate, which readers pass on their way in: new work waits while a
    measurement waits, so that it can't starve.

    Args:
        path: the same for all who share the machine; a second file beside it is the gate.
        tell: takes a sentence on who is waited for, once a wait has lasted `_PATIENCE_S`; it is
            called in another thread.

    Raises:
        EdgecheckError: the file can't be opened or is not a plain file.
    """

    def __init__(self, path: Path, tell: Callable[[str], None] | None = None) -> None:
        self._work = _open(path)
        self._gate = _open(path.with_name(f"{path.name}.gate"))
        self._path, self._tell, self._told = path, tell, ""
        self._depth = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock beside other work. May be nested."""
        if self._depth == 0:
            self._enter()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                fcntl.flock(self._work, fcntl.LOCK_UN)

    def _enter(self) -> None:
        with self._telling("to work"):
            fcntl.flock(self._gate, fcntl.LOCK_SH)
            try:
                fcntl.flock(self._work, fcntl.LOCK_SH)
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _telling(self, why: str) -> Iterator[None]:
        """Tell of a wait that takes long."""
        if self._tell is None:
            yield
            return
        tell = self._tell
        timer = threading.Timer(_PATIENCE_S, self._tell_once, (tell, why))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _tell_once(self, tell: Callable[[str], None], why: str) -> None:
        """The same holder is not named again, however often it is waited for."""
        text = self._waiting(why)
        if text != self._told:
            self._told = text
            tell(text)

    def _waiting(self, why: str) -> str:
        found = sorted({*_holders(self._work), *_holders(self._gate)} - {os.getpid()})
        named = ", ".join(f"process {pid}{_command(pid)}" for pid in found)
        return f"waiting {why} for {named or 'another process'}, which holds {self._path}"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock exclusively. A shared hold of this object is given up meanwhile."""
        if self._depth:
            # Two who hold the lock shared and both wait to be alone would wait for ever.
            fcntl.flock(self._work, fcntl.LOCK_UN)
        try:
            try:
                with self._telling("to measure alone"):
                    fcntl.flock(self._gate, fcntl.LOCK_EX)
                    fcntl.flock(self._work, fcntl.LOCK_EX)
                yield
            finally:
                fcntl.flock(self._work, fcntl.LOCK_UN)
                fcntl.flock(self._gate, fcntl.LOCK_UN)
        finally:
            if self._depth:
                self._enter()

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._work)
        os.close(self._gate)


def _open(path: Path) -> int:
    # Not created where it exists: Linux refuses O_CREAT on another user's file in a sticky
    # directory (proc_sys_fs(5), protected_regular).
    for flags in (0, os.O_CREAT):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o666)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise EdgecheckError(
                f"can't open the machine's lock {path}: {error.strerror}; "
                "name another file with --edge-lock"
            ) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise EdgecheckError(f"the machine's lock {path} is not a plain file")
        if flags:
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, 0o666)  # whatever the umask: other users lock it too
        return descriptor
    raise EdgecheckError(f"can't open the machine's lock {path}: its directory does not exist")


def _holders(descriptor: int) -> list[int]:
    """The processes that hold a file's flock; none where the system does not tell."""
    inode = os.fstat(descriptor).st_ino
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    found = [_FLOCK.search(line) for line in lines if "->" not in line]
    return [int(item[1]) for item in found if item and int(item[2]) == inode]


def _command(pid: int) -> str:
    """The start of a process's command line in brackets, or ""."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    text = " ".join(" ".join(words).split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f" ({printable[:60]})" if printable else ""
