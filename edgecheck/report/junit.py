"""JUnit properties: what a case tells in ``--junitxml``, through ``user_properties``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def properties(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Flat names and values of a record: identity, verdict, artifact, limits, plain numbers."""
    found: list[tuple[str, object]] = [
        (f"edgecheck.{name}", record[name])
        for name in ("model", "variant", "target", "precision", "check", "verdict", "reason")
        if record[name] != ""
    ]
    if record["artifact"]:
        found.append(("edgecheck.artifact.sha256", record["artifact"]["sha256"]))
        found.append(("edgecheck.artifact.size_bytes", record["artifact"]["size_bytes"]))
    for limit in record["limits"]:
        subject = f".{limit['subject']}" if limit["subject"] else ""
        found.append((f"edgecheck.limit.{limit['name']}{subject}", limit["limit"]))
    found += _numbers(record["measurements"], "edgecheck")
    return found


def _numbers(measurements: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in measurements.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}.{name}")
        elif isinstance(value, int | float | str):
            yield f"{prefix}.{name}", value
