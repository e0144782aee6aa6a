"""Two runs compared: what got worse, what got better, what can't be told.

Pure functions of results. A change counts where it is larger than the least that matters, larger
than the values vary between runs anyway, and outside both confidence intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from edgecheck.history.metrics import HIGHER, Metric
from edgecheck.history.results import CaseResult, Reading, RunInfo, RunResults, fingerprint

# Of a change, in standard deviations between runs: both runs vary, so that 0.13 % of normal
# differences are larger on one side. A gate compares hundreds.
SPREADS = 3.0 * math.sqrt(2.0)
# Past values that it takes to know how far they vary.
LEAST_HISTORY = 8


class Direction(StrEnum):
    """What became of a number."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Change:
    """One number in two runs.

    Attributes:
        subject: the output that it is of, or "".
        needed: the least change that counts here, as a share or in the metric's unit.
        share: whether changes of this metric are shares of the earlier value.
    """

    key: str
    metric: str
    subject: str
    before: float
    after: float
    direction: Direction
    needed: float
    share: bool

    @property
    def change(self) -> float:
        """By how much, as a share of the earlier value or in the metric's unit."""
        return _change(self.before, self.after, absolute=not self.share)


@dataclass(frozen=True)
class CaseComparison:
    """A case in two runs.

    Attributes:
        worse: the verdict before and now, where it passed and does not any more; or None.
        incomparable: why numbers were left out, or "".
    """

    key: str
    changes: tuple[Change, ...] = ()
    worse: tuple[str, str] | None = None
    incomparable: str = ""

    @property
    def regressions(self) -> tuple[Change, ...]:
        """The numbers that got worse."""
        return tuple(item for item in self.changes if item.direction is Direction.REGRESSION)

    @property
    def improvements(self) -> tuple[Change, ...]:
        """The numbers that got better."""
        return tuple(item for item in self.changes if item.direction is Direction.IMPROVEMENT)


@dataclass(frozen=True)
class RunComparison:
    """Two runs compared.

    Attributes:
        cases: those in both, by key.
        vanished: keys of the earlier run only.
        new: keys of the later run only.
    """

    before: RunInfo
    after: RunInfo
    cases: Mapping[str, CaseComparison] = field(default_factory=dict)
    vanished: Sequence[str] = ()
    new: Sequence[str] = ()

    @property
    def regressions(self) -> list[Change]:
        """All numbers that got worse, the worst first within each metric."""
        return [change for case in self.cases.values() for change in case.regressions]

    @property
    def improvements(self) -> list[Change]:
        """All numbers that got better."""
        return [change for case in self.cases.values() for change in case.improvements]

    @property
    def worse_verdicts(self) -> list[tuple[str, str, str]]:
        """Key, verdict before and verdict now of the cases that passed and do not any more."""
        return [(key, *case.worse) for key, case in self.cases.items() if case.worse]

    @property
    def incomparable(self) -> dict[str, list[str]]:
        """Keys of the cases with numbers that were left out, by reason."""
        found: dict[str, list[str]] = {}
        for key, case in self.cases.items():
            if case.incomparable:
                found.setdefault(case.incomparable, []).append(key)
        return found

    @property
    def is_regression(self) -> bool:
        """Whether anything got worse: a number or a verdict."""
        return any(case.regressions or case.worse for case in self.cases.values())


def compare_runs(
    before: RunResults, after: RunResults, metrics: Mapping[str, Metric]
) -> RunComparison:
    """Compare the cases of two runs."""
    return RunComparison(
        before.run,
        after.run,
        {
            key: compare_case(before.cases[key], after.cases[key], metrics)
            for key in sorted(before.cases.keys() & after.cases.keys())
        },
        sorted(before.cases.keys() - after.cases.keys()),
        sorted(after.cases.keys() - before.cases.keys()),
    )


def compare_case(
    before: CaseResult, after: CaseResult, metrics: Mapping[str, Metric]
) -> CaseComparison:
    """Compare a case's numbers and verdicts; numbers of different devices are left out."""
    earlier = {item.place: item for item in before.readings}
    changes = []
    left_out = False
    same_device = fingerprint(before.device) == fingerprint(after.device) != ""
    same_file = before.artifact_sha256 == after.artifact_sha256 != ""
    for reading in after.readings:
        old, metric = earlier.get(reading.place), metrics.get(reading.metric)
        if old is None or metric is None:
            continue
        if metric.of_device and not same_device:
            left_out = True
            continue
        change = compare_reading(after.key, old, reading, metric)
        # The same file on the same device: what differs is the machine's mood, not the model.
        if metric.of_device and same_file:
            change = replace(change, direction=Direction.UNCHANGED)
        changes.append(change)
    worse = None
    if before.verdict == "passed" and after.verdict != "passed" and not after.accepted:
        worse = (before.verdict, after.verdict)
    return CaseComparison(
        after.key,
        tuple(changes),
        worse,
        _difference(before.device, after.device) if left_out else "",
    )


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    if not before or not after:
        return "the device is not known"
    names = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    told = ", ".join(f"{name} {before.get(name)} -> {after.get(name)}" for name in names)
    return f"another device: {told}"


def compare_reading(key: str, before: Reading, after: Reading, metric: Metric) -> Change:
    """Whether a number changed, and which way."""
    spread = metric.spread if before.spread is None else before.spread
    needed = metric.effect if metric.absolute else max(metric.effect, SPREADS * spread)
    change = _change(before.value, after.value, absolute=metric.absolute)
    if change < 0 and not metric.absolute:
        # As large a factor down as up: a share falls by no more than all of it.
        needed /= 1 + needed
    counts = (
        abs(change) > needed
        and abs(after.value - before.value) > metric.floor
        and not _overlap(before, after)
    )
    direction = Direction.UNCHANGED
    if counts:
        better = (change > 0) == (after.better == HIGHER)
        direction = Direction.IMPROVEMENT if better else Direction.REGRESSION
    return Change(
        key=key,
        metric=metric.name,
        subject=after.subject,
        before=before.value,
        after=after.value,
        direction=direction,
        needed=needed,
        share=not metric.absolute,
    )


def _change(before: float, after: float, *, absolute: bool) -> float:
    if absolute or before == after:
        return after - before
    if before == 0:
        return math.copysign(math.inf, after)
    return (after - before) / abs(before)


def _overlap(before: Reading, after: Reading) -> bool:
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return False
    return before.low <= after.high and after.low <= before.high


def spread_of(values: Sequence[float]) -> float | None:
    """How far past values of one case on one device vary, as a share of their median.

    The median absolute deviation, scaled to a normal standard deviation (1.4826; Rousseeuw & Croux
    1993): one odd run does not widen it. None where there are too few.
    """
    if len(values) < LEAST_HISTORY:
        return None
    ordered = sorted(values)
    center = _median(ordered)
    if center == 0:
        return None
    return 1.4826 * _median(sorted(abs(item - center) for item in ordered)) / abs(center)


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
