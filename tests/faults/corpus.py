"""All planted faults."""

from __future__ import annotations

from tests.faults import behaviour, conversion, files, mistaken, quantization, shapes, weights

FAULTS = (
    *conversion.FAULTS,
    *shapes.FAULTS,
    *mistaken.FAULTS,
    *weights.FAULTS,
    *quantization.FAULTS,
    *files.FAULTS,
    *behaviour.FAULTS,
)
