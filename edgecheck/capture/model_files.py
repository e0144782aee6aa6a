"""Model files that users name, looked at before anything reads them: they are untrusted."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path
from typing import Any

from edgecheck.declare.settings import FILE_LIMIT_BYTES
from edgecheck.errors import ArtifactError
from edgecheck.units import format_bytes


def existing(given: Any, what: str, limit_bytes: int = FILE_LIMIT_BYTES) -> Path:
    """The path of a file or folder that is there, holds something, and is not too large to read.

    A folder holds plain files and folders only: links in it lead to other things in it. Of a zip
    archive (.pt2, .keras) it is the unpacked size that counts.

    Raises:
        ArtifactError: something of that is not so.
    """
    path = Path(given)
    if not path.exists():
        raise ArtifactError(f"{what} {path} does not exist")
    size_bytes = _folder_bytes(path, what) if path.is_dir() else _file_bytes(path, path, what)
    if size_bytes == 0 and path.is_file():
        raise ArtifactError(f"{what} {path} is empty")
    if size_bytes <= limit_bytes and path.is_file():
        size_bytes = max(size_bytes, _unpacked_bytes(path))
    if size_bytes > limit_bytes:
        raise ArtifactError(
            f"{what} {path} has {format_bytes(size_bytes)}, more than the limit of "
            f"{format_bytes(limit_bytes)} (raise it with --edge-file-limit)"
        )
    return path


def _file_bytes(path: Path, named: Path, what: str) -> int:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        inside = f" in {what} {named}" if path != named else ""
        raise ArtifactError(
            f"{what if path == named else 'the file'} {path}{inside} is no plain file, but a "
            "device, a pipe or the like"
        )
    return state.st_size


def _folder_bytes(folder: Path, what: str) -> int:
    total, inside = 0, folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise ArtifactError(
                f"{what} {folder} holds the link {path.relative_to(folder)}, which leads out of it"
            )
        if not path.exists():
            raise ArtifactError(
                f"{what} {folder} holds the link {path.relative_to(folder)}, which leads nowhere"
            )
        if not path.is_dir():
            total += _file_bytes(path, folder, what)
    return total


def _unpacked_bytes(path: Path) -> int:
    """What a zip archive unpacks to, by its own directory; 0 for other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(item.file_size for item in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return 0
