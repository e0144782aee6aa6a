"""The checks: one module each, with ``run(workbench, case)`` that measures and judges.

In each, judging is a pure function of numbers and limits. A check knows nothing of pytest and of
particular targets.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecheck.errors import ChildError, EdgecheckError
from edgecheck.judge.verdict import Outcome, Verdict, extended
from edgecheck.plain import plain, plain_data

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

# Failures of these have a layer that they come from.
_LOCALIZED = ("parity", "accuracy")


def run_check(name: str, workbench: Workbench, case: Case) -> Verdict:
    """Make a check; what keeps it from being made is a failure, told in one line.

    What this machine can't check is not checked, with the reason. Texts of others, as names in
    model files, are fit to be shown (see `edgecheck.plain`).
    """
    verdict = _made(name, workbench, case)
    return replace(
        verdict,
        reason=plain(verdict.reason),
        failures=plain_data(verdict.failures),
        warnings=plain_data(verdict.warnings),
        measurements=plain_data(verdict.measurements),
        details=plain(verdict.details),
    )


def _made(name: str, workbench: Workbench, case: Case) -> Verdict:
    if reason := case.target.gap(name, case.precision, case.options):
        return Verdict(Outcome.NOT_CHECKED, reason=reason)
    module = importlib.import_module(f"edgecheck.checks.{name}")
    try:
        verdict: Verdict = module.run(workbench, case)
    except EdgecheckError as error:
        reason = str(error)
        tail = error.log_tail if isinstance(error, ChildError) else ""
        return Verdict(
            Outcome.FAILED,
            reason=reason,
            failures=(reason,),
            details=f"what the process printed last:\n{tail}" if tail else "",
        )
    failed = verdict.outcome is Outcome.FAILED
    known = "localization" in verdict.measurements
    if failed and name in _LOCALIZED and not known and workbench.settings.explain:
        from edgecheck.checks import first_layer

        verdict = extended(verdict, first_layer.measure(workbench, case))
    return verdict
