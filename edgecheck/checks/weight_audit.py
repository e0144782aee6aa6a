"""The weight audit in words: layers of a candidate's file that are the reference's but for a few
elements, which its outputs may hide below quantization noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgecheck.errors import EdgecheckError
from edgecheck.judge.verdict import Evidence
from edgecheck.targets.common import weight_audit

if TYPE_CHECKING:
    from edgecheck.declare.budget import Limit
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

_SHOWN = 3
# Sound files were up to 8.7 dB below a simulated quantization; those that far below of which less
# than half of the weights are the model's rounded to the nearest were none.
_FOREIGN_DB, _FOREIGN_SHARE = 6.0, 0.5


def measure(
    workbench: Workbench,
    case: Case,
    metrics: Mapping[str, Mapping[str, float]],
    limits: Mapping[str, Mapping[str, Limit]],
) -> Evidence:
    """Failures where a layer of the file has elements of its own, or a file that is worse than a
    plain quantization has other weights; nothing where the source is no PyTorch program and no
    .onnx file.

    Takes milliseconds, of a hundred million weights seconds.

    Args:
        metrics: of parity, by output.
        limits: the same; who states how far below a simulated quantization a file may be is obeyed.
    """
    if not case.target.build.weights or case.precision not in weight_audit.PRECISIONS:
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
        return Evidence(foreign(case, found, metrics, limits), measurements=measurements)
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


def foreign(
    case: Case,
    found: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, float]],
    limits: Mapping[str, Mapping[str, Limit]],
) -> tuple[str, ...]:
    """What a quantized file lacks that is far below a plain quantization, and has other weights."""
    name = "sqnr_below_honest_db"
    below_db = max(
        (
            values[name]
            for output, values in metrics.items()
            if name in values
            and name in limits[output]
            and limits[output][name].origin == "default"
        ),
        default=0.0,
    )
    others = found["stored_weights"] - found["matched_weights"]
    share = found["matched_elements"] / max(1, found["stored_elements"])
    if below_db <= _FOREIGN_DB or not others or share >= _FOREIGN_SHARE:
        return ()
    return (
        f"SQNR is {below_db:.3g} dB below what a plain quantization to {case.precision} of this "
        f"model reaches, and {others} of {found['stored_weights']} stored weights are not its "
        "weights rounded to the nearest: is this another model's file, or an older one's?",
    )


def sentence(damage: Mapping[str, Any]) -> str:
    """What is wrong with a layer (see `edgecheck.targets.common.weight_audit.Damage`)."""
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
