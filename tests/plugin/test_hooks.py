"""The plugin: options, selection, outcomes, records, and runs that end badly."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from edgecheck.history.report_file import schema_text
from edgecheck.targets.registry import all_targets
from tests.conftest import Judge, Judged, write_tiny

TINY = """
class TestTiny(Conformance):
    model = model(calibration=inputs, evaluation=EVALUATION)
    budget = Budget(latency_p95="1 s", peak_memory="1 GB", accuracy_drop={"int4": 0.2})
"""


# The same from a file, for what is about no other source: no process imports torch.
FILE = """
class TestTiny(Conformance):
    model = file_model(calibration=inputs, evaluation=FILE_EVALUATION)
    budget = Budget(latency_p95="1 s", peak_memory="1 GB", accuracy_drop={"int4": 0.2})
"""


def collected(run: Judged) -> list[str]:
    return [line.split("::")[-1] for line in run.output.splitlines() if "::test_" in line]


# -- options and selection


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--edge-targets=tflit"],
            "unknown target 'tflit'; did you mean 'tflite'? (known: coreml, ",
        ),
        (["--edge-precisions=int9"], "unknown precision 'int9'; did you mean 'int"),
        (["--edge-checks=parrity"], "unknown check 'parrity'; did you mean 'parity'?"),
        (["--edge-profile=phone"], "unknown profile 'phone'"),
        (["--edge-missing=ignore"], "unknown value of --edge-missing 'ignore'"),
        (["--edge-timeout=soon"], "--edge-timeout 'soon' is not a positive number of seconds"),
        (["--edge-noise=ignore"], "unknown value of --edge-noise 'ignore'"),
        (["--edge-threads=two"], "--edge-threads 'two' is not a positive whole number"),
        (["--edge-cpus=0:3"], "--edge-cpus '0:3' is not a list of cores, as in 0,2-3"),
        (["--edge-cpus=4096"], "--edge-cpus names 4096; the cores of this process are ["),
        (["--edge-timing-limit=0"], "--edge-timing-limit '0' is not a positive number of seconds"),
        (["--edge-lock=/"], "can't open the machine's lock /: Is a directory"),
        (["--edge-lock=nowhere/lock"], "nowhere/lock: its directory does not exist"),
        (["--edge-cache-size=5 parsecs"], "'5 parsecs' is not a bytes quantity"),
        (["--edge-json=/proc/nowhere/edge.json"], "can't write /proc/nowhere/edge.json"),
        (["--edge-models=tony*"], "--edge-models 'tony*' matches no model (models: tiny)"),
    ],
)
def test_wrong_options_are_usage_errors(
    judge_within: Judge, arguments: list[str], says: str
) -> None:
    run = judge_within(TINY, *arguments)
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert says in run.output
    assert "Traceback" not in run.output


def test_help_lists_the_options(judge_within: Judge) -> None:
    run = judge_within(TINY, "--help")
    for name in (
        "targets",
        "precisions",
        "models",
        "checks",
        "missing",
        "json",
        "cache",
        "profile",
        "noise",
        "threads",
        "cpus",
        "timing-limit",
        "lock",
    ):
        assert f"--edge-{name}=" in run.output
    assert "edge_targets" in run.output


def test_markers_are_registered_and_select(judge_within: Judge) -> None:
    run = judge_within(
        TINY, "--collect-only", "-q", "--strict-markers", "-m", "tflite and int8-dynamic and parity"
    )
    assert collected(run) == ["test_parity[tflite-int8-dynamic]"]


def test_without_options_all_that_this_machine_runs_is_judged(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = collected(judge(TINY, "--collect-only", "-q"))
    monkeypatch.chdir(tmp_path)  # a browser's runtime is looked for from the directory upwards
    runnable = {name for name, target in all_targets().items() if not target.missing()}
    assert {"ort", "tflite"} <= runnable
    assert {name for name in names if name.startswith("test_parity") and "-fp32]" in name} == {
        f"test_parity[{name}-fp32]" for name in runnable
    }


@pytest.mark.parametrize("alias", ["onnx", "onnxruntime", "ort"])
def test_aliases_mean_the_same_target(judge_within: Judge, alias: str) -> None:
    run = judge_within(
        TINY, "--collect-only", "-q", f"--edge-targets={alias}", "--edge-precisions=fp32"
    )
    assert set(collected(run)) == {
        f"test_{check}[ort-fp32]" for check in ("export", "parity", "accuracy", "latency", "memory")
    }


def test_options_combine(judge_within: Judge) -> None:
    suite = TINY + ("class TestOther(Conformance):\n    model = model(variants={'small': tiny})\n")
    run = judge_within(
        suite,
        *("--collect-only", "-q", "--edge-targets=ort", "--edge-precisions=fp32,fp16"),
        *("--edge-models=oth*:small", "--edge-checks=parity,export"),
    )
    assert sorted(collected(run)) == [
        f"test_{check}[small-ort-{precision}]"
        for check in ("export", "parity")
        for precision in ("fp16", "fp32")
    ]


def test_ini_keys_are_defaults_of_the_options(judge: Judge) -> None:
    ini = '[tool.pytest.ini_options]\nedge_targets = "tflite"\nedge_precisions = ["fp32", "fp16"]\n'
    run = judge(TINY, "--collect-only", "-q", "--edge-checks=export", pyproject__toml=ini)
    assert sorted(collected(run)) == ["test_export[tflite-fp16]", "test_export[tflite-fp32]"]


def test_cases_of_one_file_stay_together(judge_within: Judge) -> None:
    names = collected(judge_within(TINY, "--collect-only", "-q", "--edge-targets=ort"))
    candidates = [name.partition("[")[2] for name in names]
    changes = sum(left != right for left, right in itertools.pairwise(candidates))
    assert changes == len(set(candidates)) - 1


def test_two_classes_with_one_model_name_are_an_error(judge_within: Judge) -> None:
    suite = TINY + "class TestAgain(Conformance):\n    model = model(name='tiny')\n"
    run = judge_within(suite, "--collect-only")
    assert run.status != 0
    assert "both declare a model 'tiny': pass Model(name=...)" in run.output


def test_a_class_without_a_model_is_an_error(judge_within: Judge) -> None:
    run = judge_within("class TestBare(Conformance):\n    pass\n", "--collect-only")
    assert "TestBare declares no model" in run.output
    assert run.status != 0


def test_a_budget_word_that_means_nothing_is_an_error(judge_within: Judge) -> None:
    suite = TINY.replace("latency_p95=", "size={'tflight': '1 MB'}, latency_p95=")
    run = judge_within(suite, "--collect-only")
    assert "unknown word 'tflight'; did you mean 'tflite'?" in run.output
    assert run.status != 0


def test_a_budget_with_an_unknown_unit_is_an_error(judge_within: Judge) -> None:
    run = judge_within(TINY.replace('"1 s"', '"5 parsecs"'), "--collect-only")
    assert "budget latency_p95: '5 parsecs' is not a time quantity" in run.output
    assert run.status != 0


def test_a_profile_brings_its_limits_and_precisions(judge: Judge) -> None:
    run = judge(TINY, "--edge-targets=tflite", "--edge-profile=mcu", "--edge-checks=export")
    (case,) = run.cases.values()
    assert case["precision"] == "int8"
    assert {limit["name"]: limit["origin"] for limit in case["limits"]}["size"] == "profile mcu"


# -- outcomes


def test_a_required_target_that_can_not_run_closes_the_gate(judge: Judge) -> None:
    run = judge(
        FILE, "--edge-targets=ort,onnxruntime-web", "--edge-precisions=fp32", "--edge-checks=export"
    )
    assert run.status == pytest.ExitCode.TESTS_FAILED
    assert "gate incomplete: 1 required cases not checked (ort-web: " in run.output
    assert run.cases["tiny/ort-web/fp32/export"]["verdict"] == "not_checked"
    assert run.cases["tiny/ort/fp32/export"]["verdict"] == "passed"


def test_missing_targets_can_be_accepted(judge: Judge) -> None:
    run = judge(
        FILE,
        *("--edge-targets=ort,ort-web", "--edge-precisions=fp32", "--edge-checks=export"),
        "--edge-missing=skip",
    )
    assert run.status == 0
    assert "gate passed: 1 cases, 1 not checked" in run.output


def test_a_precision_asked_for_by_name_that_a_profile_forbids_is_an_error(judge: Judge) -> None:
    run = judge(
        FILE,
        *("--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=export"),
        "--edge-profile=edge-tpu",
    )
    case = run.cases["tiny/ort/fp32/export"]
    assert (run.status, case["verdict"]) == (1, "unsupported")
    assert "edge-tpu device runs int8, int8-qat only" in case["reason"]


def test_what_has_no_data_is_named_in_the_summary(judge: Judge) -> None:
    suite = "class TestBare(Conformance):\n    model = file_model()\n"
    run = judge(suite, "--edge-targets=ort", "--edge-checks=export,accuracy")
    assert "no accuracy for bare: no evaluation data: pass evaluation= to the Model" in run.output
    assert "no int8 for bare/ort: no calibration data" in run.output
    assert run.status == 0


def test_users_own_tests_run_for_every_case(judge: Judge) -> None:
    suite = (
        FILE
        + """
    def test_top_class_is_kept(self, case):
        x = {"x": inputs(5)}
        assert (case.run(x)["logits"].argmax(1) == case.reference(x)["logits"].argmax(1)).all()
        assert case.artifact.suffix == ".onnx"

    def test_not_so(self, case):
        assert case.artifact.suffix == ".exe", "no such file"
