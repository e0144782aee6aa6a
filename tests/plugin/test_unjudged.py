"""What was stated and not judged closes the gate, alone and over workers."""

from __future__ import annotations

import pytest

from tests.conftest import Judge

pytest.importorskip("onnxruntime")

SUITE = """
class TestTiny(Conformance):
    model = file_model()
    budget = Budget(accuracy_floor=0.9, cosine={"ort": 0.9}, top1_agreement={"tflite": 0.9})
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "spread"])
def test_a_limit_without_its_data_closes_the_gate(judge: Judge, workers: tuple[str, ...]) -> None:
    run = judge(
        SUITE,
        *("--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=parity,accuracy"),
        *workers,
    )
    assert run.status == 1
    assert {case["verdict"] for case in run.cases.values()} == {"passed"}
    assert (
        "gate closed: tiny: accuracy_floor is stated and was not judged: it takes evaluation data"
        in run.output
    )
    assert "cosine" not in run.output.split("gate closed")[1].splitlines()[0]


def test_a_check_that_was_not_asked_for_is_no_fault(judge: Judge) -> None:
    run = judge(SUITE, "--edge-targets=ort", "--edge-precisions=fp32", "--edge-checks=parity")
    assert run.status == 0, run.output


def test_a_named_precision_without_its_data_closes_the_gate(judge: Judge) -> None:
    run = judge(SUITE, "--edge-targets=ort", "--edge-precisions=fp32,int8", "--edge-checks=parity")
    assert run.status != 0
    assert "int8 was named, and tiny can't be had in it: no calibration data" in run.output


def test_a_declared_precision_without_its_data_closes_the_gate(judge_within: Judge) -> None:
    suite = """
    class TestTiny(Conformance):
        model = file_model(targets={"ort": ["fp32"], "tflite": ["int8"]})
    class TestOther(Conformance):
        model = file_model(targets={"ort": ["int8"]})
    """
    run = judge_within(suite, "--edge-targets=ort", "--edge-checks=export", "-k", "fp32")
    assert run.status != 0
    assert "other/ort declares int8, and it can't be had: no calibration data" in run.output
    assert "tiny" not in run.output.split("gate closed")[1]
