"""Runs that are held against a baseline and kept: what fails, what is told, what is written."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecheck.history.database import History
from edgecheck.history.report_file import schema_text
from tests.conftest import Judge, Judged
from tests.plugin.test_latency_gate import SIZE, SLOW, save_chain

# Suites that need no torch, which takes seconds to import.
IMPORTS = """
from pathlib import Path
import numpy as np
from edgecheck import Artifact, Budget, Conformance, Evaluation, Input, Model, metrics
"""
MODEL = """
def model(source={file!r}, **options):
    inputs = [Input("x", ("batch", 16), low=-1, high=1)]
    return Model(source, **{{"inputs": inputs, "outputs": ["y"], **options}})
"""
TINY = "class TestTiny(Conformance):\n    model = model()\n"
OTHER = "class TestOther(Conformance):\n    model = model()\n"
OWN = "    def test_own(self, case):\n        assert case.artifact.is_file()\n"
ONLY = ("--edge-targets=ort", "--edge-precisions=fp32")
EXPORT, PARITY, LATENCY = (f"tiny/ort/fp32/{check}" for check in ("export", "parity", "latency"))
COMMIT = "0123456789" * 4
Report = dict[str, Any]


def save_tiny(path: Path, seed: int = 0) -> Path:
    weight = np.random.default_rng(seed).normal(size=(16, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(made, path)
    return path


def run_suite(judge: Judge, file: Path, suite: str, *arguments: str, **files: str) -> Judged:
    """A run of a suite that may use `model`; what it reports is as the schema says."""
    arguments = (*ONLY, *arguments)
    if not any(item.startswith("--edge-checks=") for item in arguments):
        arguments = (*arguments, "--edge-checks=export")
    head = IMPORTS + MODEL.format(file=str(file))
    run = judge(suite, *arguments, tiny_models__py=head, **files)
    if run.report is not None:
        jsonschema.validate(run.report, json.loads(schema_text()))
    return run


def words(run: Judged) -> str:
    """The output, however its lines are broken."""
    return " ".join(run.output.split())


Run = Callable[..., Judged]


@pytest.fixture(scope="module")
def tiny(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a suite of a tiny model; suite, then options, then files."""
    file = save_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx")
    return lambda suite, *arguments, **files: run_suite(judge, file, suite, *arguments, **files)


@pytest.fixture(scope="module")
def base(tiny: Run) -> Report:
    """The report of a run that passed, as if of a commit."""
    run = tiny(
        TINY, "--edge-checks=export,parity,latency", "--edge-precisions=fp32,int8-dynamic", "-n2"
    )
    assert run.status == 0, run.output
    assert run.report is not None
    run.report["run"]["git"] = {"commit": COMMIT, "branch": "release", "dirty": False}
    return run.report


def edited(report: Report, **changes: Callable[[Report], object]) -> str:
    """A report with the records of some cases changed; by check, or check and precision."""
    found = copy.deepcopy(report)
    for item in found["cases"]:
        for name in (item["check"], f"{item['check']}_{item['precision'].replace('-', '_')}"):
            if name in changes:
                changes[name](item)
    return json.dumps(found)


def smaller(item: Report) -> None:
    item["measurements"]["size_bytes"] /= 2


def closer(item: Report) -> None:
    item["measurements"]["outputs"]["y"]["sqnr_db"] += 10


def faster(item: Report) -> None:
    for name, value in item["measurements"].items():
        if name.startswith("latency_"):
            item["measurements"][name] = np.divide(value, 20).tolist()
    item["artifact"]["sha256"] = "0" * 64  # the same file is never slower than itself


# -- regressions


