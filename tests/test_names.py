"""Names of the command line: finding what was meant, and splitting lists."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.errors import SelectionError
from edgecheck.names import CHECKS, PRECISIONS, resolve, split_names

law = settings(deadline=None, derandomize=True, max_examples=50)
words = st.text("abcdefgh-8", min_size=1, max_size=6)


@law
@given(st.lists(words, min_size=1, unique=True), st.data())
def test_every_known_name_resolves_to_itself(known: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(known))
    assert resolve(name, known, "thing") == name


@law
@given(st.lists(words, unique=True), words)
def test_an_unknown_name_is_refused_and_the_whole_list_told(
    known: list[str], given_name: str
) -> None:
    if given_name in known:
        return
    with pytest.raises(SelectionError) as caught:
        resolve(given_name, known, "thing")
    assert f"unknown thing {given_name!r}" in str(caught.value)
    assert f"(known: {', '.join(known)})" in str(caught.value)


def test_an_alias_resolves_to_the_name_it_stands_for() -> None:
    assert resolve("onnx", ["ort", "tflite"], "target", {"onnx": "ort"}) == "ort"


def test_an_alias_of_something_unknown_is_refused() -> None:
    with pytest.raises(SelectionError):
        resolve("onnx", ["tflite"], "target", {"onnx": "ort"})


@pytest.mark.parametrize(
    ("given_name", "meant"),
    [
        ("int-8", "int8"),
        ("fp-32", "fp32"),
        ("int8_dynamic", "int8-dynamic"),
        ("int8qat", "int8-qat"),
    ],
)
def test_a_misspelt_precision_is_met_with_the_nearest_one(given_name: str, meant: str) -> None:
    with pytest.raises(SelectionError, match=f"did you mean '{meant}'"):
        resolve(given_name, PRECISIONS, "precision")


def test_a_misspelt_alias_is_suggested_too() -> None:
    with pytest.raises(SelectionError, match="did you mean 'onnxruntime'"):
        resolve("onnxruntme", ["ort"], "target", {"onnxruntime": "ort"})


def test_nothing_is_suggested_for_a_word_that_is_near_to_none() -> None:
    with pytest.raises(SelectionError) as caught:
        resolve("zzzz", CHECKS, "check")
    assert "did you mean" not in str(caught.value)


def test_names_are_case_sensitive() -> None:
    with pytest.raises(SelectionError):
        resolve("FP32", PRECISIONS, "precision")


def test_known_names_may_come_from_an_iterator() -> None:
    assert resolve("b", iter(["a", "b"]), "thing") == "b"


@law
@given(st.lists(words), st.lists(st.sampled_from(["", " ", "\t"]), min_size=1))
def test_a_joined_list_splits_into_its_names_once_each_in_order(
    names: list[str], padding: list[str]
) -> None:
    blank = padding[0]
    text = ",".join(f"{blank}{name}{blank}" for name in names)
    assert split_names(text) == list(dict.fromkeys(names))


@pytest.mark.parametrize("text", ["", ",", " , ,", "   "])
def test_a_list_of_nothing_is_empty(text: str) -> None:
    assert split_names(text) == []


def test_the_precisions_and_checks_have_no_repeats() -> None:
    assert len(set(PRECISIONS)) == len(PRECISIONS)
    assert len(set(CHECKS)) == len(CHECKS)
