"""Child processes: whatever happens in one, the parent gets an answer and the session lives on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecheck.errors import ChildError
from edgecheck.process.modules import imported_modules
from edgecheck.process.parent import Child, Pool, Service, share_of_cores

SERVICE = """
import ctypes, os, signal, subprocess, sys, time

class Unruly:
    def __init__(self):
        self.calls = 0

    def count(self):
        self.calls += 1
        return self.calls

    def add(self, left, right):
        return left + right

    def environment(self, name):
        return os.environ.get(name)

    def talk(self):
        os.write(1, b"\\xff\\xfe noise \\x00" * 50_000)
        sys.stderr.write("\\udc80 lone surrogate")
        print("last line")
        raise RuntimeError("after\\nall that")

    def segfault(self):
        ctypes.string_at(0)

    def abort(self):
        os.abort()

    def leave(self):
        sys.exit(7)

    def vanish(self):
        os._exit(7)

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def exhaust(self):
        return bytearray(1 << 60)

    def hang(self):
        print("still here", flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)

    def spawn_and_hang(self, path):
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        open(path, "w").write(str(grandchild.pid))
        time.sleep(1000)
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    (tmp_path / "unruly.py").write_text(SERVICE)
    monkeypatch.syspath_prepend(tmp_path)
    return Service("unruly:Unruly", environment={"EDGECHECK_TEST": "set"})


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_calls_return_and_keep_state(service: Service, tmp_path: Path) -> None:
    with Child(service, tmp_path) as child:
        assert child.call("add", timeout_s=10, left=[1], right=[2]) == [1, 2]
        assert [child.call("count", timeout_s=10) for _ in range(3)] == [1, 2, 3]
        assert child.call("environment", timeout_s=10, name="EDGECHECK_TEST") == "set"


