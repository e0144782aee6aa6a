"""What of a case's reference is run in other arithmetic, and in which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecheck.capture.client import is_onnx
from edgecheck.declare.model import Source, artifact_key, as_artifact, source_kind
from edgecheck.judge.noise import arithmetic_of

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench


def simulated_source(workbench: Workbench, case: Case) -> tuple[str, Source] | None:
    """Name and source of the reference that is run in other arithmetic; None if none can be.

    A reference that is a float .onnx file is a source like any other.
    """
    found, model = workbench.reference_source(case, main=False), case.model
    if found is not None:
        return found
    key = artifact_key(model.reference)
    for name, given in model.artifacts.items():
        path = as_artifact(given).path
        if artifact_key(name) == key and key[1] == "fp32" and source_kind(path) == "onnx":
            return f"{case.model_name}:reference", path
    return None


def own_arithmetic(workbench: Workbench, case: Case) -> dict[str, Any] | None:
    """The arithmetic of the reference's own noise; None if the reference runs in it already.

    An ONNX reference runs in a runtime's kernels, which a candidate may share with all their
    faults: its float32 is that of ONNX's reference implementation.
    """
    found = arithmetic_of(case.precision)
    if found is not None:
        return found
    source = simulated_source(workbench, case)
    return {"kind": "float32"} if source is not None and is_onnx(source[1]) else None
