"""What a planted fault is. Not the faults themselves: see the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.bench import Bench

# What parity says of a quantized file that is not what an honest quantizer makes of the model.
UNLIKE_QUANTIZED = "sqnr_db|sqnr_below_honest_db|is off by more than|dB below what"


@dataclass(frozen=True)
class Fault:
    """A broken file of a bundled model, and what the gate should say about it.

    Attributes:
        kind: what went wrong, as people call it; the line of the table that it counts in.
        name: of this one: it names the model in the reports.
        model: the bundled model (see `bench.MODELS`).
        plant: writes the broken file (or folder, where the target's files are folders) to a path.
        check: the check that should fail.
        says: a regular expression that one of this check's failures should match.
        layer: where a single layer is broken, its path in the model.
        declared: fields of the `Model` that differ from the bundled declaration.
        budget: fields of its `Budget`.
        against: what it is judged against: the ``"module"``, the model's sound .onnx file as the
            ``"onnx source"``, or as the ``"tflite reference"`` its sound .tflite file, an artifact
            of a model without a source.
    """

    kind: str
    name: str
    model: str
    target: str
    precision: str
    plant: Callable[[Bench, Path], object]
    check: str = "parity"
    says: str = ""
    layer: str = ""
    declared: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    against: str = "module"
