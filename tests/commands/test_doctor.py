"""``edgecheck doctor``: what is there, what is missing, and the same words as in skip reasons."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from edgecheck.commands.cli import main
from edgecheck.commands.doctor import examine
from edgecheck.targets.base import Host
from edgecheck.targets.registry import all_targets
from edgecheck.targets.trt import nvidia


def test_every_target_has_a_row_within_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines[3:] if line and not line.startswith(" ")]
    assert named == list(all_targets())
    assert max(map(len, lines)) <= 100


def test_a_package_that_is_missing_is_told_with_its_command() -> None:
    lacking = dataclasses.replace(
        all_targets()["ort"], host=Host(packages={"no_such_module": "no-such"})
    )
    found = examine(lacking)
    assert (found["builds"], found["runs"]) == (False, False)
    assert found["missing"] == "no-such not installed: pip install 'edgecheck[ort]'"
    assert found["missing"] == lacking.missing()


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "ort", "--json"]) == 0
    (ort,) = json.loads(capsys.readouterr().out)["targets"]
    assert ort["builds"] and ort["runs"] and not ort["not_checked"]
    assert ort["versions"]["onnxruntime"]


@pytest.mark.skipif(bool(nvidia.gpu_name()), reason="this machine has an NVIDIA GPU")
def test_a_named_target_that_can_not_be_run_here_is_an_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "trt"]) == 1
    assert "GPU" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_core_ml_is_run_by_the_reference_executor_elsewhere() -> None:
    pytest.importorskip("coremltools")
    found = examine(all_targets()["coreml"])
    assert found["executor"] == "mil-reference"
    assert found["runs"]
    assert set(found["not_checked"]) == {"latency", "memory"}
    assert "macOS" in found["not_checked"]["latency"]


def test_a_name_that_is_no_target_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "tensorflow-light"]) == 2
    assert "unknown target 'tensorflow-light'" in capsys.readouterr().err
