"""Two builds of the same program: the same file, other bytes, other outputs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecheck.checks import rebuild
from tests.conftest import Judge, Judged

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

SUITE = """
import secrets

import onnx
from onnx import numpy_helper


def export(module):
    return torch.onnx.export(
        module, (), kwargs={"x": torch.zeros(2, 16)}, dynamo=True, verbose=False,
        input_names=["x"], output_names=["logits"], external_data=False,
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=64)}},
    ).model_proto


def named(module, path):
    program = export(module)
    program.doc_string = secrets.token_hex(8)
    onnx.save(program, path)


def drawn(module, path):
    program = export(module)
    (weight,) = [item for item in program.graph.initializer if item.name == "output.weight"]
    values = numpy_helper.to_array(weight).copy()
    values[0] += secrets.randbelow(1000) / 1e4
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(program, path)


class TestSame(Conformance):
    model = model(name="same", calibration=inputs, targets={"ort": ["fp32", "int8"]})


class TestNamed(Conformance):
    model = model(name="named", builders={"ort": named})


class TestDrawn(Conformance):
    model = model(name="drawn", builders={"ort": drawn})
    budget = Budget(noise_ratio=1e9)
"""


@pytest.fixture(scope="module")
def judged(judge: Judge) -> Judged:
    return judge(SUITE, "--edge-targets=ort", "--edge-checks=parity", "--edge-rebuild=yes")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.long
def test_a_second_build_is_the_same_file(judged: Judged, precision: str) -> None:
    case = judged.cases[f"same/ort/{precision}/parity"]
    assert case["measurements"]["rebuild"] == {"same_file": True}
    told = [*case["failures"], *case["warnings"]]
    # On x86 with AVX2 and without VNNI, int8 kernels add two products (255 * 127 each) in 16 bits
    # and saturate. Parity rightly tells that there, and it has nothing to do with the build.
    assert [text for text in told if precision == "fp32" or "builds" in text] == []


@pytest.mark.long
def test_other_bytes_with_the_same_outputs_are_told(judged: Judged) -> None:
    case = judged.cases["named/ort/fp32/parity"]
    assert case["verdict"] == "passed"
    assert "two builds of the same program differ in their bytes" in case["warnings"][0]
    assert case["measurements"]["rebuild"]["differences"]["logits"]["max_abs_error"] == 0


@pytest.mark.long
def test_other_outputs_fail(judged: Judged) -> None:
    case = judged.cases["drawn/ort/fp32/parity"]
    assert case["verdict"] == "failed"
    assert "differs between two builds of the same program" in case["reason"]


@pytest.mark.long
def test_nothing_is_built_twice_unasked(judge: Judge) -> None:
    done = judge(SUITE, "--edge-targets=ort", "--edge-checks=parity", "--edge-models=same")
    assert "rebuild" not in done.cases["same/ort/fp32/parity"]["measurements"]


@pytest.mark.parametrize("cached", [True, False, None])
@pytest.mark.parametrize("error", [0.0, 1e-7, 0.1])
def test_a_first_build_from_the_cache_may_be_another_processors(
    tmp_path: Path, cached: bool | None, error: float
) -> None:
    again = tmp_path / "again.onnx"
    again.write_bytes(b"other bytes")
    paths = []
    for name, array in (("before", np.ones(4)), ("after", np.ones(4) - error)):
        np.save(tmp_path / f"{name}.npy", array)
        paths.append({"y": str(tmp_path / f"{name}.npy")})
    session = SimpleNamespace(bind=lambda binding: None, run=lambda feeds, folder: paths[1:])
    workbench: Any = SimpleNamespace(
        settings=SimpleNamespace(rebuild=True, scratch=tmp_path),
        rebuilt=lambda case: again,
        built=lambda case: SimpleNamespace(sha256="0" * 64, cached=cached),
        device=SimpleNamespace(open=lambda *arguments: session),
        binding=lambda case: None,
        feeds=lambda case: SimpleNamespace(feeds=[{}]),
        feed_outputs=lambda case: {0: paths[0]},
    )
    case: Any = SimpleNamespace(candidate="c", target=None, options={}, precision="fp32")
    found = rebuild.measure(workbench, case, {})
    assert (len(found.failures), len(found.warnings)) == ((1, 0) if error > 1e-5 else (0, 1))
    assert ("another processor" in (*found.failures, *found.warnings)[0]) == bool(cached)
