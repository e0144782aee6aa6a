"""The parts of an output against their limits. Pure.

See `edgecheck.judge.parts` for what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgecheck.declare.budget import Limit
from edgecheck.judge.parts import Part, PartAgreement, failure
from edgecheck.judge.verdict import Comparison


@dataclass(frozen=True)
class JudgedParts:
    """The verdict on the parts of an output.

    Attributes:
        record: for the report.
    """

    failures: list[str]
    comparisons: list[Comparison]
    record: dict[str, Any]


def judge_parts(
    name: str,
    agreement: PartAgreement,
    limits: Mapping[str, Limit],
    part_limits: Mapping[str, Mapping[str, Limit]],
) -> JudgedParts:
    """Named parts against their limits; indices where one is stated; else runs that are lost."""
    key = "part_sqnr_db"
    failures: list[str] = []
    comparisons: list[Comparison] = []
    named = agreement.named()
    for part in named:
        limit = part_limits.get(part.name, {}).get(key)
        if limit is None or (limit.origin == "default" and not part.alive):
            continue
        comparisons.append(Comparison(limit, part.sqnr_db, f"{name}/{part.name}"))
        if not limit.allows(part.sqnr_db):
            failures.append(failure(name, None, [part], agreement.step))
    limit = limits.get(key)
    indices = [part for parts in agreement.indices().values() for part in parts if part.alive]
    if limit is not None and limit.origin != "default" and indices and not named:
        worst = min(part.sqnr_db for part in indices)
        comparisons.append(Comparison(limit, worst, name))
    elif limit is not None and not named:
        failures += [
            failure(name, axis, lost, agreement.step)
            for axis, lost in agreement.lost(limit.value).items()
        ]
    record: dict[str, Any] = {"parts": [_part_record(part) for part in named]} if named else {}
    if indices:
        record["worst_part_sqnr_db"] = min(part.sqnr_db for part in indices)
    return JudgedParts(failures, comparisons, record)


def _part_record(part: Part) -> dict[str, Any]:
    levels = part.levels if math.isfinite(part.levels) else None
    return {"part": part.name, "sqnr_db": part.sqnr_db, "levels": levels, "spread": part.spread}
