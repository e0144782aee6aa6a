"""What a runner tells of a model file besides its outputs: where operators run, and how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Placement:
    """Where the operators of a file really run.

    Attributes:
        operators: how many run; None if that is not known.
        undelegated_operators: how many of them run elsewhere than on the delegate or the provider
            that was asked for; None if that is not known, or none was asked for.
        undelegated_operators_by_type: the same by type.
        asked_provider: the one that was asked for first; "" if the runtime has no such choice.
        operators_by_provider: count by provider.
        facts: what else the runtime tells, for the record.
        warnings: what a reader should know of how the file runs here, a line each.
    """

    operators: int | None = None
    undelegated_operators: int | None = None
    undelegated_operators_by_type: Mapping[str, int] = field(default_factory=dict)
    asked_provider: str = ""
    operators_by_provider: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """What is known, as one level of plain data for reports."""
        known: dict[str, Any] = dict(self.facts)
        if self.asked_provider:
            known["asked_provider"] = self.asked_provider
        if self.operators_by_provider:
            known["operators_by_provider"] = dict(self.operators_by_provider)
        if self.operators is not None:
            known["operators"] = self.operators
        if self.undelegated_operators is not None:
            known["undelegated_operators"] = self.undelegated_operators
            known["undelegated_operators_by_type"] = dict(self.undelegated_operators_by_type)
        return known


@dataclass(frozen=True)
class OperatorTime:
    """What one operator takes of a mean inference.

    Attributes:
        operator: its type, as the runtime names it.
        name: the node's.
        placed: the provider or delegate that runs it.
        calls: how often it runs in an inference.
    """

    operator: str
    name: str
    placed: str
    time_ms: float
    calls: float


@dataclass(frozen=True)
class Profile:
    """Where time goes, from inferences of their own: profiling slows them, up to ninefold.

    Attributes:
        runs: inferences measured.
        preferred: the provider or delegate meant to run all.
        note: why there are no operators, or "".
    """

    operators: tuple[OperatorTime, ...] = ()
    runs: int = 0
    preferred: str = ""
    note: str = ""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Profile:
        """A profile of plain data, as `dataclasses.asdict` gives it."""
        operators = tuple(OperatorTime(**item) for item in data["operators"])
        return cls(**{**data, "operators": operators})

    def as_data(self) -> dict[str, Any]:
        """Plain data that `from_data` takes."""
        return {**asdict(self), "operators": [asdict(item) for item in self.operators]}
