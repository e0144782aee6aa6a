"""Documents of runs, as small as the published schema allows, for tests of what shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import jsonschema

from edgecheck.judge.gate import count_verdicts, judge_gate
from edgecheck.names import SCHEMA

SAMPLES_NS = [20_000 + 37 * (position * 7919 % 301) for position in range(600)] + [900_000]
MEASUREMENTS: dict[str, dict[str, Any]] = {
    "export": {
        "size_bytes": 107_184,
        "operators": {"Conv": 3, "Relu": 4},
        "activation_memory": {
            "operators": 9,
            "peak_operator": {"index": 4, "type": "Relu", "name": "relu_1"},
            "live_tensors": 1,
            "live_bytes": 4096,
            "live": [{"name": "relu", "shape": [1, 32], "dtype": "float32", "size_bytes": 4096}],
        },
    },
    "parity": {
        "outputs": {
            "logits": {
                "max_abs_error": 0.007,
                "sqnr_db": 69.8,
                "worst": {"input": "samples", "index": [0, 4], "candidate": -2.4, "reference": -2},
            }
        },
        "seed": 0,
    },
    "accuracy": {
        "metric": "top1",
        "higher_is_better": True,
        "candidate": 0.98,
        "reference": 0.99,
        "samples": 599,
    },
    "latency": {
        "latency_p50_ms": 0.0203,
        "latency_p95_ms": 0.0268,
        "latency_p50_interval_ms": [0.02, 0.021],
        "batches": [
            {"batch": 4, "latency_p50_ms": 0.05, "throughput_per_s": 8e4},
            {"batch": 16, "error": "it crashed"},
        ],
        "samples_ns": SAMPLES_NS,
        "cpu_samples_ns": SAMPLES_NS,
    },
    "memory": {
        "peak_memory_bytes": 1_810_432,
        "growth_inferences": [0, 25, 50],
        "growth_held_bytes": [1_000_000, 1_004_096, 1_004_096],
    },
}
LIMITS: dict[str, tuple[Any, ...]] = {
    "latency": ("latency_p95", 0.0268, "max", 20.0, "ms", [0.026, 0.028]),
    "export": ("size", 107_184, "max", 250_000.0, "bytes", None),
    "parity": ("sqnr_db", 69.8, "min", 30.0, "dB", None),
}


def record(check: str = "latency", verdict: str = "passed", **changes: Any) -> dict[str, Any]:
    """A case; it has the measurements of its check where it was judged."""
    model, variant = changes.get("model", "digits"), changes.get("variant", "")
    target, precision = changes.get("target", "ort"), changes.get("precision", "fp32")
    judged = verdict in ("passed", "failed", "inconclusive")
    reason = changes.get("reason", "" if verdict == "passed" else "it is broken")
    limits = []
    if judged and check in LIMITS:
        name, measured, bound, limit, unit, interval = LIMITS[check]
        limits.append(
            {
                "name": name,
                "subject": "logits" if check == "parity" else "",
                "measured": measured,
                "bound": bound,
                "limit": limit,
                "unit": unit,
                "origin": "budget",
                "passed": verdict == "passed",
                "outcome": verdict,
                "interval": interval,
                "resolution": 0.0,
            }
        )
    return {
        "key": f"{model}:{variant}/{target}/{precision}/{check}"
        if variant
        else f"{model}/{target}/{precision}/{check}",
        "nodeid": f"suites/test_digits.py::TestDigits::test_{check}[{target}-{precision}]",
        "model": model,
        "variant": variant,
        "target": target,
        "precision": precision,
        "check": check,
        "required": True,
        "verdict": verdict,
        "reason": reason,
        "failures": [reason] if verdict == "failed" else [],
        "warnings": [],
        "limits": limits,
        "measurements": MEASUREMENTS.get(check, {}) if judged else {},
        "details": "",
        "artifact": {
            "file": "m.onnx",
            "sha256": "a" * 64,
            "size_bytes": 107_184,
            "origin": "built",
        }
        if judged
        else None,
        "timings": {"build_s": 0.03, "cached": False, "duration_s": 0.5},
        "expected_failure": None,
        **changes,
    }


def candidate(**changes: Any) -> list[dict[str, Any]]:
    """All five cases of a candidate."""
    return [record(check, **changes) for check in MEASUREMENTS]


def document(
    cases: Sequence[dict[str, Any]],
    *,
    absences: Sequence[dict[str, Any]] = (),
    skipped_targets: dict[str, str] | None = None,
    run_id: str = "0123456789abcdef",
) -> dict[str, Any]:
    """A run of these cases, with the gate that they earn."""
    gate = judge_gate(cases, accept_missing=False)
    return {
        "schema": SCHEMA,
        "run": {
            "id": run_id,
            "started": "2026-11-21T10:26:40+00:00",
            "finished": "2026-11-21T10:31:05+00:00",
            "exit_status": int(gate.closed),
            "command": ["pytest", "suites"],
            "options": {"targets": "ort", "profile": ""},
            "host": {
                "system": "Linux",
                "machine": "x86_64",
                "cpu": "A CPU",
                "cores": 2,
                "python": "3.11.7",
            },
            "tools": {"edgecheck": "0.1.0"},
            "git": {"commit": "c" * 40, "branch": "main", "dirty": False},
        },
        "gate": {
            "verdict": "closed" if gate.closed else "passed",
            "reason": gate.line,
            "counts": count_verdicts(cases),
        },
        "cases": list(cases),
        "absences": list(absences),
        "skipped_targets": skipped_targets or {},
    }


@cache
def _schema() -> Any:
    text = resources.files("edgecheck.report").joinpath("schema/report-1.schema.json").read_text()
    return json.loads(text)


def assert_publishable(found: dict[str, Any]) -> None:
    """That a document of these tests is one that edgecheck could have written."""
    jsonschema.validate(found, _schema())
