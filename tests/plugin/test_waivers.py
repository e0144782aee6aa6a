"""Waivers in a run: the file that is found or named, what it does to cases, and the gate."""

from __future__ import annotations

import datetime
from xml.etree import ElementTree

import pytest

from tests.conftest import Judge

SUITE = """
class TestTiny(Conformance):
    model = file_model()
    budget = Budget(size="1 B")
"""
ONLY = ("--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=export")
KEY = "tiny/ort/fp32/export"
TODAY = datetime.datetime.now(datetime.UTC).date()
LATER, BEFORE = TODAY + datetime.timedelta(days=30), TODAY - datetime.timedelta(days=1)


def waivers(expires: datetime.date = LATER, **patterns: str) -> str:
    stated = "".join(f'{name} = "{pattern}"\n' for name, pattern in patterns.items())
    return (
        f'[[waiver]]\n{stated}reason = "a byte is too little"\nowner = "ana"\n'
        f'issue = "https://example.com/7"\nexpires = {expires}\n'
    )


def test_a_waived_failure_is_an_xfail_with_its_reason_in_every_report(judge: Judge) -> None:
    # In xdist's workers; the other tests are without.
    arguments = (*ONLY, "--junitxml=junit.xml", "-rx", "-n", "2")
    run = judge(SUITE, *arguments, waivers__toml=waivers(model="ti*", check="export"))
    says = f"waived until {LATER} by ana: a byte is too little (https://example.com/7)"
    assert run.status == 0, run.output
    assert run.cases[KEY]["verdict"] == "failed"
    assert run.cases[KEY]["expected_failure"] == says
    assert run.cases[KEY]["waiver"] == {
        "reason": "a byte is too little",
        "owner": "ana",
        "issue": "https://example.com/7",
        "expires": LATER.isoformat(),
    }
    assert "1 xfailed" in run.output
    assert "a byte is too little" in run.output
    assert "gate passed" in run.output
    text = ElementTree.tostring(ElementTree.parse(run.directory / "junit.xml").getroot())
    assert b"a byte is too little" in text


def test_an_unsupported_case_can_be_waived(judge: Judge) -> None:
    suite = SUITE.replace('size="1 B"', "").replace("file_model", "model")
    arguments = ("--edge-targets=tflite", "--edge-profile=mcu", "--edge-precisions=fp32")
    run = judge(suite, *arguments, "--edge-checks=export", waivers__toml=waivers(precision="fp32"))
    assert {case["verdict"] for case in run.cases.values()} == {"unsupported"}
    assert all(case["waiver"] for case in run.cases.values())
    assert run.status == 0, run.output


def test_an_expired_waiver_fails_the_case_and_names_its_owner(judge: Judge) -> None:
    file = waivers(BEFORE, check="export") + waivers(check="memory")
    run = judge(SUITE, *ONLY, waivers__toml=file)
    assert run.status == pytest.ExitCode.TESTS_FAILED
    assert run.cases[KEY]["waiver"] is None
    assert run.cases[KEY]["expected_failure"] is None
    assert f"the waiver of ana expired on {BEFORE}" in run.cases[KEY]["reason"]
    assert f"the waiver of ana expired on {BEFORE}" in " ".join(run.output.split())


def test_waivers_can_be_turned_off_and_a_named_file_must_exist(judge: Judge) -> None:
    off = judge(SUITE, *ONLY, "--edge-waivers=none", waivers__toml=waivers())
    assert off.status == pytest.ExitCode.TESTS_FAILED
    absent = judge(SUITE, *ONLY, "--edge-waivers=absent.toml")
    assert absent.status == pytest.ExitCode.USAGE_ERROR
    assert "can't read the waivers in" in absent.output


def test_a_stale_waiver_is_told_and_fails_by_option(judge: Judge) -> None:
    file = waivers(target="ort", precision="fp32", check="export")
    suite = SUITE.replace('size="1 B"', "")
    run = judge(suite, *ONLY, "--edge-waivers=other.toml", other__toml=file)
    assert run.status == 0, run.output
    assert "none of its 1 cases fails any more" in " ".join(run.output.split())
    run = judge(suite, *ONLY, "--edge-fail-on=stale-waiver", waivers__toml=file)
    assert run.status == pytest.ExitCode.TESTS_FAILED
    assert "gate closed" in run.output


def test_a_narrower_run_makes_no_waiver_wrong_or_stale(judge: Judge) -> None:
    suite = SUITE.replace('size="1 B"', "")
    suite += "class TestOther(Conformance):\n    model = model()\n"  # ships to tflite too
    file = (
        waivers(model="other", target="tflite", precision="fp16", check="latency")
        + waivers(model="tiny", target="ort", precision="fp32", check="[ep]*")
        + waivers(model="tiny", target="*", precision="fp32", check="export")
    )
    for arguments in (("-k", "export and TestTiny"), ("test_suite.py::TestTiny::test_export",)):
        run = judge(suite, *ONLY, *arguments, "--edge-fail-on=stale-waiver", waivers__toml=file)
        assert run.status == 0, run.output
        assert list(run.cases) == [KEY]


def test_waivers_for_what_there_is_not_are_errors(judge_within: Judge) -> None:
    wrong = {
        'model = "tony"': "model 'tony' matches nothing; did you mean 'tiny'? (there: tiny)",
        'target = "tflit"': "target 'tflit' matches nothing; did you mean 'tflite'?",
        'check = "parrity"': "check 'parrity' matches nothing; did you mean 'parity'?",
        'check = "accuracy"': "check 'accuracy' matches nothing",
    }
    right = waivers()
    file = right + "".join(right.replace("[[waiver]]", f"[[waiver]]\n{line}") for line in wrong)
    shipped = 'artifacts={"ort": HERE / "tiny_file.onnx", "tflite": "tiny.tflite"}'
    suite = SUITE.replace("file_model()", f"file_model({shipped})")
    run = judge_within(suite, *ONLY, waivers__toml=file)
    assert run.status == pytest.ExitCode.USAGE_ERROR
    told = " ".join(run.output.split())
    for number, says in enumerate(wrong.values(), 2):
        assert f"entry {number} (" in told
        assert says in told
    assert "entry 1 (" not in told


def test_a_wrong_file_is_one_usage_error(judge_within: Judge) -> None:
    run = judge_within(SUITE, *ONLY, waivers__toml="[[waiver]]\nowner = 3\n")
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert "waivers.toml: 3 problems" in run.output
    assert "Traceback" not in run.output


def test_a_wrong_value_of_the_option_is_an_error(judge_within: Judge) -> None:
    run = judge_within(SUITE, "--edge-fail-on=stale")
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert "unknown value of --edge-fail-on 'stale' (known: " in run.output
