"""The artifact cache: content-addressed files, shared safely by any number of processes.

Layout: ``objects/<key[:2]>/<key>/`` holds the file and ``entry.json``; ``locks/`` one lock a key;
``incoming/`` what is being written. A file is published by renaming its finished folder, verified
by hash on each read, and built anew when it does not match.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from edgecheck.digests import digest_of, file_sha256

_ENTRY = "entry.json"
# What a killed process was writing is removed after a day.
_ABANDONED_S = 86_400.0


def _size_bytes(path: Path) -> int:
    files = [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path]
    return sum(item.stat().st_size for item in files)


@dataclass(frozen=True)
class Entry:
    """A stored file.

    Attributes:
        cached: whether it was there already; False where it was built just now.
        build_s: seconds the build took when it was made.
        facts: plain data that the build returned.
        label: what it is, for people.
    """

    key: str
    path: Path
    sha256: str
    size_bytes: int
    cached: bool
    build_s: float
    label: str
    facts: Mapping[str, Any]
    used_at: float = 0.0


class Store:
    """The cache in a directory.

    Args:
        root: created when first needed.
        scratch: a directory of this run; takes what the cache can't, and is where builds happen.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self._scratch = scratch
        self._unreadable = False

    def get_or_build(
        self, key: str, file_name: str, label: str, build: Callable[[Path], Mapping[str, Any]]
    ) -> Entry:
        """The entry for a key; `build` writes the file at the path that it is given, if need be.

        What `build` returns, plain data about the file, is kept with it.

        At most one process builds a key at a time; the others wait for it and read its result.
        Where the cache can't be written (full disk, no permission) the file stays in this run's
        scratch directory, with a warning.
        """
        with self._lock(key):
            entry = self._read(self.root, key) or self._read(self._scratch, key)
            if entry is not None:
                return entry
            building = Path(tempfile.mkdtemp(dir=self._scratch))
            target = building / file_name
            start = time.perf_counter()
            facts = build(target)
            info = {
                "file": file_name,
                "sha256": file_sha256(target),
                "size_bytes": _size_bytes(target),
                "build_s": round(time.perf_counter() - start, 3),
                "label": label,
                "facts": facts,
                "facts_sha256": digest_of(facts),
            }
            (building / _ENTRY).write_text(json.dumps(info, indent=1))
            folder = self._publish(building, key)
            return _entry(key, folder, info, cached=False)

    def _publish(self, building: Path, key: str) -> Path:
        # What another user's entry is in the way of stays with this run.
        taken = self._unreadable and os.path.lexists(_object_folder(self.root, key))
        for root in (self._scratch,) if taken else (self.root, self._scratch):
            destination = _object_folder(root, key)
            incoming = root / "incoming" / uuid.uuid4().hex
            try:
                incoming.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(building, incoming)
                destination.parent.mkdir(parents=True, exist_ok=True)
                if root is self.root:
                    shared = [root / name for name in ("objects", "incoming", "locks")]
                    _open_as(root, [incoming, *incoming.rglob("*"), destination.parent, *shared])
                incoming.rename(destination)
            except OSError as error:
                shutil.rmtree(incoming, ignore_errors=True)
                if root is self._scratch:
                    return building
                # copytree collects what went wrong with each file.
                errors = error.args[0] if isinstance(error, shutil.Error) else [[error]]
                reason = getattr(errors[0][-1], "strerror", None) or errors[0][-1]
                warnings.warn(
                    f"the artifact cache {self.root} can't be written ({reason!s:.200}); "
                    "going on without it",
                    stacklevel=2,
                )
            else:
                shutil.rmtree(building, ignore_errors=True)
                return destination
        raise AssertionError("unreachable: the scratch root returns above")

    def _read(self, root: Path, key: str) -> Entry | None:
        """The entry, if it is whole; what is not is removed."""
        folder = _object_folder(root, key)
        if not os.path.lexists(folder):
            return None
        try:
            info = json.loads((folder / _ENTRY).read_text())
            # `name` keeps a tampered entry from pointing out of its folder.
            file = folder / Path(info["file"]).name
            entry = _entry(key, folder, info, cached=True)
            found = (file_sha256(file), _size_bytes(file), digest_of(entry.facts))
            whole = found == (entry.sha256, entry.size_bytes, info["facts_sha256"])
        except PermissionError:
            if not self._unreadable:
                warnings.warn(
                    f"the artifact cache {self.root} holds files of another user that can't be "
                    "read; they are built anew",
                    stacklevel=3,
                )
            self._unreadable = True
            return None
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            whole = False
        if whole:
            with contextlib.suppress(OSError):
                os.utime(folder / _ENTRY)
            return entry
        _remove(folder)
        warnings.warn(
            f"cache entry {key[:12]} was damaged or changed; it is removed and built anew",
            stacklevel=3,
        )
        return None

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Hold the key's lock, in the run's scratch directory where the cache can't have one."""
        with contextlib.ExitStack() as held:
            for root in (self.root, self._scratch):
                path = root / "locks" / f"{key[:40]}.lock"
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    held.enter_context(FileLock(path))
                except OSError:
                    continue
                break
            yield

    def entries(self) -> list[Entry]:
        """All entries, the least recently used first."""
        found = []
        for path in self.root.glob(f"objects/*/*/{_ENTRY}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                info = json.loads(path.read_text())
                found.append(_entry(path.parent.name, path.parent, info, cached=True))
        return sorted(found, key=lambda entry: entry.used_at)

    def prune(self, limit_bytes: int, keep_s: float = 0.0) -> list[Entry]:
        """Remove the least recently used entries beyond the limit; return them.

        Args:
            keep_s: entries used within so many seconds stay: another run may be reading them.
        """
        now = time.time()
        for left in self.root.glob("incoming/*"):
            # Another process may publish or remove it at any moment.
            with contextlib.suppress(OSError):
                if now - left.lstat().st_mtime > _ABANDONED_S:
                    _remove(left)
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        removed = []
        for entry in entries:
            if total <= limit_bytes or now - entry.used_at < keep_s:
                break
            with self._lock(entry.key):
                shutil.rmtree(entry.path.parent, ignore_errors=True)
            if not entry.path.exists():
                total -= entry.size_bytes
                removed.append(entry)
        return removed


def _remove(path: Path) -> None:
    """Remove a folder, or a link or file in its place."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _open_as(root: Path, paths: Iterable[Path]) -> None:
    """Let those use files and folders who may use the root.

    Builds happen in folders of this user alone, whose modes are copied.
    """
    mode = stat.S_IMODE(root.stat().st_mode)
    for path in paths:
        with contextlib.suppress(OSError):  # another user's
            path.chmod(mode if path.is_dir() else mode & 0o666)


def _object_folder(root: Path, key: str) -> Path:
    return root / "objects" / key[:2] / key


def _entry(key: str, folder: Path, info: Mapping[str, Any], *, cached: bool) -> Entry:
    try:
        used_at = (folder / _ENTRY).stat().st_mtime
    except OSError:
        used_at = 0.0
    return Entry(
        key=key,
        path=folder / Path(info["file"]).name,
        sha256=str(info["sha256"]),
        size_bytes=int(info["size_bytes"]),
        cached=cached,
        build_s=float(info["build_s"]),
        label=str(info["label"]),
        facts=dict(info["facts"]),
        used_at=used_at,
    )
