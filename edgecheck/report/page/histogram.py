"""Raw samples binned before they are embedded, so that a page stays small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.history.results import number
from edgecheck.report.page.figures import scale
from edgecheck.units import format_time

_BINS = 60
# The slowest samples would squeeze all others into one bin.
_SHOWN_QUANTILE = 0.995


def of_latency(
    values: Mapping[str, Any],
    samples_ns: Sequence[float],
    limits_ms: Sequence[tuple[str, float]] = (),
) -> dict[str, Any]:
    """The distribution of wall and CPU times, with quantiles and limits as marks.

    Args:
        values: the latency measurements of a record.
        samples_ns: wall times of single inferences.
        limits_ms: names and limits; those outside of what is drawn are left out.
    """
    wall_ms = np.asarray(samples_ns, float) / 1e6
    unit, factor = scale("_ms", float(np.median(wall_ms)))
    low, high = float(wall_ms.min()), float(np.quantile(wall_ms, _SHOWN_QUANTILE))
    if high <= low:
        high = low + max(abs(low), 1e-6) * 0.01
    edges_ms = np.linspace(low, high, _BINS + 1)
    series = {"wall time": wall_ms}
    cpu_ms = np.asarray(values.get("cpu_samples_ns") or [], float) / 1e6
    if cpu_ms.size:
        series["CPU time"] = cpu_ms
    marks = [(name, number(values.get(f"latency_{name}_ms"))) for name in ("p50", "p95", "p99")]
    marks += [(f"limit of {name}", limit_ms) for name, limit_ms in limits_ms]
    slower = int((wall_ms > high).sum())
    note = f"{wall_ms.size:,} samples."
    if slower:
        note += f" {slower} slower ones, up to {format_time(float(wall_ms.max()))}, are not drawn."
    return {
        "kind": "latency",
        "title": "Latency distribution",
        "note": note,
        "unit": unit,
        "values": [
            {"from": _round(left), "to": _round(right), "samples": int(count), "series": name}
            for name, data in series.items()
            for left, right, count in _bins(data, edges_ms, factor)
            if count
        ],
        "marks": [
            {"at": _round(at_ms / factor), "mark": name}
            for name, at_ms in marks
            if at_ms is not None and low <= at_ms <= high
        ],
    }


def of_errors(output: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A record's own histogram of errors: ``edges``, one more than ``counts``."""
    edges, counts = found["edges"], found["counts"]
    return {
        "kind": "errors",
        "title": f"Errors of {output}",
        "note": "Candidate minus reference, over evenly spread elements.",
        "values": [
            {"from": left, "to": right, "elements": count}
            for left, right, count in zip(edges, edges[1:], counts, strict=False)
        ],
    }


def _bins(
    data: npt.NDArray[np.float64], edges: npt.NDArray[np.float64], factor: float
) -> list[tuple[float, float, int]]:
    counts, _ = np.histogram(data, edges)
    shown = edges / factor
    return list(zip(shown[:-1].tolist(), shown[1:].tolist(), counts.tolist(), strict=True))


def _round(value: float) -> float:
    return float(f"{value:.5g}")
