"""A damaged weight that the outputs hide fails parity, and its layer is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecheck.checks import weight_audit
from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case
from edgecheck.declare.model import Input, Model
from edgecheck.targets.registry import find_target
from tests.conftest import Judge
from tests.localization.files import opened

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

SUITE = """
class TestTiny(Conformance):
    model = model(
        name="tiny",
        calibration=inputs,
        targets={"ort": ["fp32", "int8"], "tflite": ["int8"]},
        artifacts=ARTIFACTS,
    )
"""
ARGUMENTS = ("--edge-targets=ort,tflite", "--edge-checks=parity")
# A bit far below the noise of the outputs.
FLIPPED = {"ort/fp32": 8, "ort/int8": 3, "tflite/int8": 3}


def flipped(sound: Path, bit: int, path: Path) -> Path:
    """The file with a bit of one weight of the hidden layer flipped."""
    file = opened(sound)
    position = [weight.shape for weight in file.weights].index((32, 16))
    weight = np.array(file.weights[position], order="C")
    bits = weight.view(f"u{weight.itemsize}")
    bits[3, 5] ^= bits.dtype.type(1 << bit)
    file.put(position, weight)
    saved: Path = file.save(path)
    return saved


@pytest.mark.long
def test_one_flipped_bit_fails_and_its_layer_is_named(judge: Judge, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    sound = judge(SUITE.replace("ARTIFACTS", "{}"), *ARGUMENTS, f"--edge-cache={cache}")
    assert sound.status == 0, sound.output
    files = {}
    for entry in cache.glob("objects/*/*/entry.json"):
        about = json.loads(entry.read_text())
        files[about["label"].removeprefix("tiny/")] = entry.parent / about["file"]
    artifacts = {}
    for name, bit in FLIPPED.items():
        audit = sound.cases[f"tiny/{name}/parity"]["measurements"]["weight_audit"]
        assert (audit["matched_weights"], audit["damaged"]) == (2, [])
        path = tmp_path / f"{name.replace('/', '-')}{files[name].suffix}"
        artifacts[tuple(name.split("/"))] = str(flipped(files[name], bit, path))
    broken = judge(SUITE.replace("ARTIFACTS", repr(artifacts)), *ARGUMENTS)
    assert broken.status == 1
    for name in FLIPPED:
        record = broken.cases[f"tiny/{name}/parity"]
        assert record["verdict"] == "failed"
        (failure,) = record["failures"]  # nothing else shows it
        assert failure.startswith("1 of 512 weights of layer hidden is not the reference's: ")
        assert " at [3, 5]: the file is damaged, or was edited" in failure
        assert record["measurements"]["localization"]["module"] == "hidden"


@pytest.mark.parametrize(
    ("count", "quantized", "words"),
    [
        (1, True, "1 of 9 weights of layer a.b is not the reference's: by 64 steps at [0, 2]: "),
        (2, True, "2 of 9 weights of layer a.b are not the reference's: the worst by 64 steps at "),
        (1, False, "is not the reference's: 0.5 instead of 0.25 at [0, 2]: the file is damaged"),
    ],
)
def test_the_sentence_says_which_weight_and_by_how_much(
    count: int, quantized: bool, words: str
) -> None:
    damage = {
        **{"layer": "a.b", "count": count, "of": 9, "index": [0, 2], "error": 64.0},
        **{"quantized": quantized, "stored": 0.5, "expected": 0.25},
    }
    assert words in weight_audit.sentence(damage)


@pytest.mark.parametrize(
    ("below_db", "stored", "matched", "stated", "said"),
    [
        (8.8, 5, 0, False, True),
        (8.8, 5, 0, True, False),  # who states a limit has decided
        (5.9, 5, 0, False, False),  # no worse than sound files
        (8.8, 5, 5, False, False),  # the model's own weights
        (8.8, 0, 0, False, False),  # none that could be read
    ],
)
def test_a_file_that_is_worse_than_a_plain_quantization_must_have_the_models_weights(
    below_db: float, stored: int, matched: int, stated: bool, said: bool
) -> None:
    budget = Budget(sqnr_below_honest_db=12) if stated else Budget()
    model = Model(
        inputs=[Input("x", (1, 4))],
        outputs=["y"],
        reference="coreml",
        artifacts={"coreml": "m.mlpackage"},
    )
    case = Case("digits", "", find_target("coreml"), "palettized", model, budget)
    failures = weight_audit.foreign(
        case,
        {
            **{"stored_weights": stored, "matched_weights": matched},
            **{"stored_elements": stored * 100, "matched_elements": matched * 100},
        },
        {"y": {"sqnr_below_honest_db": below_db}},
        {"y": case.limits("y")},
    )
    assert bool(failures) is said
    if said:
        assert "8.8 dB below" in failures[0]
        assert "5 of 5 stored weights are not its weights" in failures[0]
