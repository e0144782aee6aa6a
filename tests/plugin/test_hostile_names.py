"""Names in model files that would write to the terminal, or command a CI, through every view."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import Judge

pytest.importorskip("onnxruntime")

NAME = "Evil\x1b[2J\x1b]0;owned\x07\n::error::pass\u202e\x9b31m"
SUITE = f"""
import onnx

NAME = {NAME!r}


def renamed(model, path):
    file = onnx.load(HERE / "tiny_file.onnx")
    file.graph.node[1].op_type = NAME
    file.graph.node[1].name = NAME
    onnx.save(file, path)


def wrong(model, path):
    file = onnx.load(HERE / "tiny_file.onnx")
    node = file.graph.node[0]
    weight = onnx.numpy_helper.to_array(file.graph.initializer[0])
    file.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight * 0.5, NAME))
    node.input[1] = NAME
    node.name = NAME
    onnx.save(file, path)


class TestUnknown(Conformance):
    model = file_model(builders={{"ort": renamed}})


class TestWrong(Conformance):
    model = file_model(builders={{"ort": wrong}})

"""


def assert_fit(text: str) -> None:
    hostile = {"\x1b", "\x07", "\u202e", "\x9b"}
    assert not hostile & set(text)
    assert "::error" not in text


def test_no_view_passes_them_on(judge: Judge) -> None:
    run = judge(
        SUITE,
        *("--edge-targets=ort", "--edge-checks=export,parity", "--edge-explain=yes", "-vv"),
        *("--edge-html=edge.html", "--edge-summary=edge.md", "--junitxml=junit.xml"),
    )
    assert run.status == 1, run.output
    assert_fit(run.output)
    assert "Evil\\x1b[2J" in run.cases["unknown/ort/fp32/export"]["reason"]
    assert run.cases["wrong/ort/fp32/parity"]["verdict"] == "failed"
    assert_fit(json.dumps(run.report, ensure_ascii=False))
    for name in ("edge.html", "edge.md"):
        assert_fit((run.directory / name).read_text())
    ElementTree.parse(run.directory / "junit.xml")


@pytest.mark.parametrize("command", ["report", "merge", "history import"])
def test_no_command_passes_on_what_a_report_says(command: str, judge: Judge) -> None:
    run = judge(
        "class TestTiny(Conformance):\n    model = file_model()\n",
        *("--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=export"),
    )
    assert run.report is not None
    text = json.dumps(run.report).replace("tiny", json.dumps(NAME)[1:-1])
    path = run.directory / "hostile.json"
    path.write_text(text)
    arguments = {
        "report": ["report", "hostile.json", "--html", "hostile.html"],
        "merge": ["merge", "hostile.json", "-o", "merged.json"],
        "history import": ["history", "import", "hostile.json", "--edge-history", "h.db"],
    }[command]
    done = _edgecheck(run.directory, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_fit(done.stdout + done.stderr)
    for name in ("hostile.html", "merged.json"):
        if (run.directory / name).exists():
            assert_fit(json.dumps((run.directory / name).read_text(), ensure_ascii=False))
    if command == "history import":
        shown = _edgecheck(run.directory, "report", "main", "--edge-history", "h.db")
        listed = _edgecheck(run.directory, "history", "list", "--edge-history", "h.db")
        assert_fit(shown.stdout + shown.stderr + listed.stdout)


def _edgecheck(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecheck.commands.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
