"""Verdicts: what a check concluded about a case, and the evidence for it, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from edgecheck.declare.budget import Limit


class Outcome(StrEnum):
    """What became of a case.

    ``failed`` closes the gate; ``not_checked``: this machine could not; ``unsupported``: the
    target has no such precision; ``inconclusive``: the noise is larger than the margin.
    """

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not_checked"
    UNSUPPORTED = "unsupported"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Comparison:
    """A measured value held against a limit.

    Attributes:
        subject: what was measured where a check measures several things (an output), or "".
        measured: in the limit's unit.
        low, high: the confidence interval of what was measured; None where it is exact.
        resolution: the relative difference that is too small to matter.
    """

    limit: Limit
    measured: float
    subject: str = ""
    low: float | None = None
    high: float | None = None
    resolution: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """Passed where the whole interval keeps the limit, failed where none of it does.

        With a resolution, the limit is widened by it for passing, and the measured value itself
        must be beyond that to fail: a regression needs significance and magnitude.
        """
        if self.low is None or self.high is None:
            return Outcome.PASSED if self.limit.allows(self.measured) else Outcome.FAILED
        worst, best = self.low, self.high
        if self.limit.bound == "max":
            worst, best = best, worst
        widened = self.limit.widened(self.resolution)
        if widened.allows(worst):
            return Outcome.PASSED
        if not self.limit.allows(best) and not widened.allows(self.measured):
            return Outcome.FAILED
        return Outcome.INCONCLUSIVE

    @property
    def passed(self) -> bool:
        """Whether the limit is kept."""
        return self.outcome is Outcome.PASSED

    def sentence(self) -> str:
        """The comparison in words."""
        name = f"{self.limit.name}[{self.subject}]" if self.subject else self.limit.name
        sign = "<=" if self.limit.bound == "max" else ">="
        measured, limit = self.limit.texts(self.measured)
        if self.outcome is Outcome.INCONCLUSIVE and self.low is not None and self.high is not None:
            low, high = (self.limit.texts(value)[0] for value in (self.low, self.high))
            return (
                f"{name} {measured} can't be told from {sign} {limit} ({self.limit.origin}): "
                f"it is somewhere in {low} .. {high}"
            )
        verb = "is" if self.passed else "is not"
        return f"{name} {measured} {verb} {sign} {limit} ({self.limit.origin})"


@dataclass(frozen=True)
class Verdict:
    """The conclusion of one check on one case.

    Attributes:
        reason: one line: why it did not pass, or "".
        failures: further lines where more than one thing is wrong.
        warnings: what a person should look at though it does not fail.
        comparisons: every limit that was held against a measurement.
        measurements: plain JSON data, units in the names.
        details: text for the failure report (worst element, seed, needed tolerance).
    """

    outcome: Outcome
    reason: str = ""
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    measurements: Mapping[str, Any] = field(default_factory=dict)
    details: str = ""


@dataclass(frozen=True)
class Evidence:
    """What was found besides a check's comparisons; the fields are those of `Verdict`."""

    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    measurements: Mapping[str, Any] = field(default_factory=dict)
    details: str = ""


def extended(verdict: Verdict, evidence: Evidence) -> Verdict:
    """The verdict with further evidence: failed where that has failures."""
    failures = (*verdict.failures, *evidence.failures)
    if verdict.outcome is not Outcome.FAILED:
        failures = (*evidence.failures, *verdict.failures)  # what is certain first
    return replace(
        verdict,
        outcome=Outcome.FAILED if evidence.failures else verdict.outcome,
        reason=failures[0] if evidence.failures else verdict.reason,
        failures=failures,
        warnings=(*verdict.warnings, *evidence.warnings),
        measurements={**verdict.measurements, **evidence.measurements},
        details="\n".join(filter(None, [verdict.details, evidence.details])),
    )


def conclude(
    *,
    failures: Iterable[str] = (),
    comparisons: Iterable[Comparison] = (),
    warnings: Iterable[str] = (),
    measurements: Mapping[str, Any] | None = None,
    details: str = "",
) -> Verdict:
    """The verdict that follows: failed where anything failed or any limit is broken.

    Inconclusive where nothing is broken for certain, but a limit lies within the noise.
    """
    comparisons = tuple(comparisons)
    broken = [item.sentence() for item in comparisons if item.outcome is Outcome.FAILED]
    unclear = [item.sentence() for item in comparisons if item.outcome is Outcome.INCONCLUSIVE]
    failures = (*failures, *broken)
    outcome = Outcome.INCONCLUSIVE if unclear else Outcome.PASSED
    if failures:
        outcome = Outcome.FAILED
    failures = (*failures, *unclear)
    return Verdict(
        outcome=outcome,
        reason=failures[0] if failures else "",
        failures=failures,
        warnings=tuple(warnings),
        comparisons=comparisons,
        measurements=measurements or {},
        details=details,
    )
