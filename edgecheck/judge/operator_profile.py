"""Where an inference's time goes: a runner's profile summed up, and its text.

Profiling slows an inference (a small graph ninefold), so that only the shares count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecheck.runtime.results import Profile
from edgecheck.units import format_time

_TYPES = 8
_NODES = 3
_OPERATOR_WIDTH = 42
_PLACED_WIDTH = 16
_BAR_WIDTH = 16


@dataclass(frozen=True)
class Operator:
    """What one type of operator, or one node, takes of an inference.

    Attributes:
        operator: type as the runtime names it; runtimes fuse and rename those of the file.
        placed: provider or delegate that runs it.
        nodes: how many nodes these are.
        time_ms: mean time in one profiled inference.
        share: of the time of all operators, 0 to 1; 0 where the profiler saw no time at all.
        name: the node's; empty for a type.
    """

    operator: str
    placed: str
    nodes: int
    time_ms: float
    share: float
    name: str = ""


@dataclass(frozen=True)
class OperatorProfile:
    """A profile, slowest first.

    Attributes:
        runs: inferences it covers.
        types: by type and place.
        nodes: single nodes.
        preferred: provider or delegate meant to run all operators.
        note: why there are no operators; empty where there are.
    """

    runs: int
    types: tuple[Operator, ...]
    nodes: tuple[Operator, ...]
    preferred: str
    note: str

    @property
    def fallbacks(self) -> tuple[Operator, ...]:
        """Types that another than the preferred provider or delegate runs."""
        return tuple(item for item in self.types if item.placed != self.preferred)


def summarize(profile: Profile) -> OperatorProfile:
    """Sum up a runner's profile by type and place."""
    total_ms = sum(item.time_ms for item in profile.operators)

    def share(time_ms: float) -> float:
        return time_ms / total_ms if total_ms else 0.0

    groups: dict[tuple[str, str], list[float]] = {}
    for item in profile.operators:
        groups.setdefault((item.operator, item.placed), []).append(item.time_ms)
    types = [
        Operator(operator, placed, len(times), sum(times), share(sum(times)))
        for (operator, placed), times in groups.items()
    ]
    nodes = [
        Operator(item.operator, item.placed, 1, item.time_ms, share(item.time_ms), item.name)
        for item in profile.operators
    ]
    return OperatorProfile(
        profile.runs,
        tuple(sorted(types, key=_slowest_first)),
        tuple(sorted(nodes, key=_slowest_first)),
        profile.preferred,
        profile.note,
    )


def table(profile: OperatorProfile) -> str:
    """The slowest types, the slowest nodes and the fall-backs, in lines of at most 100 columns."""
    if not profile.types:
        return f"where the time goes: not known: {profile.note or 'no operator was seen'}"
    shown, rest = profile.types[:_TYPES], profile.types[_TYPES:]
    lines = [
        f"where the time goes (separate profiled run, {profile.runs} inferences; "
        "shares count, not times):",
        _row("operator", "placed", "share", "time"),
        *(_line(item) for item in shown),
    ]
    if rest:
        others = Operator(
            f"{len(rest)} other types",
            "",
            sum(item.nodes for item in rest),
            sum(item.time_ms for item in rest),
            sum(item.share for item in rest),
        )
        lines.append(_line(others))
    if not sum(item.time_ms for item in profile.types):
        lines.append("  every operator is too short for the profiler's clock")
    slowest = [
        f"{_cut(f'{item.name} {item.operator}', 22)} {_percent(item.share)}"
        for item in profile.nodes[:_NODES]
        if item.share
    ]
    if slowest:
        lines.append(f"  slowest: {', '.join(slowest)}")
    if profile.fallbacks:
        lines.append(_fallback_line(profile))
    return "\n".join(lines)


def as_data(profile: OperatorProfile) -> dict[str, Any]:
    """The profile for a report: the slowest types and the fall-backs."""

    def data(item: Operator) -> dict[str, Any]:
        return {
            "operator": item.operator,
            "placed": item.placed,
            "nodes": item.nodes,
            "share": item.share,
            "time_ms": item.time_ms,
        }

    return {
        "runs": profile.runs,
        "note": profile.note,
        "operators": [data(item) for item in profile.types[:_TYPES]],
        "fallbacks": [data(item) for item in profile.fallbacks],
    }


def _fallback_line(profile: OperatorProfile) -> str:
    share = _percent(sum(item.share for item in profile.fallbacks))
    names = ", ".join(f"{item.operator} x{item.nodes}" for item in profile.fallbacks)
    head = f"  not on {_short(profile.preferred)}: {share} of the time: "
    return head + _cut(names, 100 - len(head))


def _slowest_first(item: Operator) -> tuple[float, str, str, str]:
    return (-item.time_ms, item.operator, item.name, item.placed)


def _line(item: Operator) -> str:
    name = item.operator if item.nodes == 1 else f"{item.operator} x{item.nodes}"
    bar = "█" * round(item.share * _BAR_WIDTH)
    return _row(name, _short(item.placed), _percent(item.share), format_time(item.time_ms), bar)


def _row(operator: str, placed: str, share: str, time: str, bar: str = "") -> str:
    cells = (
        f"  {_cut(operator, _OPERATOR_WIDTH):{_OPERATOR_WIDTH}}"
        f"  {_cut(placed, _PLACED_WIDTH):{_PLACED_WIDTH}}  {share:>5}  {time:>9}  {bar}"
    )
    return cells.rstrip()


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
