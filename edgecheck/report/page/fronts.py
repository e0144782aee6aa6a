"""Accuracy against latency: which candidates no other beats in both, and the edge score.

Pure functions of records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgecheck.history.results import number
from edgecheck.report.page.status import Record

# What of a device decides latency, but not which runtime it was: runtimes are compared here.
_OF_MACHINE = ("system", "machine", "cpu", "cores", "threads")
_COUNTS = ("cores", "threads")
_CHECKS = ("accuracy", "latency")


@dataclass(frozen=True)
class Candidate:
    """A point of the trade-off.

    Attributes:
        name: variant, target and precision.
        key: of its latency case.
        latency_ms: the median of a single inference.
        score: accuracy over latency in ms; None where lower values of the metric are better. The
            edge score is that over power too, which is not measured and so counts as equal.
        on_front: no other is as good in both and better in one.
    """

    name: str
    key: str
    target: str
    precision: str
    accuracy: float
    latency_ms: float
    size_bytes: int
    score: float | None
    passed: bool
    on_front: bool = False


@dataclass(frozen=True)
class Front:
    """The candidates of one model, with its variants, on one machine, the fastest first.

    Attributes:
        machine: which one, where a run has several; or "".
    """

    model: str
    metric: str
    higher_is_better: bool
    machine: str
    candidates: Sequence[Candidate]


def fronts_of(records: Iterable[Record]) -> tuple[list[Front], list[str]]:
    """The trade-off of each model, and the models without one: accuracy or latency is missing."""
    models: dict[str, None] = {}
    pairs: dict[tuple[str, ...], dict[str, Record]] = {}
    for item in records:
        models[item["model"]] = None
        if item["check"] in _CHECKS:
            identity = tuple(item[name] for name in ("model", "variant", "target", "precision"))
            pairs.setdefault((*identity, _machine(item)), {})[item["check"]] = item
    found: dict[tuple[str, str, bool, str], list[Candidate]] = {}
    for (model, variant, target, precision, machine), pair in pairs.items():
        if len(pair) < len(_CHECKS):
            continue
        candidate = _candidate(variant, target, precision, pair)
        if candidate is not None:
            values = pair["accuracy"]["measurements"]
            better = bool(values.get("higher_is_better", True))
            group = (model, str(values.get("metric", "accuracy")), better, machine)
            found.setdefault(group, []).append(candidate)
    machines = {machine for *_, machine in found}
    fronts = [
        Front(
            model,
            metric,
            better,
            machine if len(machines) > 1 else "",
            mark(candidates, higher_is_better=better),
        )
        for (model, metric, better, machine), candidates in sorted(found.items())
    ]
    shown = {front.model for front in fronts}
    return fronts, [model for model in models if model not in shown]


def _machine(record: Record) -> str:
    device: Mapping[str, Any] = record.get("device") or {}
    known = [(name, device[name]) for name in _OF_MACHINE if device.get(name) not in (None, "")]
    return ", ".join(f"{name} {value}" if name in _COUNTS else str(value) for name, value in known)


def _candidate(
    variant: str, target: str, precision: str, pair: Mapping[str, Record]
) -> Candidate | None:
    accuracy = number(pair["accuracy"]["measurements"].get("candidate"))
    latency_ms = number(pair["latency"]["measurements"].get("latency_p50_ms"))
    artifact = pair["latency"]["artifact"] or pair["accuracy"]["artifact"]
    if accuracy is None or latency_ms is None or latency_ms <= 0 or artifact is None:
        return None
    higher = pair["accuracy"]["measurements"].get("higher_is_better", True)
    return Candidate(
        name=" ".join(part for part in (variant, target, precision) if part),
        key=pair["latency"]["key"],
        target=target,
        precision=precision,
        accuracy=accuracy,
        latency_ms=latency_ms,
        size_bytes=artifact["size_bytes"],
        score=accuracy / latency_ms if higher else None,
        passed=all(item["verdict"] == "passed" for item in pair.values()),
    )


def mark(candidates: Sequence[Candidate], *, higher_is_better: bool) -> list[Candidate]:
    """The candidates, the fastest first, with those on the Pareto front marked.

    Sorted by latency, one is on the front where it is more accurate than all that are faster; of
    those with equal latency only the most accurate, and equals together.
    """
    sign = 1.0 if higher_is_better else -1.0
    ordered = sorted(candidates, key=lambda item: (item.latency_ms, -sign * item.accuracy))
    marked: list[Candidate] = []
    best: Candidate | None = None
    for item in ordered:
        equal = best is not None and (item.latency_ms, item.accuracy) == (
            best.latency_ms,
            best.accuracy,
        )
        on_front = best is None or equal or sign * item.accuracy > sign * best.accuracy
        if on_front:
            best = item
        marked.append(replace(item, on_front=on_front))
    return marked
