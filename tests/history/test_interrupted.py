"""Killed at any moment: the history holds only whole runs, the JSON file is the old or the new."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck.history import report_file
from edgecheck.history.database import History
from tests.history.conftest import assert_whole, rows
from tests.history.runs import many_cases, write_for_ever

CASES = 200
# How many, and the longest time in seconds until one: a server takes longer for a run.
MOMENTS = {"sqlite": (50, 0.25), "postgresql": (15, 0.5)}
RUN_MOMENTS = 4


def sizes(url: str) -> tuple[Any, ...]:
    """Runs, the cases that they say they have, and the rows that there are."""
    return rows(
        url,
        """
        SELECT count(*), coalesce(sum(cases), 0), (SELECT count(*) FROM results),
            (SELECT count(*) FROM measurements)
        FROM runs
        """,
    )[0]


def test_writers_that_are_killed_leave_whole_runs(url: str, tmp_path: Path) -> None:
    History(url).close()
    path = tmp_path / "edge.json"
    report_file.write(path, many_cases("first", CASES))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.history.runs"])
    moments = random.Random(0)
    count, longest_s = MOMENTS[url.partition("://")[0] if "://" in url else "sqlite"]
    between = 0
    for number in range(count):
        writer = context.Process(target=write_for_ever, args=(url, path, f"run-{number}", CASES))
        writer.start()
        time.sleep(moments.uniform(0, longest_s))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        # Never torn: the last that was complete.
        found = json.loads(path.read_text())
        assert len(found["cases"]) == CASES
        runs, cases, results, measurements = sizes(url)
        assert cases == results == runs * CASES
        assert measurements == 3 * results
        name = found["run"]["id"]
        between += not rows(url, f"SELECT 1 FROM runs WHERE uid = '{name}'")
    print(f"{between} of {count} between the JSON file and the history's commit; {runs} runs")
    assert_whole(url)
    with History(url, create=False) as history:
        assert history.add(many_cases("next", CASES))
        assert not history.add(many_cases("next", CASES))


# A file as it is, so that the run takes little before it writes.
SUITE = """
import edgecheck

class TestDouble(edgecheck.Conformance):
    model = edgecheck.Model("double.onnx", inputs=[edgecheck.Input("x", (1, 4))], outputs=["y"])
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "test_suite.py").write_text(SUITE)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=opsets), tmp_path / "double.onnx"
    )
    return tmp_path


def start(directory: Path) -> subprocess.Popen[bytes]:
    """A small run that writes both, in a process group of its own."""
    options = ("--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=export")
    places = ("--edge-json=edge.json", "--edge-history=history.db", "--edge-cache=cache")
    lock = f"--edge-lock={directory / 'machine.lock'}"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *places, lock],
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.long
def test_a_pytest_run_that_is_killed_at_its_end_leaves_whole_runs(suite: Path) -> None:
    assert start(suite).wait(120) == 0
    path, history = suite / "edge.json", str(suite / "history.db")
    known = [path.read_text()]
    moments = random.Random(1)
    for _ in range(RUN_MOMENTS):
        run = start(suite)
        wait_for_the_report(suite, run)
        time.sleep(moments.uniform(0, 0.2))
        # All of it, with its children: as a machine that ends does.
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        if (text := path.read_text()) not in known:
            assert len(json.loads(text)["cases"]) == 1
            known.append(text)
        stored = assert_whole(history)
        assert set(stored) <= {json.loads(text)["run"]["id"] for text in known}
    assert start(suite).wait(120) == 0
    assert assert_whole(history)[0] == json.loads(path.read_text())["run"]["id"]


def wait_for_the_report(directory: Path, run: subprocess.Popen[bytes]) -> None:
    """Until it begins to write, or has written, its JSON report."""
    path = directory / "edge.json"
    before, deadline = path.stat().st_mtime_ns, time.monotonic() + 120
    while path.stat().st_mtime_ns == before and not list(directory.glob(".edge.json.*")):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.0005)
