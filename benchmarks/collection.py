"""How long pytest takes to collect ten thousand declared cases."""

from __future__ import annotations

import re
import statistics
import tempfile
from pathlib import Path

from benchmarks.common import PLUGIN, BenchmarkError, Row, at_most, environment, pytest

# 170 models x 2 targets x 6 precisions x 5 checks.
MODULES = 17
CLASSES_PER_MODULE = 10
EXPECTED_CASES = 10_200
LIMIT_S = 3.0
RUNS = 3
_HEAD = """
import edgecheck


def nothing():
    raise AssertionError("collecting calls no function of the user's")


def model():
    return edgecheck.Model(
        nothing,
        inputs=[edgecheck.Input("image", ("batch", 3, 32, 32), low=0.0, high=1.0)],
        outputs=["logits"],
        qat=nothing,
        calibration=nothing,
        evaluation=edgecheck.Evaluation(nothing, nothing, metric=edgecheck.metrics.top1),
    )

"""
_CLASS = """
class TestModel{number}(edgecheck.Conformance):
    model = model()
    budget = edgecheck.Budget(latency_p95="5 ms", size="1 MB", accuracy_drop={{"int8": 0.02}})

"""
# The same number of test cases with the same ids and marks, by means of pytest alone.
_PLAIN_HEAD = """
import pytest

CASES = [
    pytest.param(
        (target, precision),
        id=f"{target}-{precision}",
        marks=[getattr(pytest.mark, target), getattr(pytest.mark, precision)],
    )
    for target in ("ort", "tflite")
    for precision in ("fp32", "fp16", "int8-dynamic", "int8", "int8-qat", "int4")
]


@pytest.fixture
def case(request):
    return request.param

"""
_PLAIN_CLASS = """
class TestModel{number}:
"""
_PLAIN_TEST = """
    @pytest.mark.parametrize("case", CASES, indirect=True)
    def test_{check}(self, case):
        pass
"""


def measure(quick: bool) -> list[Row]:
    """Time whole pytest processes that collect and do nothing else."""
    runs = 1 if quick else RUNS
    plain_class = _PLAIN_CLASS + "".join(
        _PLAIN_TEST.format(check=check)
        for check in ("export", "parity", "accuracy", "latency", "memory")
    )
    plain_s, _ = _collect(_PLAIN_HEAD, plain_class, [], runs)
    took_s, cases = _collect(_HEAD, _CLASS, [*PLUGIN, "--edge-targets=ort,tflite"], runs)
    return [
        at_most(f"collecting {cases:,} declared cases", took_s, LIMIT_S, "s"),
        Row("  as many parametrized tests without edgecheck", f"{plain_s:.3g} s"),
    ]


def _collect(head: str, body: str, options: list[str], runs: int) -> tuple[float, int]:
    """The median time, and the number of test cases that pytest says it collected."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for module in range(MODULES):
            first = module * CLASSES_PER_MODULE
            numbers = range(first, first + CLASSES_PER_MODULE)
            classes = "".join(body.format(number=number) for number in numbers)
            (place / f"test_models_{module}.py").write_text(head + classes)
        finished = [
            pytest(["--collect-only", "-q", *options], cwd=place, env=environment())
            for _ in range(runs)
        ]
    found = re.search(r"^(\d+) tests collected", finished[-1].output, re.MULTILINE)
    count = int(found[1]) if found else 0
    if count != EXPECTED_CASES:
        raise BenchmarkError(f"{count} cases were collected, not {EXPECTED_CASES}")
    return statistics.median(run.wall_s for run in finished), count
