"""Latency in whole runs: limits against real files, noise, options, workers, and the lock."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.history.report_file import schema_text
from tests.conftest import Judge, Judged
from tests.process.test_lock import Holder, wait_until_gate_is_taken

# Layers of equal work. The slow file takes 10 ms at the very least on any machine.
LIGHT, HEAVY, SLOW = 2, 8, 2000
SIZE = 128

SUITE = """
from pathlib import Path
import edgecheck
from edgecheck import Artifact, Budget, Conformance, Input, Model

FILES = Path({files!r})


def shipped(fp32, int8=None, last=None, **options):
    artifacts = {{"ort": FILES / fp32}}
    if int8:
        artifacts["ort", "int8"] = FILES / int8
    baselines = {{"ort": FILES / last}} if last else {{}}
    inputs = [Input("x", ({size}, {size}), low=-1, high=1)]
    return Model(reference="ort", artifacts=artifacts, baselines=baselines,
                 **{{"inputs": inputs, "outputs": ["y"], **options}})


"""
CLASSES = """
class TestTight(Conformance):
    model = shipped("light.onnx")
    budget = Budget(latency_p50="10 ns")


class TestCold(Conformance):
    model = shipped("light.onnx")
    budget = Budget(load_time="100 s", first_inference="100 s", latency_max="100 s")


class TestSameAsLast(Conformance):
    model = shipped("light.onnx", last="copy.onnx")
    budget = Budget(latency_vs_baseline=1.25)


class TestSlowerThanLast(Conformance):
    model = shipped("heavy.onnx", last="light.onnx")
    budget = Budget(latency_vs_baseline=1.05)


class TestNoLast(Conformance):
    model = shipped("light.onnx")
    budget = Budget(latency_vs_baseline=1.05)


class TestBrokenLast(Conformance):
    model = shipped("light.onnx", last="broken.onnx")
    budget = Budget(latency_vs_baseline=1.05)


class TestLastOfAnotherBatch(Conformance):
    model = shipped("dynamic.onnx", last="light.onnx",
                    inputs=[Input("x", ("batch", 128), low=-1, high=1)], dims={"batch": (1, 128)})
    budget = Budget(latency_vs_baseline=1.05)


class TestQuantizedSlower(Conformance):
    model = shipped("light.onnx", "heavy.onnx")
    budget = Budget(latency_vs_fp32=1.0)
"""
# Two samples, which is what a short round holds of it, tell nothing of a median.
NOISY = """
class TestNoisy(Conformance):
    model = shipped("slow.onnx")
    budget = Budget(latency_p50="1 us")
