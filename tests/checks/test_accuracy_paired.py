"""The paired experiment from end to end: a candidate that changes some samples."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from edgecheck.history.report_file import schema_text
from tests.conftest import Judge, Judged

SUITE = '''
from pathlib import Path


def perturbed():
    """The same with noise on the weights: it turns some near-ties."""
    generator = torch.Generator().manual_seed(7)
    made = tiny()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)
    return made


if not Path("perturbed.onnx").exists():
    torch.onnx.export(
        perturbed(), (torch.zeros(2, 16),), "perturbed.onnx", input_names=["x"],
        output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )


def mine(predictions, labels):
    return (predictions.argmax(-1) == labels).mean()


def common():
    return np.bincount(labels()).argmax()


def of_common(predictions):
    return predictions[:, common()]


def is_common():
    return (labels() == common()).astype(int)


def declared(metric, given=labels, **options):
    evaluation = Evaluation(evaluation_inputs, given, metric=metric, **options)
    return model(artifacts={"ort": "perturbed.onnx"}, evaluation=evaluation)


class TestUpper(Conformance):
    model = declared("top1", drop_policy="upper-bound")
    budget = Budget(accuracy_drop=0.05)


class TestPoint(Conformance):
    model = declared(mine)
    budget = Budget(accuracy_drop=0.05)


class TestF1(Conformance):
    model = declared("f1_macro")
    budget = Budget(accuracy_drop=0.5)


class TestAuc(Conformance):
    model = declared("auc", is_common, postprocess=of_common)
    budget = Budget(accuracy_drop=0.5)


class TestTyping(Conformance):
    """Too many classes for the labels."""
    model = declared("mean_iou")
'''


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def judged(judge: Judge) -> Judged:
    return judge(SUITE, "--edge-targets=ort", "--edge-checks=accuracy")


def measured(judged: Judged, name: str) -> dict[str, Any]:
    return judged.cases[f"{name}/ort/fp32/accuracy"]["measurements"]


def test_only_what_must_fail_fails(judged: Judged) -> None:
    verdicts = {key.split("/")[0]: case["verdict"] for key, case in judged.cases.items()}
    assert verdicts == {
        "upper": "failed",
        "point": "passed",
        "f1": "passed",
        "auc": "passed",
        "typing": "failed",
    }, judged.output


def test_the_record_keeps_the_schema_and_is_small(judged: Judged) -> None:
    jsonschema.validate(judged.report, json.loads(schema_text()))
    for case in judged.cases.values():
        assert len(str(case["measurements"])) < 2000


def test_the_upper_bound_closes_the_gate_and_the_text_says_by_how_much(judged: Judged) -> None:
    assert "accuracy_drop[95 % upper bound]" in judged.output
    assert "McNemar's exact p" in judged.output
    assert "200 samples can show a drop of" in judged.output


def test_a_function_of_the_users_gets_the_experiment_of_top1(judged: Judged) -> None:
    upper, point = measured(judged, "upper"), measured(judged, "point")
    for name in ("accuracy_drop_interval", "mcnemar_p", "changed_samples", "by_policy"):
        assert upper[name] == point[name], name
    assert upper["by_policy"] == {"point": "passed", "upper-bound": "failed"}
    changed = upper["changed_samples"]
    assert changed["right_to_wrong"] - changed["wrong_to_right"] == round(
        200 * upper["accuracy_drop"]
    )


@pytest.mark.parametrize("name", ["f1", "auc"])
def test_other_metrics_are_resampled(judged: Judged, name: str) -> None:
    found = measured(judged, name)
    assert found["resamples"] >= 25
    low, high = found["accuracy_drop_interval"]
    assert low <= found["accuracy_drop"] <= high
    assert found["detectable_drop"] > 0


def test_what_a_bundled_metric_refuses_is_told_in_one_line(judged: Judged) -> None:
    assert (
        "the metric raised ValueError: labels of shape (200,) for scores of shape (200, 4)"
        in (judged.cases["typing/ort/fp32/accuracy"]["reason"])
    )
