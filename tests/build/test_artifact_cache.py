"""The artifact cache: built once however many ask, and never wrong, whatever happened to it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.build.artifact_cache import Entry, Store
from edgecheck.digests import digest_of, file_sha256

law = settings(deadline=None, derandomize=True, max_examples=50)

KEY = "ab" + "0" * 62
OTHER = "cd" + "1" * 62


class Builds:
    """Build functions that count."""

    def __init__(self, content: bytes = b"model") -> None:
        self.count = 0
        self.content = content

    def __call__(self, path: Path) -> dict[str, int]:
        self.count += 1
        path.write_bytes(self.content)
        return {"bytes": len(self.content)}


@pytest.fixture
def builds() -> Builds:
    return Builds()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "scratch").mkdir()
    return Store(tmp_path / "cache", tmp_path / "scratch")


def get(store: Store, build: Callable[[Path], Any], key: str = KEY, name: str = "m.onnx") -> Entry:
    return store.get_or_build(key, name, "toy/ort/fp32", lambda path: build(path) or {})


def folder_of(store: Store, key: str = KEY) -> Path:
    return store.root / "objects" / key[:2] / key


# -- keys


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@law
@given(st.dictionaries(st.text(max_size=3), plain, max_size=4))
def test_a_key_does_not_depend_on_the_order_of_entries(parts: dict[str, Any]) -> None:
    assert digest_of(parts) == digest_of(dict(reversed(parts.items())))
    assert digest_of(parts) == digest_of(json.loads(json.dumps(parts)))


@law
@given(
    st.dictionaries(st.text(max_size=3), plain, max_size=3),
    st.dictionaries(st.text(max_size=3), plain, max_size=3),
)
def test_different_data_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest_of(one) == digest_of(other)) == same


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("change", ["content", "name", "extra", "moved"])
def test_a_directorys_digest_covers_names_and_contents(change: str, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "a").write_text("1")
        (tmp_path / name / "sub" / "b").write_text("2")
    one, other = tmp_path / "one", tmp_path / "other"
    assert file_sha256(one) == file_sha256(other)
    if change == "content":
        (other / "sub" / "b").write_text("3")
    elif change == "name":
        (other / "a").rename(other / "c")
    elif change == "extra":
        (other / "c").write_text("")
    else:
        (other / "sub" / "b").rename(other / "b")
    assert file_sha256(one) != file_sha256(other)


# -- building once


def test_the_second_request_is_served_from_the_cache(store: Store, builds: Builds) -> None:
    first, second = get(store, builds), get(store, builds)
    assert builds.count == 1
    assert (first.cached, second.cached) == (False, True)
    assert second.path.read_bytes() == b"model"
    assert second.sha256 == first.sha256 == hashlib.sha256(b"model").hexdigest()
    assert second.size_bytes == 5
    assert second.label == "toy/ort/fp32"
    assert second.build_s == first.build_s
    assert second.path.name == "m.onnx"


def test_another_run_finds_what_an_earlier_one_built(
    store: Store, builds: Builds, tmp_path: Path
) -> None:
    get(store, builds)
    (tmp_path / "later").mkdir()
    assert get(Store(store.root, tmp_path / "later"), builds).cached
    assert builds.count == 1


def test_different_keys_are_built_apart(store: Store) -> None:
    one = get(store, Builds(b"one"), KEY)
    other = get(store, Builds(b"other"), OTHER)
    assert (one.path.read_bytes(), other.path.read_bytes()) == (b"one", b"other")


def test_a_directory_can_be_an_artifact(store: Store) -> None:
    def build(path: Path) -> None:
        (path / "weights").mkdir(parents=True)
        (path / "weights" / "w").write_bytes(b"12345")

    first = get(store, build, name="m.mlpackage")
    assert get(store, build, name="m.mlpackage").cached
    assert (first.path / "weights" / "w").read_bytes() == b"12345"


def test_the_size_of_a_directory_is_that_of_its_files(store: Store) -> None:
    def build(path: Path) -> None:
        path.mkdir()
        (path / "w").write_bytes(b"12345")

    assert get(store, build, name="m.mlpackage").size_bytes == 5


def test_an_empty_file_is_a_file(store: Store) -> None:
    builds = Builds(b"")
    assert get(store, builds).size_bytes == 0
    assert get(store, builds).cached


def test_nothing_is_left_behind_but_the_entry(store: Store, builds: Builds, tmp_path: Path) -> None:
    get(store, builds)
    assert list((store.root / "incoming").iterdir()) == []
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == []
    assert sorted(path.name for path in folder_of(store).iterdir()) == ["entry.json", "m.onnx"]


WORKER = """
import sys, time
from pathlib import Path
from edgecheck.build.artifact_cache import Store

