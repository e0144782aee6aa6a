"""Limits that were stated and not judged, for every field of a budget."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from edgecheck.declare.budget import Budget
from edgecheck.declare.limits import KINDS
from edgecheck.judge.unjudged import Statement, unjudged
from edgecheck.names import CHECKS

LIMITS = [item.name for item in fields(Budget)]


def statement(limit: str, key: str = "default") -> Statement:
    return Statement("digits", limit, key, ("logits", "boxes"))


def record(limit: str, judged: bool, **changes: Any) -> dict[str, Any]:
    """A case that passed the check of a limit, held against it or not."""
    kind = KINDS[limit]
    return {
        "model": "digits",
        "variant": "",
        "target": "ort",
        "precision": (kind.precisions or ("int8",))[0],
        "check": kind.check,
        "verdict": "passed",
        "limits": [{"name": limit, "subject": "logits"}] if judged else [],
        **changes,
    }


def found(limit: str, *records: dict[str, Any], key: str = "default", **how: Any) -> list[str]:
    given = {"checks": CHECKS, "absent": (), **how}
    return unjudged([statement(limit, key)], records, **given)


@pytest.mark.parametrize("limit", LIMITS)
def test_each_limit_that_no_case_was_held_against_is_told(limit: str) -> None:
    (sentence,) = found(limit, record(limit, False))
    assert sentence.startswith(f"digits: {limit} is stated and was not judged: ")
    assert found(limit, record(limit, True)) == []
    assert found(limit, record(limit, False), record(limit, True)) == []


@pytest.mark.parametrize("limit", LIMITS)
def test_what_was_not_to_be_measured_is_no_fault(limit: str) -> None:
    others = [item for item in CHECKS if item != KINDS[limit].check]
    assert found(limit, record(limit, False), checks=others) == []
    assert found(limit) == [], "no case was selected"
    assert found(limit, record(limit, False, model="another")) == []
    assert found(limit, record(limit, False, verdict="not_checked")) == []
    for precision in {"fp32", "fp16", "int8"} - set(KINDS[limit].precisions or CHECKS):
        if KINDS[limit].precisions:
            assert found(limit, record(limit, False, precision=precision)) == []


def test_each_target_is_judged_for_itself() -> None:
    (sentence,) = found("cosine", record("cosine", True), record("cosine", False, target="tflite"))
    assert sentence.startswith("digits: cosine is stated and was not judged on tflite: ")
    both = record("cosine", True), record("cosine", True, target="tflite")
    assert found("cosine", *both, record("cosine", False, target="tflite")) == []


def test_words_select_the_cases_that_are_to_be_judged() -> None:
    case = record("cosine", False)
    assert found("cosine", case, key="tflite") == []
    (sentence,) = found("cosine", case, key="ort/int8")
    assert "(for ort/int8)" in sentence
    assert found("cosine", record("cosine", True), key="logits") == []
    assert found("cosine", record("cosine", True), key="boxes") != []


def test_a_check_that_a_model_can_have_no_case_of_is_told_with_what_it_takes() -> None:
    (sentence,) = found("accuracy_floor", absent={("digits", "accuracy")})
    assert sentence.endswith("pass evaluation= to the Model")