"""
    )
    run = judge(suite, "--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=export")
    assert run.cases["tiny/ort/fp32/top_class_is_kept"]["verdict"] == "passed"
    failed = run.cases["tiny/ort/fp32/not_so"]
    assert failed["verdict"] == "failed"
    assert "no such file" in failed["reason"]
    assert run.status == 1


def test_an_expected_failure_does_not_close_the_gate(judge: Judge) -> None:
    suite = (
        FILE.replace('latency_p95="1 s"', 'size="1 B"')
        + """
    @pytest.mark.xfail(reason="too large until v2")
    def test_export(self, case):
        case.check("export")
"""
    )
    run = judge("import pytest\n" + suite, "--edge-targets=ort", "--edge-precisions=fp32")
    case = run.cases["tiny/ort/fp32/export"]
    assert (case["verdict"], case["expected_failure"]) == ("failed", "too large until v2")
    assert run.status == 0
    assert "1 expected failures" in run.output


def test_an_unrelated_run_sees_nothing_of_the_plugin(judge: Judge) -> None:
    run = judge("", "-q", "test_plain.py", test_plain__py="def test_one():\n    assert True\n")
    assert run.status == 0
    assert "edgecheck =" not in run.output


# -- records


@pytest.fixture(scope="module")
def alone(judge: Judge) -> Judged:
    return judge(TINY, "--edge-targets=ort,tflite", "--junitxml=junit.xml")


@pytest.fixture(scope="module")
def spread(judge: Judge) -> Judged:
    return judge(TINY, "--edge-targets=ort,tflite", "--junitxml=junit.xml", "-n", "4")


def steady(run: Judged) -> object:
    """The report without what must differ between runs: times, and figures of speed and memory."""
    assert run.report is not None
    cases = []
    for case in run.report["cases"]:
        case = {key: value for key, value in case.items() if key not in ("timings", "details")}
        if case["check"] in ("latency", "memory"):
            del case["measurements"], case["warnings"]
            case["limits"] = [
                {key: value for key, value in limit.items() if key not in ("measured", "interval")}
                for limit in case["limits"]
            ]
        cases.append(case)
    return {**run.report, "run": None, "cases": cases}


@pytest.mark.long
def test_reports_are_the_same_alone_and_spread_over_workers(alone: Judged, spread: Judged) -> None:
    assert alone.status == spread.status == 0
    assert steady(alone) == steady(spread)


def test_the_report_follows_its_schema(alone: Judged, spread: Judged) -> None:
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for run in (alone, spread):
        jsonschema.validate(run.report, schema)


@pytest.mark.parametrize("name", ["alone", "spread"])
def test_junit_has_properties_of_every_case(name: str, request: pytest.FixtureRequest) -> None:
    run: Judged = request.getfixturevalue(name)
    root = ElementTree.parse(run.directory / "junit.xml").getroot()
    cases = list(root.iter("testcase"))
    assert len(cases) == len(run.cases)
    for case in cases:
        properties = {item.get("name"): item.get("value") for item in case.iter("property")}
        assert properties["edgecheck.verdict"] == "passed", properties
        assert properties["edgecheck.target"] in ("ort", "tflite")
        assert len(properties) == len(list(case.iter("property")))


@pytest.mark.long
def test_nothing_is_built_twice_by_eight_workers(judge: Judge, tmp_path: Path) -> None:
    log = tmp_path / "builds"
    suite = f"""