def test_a_regression_fails_its_case_with_numbers_baseline_and_commit(
    tiny: Run, base: Report
) -> None:
    run = tiny(
        TINY,
        *("--edge-precisions=fp32,int8-dynamic", "--edge-checks=export,parity", "-n", "2"),
        *("--edge-baseline=base.json", "--edge-fail-on=regression", "--junitxml=junit.xml"),
        "--edge-effects=sqnr_db=5",
        base__json=edited(base, export_fp32=smaller, parity_int8_dynamic=closer),
    )
    name = f"run {base['run']['id'][:8]}, commit {COMMIT[:10]}"
    size = run.cases[EXPORT]["measurements"]["size_bytes"]
    assert run.status == pytest.ExitCode.TESTS_FAILED
    says = f"tiny/ort/fp32 export: regression against {name}: size_bytes {size // 2} B -> {size} B"
    assert run.cases[EXPORT]["verdict"] == "failed"
    assert run.cases[EXPORT]["reason"] == f"{says} (+100 %; counts from 1 %)"
    assert says in words(run)
    quantized = run.cases["tiny/ort/int8-dynamic/parity"]
    assert quantized["reason"].endswith("dB (-10 dB; counts from 5 dB)")
    (change,) = quantized["regression"]["regressions"]
    assert (change["metric"], change["subject"], change["share"]) == ("sqnr_db", "y", False)
    assert change["change"] == pytest.approx(-10)
    assert run.cases[PARITY]["verdict"] == "passed"
    assert run.cases[PARITY]["regression"] is None
    assert "gate closed: 2 of 4 cases failed" in run.output
    assert run.report is not None
    told = run.report["comparison"]
    assert (told["before"]["commit"], told["after"]["gate"]) == (COMMIT, "closed")
    assert {item["metric"] for item in told["regressions"]} == {"size_bytes", "sqnr_db"}
    junit = ElementTree.parse(run.directory / "junit.xml")
    messages = [item.get("message", "") for item in junit.iter("failure")]
    assert len(messages) == 2
    assert any(says in " ".join(item.split()) for item in messages)


def test_without_the_option_a_regression_is_only_told(tiny: Run, base: Report) -> None:
    run = tiny(
        TINY,
        *("--edge-baseline=base.json", "--edge-html=edge.html", "--edge-summary=summary.md"),
        base__json=edited(base, export=smaller),
    )
    assert run.status == 0, run.output
    assert run.cases[EXPORT]["verdict"] == "passed"
    assert run.cases[EXPORT]["regression"]["regressions"][0]["metric"] == "size_bytes"
    assert f"baseline run {base['run']['id'][:8]}, commit {COMMIT[:10]}" in run.output
    assert "regression: 1 number got worse" in run.output
    assert "gate passed" in run.output
    assert "**regression: 1 number got worse**" in (run.directory / "summary.md").read_text()
    assert "</html>" in (run.directory / "edge.html").read_text()
    # The rest of the baseline was not selected, so it is not gone.
    assert run.report is not None
    assert run.report["comparison"]["vanished"] == []


def test_latency_is_compared_on_the_same_device_only(tiny: Run, base: Report) -> None:
    arguments = ("--edge-checks=latency", "--edge-fail-on=regression", "--edge-timing-limit=1")
    baseline = ("--edge-baseline=base.json", *arguments)
    run = tiny(TINY, *baseline, base__json=edited(base, latency=faster))
    assert run.status == pytest.ExitCode.TESTS_FAILED
    assert "regression against run" in run.cases[LATENCY]["reason"]
    assert "latency_p50_ms" in words(run)

    moved = edited(base, latency=faster).replace(base["run"]["host"]["cpu"], "Cortex-A76")
    run = tiny(TINY, *baseline, base__json=moved)
    assert run.status == 0, run.output
    assert "not compared, another device: cpu Cortex-A76 -> " in words(run)
    assert run.report is not None
    assert [item["keys"] for item in run.report["comparison"]["incomparable"]] == [[LATENCY]]
    assert run.cases[LATENCY]["regression"] is None


def test_the_same_file_is_never_slower_than_itself(tiny: Run, base: Report) -> None:
    def much_faster(item: Report) -> None:
        file = item["artifact"]["sha256"]
        faster(item)
        item["artifact"]["sha256"] = file

    run = tiny(
        TINY,
        *("--edge-checks=latency", "--edge-fail-on=regression", "--edge-timing-limit=1"),
        "--edge-baseline=base.json",
        base__json=edited(base, latency=much_faster),
    )
    assert run.status == 0, run.output
    assert run.cases[LATENCY]["regression"] is None


