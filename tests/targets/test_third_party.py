"""Targets of third parties: installed through the entry point, judged like edgecheck's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Judge

EXAMPLE = Path(__file__).parents[1] / "third_party"
MODULES = ("numpy_perceptron.py", "numpy_perceptron_driver.py")
SUITE = """
class TestTiny(Conformance):
    model = model(evaluation=EVALUATION)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, as an installed package would leave it."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in MODULES:
        (folder / name).write_text((EXAMPLE / name).read_text())
    install(folder, "numpy_perceptron:TARGET")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def install(folder: Path, entry: str) -> None:
    metadata = folder / "edgecheck_numpy_perceptron-1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: edgecheck-numpy-perceptron\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(f"[edgecheck.targets]\nperceptron = {entry}\n")


def test_a_target_of_others_is_judged_by_all_checks(installed: Path, judge: Judge) -> None:
    run = judge(SUITE, "--edge-targets=numpy-perceptron", "--strict-markers")
    assert run.status == 0, run.output
    keys = {key for key, case in run.cases.items() if case["verdict"] == "passed"}
    assert keys == {
        f"tiny/numpy-perceptron/{precision}/{check}"
        for precision in ("fp32", "fp16")
        for check in ("export", "parity", "accuracy", "latency", "memory")
    }
    half = run.cases["tiny/numpy-perceptron/fp16/export"]["measurements"]
    assert half["weight_elements"] == {"float16": 16 * 32 + 32 + 32 * 4 + 4}


def test_the_marker_of_a_target_of_others_selects_it(installed: Path, judge: Judge) -> None:
    run = judge(SUITE, "-m", "fp16 and export", "--edge-targets=numpy-perceptron,ort")
    assert run.status == 0, run.output
    assert set(run.cases) == {f"tiny/{name}/fp16/export" for name in ("numpy-perceptron", "ort")}


def test_doctor_lists_a_target_of_others(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgecheck.commands.cli", "doctor", "numpy-perceptron"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "numpy-perceptron" in done.stdout
    assert "ready" in done.stdout


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("TARGET = 3", "is a int, not an edgecheck.targets.Target"),
        ("raise OSError('no licence')", "does not load: OSError: no licence"),
        ("TARGET = Target('ort', 'Mine', '.x', {})", "names a target 'ort', which exists already"),
        ("TARGET = Target('a/b', 'Mine', '.x', {})", "names a target 'a/b': use letters"),
        ("TARGET = Target('x', 'X', '.x', {'int3': 'torch'})", "has unknown precisions ['int3']"),
    ],
)
def test_what_is_no_target_is_told_with_where_it_comes_from(
    installed: Path, judge: Judge, module: str, says: str
) -> None:
    (installed / "mine.py").write_text(f"from edgecheck.targets import Target\n{module}\n")
    install(installed, "mine:TARGET")
    run = judge(SUITE, "--edge-targets=ort")
    assert run.status == 4
    expected = "the entry point 'perceptron' of edgecheck-numpy-perceptron in edgecheck.targets"
    assert f"{expected} {says}" in run.output
