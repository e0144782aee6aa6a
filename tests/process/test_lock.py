"""The machine's lock, between real processes: who waits for whom, and what a crash leaves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import select
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecheck.errors import EdgecheckError
from edgecheck.process.lock import MachineLock, default_path

# How long an answer may take that must come, and how long is listened for one that must not.
PATIENCE_S = 30
MOMENT_S = 0.2
# Users without rights, who need not exist.
NOBODY, SOMEBODY = 65534, 65533

# Does what it is told, a line each, and says so once it is done.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from edgecheck.process.lock import MachineLock

path = Path(sys.argv[1])
lock, held = MachineLock(path), []
for line in sys.stdin:
    match line.strip():
        case "release":
            held.pop().__exit__(None, None, None)
        case "turn":
            with lock.alone(), path.with_suffix(".log").open("a") as log:
                print("in", file=log, flush=True)
                time.sleep(0.05)
                print("out", file=log, flush=True)
        case "spawn":
            left = subprocess.Popen(["sleep", "300"])
            path.with_suffix(".pid").write_text(str(left.pid))
        case mode:
            held.append(getattr(lock, mode)())
            held[-1].__enter__()
    print(line.strip(), flush=True)
"""


class Holder:
    """A process that holds the lock as it is told."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def tell(self, *commands: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{command}\n" for command in commands).encode())

    def answer(self, timeout_s: float = PATIENCE_S) -> str | None:
        """The next thing it has done; None where nothing in time."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        return self.process.stdout.readline().decode().strip() if ready else None

    def does(self, command: str) -> bool:
        self.tell(command)
        return self.answer() == command

    def waits(self, command: str) -> bool:
        self.tell(command)
        return self.answer(MOMENT_S) is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


