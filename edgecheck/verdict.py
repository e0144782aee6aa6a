"""Verdicts: what a check concluded about a case, and the evidence for it, as plain values.

Not for reaching one: that is `edgecheck.checks`; not for showing one: that is `edgecheck.report`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edgecheck.budget import Limit


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
    """

    limit: Limit
    measured: float
    subject: str = ""

    @property
    def passed(self) -> bool:
        """Whether the limit is kept."""
        return self.limit.allows(self.measured)

    def sentence(self) -> str:
        """The comparison in words."""
        name = f"{self.limit.name}[{self.subject}]" if self.subject else self.limit.name
        sign = "<=" if self.limit.bound == "max" else ">="
        verb = "is" if self.passed else "is not"
        measured, limit = self.limit.texts(self.measured)
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


def conclude(
    *,
    failures: Iterable[str] = (),
    comparisons: Iterable[Comparison] = (),
    warnings: Iterable[str] = (),
    measurements: Mapping[str, Any] | None = None,
    details: str = "",
) -> Verdict:
    """The verdict that follows: failed where anything failed or any limit is broken."""
    comparisons = tuple(comparisons)
    failures = (*failures, *(item.sentence() for item in comparisons if not item.passed))
    return Verdict(
        outcome=Outcome.FAILED if failures else Outcome.PASSED,
        reason=failures[0] if failures else "",
        failures=failures,
        warnings=tuple(warnings),
        comparisons=comparisons,
        measurements=measurements or {},
        details=details,
    )
