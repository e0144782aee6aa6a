"""edgecheck: a pytest plugin that gates the release of models to edge devices.

The public names, and nothing else. They load on first use, so that a pytest run which only has
edgecheck installed pays nothing for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecheck.declare import metrics
    from edgecheck.declare.budget import Budget as Budget
    from edgecheck.declare.metrics import Metric as Metric
    from edgecheck.declare.model import Artifact as Artifact
    from edgecheck.declare.model import Evaluation as Evaluation
    from edgecheck.declare.model import Input as Input
    from edgecheck.declare.model import Model as Model
    from edgecheck.declare.outputs import Output as Output
    from edgecheck.errors import EdgecheckError as EdgecheckError
    from edgecheck.plugin.conformance import Conformance as Conformance

_HOMES = {
    "Artifact": "edgecheck.declare.model",
    "Budget": "edgecheck.declare.budget",
    "Conformance": "edgecheck.plugin.conformance",
    "EdgecheckError": "edgecheck.errors",
    "Evaluation": "edgecheck.declare.model",
    "Input": "edgecheck.declare.model",
    "Metric": "edgecheck.declare.metrics",
    "Model": "edgecheck.declare.model",
    "Output": "edgecheck.declare.outputs",
}
__all__ = [*_HOMES, "metrics"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("edgecheck.declare.metrics")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edgecheck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
