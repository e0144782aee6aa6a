"""The weight audit in words: layers of a candidate's file that are the reference's but for a few
elements, which its outputs may hide below quantization noise.

Not for finding them: see `edgecheck.targets.weight_audit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgecheck.errors import EdgecheckError
from edgecheck.targets import weight_audit
from edgecheck.verdict import Evidence

if TYPE_CHECKING:
    from edgecheck.case import Case
    from edgecheck.workbench import Workbench

_SHOWN = 3


def measure(workbench: Workbench, case: Case) -> Evidence:
    """Failures where a layer of the file has elements of its own; nothing where there is no
    PyTorch program to compare with. Takes milliseconds, of a hundred million weights seconds."""
    if not case.target.weights or case.precision not in weight_audit.PRECISIONS:
        return Evidence()
    try:
        found = workbench.builder.audited(case)
    except EdgecheckError as error:
        return Evidence(measurements={"weight_audit": {"not_audited": str(error)}})
    if not found:
        return Evidence()
    measurements: dict[str, Any] = {"weight_audit": found}
    damaged = sorted(found["damaged"], key=lambda item: -item["error"])
    if not damaged:
        return Evidence(measurements=measurements)
    sentences = [sentence(item) for item in damaged]
    measurements["localization"] = {
        "kind": "layer",
        "module": damaged[0]["layer"],
        "operator": "",
        "sentence": sentences[0],
    }
    more = len(sentences) - _SHOWN
    rest = (f"so are weights of {more} more layers",) if more > 0 else ()
    return Evidence((*sentences[:_SHOWN], *rest), measurements=measurements)


def sentence(damage: Mapping[str, Any]) -> str:
    """What is wrong with a layer (see `edgecheck.targets.weight_audit.Damage`)."""
    several = damage["count"] > 1
    by = f"{damage['stored']:.9g} instead of {damage['expected']:.9g}"
    if damage["quantized"]:
        by = f"by {damage['error']:.3g} steps"
    place = f"{by} at {damage['index']}"
    return (
        f"{damage['count']} of {damage['of']} weights of layer {damage['layer']} "
        f"{'are' if several else 'is'} not the reference's: {'the worst ' if several else ''}"
        f"{place}: the file is damaged, or was edited"
    )
