"""Where a captured TensorFlow program has what (see `edgecheck.capture.tensorflow`).

Imports no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

# The one signature of the SavedModel, and the folder in it of the same with fixed shapes.
SIGNATURE = "serving_default"
FIXED = "fixed"


def fixed(source: str) -> str:
    """The SavedModel directory with all shapes fixed; the program itself where it has no others."""
    path = Path(source) / FIXED
    return str(path) if path.is_dir() else source
