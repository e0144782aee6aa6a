"""What noise floor and vacuity cost the parity check, against its inference.

A fresh workbench for each turn; both sides are loaded and have run once, the reference in float64
too: what PyTorch imports for that is a second once a process. Not for conversions or whole runs:
see `benchmarks.matrix`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.common import Row, at_most, told
from edgecheck.checks import boundary, reference_baselines, rerun
from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case
from edgecheck.declare.settings import Settings
from edgecheck.targets.registry import find_target
from edgecheck.workbench import Workbench
from suites.test_digits import TestDigits
from suites.test_mobilenet import TestMobilenet

LIMIT = 1.5
TURNS = 5
MODELS = {"mobilenet": TestMobilenet.model, "digits": TestDigits.model}
# Of the small model what counts is milliseconds: fixed costs of a call are more than its inference.
LIMITED = ("mobilenet",)
CANDIDATES = (
    ("ort", "fp32"),
    ("ort", "fp16"),
    ("ort", "int8"),
    ("tflite", "fp32"),
    ("tflite", "int8"),
)


Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Seconds of one turn.

    Attributes:
        inference_s: of reference and candidate on parity's inputs.
        floors_s: of noise, honest quantizer and vacuity.
        rest_s: of the domain's bounds and of repeated runs.
    """

    inference_s: float
    floors_s: float
    rest_s: float

    @property
    def ratio(self) -> float:
        """Parity with its floors over bare inference."""
        return (self.inference_s + self.floors_s) / self.inference_s


def measure(quick: bool) -> list[Row]:
    """Time the parts of parity for a large and a small model."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for name in LIMITED if quick else MODELS:
            for target, precision in CANDIDATES[:1] if quick else CANDIDATES:
                case = Case(name, "", find_target(target), precision, MODELS[name], Budget())
                with told(f"parity_cost: {case.candidate}"):
                    turns = [_turn(case, Path(directory)) for _ in range(1 if quick else TURNS)]
                rows += _rows(case, turns)
    return rows


def _rows(case: Case, turns: list[Cost]) -> list[Row]:
    ratio = statistics.median(turn.ratio for turn in turns)
    inference, floors_ms, rest = (
        1000 * statistics.median(getattr(turn, what) for turn in turns)
        for what in ("inference_s", "floors_s", "rest_s")
    )
    what = f"{case.candidate}: parity over its inference"
    first = (
        at_most(what, ratio, LIMIT, "x")
        if case.model_name in LIMITED
        else Row(what, f"{ratio:.3g} x")
    )
    times = f"{inference:.0f} + {floors_ms:.0f} ms, {rest:.0f} ms"
    return [first, Row("  inference + floors; bounds and repeats", times)]


def _turn(case: Case, directory: Path) -> Cost:
    scratch = Path(tempfile.mkdtemp(dir=directory))
    workbench = Workbench(
        Settings(directory / "cache", scratch, lock=directory / "lock", sharers=2)
    )
    try:
        feeds = workbench.feeds(case)
        session = workbench.session(case)
        workbench.reference_outputs(case, feeds.feeds[:1], "warm", main=False)
        session.run(feeds.feeds[:1], scratch / "warm")
        name, source = workbench.reference_source(case, main=False) or ("", "")
        workbench.sources.simulate(
            name, source, case.model, feeds.feeds[:1], [1], "warm", {"kind": "float64"}
        )
        reference, reference_s = _timed(
            lambda: workbench.reference_outputs(case, feeds.feeds, "parity", main=False)
        )
        results, candidate_s = _timed(lambda: workbench.feed_outputs(case))
        limits = {name: case.limits(name) for name in case.model.outputs}
        _, floors_s = _timed(
            lambda: reference_baselines.measure(workbench, case, feeds, reference, results, limits)
        )
        _, boundary_s = _timed(lambda: boundary.measure(workbench, case))
        _, repeating_s = _timed(lambda: rerun.measure(workbench, case, {}))
    finally:
        workbench.close()
    return Cost(reference_s + candidate_s, floors_s, boundary_s + repeating_s)


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start
