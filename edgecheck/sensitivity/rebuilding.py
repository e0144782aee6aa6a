"""Rebuilds of a quantized candidate with layers kept in float, judged by the gate's own checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgecheck.checks import accuracy, export, parity
from edgecheck.digests import digest_of
from edgecheck.errors import EdgecheckError
from edgecheck.judge.verdict import Outcome, Verdict
from edgecheck.targets.common import keep_float

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench


@dataclass(frozen=True)
class Attempt:
    """A file with layers kept in float, and what the checks say of it.

    Attributes:
        keep: the layers; None for those that are declared.
        parity: of the parity check.
        accuracy: of the accuracy check; None without evaluation data.
    """

    keep: tuple[str, ...] | None
    size_bytes: int
    parity: Verdict
    accuracy: Verdict | None

    @property
    def passed(self) -> bool:
        """Whether parity and accuracy pass."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """What the two checks find wrong."""
        verdicts = [item for item in (self.parity, self.accuracy) if item is not None]
        return tuple(
            line
            for item in verdicts
            if item.outcome is not Outcome.PASSED
            for line in item.failures or (item.reason,)
        )

    @property
    def sqnr_db(self) -> float | None:
        """The worst output's SQNR, over the inputs that parity judges."""
        outputs: Mapping[str, Any] = self.parity.measurements.get("outputs", {})
        found = [item["sqnr_db"] for item in outputs.values() if "sqnr_db" in item]
        return min(found, default=None)

    @property
    def metric(self) -> float | None:
        """The user's metric on the evaluation data."""
        return self.accuracy.measurements["candidate"] if self.accuracy else None


class Rebuilder:
    """Rebuilds a candidate, each choice of layers once.

    Args:
        most: rebuilds that are made at most.
        progress: is told what is being done.
    """

    def __init__(
        self, workbench: Workbench, case: Case, most: int, progress: Callable[[str], None]
    ) -> None:
        self._workbench, self._case, self._progress = workbench, case, progress
        self._most = most
        self._made: dict[frozenset[str], Attempt] = {}

    @property
    def count(self) -> int:
        """Rebuilds so far."""
        return len(self._made)

    def affordable(self, keep: Collection[str]) -> bool:
        """Whether a choice was made before, or may be yet."""
        return frozenset(keep) in self._made or self.count < self._most

    def known(self, keep: Collection[str]) -> Attempt | None:
        """What was attempted before, or None."""
        return self._made.get(frozenset(keep))

    def declared(self) -> Attempt:
        """The candidate as it is declared."""
        names = self._case.model.target_options.get(maker(self._case), {}).get(
            keep_float.OPTION, {}
        )
        if names.get(keep_float.key(self._case.variant, self._case.precision)):
            return self._judged(self._case, None)
        return self.attempt(())

    def attempt(self, keep: Collection[str]) -> Attempt:
        """The candidate with just these layers in float.

        Raises:
            EdgecheckError: it can't be built or run.
        """
        chosen = frozenset(keep)
        if chosen not in self._made:
            ordered = tuple(sorted(chosen))
            shown = ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")
            self._progress(f"rebuild {self.count + 1}: {shown or 'nothing'} in float")
            self._made[chosen] = self._judged(self.case(ordered), ordered)
        return self._made[chosen]

    def case(self, keep: Collection[str]) -> Case:
        """The candidate's case with just these layers in float."""
        model, name = self._case.model, maker(self._case)
        trial = digest_of({keep_float.OPTION: sorted(keep)})[:12]
        return replace(
            self._case,
            model=replace(
                model,
                target_options={
                    **model.target_options,
                    name: {**model.target_options.get(name, {}), **option(self._case, keep)},
                },
            ),
            trial=f"with {trial}",
        )

    def export(self, keep: Collection[str]) -> Verdict:
        """The export check on a rebuild."""
        return export.run(self._workbench, self.case(keep))

    def _judged(self, case: Case, keep: tuple[str, ...] | None) -> Attempt:
        if reason := case.target.gap("parity", case.precision, case.options):
            raise EdgecheckError(f"{self._case.candidate} can't be judged here: {reason}")
        built = self._workbench.built(case)
        return Attempt(
            keep,
            built.size_bytes,
            parity.run(self._workbench, case),
            accuracy.run(self._workbench, case) if case.model.evaluation else None,
        )


def maker(case: Case) -> str:
    """The target that builds a candidate's file, whose options say what stays in float."""
    return case.target.files.shared_with or case.target.name


def option(case: Case, keep: Collection[str]) -> dict[str, Any]:
    """The option that keeps layers, besides what is declared for other precisions."""
    declared = case.model.target_options.get(maker(case), {}).get(keep_float.OPTION, {})
    names = {**declared, keep_float.key(case.variant, case.precision): sorted(keep)}
    return {keep_float.OPTION: {name: list(layers) for name, layers in names.items() if layers}}
