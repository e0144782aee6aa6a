"""Targets of third parties: installed through the entry point, judged like edgecheck's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Judge

EXAMPLE = Path(__file__).parents[2] / "examples" / "numpy_perceptron"
PACKAGE = "edgecheck_numpy_perceptron"
SUITE = """
class TestTiny(Conformance):
    model = model(evaluation=EVALUATION)
"""
WRONG = """
def spoiled(module, path):
    import numpy as np

    arrays = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    arrays["output.weight"] = -arrays["output.weight"]
    with open(path, "wb") as stream:
        np.savez(stream, **arrays, output_name=np.array("logits"))


class TestTiny(Conformance):
    model = model(builders={"numpy-perceptron": spoiled})
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, as an installed package would leave it."""
    folder = tmp_path / "site"
    shutil.copytree(EXAMPLE / PACKAGE, folder / PACKAGE)
    install(folder, f"{PACKAGE}:TARGET")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def install(folder: Path, entry: str) -> None:
    metadata = folder / f"{PACKAGE}-1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: edgecheck-numpy-perceptron\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(f"[edgecheck.targets]\nperceptron = {entry}\n")


def test_the_example_is_small_and_passes_the_tests_for_targets(installed: Path) -> None:
    sources = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml")]
    assert sum(len(path.read_text().splitlines()) for path in sources) < 120
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.long
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


@pytest.mark.long
def test_the_layer_that_breaks_is_found_with_a_tracer_of_others(
    installed: Path, judge: Judge
) -> None:
    run = judge(
        WRONG, "--edge-targets=numpy-perceptron", "--edge-checks=parity", "--edge-explain=yes"
    )
    assert run.status == 1, run.output
    parity = run.cases["tiny/numpy-perceptron/fp32/parity"]
    assert parity["measurements"]["localization"]["kind"] == "layer"
    assert "output (Linear)" in parity["details"]


@pytest.mark.long
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


def target(name: str, precisions: str = "{}") -> str:
    """The source of a module that declares a target."""
    return (
        "from edgecheck.targets.base import Build, Files, Runtime, Target\n"
        f"build, runtime = Build({precisions}, 'm:B'), Runtime('m:R')\n"
        f"TARGET = Target({name!r}, 'Mine', Files('.x'), build, runtime)"
    )


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("TARGET = 3", "is a int, not an edgecheck.targets.base.Target"),
        ("raise OSError('no licence')", "does not load: OSError: no licence"),
        (target("ort"), "names a target 'ort', which exists already"),
        (target("a/b"), "names a target 'a/b': use letters"),
        (target("x", "{'int3': 'torch'}"), "has unknown precisions ['int3']"),
    ],
)
def test_what_is_no_target_is_told_with_where_it_comes_from(
    installed: Path, judge: Judge, module: str, says: str
) -> None:
    (installed / "mine.py").write_text(module)
    install(installed, "mine:TARGET")
    run = judge(SUITE, "--edge-targets=ort")
    assert run.status == 4
    expected = "the entry point 'perceptron' of edgecheck-numpy-perceptron in edgecheck.targets"
    assert f"{expected} {says}" in run.output
