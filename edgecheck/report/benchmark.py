"""Latency cases as pytest-benchmark records, where that plugin is active.

With them ``--benchmark-json``, ``--benchmark-save`` and ``--benchmark-compare`` work on edgecheck's
numbers, also under xdist: pytest-benchmark then measures nothing itself, but still saves, compares
and shows what its session in the controller holds.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

# What asks pytest-benchmark for more than its table, which edgecheck's own summary makes needless.
_ASKING = ("json", "save", "autosave", "compare", "compare_fail", "histogram", "csv")


def add(config: pytest.Config, records: Iterable[Mapping[str, Any]]) -> None:
    """Add the latency cases that were measured to pytest-benchmark's session.

    Must be called before that plugin's ``pytest_sessionfinish``. Does nothing where the plugin is
    absent, none of its files or comparisons was asked for, or ``--benchmark-disable`` or
    ``--benchmark-skip`` was given.
    """
    session = getattr(config, "_benchmarksession", None)
    if session is None or session.skip:
        return
    if not any(config.getoption(f"benchmark_{name}", None) for name in _ASKING):
        return
    # Not `session.disabled`, which xdist sets too.
    if config.getoption("benchmark_disable") and not config.getoption("benchmark_enable"):
        return
    measured = [record for record in records if _measured(record)]
    if not measured:
        return
    try:
        make = importlib.import_module("pytest_benchmark.stats").Metadata
        session.benchmarks.extend([_metadata(make, record) for record in measured])
    except Exception as error:  # the session is not a public interface: another release may differ
        warnings.warn(
            pytest.PytestWarning(f"edgecheck: no pytest-benchmark records of latency: {error!r}"),
            stacklevel=1,
        )


def _measured(record: Mapping[str, Any]) -> bool:
    return record["check"] == "latency" and bool(record["measurements"].get("samples_ns"))


def _metadata(make: Any, record: Mapping[str, Any]) -> Any:
    """A record in the form of pytest-benchmark: seconds of a single call."""
    measurements = record["measurements"]
    variant = f" {record['variant']}" if record["variant"] else ""
    artifact = record["artifact"] or {}
    identity = {name: record[name] for name in ("model", "variant", "target", "precision")}
    case = SimpleNamespace(
        name=record["nodeid"].rpartition("::")[2],
        fullname=record["nodeid"],
        group=f"edgecheck latency of {record['model']}{variant}",
        param=record["key"],
        params=identity,
        extra_info={
            **identity,
            "verdict": record["verdict"],
            "sha256": artifact.get("sha256"),
            "threads": measurements.get("threads"),
            "batch": measurements.get("batch"),
        },
        cprofile_stats=None,
        has_error=False,
    )
    options = {
        "disable_gc": True,
        "timer": "perf_counter_ns",
        "warmup": bool(measurements.get("warmup_runs")),
        "warmup_iterations": measurements.get("warmup_runs", 0),
    }
    metadata = make(case, measurements.get("calls_per_sample", 1), options)
    for sample_ns in measurements["samples_ns"]:
        metadata.stats.update(sample_ns / 1e9)  # not its own update: it divides by the calls again
    return metadata
