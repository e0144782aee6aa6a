"""Every planted single-layer fault that shows in the outputs is found at its layer or beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecheck.localization.judgement import tolerances
from tests.localization import editing, editing_executorch, planting
from tests.localization.planting import Bench

pytest.importorskip("torch")

FAULTS = {
    "ort": editing.onnx_faults,
    "tflite": editing.tflite_faults,
    "coreml": editing.coreml_faults,
    "executorch": editing_executorch.executorch_faults,
}
PACKAGES = {
    "ort": "onnxruntime",
    "tflite": "ai_edge_litert",
    "coreml": "coremltools",
    "executorch": "executorch",
}


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    made: dict[str, Bench] = {}

    def get(name: str) -> Bench:
        if name not in made:
            made[name] = planting.bench(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.mark.parametrize(
    ("target", "network", "precision", "least"),
    [
        ("ort", "convolutional", "int8", 20),
        ("tflite", "convolutional", "fp32", 10),
        pytest.param("tflite", "encoder", "int8", 15, marks=pytest.mark.long),
        pytest.param("coreml", "encoder", "fp16", 10, marks=pytest.mark.long),
        pytest.param("executorch", "convolutional", "fp32", 8, marks=pytest.mark.long),
        pytest.param("executorch", "encoder", "int8", 20, marks=pytest.mark.long),
    ],
)
def test_the_broken_layer_or_its_neighbour_is_named(
    benches: Callable[[str], Bench],
    tmp_path: Path,
    target: str,
    network: str,
    precision: str,
    least: int,
) -> None:
    pytest.importorskip(PACKAGES[target])
    bench = benches(network)
    steps = bench.reference(precision)
    path = bench.build(target, precision)
    found, clean = planting.judged(bench, steps, target, precision, path)
    assert found.broken == ()
    assert all(not layer.suspect for layer in found.layers)
    rounding = tolerances(steps, precision)[-1]
    wrong, shown = [], 0
    for fault, place, broken in FAULTS[target](path, tmp_path):
        layer = bench.layers[place] if isinstance(place, int) else place
        found, outputs = planting.judged(bench, steps, target, precision, broken)
        error = np.sqrt(np.square(outputs - clean).sum() / np.square(clean).sum())
        if error <= rounding:  # a channel that the activation cuts off anyway
            continue
        shown += 1
        if not 0 <= planting.distance(bench, steps, found, layer) <= 1:
            wrong.append((fault, layer, [steps[index].module for index in found.broken]))
    assert wrong == []
    assert shown >= least
