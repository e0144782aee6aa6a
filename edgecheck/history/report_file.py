"""The JSON report: the whole run as one document, written atomically and read with care."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecheck.errors import EdgecheckError, HistoryError
from edgecheck.names import SCHEMA

# What readers rely on; the whole shape is in the published schema.
_RUN = {"id": str, "started": str, "git": dict | None, "host": dict, "tools": dict}
_GATE = {"verdict": str, "reason": str, "counts": dict}
_CASE = {
    "key": str,
    "model": str,
    "variant": str,
    "target": str,
    "precision": str,
    "check": str,
    "verdict": str,
    "reason": str,
    "failures": list,
    "warnings": list,
    "limits": list,
    "measurements": dict,
    "artifact": dict | None,
    "expected_failure": str | None,
}


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


def read(path: Path) -> dict[str, Any]:
    """A JSON report that this edgecheck can read.

    Raises:
        HistoryError: it is missing, no JSON, or no report of this version.
    """
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HistoryError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise HistoryError(f"{path} is not JSON: {error}") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        said = f"it says {schema!r}" if schema else "it does not say so"
        raise HistoryError(f"{path} is not a report of pytest --edge-json ({SCHEMA}): {said}")
    for what, names in (("run", _RUN), ("gate", _GATE)):
        _check_fields(document.get(what), names, f"{path}: {what}")
    if not isinstance(document.get("cases"), list):
        raise HistoryError(f"{path}: cases is not a list")
    for position, item in enumerate(document["cases"]):
        _check_fields(item, _CASE, f"{path}: case {position}")
    found: dict[str, Any] = document
    return found


def _check_fields(value: Any, fields: Mapping[str, Any], what: str) -> None:
    if not isinstance(value, dict):
        raise HistoryError(f"{what} is not an object")
    for name, kind in fields.items():
        if name not in value:
            raise HistoryError(f"{what} has no {name!r}: edgecheck schema prints what it takes")
        if not isinstance(value[name], kind):
            raise HistoryError(f"{what}: {name!r} is a {type(value[name]).__name__}")


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