root, scratch, log, rounds = sys.argv[1:]
store = Store(Path(root), Path(scratch))
keys = [f"{number:02d}" + "e" * 62 for number in range(int(rounds))]
for key in keys:
    def build(path):
        with open(log, "a") as stream:
            stream.write(key + "\\n")
        path.write_bytes(b"half")
        time.sleep(0.02)
        path.write_bytes(key.encode())
    entry = store.get_or_build(key, "m", "label", lambda path: build(path) or {})
    assert entry.path.read_bytes() == key.encode()
"""


def test_many_processes_build_each_key_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-W", "error", "-c", WORKER, tmp_path / "cache", scratch, log, "5"]
    workers = [subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE) for _ in range(8)]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors.decode()
    built = log.read_text().split()
    assert len(built) == 5
    assert len(set(built)) == 5


def test_many_processes_without_a_writable_cache_build_each_key_once(tmp_path: Path) -> None:
    """They share the run's scratch directory instead."""
    log, scratch = tmp_path / "log", tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "cache").write_text("a file where the cache should be")
    command = [sys.executable, "-c", WORKER, tmp_path / "cache", scratch, log, "3"]
    workers = [subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE) for _ in range(4)]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors.decode()
    assert len(log.read_text().split()) == 3


def test_threads_of_one_process_build_once(store: Store) -> None:
    calls = []
    gate = threading.Barrier(4)

    def build(path: Path) -> None:
        calls.append(1)
        path.write_bytes(b"model")

    def work() -> None:
        gate.wait(timeout=10)
        get(store, build)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(calls) == 1


# -- builds that fail


