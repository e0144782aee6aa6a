"""The JSON report: the whole run as one document, written atomically and read with care."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgecheck.errors import EdgecheckError, HistoryError
from edgecheck.names import SCHEMA
from edgecheck.plain import plain_data
from edgecheck.process.child import one_line


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
    try:
        problem = _problem(document)
    except RecursionError:
        raise HistoryError(f"{path} is nested too deeply to be read") from None
    if problem:
        raise HistoryError(f"{path}: {problem} (edgecheck schema prints what a report holds)")
    try:
        found: dict[str, Any] = plain_data(document)
    except RecursionError:
        raise HistoryError(f"{path} is nested too deeply to be read") from None
    return found


def _problem(document: Any) -> str:
    """What makes a document no report by the published schema, or "".

    Further fields are none: a later edgecheck may have written them.
    """
    from jsonschema import Draft202012Validator

    errors = Draft202012Validator(json.loads(schema_text())).iter_errors(document)
    error = next((item for item in errors if item.validator != "additionalProperties"), None)
    if error is None:
        return ""
    text = " ".join(error.message.split())
    return f"{error.json_path.removeprefix('$.')}: {text[:200]}{' ...' * (len(text) > 200)}"


@contextlib.contextmanager
def legible(name: str) -> Iterator[None]:
    """Say of a report whose measurements can't be shown that it is the report.

    Their inside is each check's own, and not all of it is in the schema.

    Raises:
        HistoryError: what is inside raised something else.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise HistoryError(
            f"{name} has a measurement that no check writes: {one_line(error)}"
        ) from error
    except RecursionError:
        raise HistoryError(f"{name} is nested too deeply to be shown") from None


def schema_text() -> str:
    """The JSON Schema of the report."""
    folder = importlib.resources.files("edgecheck.report")
    return (folder / "schema" / "report-1.schema.json").read_text(encoding="utf-8")


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
