"""The first layer that breaks: what a failed comparison adds to its text, and a quantized candidate
that looks sound from outside, and from inside does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.errors import EdgecheckError
from edgecheck.judge.verdict import Evidence
from edgecheck.localization import description, localize, unavailable

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

# Quantized files further below a simulated quantization are traced: a third of sound int8 ones
# of small networks are, and a single wrong zero point costs about as much.
SUSPICIOUS_DB = 2.0
# Kinds of localisation that name a layer as the cause.
_OF_A_LAYER = ("layer", "input", "faint")


def measure(workbench: Workbench, case: Case) -> Evidence:
    """Where a candidate departs from its reference; nothing where that can't be told.

    Looked into once a run, whichever checks fail. Takes some seconds, of a large model a minute.
    """
    try:
        found = _localized(workbench, case)
    except EdgecheckError as error:
        return Evidence(details=f"where it broke could not be found: {error}")
    if not found:
        return Evidence()
    lines = description.shortened([found["sentence"]])
    return Evidence(measurements={"localization": found}, details="\n".join(lines))


def look_inside(
    workbench: Workbench, case: Case, metrics: Mapping[str, Mapping[str, float]]
) -> Evidence:
    """Whether a layer of a quantized candidate is off by more than its quantization explains.

    Looked for where the outputs are further below an honest quantizer than sound files mostly are.

    Args:
        metrics: of parity, by output.
    """
    below_db = max((item.get("sqnr_below_honest_db", 0.0) for item in metrics.values()), default=0)
    if below_db <= SUSPICIOUS_DB:
        return Evidence()
    try:
        found = _localized(workbench, case)
    except EdgecheckError as error:
        return Evidence(
            warnings=(
                f"SQNR is {below_db:.3g} dB below an honest quantizer's, and the layers could not "
                f"be traced: {error}",
            )
        )
    if not found or found["kind"] not in _OF_A_LAYER:
        return Evidence()
    sentence = (
        f"a layer is off by more than {case.precision} explains, which costs {below_db:.3g} dB of "
        f"SQNR: {found['sentence']}"
    )
    return Evidence((sentence,), measurements={"localization": found})


def _localized(workbench: Workbench, case: Case) -> dict[str, str]:
    """Kind, module, operator and sentence; {} where nothing departs, or it can't be traced."""
    if unavailable(case):
        return {}

    def produce(folder: Path) -> Any:
        found = localize(workbench, case)
        if found.kind == "none":
            return {}
        first = found.steps[found.judgement.broken[0]] if found.judgement.broken else None
        return {
            "kind": found.kind,
            "module": first.module if first else "",
            "operator": first.operator if first else "",
            "sentence": description.sentence(found),
        }

    found: dict[str, str] = workbench.once(f"localization {case.candidate}", produce)
    return found