@pytest.mark.parametrize(
    ("method", "kind", "says", "lives"),
    [
        ("talk", "raised", "RuntimeError: after all that", True),
        ("leave", "raised", "SystemExit: 7", True),
        ("exhaust", "raised", "MemoryError", True),
        ("unknown_method", "raised", "AttributeError", True),
        ("segfault", "crashed", "crashed with SIGSEGV", False),
        ("abort", "crashed", "crashed with SIGABRT", False),
        ("vanish", "crashed", "ended by itself with exit code 7", False),
        ("killed", "crashed", "crashed with SIGKILL (out of memory?)", False),
        ("hang", "timeout", "took longer than the limit of 0.5 s", False),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(
    service: Service, tmp_path: Path, method: str, kind: str, says: str, lives: bool
) -> None:
    with Child(service, tmp_path) as child:
        with pytest.raises(ChildError) as caught:
            child.call(method, timeout_s=0.5 if method == "hang" else 30)
        assert caught.value.kind == kind
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert child.alive is lives


def test_the_end_of_what_was_printed_is_kept(service: Service, tmp_path: Path) -> None:
    with Child(service, tmp_path) as child:
        with pytest.raises(ChildError) as caught:
            child.call("talk", timeout_s=30)
        assert "last line" in caught.value.log_tail
        assert len(caught.value.log_tail) <= 4000
        with pytest.raises(ChildError) as caught:
            child.call("unknown_method", timeout_s=30)
        assert "last line" not in caught.value.log_tail


def test_a_call_to_a_dead_child_fails_at_once(service: Service, tmp_path: Path) -> None:
    with Child(service, tmp_path) as child:
        for _ in range(2):
            with pytest.raises(ChildError):
                child.call("abort", timeout_s=30)


def test_what_a_child_started_ends_with_it(service: Service, tmp_path: Path) -> None:
    with Child(service, tmp_path) as child, pytest.raises(ChildError):
        child.call("spawn_and_hang", timeout_s=5, path=str(tmp_path / "pid"))
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_service_that_can_not_be_imported_says_so(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="ModuleNotFoundError: No module named 'nowhere'"):
        Child(Service("nowhere:Nothing"), tmp_path).ready()


def test_children_end_when_the_parent_is_killed(service: Service, tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from edgecheck.process.parent import Child, Service\n"
        f"child = Child(Service('unruly:Unruly'), pathlib.Path({str(tmp_path)!r}))\n"
        "print(child._process.pid, flush=True)\n"
        "child.call('hang', timeout_s=1000)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


def test_sent_modules_need_nothing_installed(tmp_path: Path) -> None:
    """Drivers run where edgecheck is not: their modules import nothing else of it."""
    service = Service(
        "edgecheck.targets.tflite.run:TfliteRunner",
        modules=imported_modules("edgecheck.targets.tflite.run"),
    )
    with Child(service, tmp_path) as child, pytest.raises(ChildError) as caught:
        child.call("load", timeout_s=60, path="/nowhere.tflite", options={"threads": 1})
    assert "ValueError: Could not open '/nowhere.tflite'" in str(caught.value)
    assert "/edgecheck/drivers" not in caught.value.log_tail  # it ran from what was sent


def test_a_pool_keeps_children_warm_and_replaces_dead_ones(
    service: Service, tmp_path: Path
) -> None:
    pool = Pool(tmp_path, limit=2)
    try:
        first, fresh = pool.get("a", service)
        assert fresh
        assert pool.get("a", service) == (first, False)
        with pytest.raises(ChildError):
            first.call("abort", timeout_s=30)
        second, fresh = pool.get("a", service)
        assert fresh
        assert second.call("count", timeout_s=10) == 1
    finally:
        pool.close()
    assert not second.alive


def test_a_pool_closes_the_least_recently_used_child(service: Service, tmp_path: Path) -> None:
    pool = Pool(tmp_path, limit=2)
    try:
        oldest, _ = pool.get("a", service)
        kept, _ = pool.get("b", service)
        pool.get("a", service)
        pool.get("c", service)
        assert (oldest.alive, kept.alive) == (True, False)
    finally:
        pool.close()


def test_a_one_time_child_is_new_each_time(service: Service, tmp_path: Path) -> None:
    pool = Pool(tmp_path, limit=2)
    for _ in range(2):
        with pool.once(service) as child:
            assert child.call("count", timeout_s=10) == 1
        assert not child.alive


def test_a_spare_is_started_ahead_and_ended_with_the_pool(service: Service, tmp_path: Path) -> None:
    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    before = children()
    pool = Pool(tmp_path, limit=2, spare=True)
    try:
        first, _ = pool.get("a", service)
        second, fresh = pool.get("b", service)
        assert fresh
        assert second is not first
        assert second.call("count", timeout_s=10) == 1
        started = children() - before
    finally:
        pool.close()
    assert len(started) == 3
    assert all(gone(int(pid)) for pid in started)


def test_what_all_children_get_yields_to_what_a_service_asks_for(
    service: Service, tmp_path: Path
) -> None:
    pool = Pool(tmp_path, limit=1, environment={"EDGECHECK_TEST": "all", "EDGECHECK_OTHER": "all"})
    try:
        child, _ = pool.get("a", service)
        assert child.call("environment", timeout_s=10, name="EDGECHECK_TEST") == "set"
        assert child.call("environment", timeout_s=10, name="EDGECHECK_OTHER") == "all"
    finally:
        pool.close()


@pytest.mark.parametrize(("cores", "sharers", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 8, "1")])
def test_processes_that_share_a_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, sharers: int, threads: str
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert share_of_cores(sharers) == {"OMP_NUM_THREADS": threads}
    assert share_of_cores(1) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert share_of_cores(sharers) == {}


def test_while_a_child_is_to_be_quiet_no_other_one_starts(service: Service, tmp_path: Path) -> None:
    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    pool = Pool(tmp_path, limit=2, spare=True)
    try:
        pool.get("a", service)  # a spare is on its way
        with pool.once(service, quiet=True) as child:
            during = children()
            assert child.call("count", timeout_s=10) == 1
            assert children() == during
        assert not child.alive
        assert len(children() - during) == 1  # the next one's
        with pool.once(service, quiet=True) as child:
            assert child.call("count", timeout_s=10) == 1
    finally:
        pool.close()


def test_a_spare_that_can_not_start_does_not_stop_a_quiet_child(
    service: Service, tmp_path: Path
) -> None:
    pool = Pool(tmp_path, limit=2, spare=True)
    try:
        pool.get("a", service)
        with pytest.raises(ChildError), pool.once(Service("nowhere:Nothing")):
            pass
        with pool.once(service, quiet=True) as child:
            assert child.call("count", timeout_s=10) == 1
    finally:
        pool.close()