Start = Callable[[], Holder]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "machine.lock"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Start holders of one lock; they end with the test."""
    with contextlib.ExitStack() as stack:

        def holder() -> Holder:
            made = Holder(path)
            stack.callback(made.kill)
            return made

        yield holder


def is_free(path: Path) -> bool:
    """Whether nobody holds a file's lock in any way."""
    with path.open("r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def wait_until_gate_is_taken(path: Path) -> None:
    """Wait until a writer is in line."""
    deadline = time.monotonic() + PATIENCE_S
    while is_free(path.with_name(f"{path.name}.gate")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- who waits for whom


def test_work_goes_beside_other_work(start: Start) -> None:
    one, other = start(), start()
    assert one.does("shared")
    assert other.does("shared")


@pytest.mark.parametrize(("first", "second"), [("alone", "shared"), ("alone", "alone")])
def test_while_one_is_alone_others_wait(start: Start, first: str, second: str) -> None:
    one, other = start(), start()
    assert one.does(first)
    assert other.waits(second)
    assert one.does("release")
    assert other.answer() == second


def test_whoever_wants_to_be_alone_waits_for_all_work(start: Start) -> None:
    workers, measurer = [start(), start()], start()
    assert all(worker.does("shared") for worker in workers)
    assert measurer.waits("alone")
    assert workers[0].does("release")
    assert measurer.answer(MOMENT_S) is None
    assert workers[1].does("release")
    assert measurer.answer() == "alone"


def test_new_work_waits_behind_a_waiting_measurement(start: Start, path: Path) -> None:
    """Else a stream of work that overlaps would keep a measurement waiting for ever."""
    worker, measurer, late = start(), start(), start()
    assert worker.does("shared")
    measurer.tell("alone")
    wait_until_gate_is_taken(path)
    assert late.waits("shared")
    assert worker.does("release")
    assert measurer.answer() == "alone"
    assert late.answer(MOMENT_S) is None
    assert measurer.does("release")
    assert late.answer() == "shared"


def test_work_within_work_is_held_until_the_outer_ends(start: Start) -> None:
    worker, measurer = start(), start()
    assert worker.does("shared") and worker.does("shared")
    assert worker.does("release")
    assert measurer.waits("alone")
    assert worker.does("release")
    assert measurer.answer() == "alone"


def test_a_measurement_within_work_gives_the_work_up_and_takes_it_again(start: Start) -> None:
    worker, other = start(), start()
    assert worker.does("shared") and worker.does("alone")
    assert other.waits("shared")
    assert worker.does("release")
    assert other.answer() == "shared"
    assert other.does("release")
    assert other.waits("alone")  # the worker is at work again
    assert worker.does("release")
    assert other.answer() == "alone"


def test_two_who_work_and_both_want_to_be_alone_take_turns(start: Start, path: Path) -> None:
    workers = [start() for _ in range(3)]
    assert all(worker.does("shared") for worker in workers)
    for worker in workers:
        worker.tell("turn", "release")
    for worker in workers:
        assert [worker.answer(), worker.answer()] == ["turn", "release"]
    assert path.with_suffix(".log").read_text().split() == ["in", "out"] * 3


def test_an_error_while_alone_frees_the_lock_and_keeps_the_work(path: Path) -> None:
    lock = MachineLock(path)
    with lock.shared():
        with pytest.raises(ZeroDivisionError), lock.alone():
            assert not is_free(path)
            raise ZeroDivisionError
        assert not is_free(path)
        assert is_free(path.with_name(f"{path.name}.gate"))
    assert is_free(path)
    lock.close()


# -- crashes


@pytest.mark.parametrize("mode", ["shared", "alone"])
def test_a_killed_holder_frees_the_lock(start: Start, mode: str) -> None:
    killed, other = start(), start()
    assert killed.does(mode)
    assert other.waits("alone")
    killed.kill()
    assert other.answer() == "alone"


def test_a_killed_waiter_lets_work_pass(start: Start, path: Path) -> None:
    worker, waiter, late = start(), start(), start()
    assert worker.does("shared")
    waiter.tell("alone")
    wait_until_gate_is_taken(path)
    assert late.waits("shared")
    waiter.kill()
    assert late.answer() == "shared"


def test_what_a_killed_holder_started_does_not_keep_the_lock(start: Start, path: Path) -> None:
    killed, other = start(), start()
    assert killed.does("alone") and killed.does("spawn")
    left = int(path.with_suffix(".pid").read_text())
    try:
        assert other.waits("alone")
        killed.kill()
        assert other.answer() == "alone"
        os.kill(left, 0)  # it still runs
    finally:
        os.kill(left, signal.SIGKILL)


# -- the file


def test_a_link_is_refused(tmp_path: Path, path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(EdgecheckError, match=r"can't open the machine's lock .*machine\.lock"):
        MachineLock(path)
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_link_in_place_of_the_second_file_is_refused_too(tmp_path: Path, path: Path) -> None:
    path.with_name(f"{path.name}.gate").symlink_to(tmp_path / "nowhere")
    with pytest.raises(EdgecheckError, match="--edge-lock"):
        MachineLock(path)
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(EdgecheckError, match="Is a directory; name another file with --edge-lock"):
        MachineLock(path)


def test_a_pipe_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(EdgecheckError, match="is not a plain file"):
        MachineLock(path)


def test_a_path_in_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgecheckError, match="its directory does not exist"):
        MachineLock(tmp_path / "nowhere" / "machine.lock")


def test_what_is_in_the_file_stays(path: Path) -> None:
    path.write_text("not ours")
    lock = MachineLock(path)
    with lock.alone():
        pass
    lock.close()
    assert path.read_text() == "not ours"


def test_other_users_may_lock_it_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        MachineLock(path).close()
    finally:
        os.umask(before)
    for made in (path, path.with_name(f"{path.name}.gate")):
        assert stat.S_IMODE(made.stat().st_mode) == 0o666


def told_to(user: int, path: Path) -> str:
    """What a user is told who opens and holds the lock."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        said = "held"
        try:
            os.setgid(user)
            os.setuid(user)
            with MachineLock(path).alone():
                pass
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    return said


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory as the one for temporary files is: for all, but nobody removes another's."""
    if os.getuid() != 0:
        pytest.skip("needs the right to become another user")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        yield Path(name)


def test_two_users_share_the_lock_of_one_machine(public_directory: Path) -> None:
    """Each finds the other's file there, which Linux does not let it create."""
    path = public_directory / "machine.lock"
    assert [told_to(user, path) for user in (SOMEBODY, NOBODY, os.getuid())] == ["held"] * 3
    assert path.stat().st_uid == SOMEBODY


def test_a_file_that_this_user_may_not_write_is_refused(public_directory: Path) -> None:
    path = public_directory / "machine.lock"
    path.touch(0o600)
    said = told_to(NOBODY, path)
    assert said.startswith(f"EdgecheckError: can't open the machine's lock {path}: ")
    assert "Permission denied; name another file with --edge-lock" in said


def test_all_of_a_machine_have_one_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_path().is_absolute()
    assert default_path().parent == Path(tempfile.gettempdir())


def test_a_long_wait_tells_who_is_waited_for(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecheck.process.lock._PATIENCE_S", 0.05)
    holder = start()
    assert holder.does("alone")
    told = queue.SimpleQueue[str]()
    lock = MachineLock(path, told.put)
    waiting = threading.Thread(target=lambda: lock.shared().__enter__())
    waiting.start()
    text = told.get(timeout=PATIENCE_S)
    assert text.startswith(f"waiting to work for process {holder.process.pid} (")
    assert text.endswith(f"which holds {path}")
    assert holder.does("release")
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive() and told.empty()
    lock.close()


def test_a_short_wait_tells_nothing(path: Path) -> None:
    told = queue.SimpleQueue[str]()
    lock = MachineLock(path, told.put)
    with lock.shared(), lock.alone():
        pass
    lock.close()
    assert told.empty()
