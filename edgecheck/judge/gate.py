"""The gate: what the verdicts of a run say of the release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.names import VERDICTS

_BROKEN = ("failed", "unsupported", "inconclusive")


@dataclass(frozen=True)
class Gate:
    """The verdict on the run.

    Attributes:
        closed: whether the release is blocked.
        line: why, or that it passed.
    """

    closed: bool
    line: str


def judge_gate(
    records: Sequence[Mapping[str, Any]],
    *,
    accept_missing: bool,
    errors: Sequence[str] = (),
    faults: Sequence[str] = (),
    interrupted: bool = False,
) -> Gate:
    """What the records of a run say of the release: any failure, or a required case not checked.

    Args:
        errors: what is wrong with the selection.
        faults: what else closes the gate, beside the cases.
        interrupted: whether the run ended before it was done: then it says nothing of the release.
    """
    if interrupted:
        judged = sum(item["verdict"] != "not_checked" for item in records)
        return Gate(True, f"gate closed: interrupted; {judged} of {len(records)} cases were judged")
    if errors:
        return Gate(True, f"gate closed: {'; '.join(errors)}")
    counts = count_verdicts(records)
    failed = sum(item["verdict"] in _BROKEN for item in records)
    expected = failed - sum(map(closes, records))
    missing = [item for item in records if item["verdict"] == "not_checked" and item["required"]]
    if failed - expected > 0:
        return Gate(True, f"gate closed: {failed - expected} of {len(records)} cases failed")
    if faults:
        return Gate(True, f"gate closed: {'; '.join(faults)}")
    if missing and not accept_missing:
        reasons: dict[str, int] = {}
        for item in missing:
            text = f"{item['target']}: {item['reason']}"
            reasons[text] = reasons.get(text, 0) + 1
        return Gate(
            True,
            f"gate incomplete: {len(missing)} required cases not checked "
            f"({'; '.join(sorted(reasons))})",
        )
    notes = []
    if counts["not_checked"]:
        notes.append(f"{counts['not_checked']} not checked")
    if expected > counts["inconclusive"]:
        notes.append(f"{expected - counts['inconclusive']} expected failures")
    if counts["inconclusive"]:
        notes.append(f"{counts['inconclusive']} inconclusive")
    return Gate(
        False, f"gate passed: {counts['passed']} cases" + (f", {', '.join(notes)}" if notes else "")
    )


def closes(record: Mapping[str, Any]) -> bool:
    """Whether a case closes the gate."""
    return record["verdict"] in _BROKEN and record["expected_failure"] is None


def count_verdicts(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Number of cases by verdict."""
    counts = dict.fromkeys(reversed(VERDICTS), 0)
    for item in records:
        counts[item["verdict"]] += 1
    return counts