import shutil

def exporter(model, path):
    with open({str(log)!r}, "a") as log:
        log.write("built\\n")
    shutil.copy(HERE / "tiny_file.onnx", path)

class TestTiny(Conformance):
    model = model(builders={{"ort": exporter}}, evaluation=FILE_EVALUATION)
"""
    run = judge(suite, "-n", "8", "--edge-targets=ort")
    assert run.status == 0, run.output
    assert log.read_text() == "built\n"


def test_a_second_run_takes_all_files_from_the_cache(judge: Judge, tmp_path: Path) -> None:
    arguments = (
        f"--edge-cache={tmp_path}",
        "--edge-targets=ort",
        "--edge-precisions=fp16,int8-dynamic,int8",  # a file in fp32 is there already
        "--edge-checks=export",
    )
    first = judge(FILE, *arguments, "-n", "2")
    second = judge(FILE, *arguments)
    assert {case["timings"]["cached"] for case in first.cases.values()} == {False}
    assert {case["timings"]["cached"] for case in second.cases.values()} == {True}
    hashes = [
        {key: case["artifact"]["sha256"] for key, case in run.cases.items()}
        for run in (first, second)
    ]
    assert hashes[0] == hashes[1]


def test_a_tampered_cache_entry_is_rebuilt(judge: Judge, tmp_path: Path) -> None:
    arguments = (
        f"--edge-cache={tmp_path}",
        "--edge-targets=ort",
        "--edge-precisions=fp16",
        "--edge-checks=export",
    )
    first = judge(FILE, *arguments)
    (file,) = tmp_path.glob("objects/*/*/*.onnx")
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    second = judge(FILE, *arguments)
    case = second.cases["tiny/ort/fp16/export"]
    assert case["artifact"] == first.cases["tiny/ort/fp16/export"]["artifact"]
    assert case["timings"]["cached"] is False
    assert "was damaged or changed" in second.output


def test_a_cache_that_can_not_be_written_does_not_stop_the_run(
    judge: Judge, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    run = judge(
        FILE,
        f"--edge-cache={tmp_path / 'file' / 'cache'}",
        "--edge-targets=ort",
        "--edge-precisions=fp32,fp16",
        "--edge-checks=export,parity",
    )
    assert run.status == 0, run.output
    assert "can't be written" in run.output


# -- runs that end badly


@pytest.mark.parametrize("spread", [[], ["-n", "2"]], ids=["alone", "spread"])
def test_a_report_of_an_interrupted_run_is_whole(tmp_path: Path, spread: list[str]) -> None:
    suite = (
        FILE
        + """
    def test_wait(self, case):
        import time
        open("waiting", "w").close()
        time.sleep(60)
