"""Every built-in target passes the tests that third parties inherit."""

from __future__ import annotations

import pytest

from edgecheck.targets.registry import all_targets
from edgecheck.testing import TargetConformance


class TestCoreml(TargetConformance):
    target = all_targets()["coreml"]


class TestExecutorch(TargetConformance):
    target = all_targets()["executorch"]


class TestOrt(TargetConformance):
    target = all_targets()["ort"]


class TestOrtWeb(TargetConformance):
    target = all_targets()["ort-web"]


@pytest.mark.long  # The same runtime as TestOrtWeb.
class TestOrtWebgpu(TargetConformance):
    target = all_targets()["ort-webgpu"]


class TestTflite(TargetConformance):
    target = all_targets()["tflite"]


class TestTrt(TargetConformance):
    target = all_targets()["trt"]


def test_no_target_is_left_out() -> None:
    tested = {item.target.name for item in TargetConformance.__subclasses__()}
    assert {*all_targets()} <= tested