def test_a_build_that_raises_leaves_no_entry_and_the_next_one_can_succeed(
    store: Store, builds: Builds
) -> None:
    def broken(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("converter")

    with pytest.raises(RuntimeError, match="converter"):
        get(store, broken)
    assert store.entries() == []
    assert get(store, builds).path.read_bytes() == b"model"
    assert builds.count == 1


@pytest.mark.filterwarnings("ignore:the artifact cache")
def test_a_build_that_was_killed_in_the_middle_of_publishing_does_no_harm(
    store: Store, builds: Builds
) -> None:
    leftover = store.root / "incoming" / f"{KEY}-{os.getpid()}"
    leftover.mkdir(parents=True)
    (leftover / "m.onnx").write_bytes(b"half")
    entry = get(store, builds)
    assert entry.path.read_bytes() == b"model"


@pytest.mark.filterwarnings("error")
def test_the_leftovers_of_a_killed_process_with_the_same_pid_do_not_keep_the_cache_from_use(
    store: Store, builds: Builds
) -> None:
    """In containers process ids repeat from run to run."""
    (store.root / "incoming" / f"{KEY}-{os.getpid()}").mkdir(parents=True)
    assert get(store, builds).path.is_relative_to(store.root)


# -- entries that were damaged or tampered with


def rewritten(store: Store, **changes: Any) -> None:
    path = folder_of(store) / "entry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without(store: Store, name: str) -> None:
    path = folder_of(store) / "entry.json"
    info = json.loads(path.read_text())
    del info[name]
    path.write_text(json.dumps(info))


def a_folder_instead(store: Store) -> None:
    (folder_of(store) / "m.onnx").unlink()
    (folder_of(store) / "m.onnx").mkdir()


def emptied(store: Store) -> None:
    for item in folder_of(store).iterdir():
        item.unlink()


DAMAGES: dict[str, Callable[[Store], object]] = {
    "file changed": lambda store: (folder_of(store) / "m.onnx").write_bytes(b"evil!"),
    "file truncated": lambda store: (folder_of(store) / "m.onnx").write_bytes(b"mod"),
    "file gone": lambda store: (folder_of(store) / "m.onnx").unlink(),
    "file is a folder": a_folder_instead,
    "entry truncated": lambda store: (folder_of(store) / "entry.json").write_text('{"file": "m.o'),
    "entry empty": lambda store: (folder_of(store) / "entry.json").write_text(""),
    "entry gone": lambda store: (folder_of(store) / "entry.json").unlink(),
    "entry no text": lambda store: (folder_of(store) / "entry.json").write_bytes(b"\xff\xfe\x00"),
    "entry a list": lambda store: (folder_of(store) / "entry.json").write_text("[1, 2]"),
    "entry a null": lambda store: (folder_of(store) / "entry.json").write_text("null"),
    "hash of another": lambda store: rewritten(store, sha256="0" * 64),
    "no hash": lambda store: without(store, "sha256"),
    "no file": lambda store: without(store, "file"),
    "no size": lambda store: without(store, "size_bytes"),
    "size no number": lambda store: rewritten(store, size_bytes="many"),
    "file no text": lambda store: rewritten(store, file=5),
    "file with NUL": lambda store: rewritten(store, file="m\0"),
    "file empty": lambda store: rewritten(store, file=""),
    "file a dot": lambda store: rewritten(store, file="."),
    "file two dots": lambda store: rewritten(store, file=".."),
    "folder empty": emptied,
}


def assert_rebuilt(store: Store, builds: Builds) -> None:
    with pytest.warns(UserWarning, match="damaged or changed"):
        entry = get(store, builds)
    assert builds.count == 2
    assert not entry.cached
    assert entry.path == folder_of(store) / "m.onnx"
    assert entry.path.read_bytes() == b"model"
    assert get(store, builds).cached


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_built_anew_with_a_warning(
    damage: str, store: Store, builds: Builds
) -> None:
    get(store, builds)
    DAMAGES[damage](store)
    assert_rebuilt(store, builds)


def test_facts_are_kept_with_the_file_and_rebuilt_where_they_were_changed(
    store: Store, builds: Builds
) -> None:
    assert get(store, builds).facts == {"bytes": 5}
    entry = folder_of(store) / "entry.json"
    entry.write_text(entry.read_text().replace('"bytes": 5', '"bytes": 6'))
    with pytest.warns(UserWarning, match="was damaged or changed"):
        assert get(store, builds).facts == {"bytes": 5}
    assert builds.count == 2


def test_an_entry_with_an_infinite_size_is_built_anew(store: Store, builds: Builds) -> None:
    get(store, builds)
    rewritten(store, size_bytes=float("inf"))
    assert_rebuilt(store, builds)


def test_an_entry_whose_stated_size_is_not_the_files_is_not_believed(
    store: Store, builds: Builds
) -> None:
    get(store, builds)
    rewritten(store, size_bytes=1)
    with pytest.warns(UserWarning):
        assert get(store, builds).size_bytes == 5


@pytest.mark.parametrize("escape", ["{outside}", "../../../../outside", "../m.onnx", "sub/../../x"])
def test_an_entry_can_not_point_out_of_its_folder(
    escape: str, store: Store, builds: Builds, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    get(store, builds)
    digest = hashlib.sha256(b"secret").hexdigest()
    rewritten(store, file=escape.format(outside=outside), sha256=digest)
    assert_rebuilt(store, builds)
    assert outside.read_bytes() == b"secret"


def test_listing_and_pruning_survive_damaged_entries(store: Store, builds: Builds) -> None:
    get(store, builds)
    get(store, Builds(), OTHER)
    for name in DAMAGES:
        if name.startswith(("entry", "no ", "folder")):
            shutil.rmtree(folder_of(store))
            get(store, builds)
            DAMAGES[name](store)
            assert [entry.key for entry in store.entries()] == [OTHER]
            store.prune(10**9)


@pytest.mark.parametrize("what", ["file", "dangling link"])
def test_what_is_in_place_of_an_entrys_folder_makes_way(
    store: Store, builds: Builds, what: str
) -> None:
    folder_of(store).parent.mkdir(parents=True)
    if what == "file":
        folder_of(store).write_text("a file")
    else:
        folder_of(store).symlink_to("nowhere")
    with pytest.warns(UserWarning, match="was damaged or changed"):
        assert get(store, builds).path.read_bytes() == b"model"
    assert get(store, builds).cached
    assert builds.count == 1 and folder_of(store).is_dir()


def test_pruning_survives_links_that_lead_nowhere_and_what_others_just_removed(
    store: Store, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(store, builds)
    incoming = store.root / "incoming"
    (incoming / "link").symlink_to("nowhere")
    os.utime(incoming / "link", (0, 0), follow_symlinks=False)
    (incoming / "raced").mkdir()
    lstat = Path.lstat

    def raced(path: Path) -> os.stat_result:
        if path.name == "raced":
            path.rmdir()
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", raced)
    store.prune(10**9)
    assert list(incoming.iterdir()) == []
    assert get(store, builds).cached


def test_files_may_be_read_by_whom_the_cache_is_for(store: Store, builds: Builds) -> None:
    store.root.mkdir()
    store.root.chmod(0o2775)
    entry = get(store, builds)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in store.root.rglob("*")}
    assert modes[entry.path] == 0o664 and modes[folder_of(store)] == 0o2775
    assert modes[store.root / "objects"] == modes[store.root / "incoming"] == 0o2775


def test_what_another_user_keeps_to_himself_is_built_and_told_once(
    store: Store, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (KEY, OTHER):
        get(store, builds, key)
    read_text = Path.read_text

    def refused(path: Path, *given: Any, **named: Any) -> str:
        if path.is_relative_to(store.root):
            raise PermissionError(13, "Permission denied")
        return read_text(path, *given, **named)

    monkeypatch.setattr(Path, "read_text", refused)
    another = Store(store.root, store._scratch)
    with pytest.warns(UserWarning, match="another user that can't be read") as told:
        for key in (KEY, OTHER):
            assert not get(another, builds, key).cached
    assert len(told) == 1
    monkeypatch.undo()
    assert get(store, builds).cached, "the other's entry stays"


@pytest.mark.filterwarnings("error")
def test_a_damaged_entry_is_removed_also_where_warnings_are_errors(
    store: Store, builds: Builds
) -> None:
    """Else each later run would meet it again."""
    get(store, builds)
    DAMAGES["file changed"](store)
    with pytest.raises(UserWarning):
        get(store, builds)
    assert get(store, builds).path.read_bytes() == b"model"


# -- a cache that can't be written


def assert_goes_on_without_the_cache(store: Store, tmp_path: Path, builds: Builds) -> None:
    with pytest.warns(UserWarning, match="can't be written .*going on without it"):
        first = get(store, builds)
    assert first.path.read_bytes() == builds.content
    assert first.path.is_relative_to(tmp_path / "scratch")
    assert get(store, builds).cached
    assert builds.count == 1


@pytest.mark.parametrize("place", ["the root", "above the root"])
def test_a_file_where_the_cache_should_be_makes_the_run_go_on_without_it(
    place: str, tmp_path: Path, builds: Builds
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "cache").write_text("")
    root = tmp_path / "cache" if place == "the root" else tmp_path / "cache" / "below"
    assert_goes_on_without_the_cache(Store(root, tmp_path / "scratch"), tmp_path, builds)
    assert (tmp_path / "cache").read_text() == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this machine lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_makes_the_run_go_on_without_the_cache(
    small_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    store = Store(small_disk / "cache", tmp_path / "scratch")
    assert_goes_on_without_the_cache(store, tmp_path, Builds(b"x" * 200_000))
    # What does fit is still cached: nothing half-written stays to fill the disk.
    fits = Builds(b"y" * 10_000)
    assert get(store, fits, OTHER).path.is_relative_to(small_disk)
    assert [entry.key for entry in store.entries()] == [OTHER]


def test_a_disk_without_any_space_makes_the_run_go_on_without_the_cache(
    small_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    with pytest.raises(OSError), (small_disk / "filler").open("wb") as stream:
        while True:
            stream.write(b"0" * 4096)
            stream.flush()
    store = Store(small_disk / "cache", tmp_path / "scratch")
    assert_goes_on_without_the_cache(store, tmp_path, Builds())


def test_a_read_only_disk_still_serves_what_it_has(
    small_disk: Path, tmp_path: Path, builds: Builds
) -> None:
    (tmp_path / "scratch").mkdir()
    store = Store(small_disk / "cache", tmp_path / "scratch")
    get(store, builds)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert get(store, builds).cached
    with pytest.warns(UserWarning, match="can't be written"):
        entry = get(store, Builds(b"new"), OTHER)
    assert entry.path.is_relative_to(tmp_path / "scratch")
    assert builds.count == 1


def test_a_full_disk_gives_one_short_warning(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    store = Store(small_disk / "cache", tmp_path / "scratch")
    with pytest.warns(UserWarning) as caught:
        get(store, Builds(b"x" * 200_000))
    (message,) = [str(item.message) for item in caught]
    assert "No space left on device" in message
    assert len(message) < 300 + len(str(store.root))


# -- pruning


def filled(store: Store, ages: list[int]) -> list[str]:
    """Entries of 100 bytes, named by two digits; the larger the age the longer unused."""
    keys = [f"{number:02d}" + "f" * 62 for number in range(len(ages))]
    for key, age in zip(keys, ages, strict=True):
        get(store, Builds(b"x" * 100), key)
        os.utime(folder_of(store, key) / "entry.json", (1e9 - age, 1e9 - age))
    return keys


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.permutations(range(5)), st.integers(0, 600))
def test_pruning_removes_the_least_recently_used_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, ages: list[int], limit: int
) -> None:
    directory = tmp_path_factory.mktemp("prune")
    store = Store(directory / "cache", directory)
    keys = filled(store, ages)
    oldest_first = [key for _, key in sorted(zip(ages, keys, strict=True), reverse=True)]
    kept = min(5, limit // 100)
    removed = store.prune(limit)
    assert [entry.key for entry in removed] == oldest_first[: 5 - kept]
    assert [entry.key for entry in store.entries()] == oldest_first[5 - kept :]
    for key in keys:
        assert folder_of(store, key).exists() == (key in oldest_first[5 - kept :])


def test_reading_an_entry_makes_it_recent(store: Store, builds: Builds) -> None:
    keys = filled(store, [3, 2, 1])
    get(store, builds, keys[0])
    assert [entry.key for entry in store.entries()] == [keys[1], keys[2], keys[0]]
    assert [entry.key for entry in store.prune(100)] == [keys[1], keys[2]]
    assert builds.count == 0


def test_what_was_pruned_is_built_again(store: Store, builds: Builds) -> None:
    get(store, builds)
    store.prune(0)
    assert not get(store, builds).cached
    assert builds.count == 2


def test_a_cache_at_exactly_its_limit_is_left_alone(store: Store) -> None:
    filled(store, [1, 2])
    assert store.prune(200) == []


def test_pruning_a_cache_that_is_not_there_does_nothing(store: Store) -> None:
    assert store.entries() == []
    assert store.prune(0) == []
    assert not store.root.exists()


def test_pruning_waits_for_who_is_reading(store: Store) -> None:
    """The lock of the entry is held while a build or a check of its hash goes on."""
    keys = filled(store, [1])
    removed = []

    def prune() -> None:
        removed.extend(store.prune(0))

    started = threading.Thread(target=prune)
    with store._lock(keys[0]):
        started.start()
        started.join(timeout=0.2)
        assert started.is_alive()
        assert folder_of(store, keys[0]).exists()
    started.join(timeout=10)
    assert [entry.key for entry in removed] == keys
