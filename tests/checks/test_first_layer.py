"""A failed comparison names the layer that it comes from."""

from __future__ import annotations

import pytest

from tests.conftest import Judge

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

SUITE = """
import onnx
from onnx import numpy_helper


def zeroed(module, path):
    program = torch.onnx.export(
        module, (), kwargs={"x": torch.zeros(2, 16)}, dynamo=True, verbose=False,
        input_names=["x"], output_names=["logits"], external_data=False,
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=64)}},
    ).model_proto
    (weight,) = [item for item in program.graph.initializer if item.name == "output.weight"]
    values = numpy_helper.to_array(weight).copy()
    values[1] = 0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(program, path)


class TestTiny(Conformance):
    model = model(builders={"ort": zeroed}, evaluation=EVALUATION, name="tiny")
"""


def test_the_failures_text_and_record_name_the_layer(judge: Judge) -> None:
    done = judge(SUITE, "--edge-targets=ort", "--edge-checks=parity,accuracy", "--edge-explain=yes")
    assert done.status == 1
    for check in ("parity", "accuracy"):
        record = done.cases[f"tiny/ort/fp32/{check}"]
        assert record["verdict"] == "failed"
        assert record["measurements"]["localization"]["kind"] == "layer"
        assert record["measurements"]["localization"]["module"] == "output"
        assert "first broken: output (Linear)" in record["details"]
    assert done.output.count("first broken: output (Linear)") == 2


@pytest.mark.long
def test_it_is_left_out_on_request(judge: Judge) -> None:
    done = judge(SUITE, "--edge-targets=ort", "--edge-checks=parity", "--edge-explain=no")
    assert done.status == 1
    assert "localization" not in done.cases["tiny/ort/fp32/parity"]["measurements"]
    assert "first broken" not in done.output


@pytest.mark.long
def test_a_failure_that_no_layer_explains_adds_nothing(judge: Judge) -> None:
    done = judge(
        """
        class TestTiny(Conformance):
            model = model(name="tiny")
            budget = Budget(max_abs_error=1e-12)
        """,
        *("--edge-targets=ort", "--edge-checks=parity", "--edge-precisions=fp32"),
        "--edge-explain=yes",
    )
    record = done.cases["tiny/ort/fp32/parity"]
    assert record["verdict"] == "failed"
    assert "localization" not in record["measurements"]
