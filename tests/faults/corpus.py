"""All planted faults."""

from __future__ import annotations

from tests.faults import (
    behaviour,
    conversion,
    files,
    mistaken,
    outputs,
    quantization,
    references,
    shapes,
    sums,
    weights,
)

FAULTS = (
    *conversion.FAULTS,
    *shapes.FAULTS,
    *mistaken.FAULTS,
    *weights.FAULTS,
    *quantization.FAULTS,
    *files.FAULTS,
    *behaviour.FAULTS,
    *outputs.FAULTS,
    *references.FAULTS,
    *sums.FAULTS,
)
