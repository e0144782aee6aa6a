"""The Conformance class: inherit it, declare a model, and get the standard checks as tests."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from edgecheck.build.builder import Built
from edgecheck.capture.data import save_feed
from edgecheck.checks import run_check
from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case
from edgecheck.declare.model import Model
from edgecheck.errors import EdgecheckError
from edgecheck.history.compare import CaseComparison, Change
from edgecheck.history.metrics import value_text
from edgecheck.history.past import Past
from edgecheck.history.reuse import inputs_digest
from edgecheck.judge.verdict import Outcome, Verdict
from edgecheck.plugin.options import Options
from edgecheck.report import comparison as comparison_report
from edgecheck.report import record as records
from edgecheck.workbench import Workbench

Array = npt.NDArray[Any]


class InconclusiveWarning(UserWarning):
    """A limit lies within the noise of what was measured."""


class CaseRun:
    """What a test gets as ``case``: one candidate, and the means to examine it.

    Attributes:
        case: model, target and precision.
        verdict: of the check that was made, or None.
        comparison: of its numbers with the baseline's, or None.
        inputs_sha256: of all that decides the check's outcome, where ``--edge-reuse`` asks for it.
        reused: the baseline's record that was taken over, or None.

    Args:
        options: of the run.
        past: what the run is held against besides its limits.
        device: what its numbers depend on (see `edgecheck.report.record.device`).
    """

    def __init__(
        self,
        case: Case,
        workbench: Workbench,
        directory: Path,
        options: Options,
        past: Past,
        device: Mapping[str, Any],
    ) -> None:
        self.case = case
        self.verdict: Verdict | None = None
        self.comparison: CaseComparison | None = None
        self.inputs_sha256: str | None = None
        self.reused: Mapping[str, Any] | None = None
        self._options = options
        self._past = past
        self._device = device
        self._workbench = workbench
        self._directory = directory
        self._runs = 0

    def check(self, name: str) -> Verdict:
        """Make a standard check; the test fails unless it passed.

        One that is inconclusive fails, warns or skips, as ``--edge-noise`` says. With
        ``--edge-reuse``, what passed before from the same file and inputs is not made again.
        """
        verdict = self._taken_over(name) or run_check(name, self._workbench, self.case)
        self.verdict = verdict
        self.comparison = self._past.compare(self._record(name, verdict))
        accepted = verdict.outcome is Outcome.INCONCLUSIVE and self._options.noise != "fail"
        if accepted or verdict.outcome is Outcome.PASSED:
            self._fail_on_regression(name)
        if accepted:
            if self._options.noise == "skip":
                pytest.skip(f"inconclusive: {verdict.reason}")
            text = f"{self.case.candidate} {name}: inconclusive: {verdict.reason}"
            warnings.warn(InconclusiveWarning(text), stacklevel=2)
            return verdict
        if verdict.outcome is Outcome.NOT_CHECKED:
            pytest.skip(verdict.reason)
        if verdict.outcome is not Outcome.PASSED:
            pytest.fail(failure_text(self.case, name, verdict), pytrace=False)
        return verdict

    def _taken_over(self, name: str) -> Verdict | None:
        """The verdict of the baseline, where nothing that decides it has changed."""
        if self._options.reuse != "yes":
            return None
        self.inputs_sha256 = inputs_digest(self.case, name, self._workbench, self._device)
        before = self._past.records.get(f"{self.case.candidate}/{name}")
        if before is None or self.inputs_sha256 != before["inputs_sha256"]:
            return None
        self.reused = before
        return Verdict(
            Outcome.PASSED,
            warnings=tuple(before["warnings"]),
            measurements=before["measurements"],
            details=before.get("details", ""),
        )

    def _record(self, name: str, verdict: Verdict) -> dict[str, Any]:
        base = {"key": f"{self.case.candidate}/{name}"}
        return {**records.judged(base, verdict, self.built), "device": self._device}

    def _fail_on_regression(self, name: str) -> None:
        found = self.comparison.regressions if self.comparison else ()
        if not found or "regression" not in self._past.fail_on:
            return
        assert self._past.baseline is not None
        first, *others = map(_change_line, comparison_report.worst_first(found))
        before = self._past.baseline.run_of(f"{self.case.candidate}/{name}")
        head = f"{self.case.candidate} {name}: regression against {before.name}"
        lines = [f"{head}: {first}", *(f"also: {line}" for line in others)]
        pytest.fail("\n".join(lines), pytrace=False)

    @property
    def built(self) -> Built | None:
        """The candidate's model file and what is known of it; None where there is none."""
        try:
            return self._workbench.built(self.case)
        except EdgecheckError:
            return None

    @property
    def artifact(self) -> Path:
        """The candidate's model file."""
        return self._workbench.built(self.case).path

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The candidate's outputs by declared name; the test is skipped where it can't be run."""
        if reason := self.case.target.gap("run", self.case.precision, self.case.options):
            pytest.skip(reason)
        session = self._workbench.session(self.case)
        (outputs,) = session.run([self._feed(inputs)], self._folder("outputs"))
        return {name: np.load(path, allow_pickle=False) for name, path in outputs.items()}

    def reference(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The reference's outputs by declared name."""
        (outputs,) = self._workbench.reference_outputs(
            self.case, [self._feed(inputs)], f"{self._directory}/{self._runs}", main=True
        )
        return {name: np.load(path, allow_pickle=False) for name, path in outputs.items()}

    def _feed(self, inputs: Mapping[str, Array]) -> dict[str, str]:
        self._runs += 1
        return save_feed(inputs, self._folder("inputs"))

    def _folder(self, name: str) -> Path:
        folder = self._directory / f"{self._runs}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _change_line(change: Change) -> str:
    metric = comparison_report.metric_text(change)
    before, after = (value_text(change.metric, value) for value in (change.before, change.after))
    return (
        f"{metric} {before} -> {after} ({comparison_report.change_text(change)}; "
        f"counts from {comparison_report.needed_text(change)})"
    )


def failure_text(case: Case, check: str, verdict: Verdict) -> str:
    """What a person needs who sees a failed check."""
    lines = [f"{case.candidate} {check}: {verdict.reason}"]
    lines += [f"also: {line}" for line in verdict.failures[1:]]
    lines += [f"warning: {line}" for line in verdict.warnings]
    if verdict.details:
        lines.append(verdict.details)
    return "\n".join(lines)


class Conformance:
    """Subclass this as ``Test...`` and set `model`; each candidate gets the five checks.

    Tests of your own in the same class take ``case`` (a `CaseRun`) and run for every candidate too.
    """

    model: ClassVar[Model]
    budget: ClassVar[Budget] = Budget()

    def test_export(self, case: CaseRun) -> None:
        """The file is valid, loads, and is what it says it is."""
        case.check("export")

    def test_parity(self, case: CaseRun) -> None:
        """Its outputs agree with the reference's."""
        case.check("parity")

    def test_accuracy(self, case: CaseRun) -> None:
        """It is about as accurate as the reference."""
        case.check("accuracy")

    def test_latency(self, case: CaseRun) -> None:
        """It is fast enough."""
        case.check("latency")

    def test_memory(self, case: CaseRun) -> None:
        """It fits in memory."""
        case.check("memory")
