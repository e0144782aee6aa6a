"""The JSON report: the whole run as one document, written atomically."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecheck.errors import EdgecheckError


def check_writable(path: Path) -> None:
    """Make sure before the run that the report can be written after it.

    Raises:
        EdgecheckError: it can't.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise EdgecheckError(f"can't write {path}: {error.strerror or error}") from error


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write the document, replacing an older one only once it is complete."""
    text = json.dumps(document, indent=1, allow_nan=False)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
