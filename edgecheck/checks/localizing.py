"""What a failed comparison adds to its text: the first layer that breaks, in a sentence.

Not for finding it: see `edgecheck.localization`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.errors import EdgecheckError
from edgecheck.localization import localize, telling, unavailable
from edgecheck.verdict import Evidence

if TYPE_CHECKING:
    from edgecheck.case import Case
    from edgecheck.workbench import Workbench


def measure(workbench: Workbench, case: Case) -> Evidence:
    """Where a candidate departs from its reference; nothing where that can't be told.

    Looked into once a run, whichever checks fail. Takes some seconds, of a large model a minute.
    """
    if unavailable(case):
        return Evidence()

    def produce(folder: Path) -> Any:
        found = localize(workbench, case)
        if found.kind == "none":
            return {}
        first = found.steps[found.judgement.broken[0]] if found.judgement.broken else None
        return {
            "kind": found.kind,
            "module": first.module if first else "",
            "operator": first.operator if first else "",
            "sentence": telling.sentence(found),
        }

    try:
        found = workbench.once(f"localization {case.candidate}", produce)
    except EdgecheckError as error:
        return Evidence(details=f"where it broke could not be found: {error}")
    if not found:
        return Evidence()
    lines = telling.shortened([found["sentence"]])
    return Evidence(measurements={"localization": found}, details="\n".join(lines))