def test_noise_that_is_accepted_hides_no_regression(
    judge: Judge, base: Report, tmp_path: Path
) -> None:
    file = tmp_path / "slow.onnx"
    save_chain(file, SLOW)
    suite = f"""
class TestTiny(Conformance):
    model = Model(reference="ort", artifacts={{"ort": {str(file)!r}}}, outputs=["y"],
                  inputs=[Input("x", ({SIZE}, {SIZE}), low=-1, high=1)])
    budget = Budget(latency_p50="1 us")
"""
    run = run_suite(
        judge,
        file,
        suite,
        *("--edge-checks=latency", "--edge-timing-limit=0.001", "--edge-noise=warn"),
        *("--edge-baseline=base.json", "--edge-fail-on=regression"),
        base__json=edited(base),
    )
    (case,) = run.cases.values()
    assert case["limits"][0]["outcome"] == "inconclusive"
    assert case["verdict"] == "failed"
    assert "regression against run" in case["reason"]
    assert run.status == pytest.ExitCode.TESTS_FAILED


# -- cases that come and go


@pytest.fixture(scope="module")
def wide(tiny: Run) -> str:
    """The report of two models, one with a test of its own."""
    run = tiny(TINY + OWN + OTHER, "--edge-checks=export")
    assert run.status == 0, run.output
    return json.dumps(run.report)


GONE = ["other/ort/fp32/export", "tiny/ort/fp32/own"]


def test_a_baseline_that_has_none_of_the_cases_closes_the_gate_by_option(
    tiny: Run, base: Report
) -> None:
    foreign = copy.deepcopy(base)
    for case in foreign["cases"]:
        case["key"] = case["key"].replace("tiny/", "another/")
    arguments = ("--edge-baseline=base.json", "--edge-checks=export")
    run = tiny(TINY, *arguments, base__json=json.dumps(foreign))
    assert run.status == 0, run.output
    run = tiny(TINY, *arguments, "--edge-fail-on=regression", base__json=json.dumps(foreign))
    assert run.status == pytest.ExitCode.TESTS_FAILED
    assert "gate closed: nothing was compared: run " in words(run)


def test_cases_that_are_gone_are_told_and_fail_by_option(tiny: Run, wide: str) -> None:
    suite = TINY + "class TestThird(Conformance):\n    model = model()\n"
    run = tiny(suite, "--edge-baseline=base.json", base__json=wide)
    assert run.status == 0, run.output
    assert run.report is not None
    assert run.report["comparison"]["vanished"] == GONE
    assert run.report["comparison"]["new"] == ["third/ort/fp32/export"]
    assert f"2 cases of the baseline are gone: {', '.join(GONE)}" in words(run)
    arguments = ("--edge-baseline=base.json", "--edge-fail-on=vanished")
    run = tiny(suite, *arguments, "-n2", base__json=wide)
    assert run.status == pytest.ExitCode.TESTS_FAILED
    assert f"gate closed: 2 cases of the baseline are gone: {', '.join(GONE)}" in words(run)


@pytest.mark.parametrize(
    "narrow",
    [
        ("-k", "TestTiny and export"),
        ("--edge-models=tiny",),
        ("test_suite.py::TestTiny::test_export",),
        ("--edge-checks=parity", "-k", "Tiny and parity"),
    ],
)
def test_a_narrower_selection_loses_no_case(tiny: Run, wide: str, narrow: tuple[str, ...]) -> None:
    arguments = ("--edge-baseline=base.json", "--edge-fail-on=vanished")
    run = tiny(TINY + OWN + OTHER, *arguments, *narrow, base__json=wide)
    assert run.status == 0, run.output
    assert run.report is not None
    assert run.report["comparison"]["vanished"] == []


def test_what_a_file_that_was_named_lost_is_gone(tiny: Run, wide: str) -> None:
    # Its model is there, and its test is not; the other model may be in another file.
    arguments = ("--edge-baseline=base.json", "--edge-fail-on=vanished", "test_suite.py")
    pruned = wide.replace("tiny/ort/fp32/own", "tiny:pruned/ort/fp32/export")
    run = tiny(TINY, *arguments, base__json=pruned)
    assert run.report is not None
    assert run.report["comparison"]["vanished"] == ["tiny:pruned/ort/fp32/export"]
    assert run.status == pytest.ExitCode.TESTS_FAILED


# -- the history


