"""A run's directory for temporary files: whose it is, and what killed runs left of theirs.

All processes of a run on one machine hold its directory locked shared (flock(2)), which the kernel
frees when they die, however they die.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

_NAME = re.compile(r"edgecheck-[0-9a-f]{32}")
# A run that has just made its directory may not hold it yet.
_YOUNG_S = 60.0


def path_of(run_id: str) -> Path:
    """The directory of a run, in the directory for temporary files."""
    return Path(tempfile.gettempdir()) / f"edgecheck-{run_id}"


def hold(folder: Path) -> int:
    """Make the directory, for this user only, and hold it; the file descriptor to close."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove this user's directories that no process of their run holds; return them."""
    removed = []
    for folder in parent.glob("edgecheck-*"):
        if _NAME.fullmatch(folder.name) and _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _abandoned(folder: Path) -> bool:
    try:
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
            return False
        if time.time() - state.st_mtime < _YOUNG_S:
            return False
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False
    finally:
        os.close(descriptor)
