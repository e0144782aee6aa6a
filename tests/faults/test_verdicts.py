"""A quick slice of the corpus: `python -m tests.faults` judges all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")
pytest.importorskip("coremltools")

from tests.faults import corpus, judging, sound, verdicts
from tests.faults.__main__ import remarks, table
from tests.faults.fault import Fault
from tests.faults.verdicts import Score

SLICE = (
    "dropout-cnn-ort-fp32",
    "swapped-names-series-ort-fp32",
    "transposed-cnn-block3-0-ort-fp32",
    "bit-0-series-conv1-coreml-fp16",
    "zeroed-cnn-hidden-tflite-int8",
    "clipped-range-cnn-ort-int8",
)
LONG_SLICE = (
    "as-strings-cnn-ort-int8",
    "bit-18-cnn-hidden-ort-fp32",
    "pruned-cnn-coreml-palettized",
    "dropout-scale-transformer-tflite-int8",
    "cut-by-1-cnn-tflite-int8",
    "no-weights-cnn-coreml-fp32",
    "unguarded-cnn-ort-fp32",
    "randomnormallike-0-05-cnn-ort-fp32",
)
SOUND = ["cnn", "residual", "text-encoder"]


def test_the_corpus_has_two_faults_of_each_kind_and_each_target() -> None:
    kinds: dict[str, list[Fault]] = {}
    for fault in corpus.FAULTS:
        kinds.setdefault(fault.kind, []).append(fault)
    assert len(kinds) >= 28 and all(len(found) >= 2 for found in kinds.values())
    assert len({fault.name for fault in corpus.FAULTS}) == len(corpus.FAULTS) >= 200
    assert {"ort", "tflite", "coreml"} <= {fault.target for fault in corpus.FAULTS}


@pytest.fixture(
    scope="module", params=[SLICE, pytest.param(LONG_SLICE, marks=pytest.mark.long)], ids=len
)
def planted(request: pytest.FixtureRequest) -> list[Fault]:
    faults = [fault for fault in corpus.FAULTS if fault.name in request.param]
    assert len(faults) == len(request.param)
    return faults


@pytest.fixture(scope="module")
def report(planted: list[Fault], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the planted files and of sound ones, which share its processes."""
    folder = tmp_path_factory.mktemp("faults")
    assert verdicts.plant(planted, folder) == {}
    source = (
        f"{verdicts.suite(planted)}\nfrom tests.faults import sound\n\n"
        f"sound_suites = sound.declare(range(1), {SOUND})\n"
        "globals().update({f'{name}Sound': suite for name, suite in sound_suites.items()})\n"
    )
    targets = {*verdicts.targets(planted), *sound.TARGETS}
    return judging.judge(folder, source, targets, 1)


def test_planted_faults_are_found_by_the_right_check_at_the_right_layer(
    planted: list[Fault], report: dict[str, Any]
) -> None:
    found = verdicts.scored(planted, report)
    assert remarks(found, {}) == []
    assert all(score.detected for score in found)


def test_sound_files_pass(planted: list[Fault], report: dict[str, Any]) -> None:
    faults = {fault.name for fault in planted}
    cases = [case for case in report["cases"] if case["model"] not in faults]
    assert len({case["model"] for case in cases}) == len(SOUND)
    assert [case["key"] for case in cases if case["verdict"] != "passed"] == []
    assert {case["target"] for case in cases} == {"ort", "tflite", "coreml"}


def _scores(layers: Sequence[tuple[str, str]]) -> list[Score]:
    def fault(layer: str) -> Fault:
        return Fault("kind", "name", "cnn", "ort", "fp32", lambda *given: None, layer=layer)

    return [
        Score(fault(own), True, True, named, verdicts.distance(fault(own), named) <= 1, {})
        for own, named in layers
    ]


def test_a_neighbour_counts_as_the_right_layer_and_others_do_not() -> None:
    found = _scores([("head", "head"), ("head", "hidden"), ("block1.0", "head"), ("head", "")])
    assert [score.right_layer for score in found] == [True, True, False, False]
    assert table(found)[1].split()[-1] == "2/4"
    assert len(remarks(found, {})) == 2


def test_an_escaped_fault_is_told_with_its_effect() -> None:
    fault = Fault("kind", "quiet", "cnn", "ort", "fp32", lambda *given: None)
    escaped = [Score(fault, False, False, None, False, {})]
    assert remarks(escaped, {"quiet": 0.5}) == [
        "escaped: quiet: 0.5 times the sound file's own error"
    ]
