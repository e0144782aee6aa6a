"""What a case's record comes down to on the page: one status, one figure, how near its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgecheck.history.results import number as finite
from edgecheck.report.page import figures

Record = Mapping[str, Any]

# From the worst to the best, with the mark that tells them apart without colour.
STATUSES = {
    "failed": ("failed", "✕"),
    "inconclusive": ("inconclusive", "?"),
    "unsupported": ("unsupported", "∅"),
    "accepted": ("accepted", "≈"),
    "not_checked": ("not checked", "-"),
    "passed": ("passed", "✓"),
}
CLOSING = ("failed", "inconclusive", "unsupported")


def status_of(record: Record) -> str:
    """The verdict; "accepted" for one that does not close the gate though it did not pass."""
    verdict = str(record["verdict"])
    return "accepted" if verdict in CLOSING and record["expected_failure"] else verdict


def model_name(record: Record) -> str:
    """The model with its variant."""
    return f"{record['model']}:{record['variant']}" if record["variant"] else str(record["model"])


def headline(record: Record) -> tuple[str, float | None]:
    """The one number of a check that a person looks at, as text and for sorting."""
    values = record["measurements"]
    artifact = record["artifact"] or {}
    match record["check"]:
        case "export":
            return _shown("size_bytes", artifact.get("size_bytes"))
        case "parity":
            found = [
                float(item["sqnr_db"])
                for item in values.get("outputs", {}).values()
                if isinstance(item, Mapping) and "sqnr_db" in item
            ]
            if not found:
                return "", None
            worst = min(found)
            return ("identical", 1e9) if math.isinf(worst) else (f"{worst:.0f} dB", worst)
        case "accuracy":
            value = finite(values.get("candidate"))
            return ("", None) if value is None else (f"{value:.3g}", value)
        case "latency":
            return _shown("latency_p50_ms", values.get("latency_p50_ms"))
        case "memory":
            return _shown("peak_memory_bytes", values.get("peak_memory_bytes"))
    return "", None


def _shown(name: str, value: Any) -> tuple[str, float | None]:
    found = finite(value)
    return ("", None) if found is None else (figures.quantity(name, found), found)


def tightest(record: Record) -> tuple[str, float] | None:
    """The limit of which the largest share is used up, and that share."""
    shares = [(figures.used(item), limit_name(item)) for item in record["limits"]]
    if not shares:
        return None
    share, name = max(shares)
    return name, share


def limit_name(limit: Mapping[str, Any]) -> str:
    """A limit's name with the output that it is for."""
    return f"{limit['name']} of {limit['subject']}" if limit["subject"] else str(limit["name"])