"""
    )
    write_tiny(tmp_path)
    (tmp_path / "test_suite.py").write_text("from tiny_models import *\n" + suite)
    arguments = ["--edge-targets=ort", "--edge-precisions=fp32", "--edge-json=edge.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, *spread],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        # Whoever starts the tests in the background ignores Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == pytest.ExitCode.INTERRUPTED
    report = json.loads((tmp_path / "edge.json").read_text())
    jsonschema.validate(report, json.loads(schema_text()))
    verdicts = {case["check"]: case["verdict"] for case in report["cases"]}
    assert verdicts["export"] == "passed"
    assert verdicts["wait"] == "not_checked"
    assert report["run"]["exit_status"] == pytest.ExitCode.INTERRUPTED
    assert report["gate"]["verdict"] == "closed"


def test_a_report_survives_the_crash_of_a_worker(judge: Judge) -> None:
    suite = (
        FILE
        + """
    def test_crash(self, case):
        import os
        os.abort()
"""
    )
    run = judge(suite, "-n", "2", "--edge-targets=ort", "--edge-precisions=fp32,fp16")
    jsonschema.validate(run.report, json.loads(schema_text()))
    assert run.status == 1
    for precision in ("fp32", "fp16"):
        crashed = run.cases[f"tiny/ort/{precision}/crash"]
        assert crashed["verdict"] == "failed"
        assert "crashed while running" in crashed["reason"]
        assert run.cases[f"tiny/ort/{precision}/parity"]["verdict"] == "passed"


def test_no_process_and_no_directory_is_left_behind(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = (
        FILE
        + """
    def test_note(self, case):
        import pathlib
        case.run({"x": inputs(1)})
        children = pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
        pathlib.Path("pids").write_text(children)
"""
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run = judge("import os\n" + suite, "--edge-targets=ort", "--edge-precisions=fp32")
    assert run.status == 0, run.output
    children = [int(line) for line in (run.directory / "pids").read_text().split()]
    assert len(children) >= 2
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert list(tmp_path.glob("edgecheck-*")) == []
