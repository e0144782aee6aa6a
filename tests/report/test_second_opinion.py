"""One target's file against another's of the same precision."""

from __future__ import annotations

from typing import Any

import pytest

from edgecheck.report.second_opinion import added


def parity(target: str, sqnr_db: float | None, **other: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "variant": "",
        "target": target,
        "precision": "int8",
        "check": "parity",
        "warnings": ["first"],
        "measurements": {"outputs": {"logits": {"sqnr_db": sqnr_db}}},
        **other,
    }


def warnings(*records: dict[str, Any]) -> list[list[str]]:
    return [record["warnings"][1:] for record in added(records)]


def test_the_worse_file_is_told_of_the_better_one() -> None:
    (worse, better) = warnings(parity("tflite", 20.0), parity("ort", 38.5))
    assert better == []
    assert worse == [
        "output 'logits': SQNR is 20 dB, and ort's int8 file of the same model reaches 38.5 dB"
    ]


@pytest.mark.parametrize(
    "other",
    [
        parity("ort", 31.9),
        parity("ort", 90.0, model="another"),
        parity("ort", 90.0, variant="pruned"),
        parity("ort", 90.0, precision="fp32"),
        parity("ort", 90.0, check="accuracy"),
        parity("ort", None),
        parity("ort", 90.0, measurements={}),
    ],
)
def test_what_is_not_comparable_or_near_says_nothing(other: dict[str, Any]) -> None:
    assert warnings(parity("tflite", 20.0), other) == [[], []]


def test_it_is_said_once() -> None:
    pair = [parity("tflite", 20.0), parity("ort", 40.0)]
    assert added(added(pair)) == added(pair)
    assert pair[0]["warnings"] == ["first"]
