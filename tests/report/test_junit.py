"""JUnit properties: flat names and values of a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.report.junit import properties

law = settings(deadline=None, derandomize=True, max_examples=50)


def record(**changes: Any) -> dict[str, Any]:
    return {
        "model": "digits",
        "variant": "",
        "target": "ort",
        "precision": "int8",
        "check": "parity",
        "verdict": "passed",
        "reason": "",
        "artifact": None,
        "limits": [],
        "measurements": {},
        **changes,
    }


def found(**changes: Any) -> dict[str, Any]:
    pairs = properties(record(**changes))
    assert len(dict(pairs)) == len(pairs), "names repeat"
    return dict(pairs)


def test_a_case_is_told_by_identity_and_verdict() -> None:
    assert found() == {
        "edgecheck.model": "digits",
        "edgecheck.target": "ort",
        "edgecheck.precision": "int8",
        "edgecheck.check": "parity",
        "edgecheck.verdict": "passed",
    }


def test_variant_and_reason_are_told_where_there_are_any() -> None:
    told = found(variant="pruned", reason="too slow", verdict="failed")
    assert told["edgecheck.variant"] == "pruned"
    assert told["edgecheck.reason"] == "too slow"


def test_the_artifact_is_told_by_hash_and_size() -> None:
    told = found(artifact={"file": "m", "sha256": "ab", "size_bytes": 0, "origin": "built"})
    assert told["edgecheck.artifact.sha256"] == "ab"
    assert told["edgecheck.artifact.size_bytes"] == 0


def test_limits_of_several_outputs_have_names_of_their_own() -> None:
    limits = [
        {"name": "sqnr_db", "subject": "a", "limit": 12.0},
        {"name": "sqnr_db", "subject": "b", "limit": 20.0},
        {"name": "size", "subject": "", "limit": 0.0},
    ]
    told = found(limits=limits)
    assert told["edgecheck.limit.sqnr_db.a"] == 12.0
    assert told["edgecheck.limit.sqnr_db.b"] == 20.0
    assert told["edgecheck.limit.size"] == 0.0


def test_nested_numbers_and_texts_are_flattened_and_lists_left_out() -> None:
    told = found(
        measurements={
            "outputs": {"y": {"sqnr_db": 0.0, "worst": {"input": "samples", "index": [1, 2]}}},
            "samples_ns": [1, 2],
            "nothing": None,
            "flag": False,
            "infinite": "inf",
        }
    )
    assert told["edgecheck.outputs.y.sqnr_db"] == 0.0
    assert told["edgecheck.outputs.y.worst.input"] == "samples"
    assert told["edgecheck.flag"] is False
    assert told["edgecheck.infinite"] == "inf"
    assert not any("index" in name or "samples_ns" in name for name in told)
    assert "edgecheck.nothing" not in told


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
names = st.text("abc", min_size=1, max_size=3)
measurements = st.recursive(
    st.dictionaries(names, leaves, max_size=3),
    lambda inner: st.dictionaries(names, leaves | st.lists(leaves, max_size=2) | inner, max_size=3),
    max_leaves=6,
)


def scalars(
    tree: dict[str, Any], prefix: str = "edgecheck"
) -> Iterator[tuple[str, str | bool | float]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}.{name}")
        elif value is not None and not isinstance(value, list):
            yield f"{prefix}.{name}", value


@law
@given(measurements)
def test_every_scalar_is_told_exactly_once_under_its_path(tree: dict[str, Any]) -> None:
    base = len(properties(record()))
    assert properties(record(measurements=tree))[base:] == list(scalars(tree))


@law
@given(measurements)
def test_values_are_such_as_xml_attributes_can_hold(tree: dict[str, Any]) -> None:
    for name, value in properties(record(measurements=tree)):
        assert isinstance(name, str)
        assert isinstance(value, int | float | str)


@pytest.mark.parametrize("reason", ['<&">', "two\nlines", "ü 漢 \U0001f600"])
def test_a_reason_survives_the_way_through_xml(reason: str) -> None:
    element = ElementTree.Element("property", value=str(found(reason=reason)["edgecheck.reason"]))
    again = ElementTree.fromstring(ElementTree.tostring(element))
    assert again.get("value") == reason
