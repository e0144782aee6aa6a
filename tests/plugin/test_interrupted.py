"""A run that was cancelled says so, whatever the moment and the signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from tests.conftest import Judge, write_tiny

# One class has no case on the target; then a module of the suite takes its time.
SUITE = """
import edgecheck

def declared(**other):
    return edgecheck.Model(
        "tiny_file.onnx", inputs=[edgecheck.Input("x", ("batch", 16))], outputs=["logits"], **other
    )

class TestNone(edgecheck.Conformance):
    model = declared(targets={"tflite": ["fp32"]})

class TestTiny(edgecheck.Conformance):
    model = declared(targets={"ort": ["fp32"]})

    def test_slow(self, case):
        open("running", "w").close()
        import time
        time.sleep(300)
"""
SLOW = "open('running', 'w').close()\nimport time\ntime.sleep(300)\n"


@pytest.mark.parametrize(
    "whole_group", [False, pytest.param(True, marks=pytest.mark.long)], ids=["process", "group"]
)
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "cancel"])
@pytest.mark.parametrize("moment", ["collection", "run", "run over workers"])
def test_it_is_reported_as_interrupted_and_leaves_nothing(
    tmp_path: Path, moment: str, stop: signal.Signals, whole_group: bool
) -> None:
    write_tiny(tmp_path)
    (tmp_path / "test_suite.py").write_text(SUITE)
    if moment == "collection":
        (tmp_path / "test_waits.py").write_text(SLOW)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--edge-history=none"),
        *("--edge-targets=ort", "--edge-checks=export", "--edge-json=edge.json"),
        *("--junitxml=junit.xml", f"--edge-lock={tmp_path / 'lock'}"),
        *(("-n", "2") if moment.endswith("workers") else ()),
    ]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    _wait_for(tmp_path / "running")
    if whole_group:  # as a terminal and some CIs do
        os.killpg(run.pid, stop)
    else:
        run.send_signal(stop)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "INTERNALERROR" not in output
    assert "gate closed: interrupted" in output
    report: dict[str, Any] = json.loads((tmp_path / "edge.json").read_text())
    assert report["run"]["exit_status"] == pytest.ExitCode.INTERRUPTED
    assert report["gate"]["verdict"] == "closed"
    assert report["gate"]["reason"].startswith("gate closed: interrupted")
    assert (tmp_path / "junit.xml").is_file()
    assert list(temporary.glob("edgecheck-*")) == []


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_exit_that_calls_itself_a_success_is_none(judge: Judge) -> None:
    suite = """
    class TestTiny(Conformance):
        model = file_model(targets={"ort": ["fp32"]})

        def test_early(self, case):
            pytest.exit("enough", returncode=0)

        def test_late(self, case):
            pass
    """
    run = judge(
        f"import pytest\n{textwrap.dedent(suite)}",
        *("--edge-targets=ort", "--edge-checks=export", "--edge-missing=skip"),
    )
    assert run.status == pytest.ExitCode.TESTS_FAILED
    assert "gate closed: the run ended before 2 of 3 cases" in run.output
