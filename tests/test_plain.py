"""Text of others, by kinds of characters and commands."""

from __future__ import annotations

import json
import unicodedata
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecheck.errors import ArtifactError
from edgecheck.plain import plain, plain_data

KINDS: Any = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


@given(st.text(st.characters(categories=KINDS), min_size=1))
def test_what_is_not_printable_is_shown_as_its_code(text: str) -> None:
    shown = plain(text)
    assert all(letter.isprintable() or letter in "\t\n" for letter in shown)
    if not set(text) <= {"\t", "\n"}:
        assert "\\" in shown


@given(st.text(st.characters(categories=(*KINDS, "L", "P"))))
def test_it_is_valid_xml_and_stays_as_it_is(text: str) -> None:
    shown = plain(text)
    assert plain(shown) == shown
    node = ElementTree.Element("property", name=shown)
    assert ElementTree.fromstring(ElementTree.tostring(node)).get("name") == shown


@pytest.mark.parametrize(
    "text",
    [
        *("::error::no", "  ::warning file=a.py::no", "a\n::Group::x", "::stop-commands::x"),
        *("##[error]", "##vso[task.x]", "##teamcity[x]"),
    ],
)
def test_commands_of_a_ci_are_none_any_more(text: str) -> None:
    shown = plain(text)
    assert shown.replace(" ", "") == text.replace(" ", "")
    assert not any(mark in shown for mark in ("::error", "::warning", "::Group", "::stop"))
    assert not any(mark in shown for mark in ("##[", "##vso", "##team"))


@pytest.mark.parametrize(
    "text", ["onnx::MatMul_17", "test_a.py::test_error", "std::string", "## Heading", "größer ≥ 1"]
)
def test_ordinary_words_stay(text: str) -> None:
    assert plain(text) == text


def test_all_text_of_plain_data_is_made_so_and_nothing_else() -> None:
    data = {"\x1b[1m": ["\r", {"a": ("\x07", 1.5, None, True)}], "plain": 3}
    assert plain_data(data) == {"\\x1b[1m": ["\\r", {"a": ("\\x07", 1.5, None, True)}], "plain": 3}
    json.dumps(plain_data(data))


def test_an_error_of_ours_never_has_control_characters() -> None:
    assert str(ArtifactError("tensor '\x1b[2J'")) == "tensor '\\x1b[2J'"


def test_categories_that_are_hidden_are_the_ones_that_are_tested() -> None:
    hidden = {
        unicodedata.category(chr(code)) for code in range(0x3000) if plain(chr(code)) != chr(code)
    }
    assert hidden - {"Cn", "Zs"} <= set(KINDS)
