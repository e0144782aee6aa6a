"""The planted files as a suite of Conformance classes, for a test module to take over.

Not for planting them: see `verdicts`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edgecheck
from edgecheck.targets.registry import find_target
from tests.faults import bench, corpus
from tests.faults.fault import Fault


def file_of(fault: Fault, folder: Path) -> Path:
    """Where a fault's file is."""
    return folder / fault.name / f"planted{find_target(fault.target).files.suffix}"


def declare(folder: Path, names: set[str]) -> dict[str, type[edgecheck.Conformance]]:
    """A Conformance class for each planted fault of these names, by its own name."""
    return {
        f"Test{position}": _suite(fault, folder)
        for position, fault in enumerate(corpus.FAULTS)
        if fault.name in names
    }


def _reference(fault: Fault, folder: Path) -> dict[str, Any]:
    """How the model declares what the fault is judged against."""
    if fault.against == "onnx source":
        return {"source": bench.sound_file(folder, fault.model, "ort", "fp32")}
    if fault.against == "tflite reference":
        file = bench.sound_file(folder, fault.model, "tflite", "fp32")
        return {"source": None, "reference": "tflite", "artifacts": {"tflite": file}}
    return {}


def _suite(fault: Fault, folder: Path) -> type[edgecheck.Conformance]:
    key = (fault.target, fault.precision)
    declared: dict[str, Any] = {
        "name": fault.name,
        "artifacts": {},
        "targets": None,
        **_reference(fault, folder),
        **fault.declared,
    }
    declared["artifacts"] = {**declared["artifacts"], key: file_of(fault, folder)}
    members: dict[str, Any] = {
        "model": bench.declaration(fault.model, **declared),
        "budget": edgecheck.Budget(**fault.budget),
    }
    # Timing and weighing say nothing of most faults, and take longer than the rest.
    for check in {"latency", "memory"} - {fault.check}:
        members[f"test_{check}"] = None
    return type(fault.name, (edgecheck.Conformance,), members)