"""


def save_chain(path: Path, layers: int, rows: int | str = SIZE) -> None:
    """Matrix products, one after the other."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((SIZE, SIZE)) / SIZE**0.5).astype(np.float32)
    names = ["x", *(f"h{place}" for place in range(1, layers)), "y"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [read, "w"], [write])
            for read, write in itertools.pairwise(names)
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, SIZE])],
        [numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(made, path)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The beginning of a suite, with the files that it can ship."""
    files = tmp_path_factory.mktemp("files")
    save_chain(files / "light.onnx", LIGHT)
    save_chain(files / "copy.onnx", LIGHT)
    save_chain(files / "heavy.onnx", HEAVY)
    save_chain(files / "slow.onnx", SLOW)
    save_chain(files / "dynamic.onnx", LIGHT, "batch")
    (files / "broken.onnx").write_text("this is not a model")
    return SUITE.format(files=str(files), size=SIZE)


def judged(judge: Judge, suite: str, *arguments: str, **files: str) -> Judged:
    """A run of a suite that needs no torch; what it reports is as the schema says."""
    run = judge(
        "",
        "test_files.py",
        "--edge-targets=ort",
        *("--edge-checks=latency",) * (not any("--edge-checks" in item for item in arguments)),
        *arguments,
        test_files__py=suite,
        **files,
    )
    if run.report is not None:
        jsonschema.validate(run.report, json.loads(schema_text()))
    return run


@pytest.fixture(scope="module")
def gate(judge: Judge, head: str) -> Judged:
    return judged(judge, head + CLASSES, "--edge-timing-limit=2")


# -- limits


def test_a_limit_far_too_tight_fails_twice_and_shows_where_the_time_goes(gate: Judged) -> None:
    case = gate.cases["tight/ort/fp32/latency"]
    assert case["verdict"] == "failed"
    assert case["measurements"]["attempts"] == ["failed", "failed"]
    assert case["reason"].startswith("latency_p50 ")
    assert case["reason"].endswith(" is not <= 10 ns (budget)")
    (limit,) = case["limits"]
    assert (limit["outcome"], limit["limit"]) == ("failed", pytest.approx(1e-5))
    low, high = limit["interval"]
    assert 1e-5 < low <= limit["measured"] <= high
    assert "where the time goes" in case["details"] and "MatMul" in case["details"]
    assert case["measurements"]["profile"]["operators"][0]["operator"] == "MatMul"
    # The person at the terminal sees all of it.
    for line in case["details"].splitlines():
        assert line in gate.output


def test_raw_samples_and_conditions_are_recorded(gate: Judged) -> None:
    found = gate.cases["no_last/ort/fp32/latency"]["measurements"]
    assert len(found["samples_ns"]) == len(found["cpu_samples_ns"]) >= 6
    assert found["rounds"] >= 3 and found["warmup_runs"] >= 9
    assert found["threads"] == 1
    assert found["cpus"] == sorted(os.sched_getaffinity(0))
    assert found["latency_min_ms"] <= found["latency_p50_ms"] <= found["latency_max_ms"]
    assert found["cold_starts"] == 1
    assert "profile" not in found


def test_cold_starts_are_real_ones(gate: Judged) -> None:
    case = gate.cases["cold/ort/fp32/latency"]
    assert case["verdict"] == "passed"
    assert case["measurements"]["cold_starts"] == 6
    assert case["measurements"]["load_time_ms"] > 0
    assert case["measurements"]["first_inference_ms"] > 0
    names = {limit["name"] for limit in case["limits"]}
    assert names == {"load_time", "first_inference", "latency_max"}


@pytest.mark.parametrize(
    ("name", "precision", "limit", "verdict"),
    [
        ("same_as_last", "fp32", "latency_vs_baseline", "passed"),
        ("slower_than_last", "fp32", "latency_vs_baseline", "failed"),
        ("quantized_slower", "int8", "latency_vs_fp32", "failed"),
    ],
)
def test_a_file_is_held_against_another_file(
    gate: Judged, name: str, precision: str, limit: str, verdict: str
) -> None:
    case = gate.cases[f"{name}/ort/{precision}/latency"]
    assert case["verdict"] == verdict, case["reason"]
    found = case["measurements"][limit]
    assert found["rounds"] >= 10
    assert found["ratio_interval"][0] <= found["ratio"] <= found["ratio_interval"][1]
    if verdict == "failed":
        assert HEAVY / LIGHT / 2 < found["ratio"] < HEAVY / LIGHT * 2
        assert found["attempts"] == ["failed", "failed"]
        assert case["reason"].startswith(f"{limit} ")
        assert "where the time goes" in case["details"]
    (held,) = case["limits"]
    assert (held["unit"], held["resolution"] >= 0.02) == ("x", True)


def test_fp32_is_not_held_against_itself(gate: Judged) -> None:
    case = gate.cases["quantized_slower/ort/fp32/latency"]
    assert (case["verdict"], case["limits"], case["warnings"]) == ("passed", [], [])


def test_a_budget_without_a_baseline_is_a_warning(gate: Judged) -> None:
    case = gate.cases["no_last/ort/fp32/latency"]
    assert (case["verdict"], case["limits"]) == ("passed", [])
    (warning,) = [line for line in case["warnings"] if "baseline" in line]
    assert warning == (
        "latency_vs_baseline is not judged: Model.baselines has no file for ('ort', 'fp32')"
    )
    assert "warning no_last/ort/fp32/latency: latency_vs_baseline" in gate.output


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken_last", "ONNX Runtime can't load broken.onnx"),
        ("last_of_another_batch", "their latencies can't be compared"),
    ],
)
def test_a_baseline_that_can_not_be_used_is_a_failure(gate: Judged, name: str, says: str) -> None:
    case = gate.cases[f"{name}/ort/fp32/latency"]
    assert case["verdict"] == "failed"
    assert says in case["reason"]
    assert "\n" not in case["reason"]


# -- noise


@pytest.mark.parametrize(
    ("noise", "status", "says"),
    [
        ("fail", 1, "gate closed: 1 of 1 cases failed"),
        ("warn", 0, "InconclusiveWarning: noisy/ort/fp32 latency: inconclusive: latency_p50"),
        pytest.param("skip", 0, "1 skipped", marks=pytest.mark.long),
    ],
)
def test_what_can_not_be_told_is_as_the_option_says(
    judge: Judge, head: str, noise: str, status: int, says: str
) -> None:
    run = judged(judge, head + NOISY, "--edge-timing-limit=0.001", f"--edge-noise={noise}")
    (case,) = run.cases.values()
    assert case["verdict"] == "inconclusive", case
    assert case["measurements"]["attempts"] == ["inconclusive"] * 3
    assert "can't be told from <= 1 us (budget)" in case["reason"]
    assert case["limits"][0]["outcome"] == "inconclusive"
    assert run.status == status, run.output
    assert says in run.output
    assert run.report is not None
    assert run.report["gate"]["verdict"] == ("closed" if status else "passed")
    assert case["expected_failure"] == (None if status else f"--edge-noise={noise}")
    if not status:
        assert "gate passed: 0 cases, 1 inconclusive" in run.output


def test_noise_does_not_excuse_what_fails_after_it(judge: Judge, head: str) -> None:
    suite = (
        head
        + NOISY
        + """
    def test_latency(self, case):
        case.check("latency")
        assert case.artifact.suffix == ".exe", "on purpose"
"""
    )
    run = judged(judge, suite, "--edge-timing-limit=0.001", "--edge-noise=warn")
    (case,) = run.cases.values()
    assert (case["verdict"], case["expected_failure"]) == ("failed", None)
    assert "on purpose" in case["reason"]
    assert run.status == 1
    assert "gate closed: 1 of 1 cases failed" in run.output


# -- options


def test_threads_and_cores_are_set_and_recorded(judge: Judge, head: str) -> None:
    suite = head + "class TestPlain(Conformance):\n    model = shipped('light.onnx')\n"
    core = min(os.sched_getaffinity(0))
    run = judged(judge, suite, "--edge-threads=2", f"--edge-cpus={core}", "--edge-timing-limit=1")
    assert run.status == 0, run.output
    found = run.cases["plain/ort/fp32/latency"]["measurements"]
    assert (found["threads"], found["cpus"]) == (2, [core])
    # Two threads: what the calling one uses is not all.
    assert found["cpu_p50_ms"] is None
    assert run.report is not None
    assert run.report["run"]["options"]["threads"] == "2"


def test_without_a_debugger_plugin_it_runs_too(judge: Judge, head: str) -> None:
    suite = head + "class TestPlain(Conformance):\n    model = shipped('light.onnx')\n"
    run = judged(judge, suite, "-p", "no:debugging", "--edge-checks=export")
    assert run.status == 0, run.output


# -- several processes

ORDER = """
import os

def pytest_collection_finish(session):
    if hasattr(session.config, "workerinput"):
        with open(f"order-{os.getpid()}", "w") as log:
            log.write("\\n".join(item.name for item in session.items))
"""


def test_spread_over_workers_timing_comes_last_and_says_the_same(
    judge: Judge, head: str, gate: Judged
) -> None:
    run = judged(
        judge,
        head + CLASSES,
        *("-n", "2", "--edge-timing-limit=2", "--edge-checks=export,latency"),
        "--edge-models=tight,no_last",
        conftest__py=ORDER,
    )
    orders = [path.read_text().splitlines() for path in run.directory.glob("order-*")]
    assert len(orders) == 2
    assert orders[0] == orders[1]
    timing = ["latency" in name for name in orders[0]]
    assert timing == [False] * 2 + [True] * 2
    for name in ("tight", "no_last"):
        key = f"{name}/ort/fp32/latency"
        assert run.cases[key]["verdict"] == gate.cases[key]["verdict"]


def start(
    directory: Path, suite: str, lock: Path, *more: str, conftest: str = ""
) -> subprocess.Popen[str]:
    """A run of its own, not waited for."""
    directory.mkdir()
    (directory / "test_files.py").write_text(suite)
    (directory / "conftest.py").write_text(conftest)
    options = ["--edge-targets=ort", "--edge-checks=latency", "--edge-timing-limit=1", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, f"--edge-lock={lock}"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_there_is(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_work_waits_for_the_timing_of_other_runs(tmp_path: Path, head: str) -> None:
    suite = (
        head
        + """
class TestPlain(Conformance):
    model = shipped("light.onnx")

    def test_note(self, case):
        Path("ran").touch()
"""
    )
    ready = "from pathlib import Path\ndef pytest_runtestloop():\n    Path('ready').touch()\n"
    lock = tmp_path / "machine.lock"
    other = Holder(lock)
    try:
        assert other.does("alone")
        run = start(tmp_path / "run", suite, lock, "-k", "note", conftest=ready)
        wait_until_there_is(tmp_path / "run" / "ready")
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(1)
        assert not (tmp_path / "run" / "ran").exists()
        assert other.does("release")
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
        assert (tmp_path / "run" / "ran").exists()
    finally:
        other.kill()


def test_timing_waits_for_the_work_of_other_runs(tmp_path: Path, head: str) -> None:
    suite = head + "class TestPlain(Conformance):\n    model = shipped('light.onnx')\n"
    lock = tmp_path / "machine.lock"
    other = Holder(lock)
    try:
        assert other.does("shared")
        run = start(tmp_path / "run", suite, lock)
        wait_until_gate_is_taken(lock)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.5)
        other.kill()  # what crashes is waited for no longer
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
    finally:
        other.kill()


def test_two_runs_at_once_take_turns(tmp_path: Path, head: str) -> None:
    suite = head + "class TestPlain(Conformance):\n    model = shipped('light.onnx')\n"
    lock = tmp_path / "machine.lock"
    runs = [start(tmp_path / name, suite, lock) for name in ("one", "other")]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
