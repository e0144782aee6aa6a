"""edgecheck: a pytest plugin that gates the release of models to edge devices.

The public names, and nothing else. They load on first use, so that a pytest run which only has
edgecheck installed pays nothing for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecheck import metrics as metrics
    from edgecheck.budget import Budget as Budget
    from edgecheck.conformance import Conformance as Conformance
    from edgecheck.errors import EdgecheckError as EdgecheckError
    from edgecheck.metrics import Metric as Metric
    from edgecheck.model import Artifact as Artifact
    from edgecheck.model import Evaluation as Evaluation
    from edgecheck.model import Input as Input
    from edgecheck.model import Model as Model

_HOMES = {
    "Artifact": "edgecheck.model",
    "Budget": "edgecheck.budget",
    "Conformance": "edgecheck.conformance",
    "EdgecheckError": "edgecheck.errors",
    "Evaluation": "edgecheck.model",
    "Input": "edgecheck.model",
    "Metric": "edgecheck.metrics",
    "Model": "edgecheck.model",
}
__all__ = [*_HOMES, "metrics"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("edgecheck.metrics")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edgecheck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
