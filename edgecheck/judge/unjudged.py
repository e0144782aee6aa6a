"""Limits that a user stated and that nothing was held against: what was not judged did not pass.

Pure. One rule for all limits: on each target, of the cases that a statement selects and that passed
the check that measures it, at least one has it among its limits.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.declare.budget import DEFAULT
from edgecheck.declare.limits import KINDS

# Where a limit is not measured, what it mostly takes.
_REMEDIES: Mapping[str, str] = {
    "top1_agreement": "it takes class scores: an evaluation with a metric of classes",
    "kl_divergence": "it takes class scores: an evaluation with a metric of classes",
    "label_agreement": "it takes an output of integers or booleans",
    "accuracy_drop": "it takes evaluation data: pass evaluation= to the Model",
    "accuracy_floor": "it takes evaluation data: pass evaluation= to the Model",
    "latency_vs_baseline": "it takes a file of the last release: pass baselines= to the Model",
}


@dataclass(frozen=True)
class Statement:
    """A limit that a model's budget states.

    Attributes:
        model: its name in reports.
        limit: a field of `Budget`.
        key: the words that select cases, joined by "/"; or "default".
        outputs: the model's.
    """

    model: str
    limit: str
    key: str
    outputs: tuple[str, ...]


def unjudged(
    statements: Iterable[Statement],
    records: Sequence[Mapping[str, Any]],
    checks: Container[str],
    absent: Container[tuple[str, str]],
) -> list[str]:
    """A sentence for each limit that was stated and not judged.

    Args:
        records: of the run's cases (see the published schema).
        checks: those that were asked for; what another one measures was not to be judged.
        absent: models and checks of which there can be no case.
    """
    told: dict[str, None] = {}
    for item in statements:
        check = KINDS[item.limit].check
        if check not in checks:
            continue
        judged = _judged(item, records)
        missed = [target for target, held in judged.items() if not held]
        if missed or (item.model, check) in absent:
            remedy = _REMEDIES.get(item.limit, "nothing here measures it")
            words = "" if item.key == DEFAULT else f" (for {item.key})"
            place = f" on {', '.join(missed)}" if any(judged.values()) else ""
            told[
                f"{item.model}: {item.limit} is stated{words} and was not judged{place}: {remedy}"
            ] = None
    return list(told)


def _judged(statement: Statement, records: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """By target, whether any case was held against it; without those where none passed."""
    words = set() if statement.key == DEFAULT else set(statement.key.split("/"))
    subjects = words & set(statement.outputs)
    kind = KINDS[statement.limit]
    judged: dict[str, bool] = {}
    for record in records:
        own = {record["target"], record["precision"], record["variant"]}
        if (
            record["model"] != statement.model
            or record["check"] != kind.check
            or not words - subjects <= own
            or (kind.precisions and record["precision"] not in kind.precisions)
        ):
            continue
        held = any(
            limit["name"] == statement.limit and (not subjects or limit["subject"] in subjects)
            for limit in record["limits"]
        )
        if held or record["verdict"] == "passed":
            judged[record["target"]] = held or judged.get(record["target"], False)
    return judged