def pytest_in(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A pytest run in a directory, with edgecheck's own defaults."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *arguments],
        cwd=directory,
        env={**environment, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_runs_are_kept_and_found_again(tiny: Run, cache: Path) -> None:
    first = tiny(TINY, "--edge-history=.edgecheck/history.db")
    assert first.status == 0, first.output
    assert first.report is not None
    # By default, in the same place.
    again = pytest_in(
        first.directory,
        *(*ONLY, "--edge-checks=export", f"--edge-cache={cache}", "--edge-json=again.json"),
        f"--edge-baseline=run:{first.report['run']['id'][:8]}",
    )
    assert again.returncode == 0, again.stdout
    assert f"baseline run {first.report['run']['id'][:8]}" in again.stdout
    report = json.loads((first.directory / "again.json").read_text())
    assert report["comparison"]["before"]["id"] == first.report["run"]["id"]
    with History(str(first.directory / ".edgecheck/history.db"), create=False) as history:
        expected = [report["run"]["id"], first.report["run"]["id"]]
        assert [item.id for item in history.runs()] == expected
        assert history.document(report["run"]["id"]) == report
    missing = pytest_in(first.directory, *ONLY, "--edge-baseline=branch:main")
    assert missing.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no run fits 'branch:main'" in missing.stdout + missing.stderr


def test_a_run_without_conformance_classes_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "test_plain.py").write_text("def test_plain():\n    pass\n")
    (tmp_path / "waivers.toml").write_text("this is somebody else's file")
    done = pytest_in(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "edgecheck:" not in done.stdout
    left = {item.name for item in tmp_path.iterdir()} - {"__pycache__", ".benchmarks"}
    assert left == {"test_plain.py", "waivers.toml"}


# What the suite does to the history, once the run has started.
SPOIL = "Path({path!r}).parent.mkdir(exist_ok=True)\nPath({path!r}).write_text('spoiled ' * 999)\n"


def test_a_history_that_can_not_be_written_fails_where_it_was_asked_for(tiny: Run) -> None:
    suite = SPOIL.format(path="own.db") + TINY
    run = tiny(suite, "--edge-history=own.db", "--edge-html=edge.html")
    assert run.status == pytest.ExitCode.TESTS_FAILED
    assert run.cases[EXPORT]["verdict"] == "passed"
    assert "no history written: " in run.output
    assert "file is not a database" in words(run)
    assert "Traceback" not in run.output
    assert (run.directory / "edge.html").is_file()
    suite = SPOIL.format(path=".edgecheck/history.db") + TINY
    run = tiny(suite, "--edge-history=.edgecheck/history.db")
    assert run.status == 0, run.output
    assert "no history written: " in run.output


# -- what can't be


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--edge-html=/proc/nowhere/edge.html"], "can't write /proc/nowhere/edge.html"),
        (["--edge-summary=/proc/nowhere/summary.md"], "can't write /proc/nowhere/summary.md"),
        (["--edge-history=/proc/nowhere/h.db"], "history /proc/nowhere"),
        (["--edge-history=mysql://x/y"], "it is an SQLite file's path, "),
        (["--edge-baseline=absent.json"], "absent.json: No such file or directory"),
        (["--edge-baseline=torn.json"], "torn.json is not JSON"),
        (["--edge-baseline=other.json"], "is not a report of pytest --edge-json"),
        (["--edge-baseline=main"], "baseline 'main': no history is kept to find it in"),
        (["--edge-fail-on=regression"], "--edge-fail-on=regression needs --edge-baseline"),
        (["--edge-fail-on=vanished"], "needs --edge-baseline"),
        (["--edge-reuse"], "--edge-reuse needs --edge-baseline"),
        (["--edge-effects=speed=1"], "unknown metric of --edge-effects 'speed'"),
    ],
)
def test_what_can_not_be_is_told_at_the_start(tiny: Run, arguments: list[str], says: str) -> None:
    files = {"torn__json": '{"schema": "edge', "other__json": '{"schema": "x"}'}
    run = tiny(TINY, *arguments, **files)
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert says in words(run)
    assert "Traceback" not in run.output
    assert run.report is None


# -- on GitHub


def test_github_gets_annotations_and_the_summary(
    tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run = tiny(TINY + "    budget = Budget(size='1 B')\n")
    assert run.status == pytest.ExitCode.TESTS_FAILED
    (command,) = [line for line in run.output.splitlines() if line.startswith("::error ")]
    assert EXPORT in command
    assert "size 356 B is not <= 1 B" in command
    text = summary.read_text()
    assert text.startswith("# before\n")
    assert "gate closed: 1 of 1 cases failed" in text
