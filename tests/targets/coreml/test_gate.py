"""Core ML and TensorRT through pytest: good files, broken ones, and what is not checked."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from edgecheck.targets.trt import nvidia
from tests.conftest import Judge, Judged

pytest.importorskip("coremltools")

from tests.mil import packages

SUITE = """
from pathlib import Path

HERE = Path(__file__).parent
(HERE / "broken.mlpackage").mkdir(exist_ok=True)
(HERE / "broken.mlpackage" / "Manifest.json").write_text("{}")
(HERE / "broken.engine").write_bytes(b"no engine")


class TestGood(Conformance):
    model = model(evaluation=EVALUATION, calibration=inputs, targets={
        "coreml": ["fp32", "fp16", "int8"], "trt": ["fp32", "int8"]})


class TestStrict(Conformance):
    model = model(targets={"coreml": ["fp16"]})
    budget = Budget(lint_findings=0)


class TestPixels(Conformance):
    model = model(
        inputs=[Input("x", ("batch", 1, 4, 4), step=1 / 255)], source=lambda: Pixels().eval(),
        targets={"coreml": ["fp32"]},
        target_options={"coreml": {"images": {"x": {"scale": 1 / 255}}}},
    )


class TestOffGrid(Conformance):
    model = model(
        inputs=[Input("x", ("batch", 1, 4, 4))], source=lambda: Pixels().eval(),
        targets={"coreml": ["fp32"]},
        target_options={"coreml": {"images": {"x": {"scale": 1 / 255}}}},
    )


class Pixels(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tiny = tiny()

    def forward(self, x):
        return self.tiny(x.flatten(1))


class TestBroken(Conformance):
    model = model(artifacts={"coreml": HERE / "broken.mlpackage", "trt": HERE / "broken.engine"})


class TestOtherShape(Conformance):
    model = Model(tiny, inputs=[Input("x", ("batch", 4, 4))], outputs=["logits"],
                  artifacts={"coreml": OTHER_SHAPE})
"""
HANGS = """
import time


class TestHangs(Conformance):
    model = model(builders=dict.fromkeys(("coreml", "trt"), lambda model, path: time.sleep(1000)))
"""


@pytest.fixture(scope="module")
def judged(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    given = packages.mb.program(input_specs=[packages.mb.TensorSpec(shape=(1, 16))])
    program = given(lambda x: packages.mb.relu(x=x, name="logits"))
    other = packages.converted(program, tmp_path_factory.mktemp("other"))
    suite = f"OTHER_SHAPE = {str(other)!r}\n{SUITE}"
    return judge(suite, "--edge-targets=coreml,trt", "--edge-missing=skip")


def test_a_good_package_passes_all_that_can_be_checked_here(judged: Judged) -> None:
    for precision in ("fp32", "fp16", "int8"):
        for check in ("export", "parity", "accuracy"):
            assert judged.cases[f"good/coreml/{precision}/{check}"]["verdict"] == "passed"


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_the_executor_is_named_and_neither_latency_nor_memory_is_asserted(judged: Judged) -> None:
    for check in ("latency", "memory"):
        record = judged.cases[f"good/coreml/fp32/{check}"]
        assert record["verdict"] == "not_checked"
        assert "macOS" in record["reason"]
    export = judged.cases["good/coreml/fp32/export"]
    assert export["device"]["executor"] == "mil-reference"
    assert export["measurements"]["placement"] == {"executor": "mil-reference"}


@pytest.mark.skipif(
    bool(nvidia.gpu_name()) or importlib.util.find_spec("tensorrt_rtx") is None,
    reason="wants tensorrt_rtx, and no NVIDIA GPU",
)
def test_an_engine_is_built_and_what_needs_a_gpu_is_not_checked(judged: Judged) -> None:
    export = judged.cases["good/trt/int8/export"]
    assert export["verdict"] == "passed"
    assert any("not loaded: no NVIDIA GPU" in line for line in export["warnings"])
    assert export["measurements"]["format"]["architectures"] == ["SM89"]
    for check in ("parity", "accuracy", "latency", "memory"):
        record = judged.cases[f"good/trt/int8/{check}"]
        assert (record["verdict"], "no NVIDIA GPU" in record["reason"]) == ("not_checked", True)
    assert "9 bytes are not a TensorRT engine" in judged.cases["broken/trt/fp32/export"]["reason"]


def test_a_budget_may_forbid_what_the_lint_finds(judged: Judged) -> None:
    record = judged.cases["strict/coreml/fp16/export"]
    assert record["verdict"] == "failed"
    assert "lint_findings 1 is not <= 0" in record["reason"]
    assert any("metadata lacks author" in line for line in record["warnings"])


def test_random_images_are_pixels_where_the_declaration_says_so(judged: Judged) -> None:
    assert judged.cases["pixels/coreml/fp32/parity"]["verdict"] == "passed"
    reason = judged.cases["off_grid/coreml/fp32/parity"]["reason"]
    assert "declare Input('x', ..., step=0.00392157)" in reason


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("broken", "names no root model"),
        ("other_shape", "input 'x' is declared (batch, 4, 4), but 'x' in the file is (1, 16)"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(judged: Judged, model: str, says: str) -> None:
    record = judged.cases[f"{model}/coreml/fp32/export"]
    assert record["verdict"] == "failed"
    assert says in record["reason"]
    assert "\n" not in record["reason"]


@pytest.mark.long
def test_a_build_that_hangs_is_ended(judge: Judge) -> None:
    run = judge(HANGS, "--edge-targets=coreml,trt", "--edge-checks=export", "--edge-timeout=5")
    assert run.status == 1
    for target in ("coreml", "trt"):
        reason = run.cases[f"hangs/{target}/fp32/export"]["reason"]
        assert "took longer than the limit of 5 s and was ended" in reason


def test_an_option_that_there_is_not_is_told_before_anything_runs(judge_within: Judge) -> None:
    suite = """
    class TestTiny(Conformance):
        model = model(target_options={"coreml": {"deployment": "iOS17"}})
    """
    run = judge_within(suite, "--edge-targets=coreml")
    assert run.status != 0
    assert "unknown option of coreml 'deployment'; did you mean 'deployment_target'" in run.output
    assert not run.report or not run.report["cases"]
