"""Each report is written by itself: one that breaks takes no other along, and fails the run."""

from __future__ import annotations

import pytest

from tests.conftest import Judge

BREAKS = """
from edgecheck.report import {module}


def broken(*_, **__):
    raise OverflowError("cannot convert float infinity to integer")


{module}.{function} = broken


class TestTiny(Conformance):
    model = model()
"""


@pytest.mark.parametrize(
    ("module", "function", "what"),
    [
        ("html", "write", "no html written"),
        pytest.param("summary", "as_markdown", "no summary written", marks=pytest.mark.long),
        pytest.param("terminal", "summary_lines", "no table shown", marks=pytest.mark.long),
    ],
)
def test_a_view_that_raises_is_a_line_and_the_others_are_whole(
    judge: Judge, module: str, function: str, what: str
) -> None:
    run = judge(
        BREAKS.format(module=module, function=function),
        *("--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=export"),
        *("--edge-html=edge.html", "--edge-summary=edge.md", "--junitxml=junit.xml"),
    )
    assert run.status == 1, run.output
    assert f"{what}: internal error, please report it: OverflowError: cannot" in run.output
    assert "gate passed: 1 cases" in run.output
    assert "INTERNALERROR" not in run.output
    assert run.cases["tiny/ort/fp32/export"]["verdict"] == "passed"
    written = {path.name for path in run.directory.iterdir()}
    assert {"edge.html", "edge.md", "junit.xml"} - written <= {
        {"html": "edge.html", "summary": "edge.md", "terminal": ""}[module]
    }
