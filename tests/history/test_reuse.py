"""Taking over what passed before: what is the same, what is not, and that it is said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Judge, Judged
from tests.plugin.test_history import run_suite, save_tiny
from tests.report import documents

# The metric leaves a line in a file each time that it scores the candidate or the reference.
SUITE = """
import scoring

class TestTiny(Conformance):
    model = model(evaluation=Evaluation(
        np.eye(16, dtype=np.float32), labels=lambda: scoring.labels(), metric=scoring.METRIC))
    budget = Budget(size="1 MB", accuracy_drop=0.1)
"""
SCORING = """
from pathlib import Path
import numpy as np
from edgecheck import Metric

def labels():
    return np.arange(16) % 4

def score(predictions, labels):
    with open({scored!r}, "a") as stream:
        stream.write("scored\\n")
    return float((predictions.argmax(1) == labels).mean())

METRIC = Metric(score, "share")
"""
CHECKS = "--edge-checks=export,parity,accuracy,latency,memory"
QUICK = ("--edge-timing-limit=1",)
REUSE = ("--edge-baseline=base.json", "--edge-reuse")


class Bench:
    """A model, a metric that counts its calls, and runs of them."""

    def __init__(self, judge: Judge, directory: Path) -> None:
        self.judge = judge
        self.directory = directory
        self.file = save_tiny(directory / "tiny.onnx")
        self.scored = directory / "scored"

    def run(
        self, *arguments: str, suite: str = SUITE, scoring: str = SCORING, **files: str
    ) -> Judged:
        """One run; the calls of the metric are counted from zero."""
        self.scored.unlink(missing_ok=True)
        scoring = scoring.format(scored=str(self.scored))
        return run_suite(self.judge, self.file, suite, *arguments, scoring__py=scoring, **files)

    def calls(self) -> int:
        return len(self.scored.read_text().split()) if self.scored.exists() else 0


@pytest.fixture(scope="module")
def bench(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(judge, tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def base(bench: Bench) -> dict[str, Any]:
    """The report of a run that reuses nothing yet, and may be reused."""
    run = bench.run(CHECKS, *QUICK, *REUSE, base__json=json.dumps(EMPTY))
    assert run.status == 0, run.output
    assert bench.calls() >= 2
    assert {item["reused"] for item in run.cases.values()} == {None}
    assert all(item["inputs_sha256"] for item in run.cases.values())
    assert run.report is not None
    return run.report


EMPTY = documents.document([])


def reused(run: Judged) -> set[str]:
    """Checks of the cases that were taken over; the others were judged here."""
    assert run.report is not None, run.output
    assert {item["verdict"] for item in run.report["cases"]} == {"passed"}, run.output
    return {item["check"] for item in run.report["cases"] if item["reused"]}


def test_what_did_not_change_is_taken_over_and_said_so(bench: Bench, base: dict[str, Any]) -> None:
    run = bench.run(CHECKS, *QUICK, *REUSE, "-n2", base__json=json.dumps(base))
    assert reused(run) == {"export", "parity", "accuracy", "latency", "memory"}
    assert bench.calls() == 0
    before = {item["key"]: item for item in base["cases"]}
    for key, item in run.cases.items():
        assert item["reused"] == base["run"]["id"]
        # A second measurement would not have the very same times.
        for name in ("measurements", "limits", "inputs_sha256", "artifact"):
            assert item[name] == before[key][name]
    assert "5 of 5 cases taken over from the baseline" in run.output


def test_without_the_option_all_is_measured(bench: Bench, base: dict[str, Any]) -> None:
    arguments = ("--edge-checks=accuracy", "--edge-baseline=base.json")
    run = bench.run(*arguments, base__json=json.dumps(base))
    assert reused(run) == set()
    assert bench.calls() >= 2
    assert {item["inputs_sha256"] for item in run.cases.values()} == {None}


CHEAP = "--edge-checks=export,parity,accuracy"


@pytest.mark.long
def test_a_changed_limit_is_judged_again(bench: Bench, base: dict[str, Any]) -> None:
    # A limit is part of all checks' digests: which check judges which is not told.
    suite = SUITE.replace('"1 MB"', '"2 MB"')
    run = bench.run(CHEAP, *REUSE, suite=suite, base__json=json.dumps(base))
    assert "export" not in reused(run)
    (limit,) = [
        item for item in run.cases["tiny/ort/fp32/export"]["limits"] if item["name"] == "size"
    ]
    assert limit["limit"] == 2e6


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        # The metric's code.
        (
            "predictions.argmax(1) == labels",
            "labels == predictions.argmax(1)",
            {"export", "parity"},
        ),
        # What its numbers mean.
        ('"share")', '"share", fraction=False)', {"export", "parity"}),
        # The labels.
        ("% 4", "* 0", {"export", "parity"}),
    ],
)
@pytest.mark.long
def test_a_changed_metric_or_data_scores_again(
    bench: Bench, base: dict[str, Any], old: str, new: str, same: set[str]
) -> None:
    assert SCORING.count(old) == 1
    scoring = SCORING.replace(old, new)
    run = bench.run(CHEAP, *REUSE, scoring=scoring, base__json=json.dumps(base))
    assert reused(run) == same
    assert bench.calls() >= 2


@pytest.mark.parametrize(
    ("old", "new"), [("np.eye(16,", "np.zeros((16, 16),"), ("evaluation=", "seed=7, evaluation=")]
)
@pytest.mark.long
def test_changed_inputs_are_run_again(
    bench: Bench, base: dict[str, Any], old: str, new: str
) -> None:
    suite = SUITE.replace(old, new)
    run = bench.run("--edge-checks=export,parity", *REUSE, suite=suite, base__json=json.dumps(base))
    assert reused(run) == {"export"}


@pytest.mark.long
def test_a_changed_model_is_measured_again(
    judge: Judge, base: dict[str, Any], tmp_path: Path
) -> None:
    other = Bench(judge, tmp_path)
    save_tiny(other.file, seed=1)
    run = other.run(CHEAP, *REUSE, base__json=json.dumps(base))
    assert reused(run) == set()


@pytest.mark.long
def test_another_device_is_measured_and_another_processor_judged_again(
    bench: Bench, base: dict[str, Any]
) -> None:
    # The digests of the baseline are those of one thread.
    arguments = ("--edge-checks=parity,latency", *QUICK, *REUSE, "--edge-threads=2")
    run = bench.run(*arguments, base__json=json.dumps(base))
    assert reused(run) == {"parity"}


def test_what_did_not_pass_is_never_taken_over(bench: Bench, base: dict[str, Any]) -> None:
    verdicts = {"export": "failed", "parity": "inconclusive", "accuracy": "not_checked"}
    cases = [
        {**item, "verdict": verdicts.get(item["check"], item["verdict"])} for item in base["cases"]
    ]
    run = bench.run(CHEAP, *REUSE, base__json=json.dumps({**base, "cases": cases}))
    assert reused(run) == set()


def test_a_failure_fails_again(bench: Bench) -> None:
    suite = SUITE.replace('"1 MB"', '"1 B"')
    first = bench.run("--edge-checks=export", *REUSE, suite=suite, base__json=json.dumps(EMPTY))
    again = bench.run(
        "--edge-checks=export", *REUSE, suite=suite, base__json=json.dumps(first.report)
    )
    for run in (first, again):
        assert run.cases["tiny/ort/fp32/export"]["verdict"] == "failed"
    digests = {run.cases["tiny/ort/fp32/export"]["inputs_sha256"] for run in (first, again)}
    assert len(digests) == 1
    assert None not in digests
