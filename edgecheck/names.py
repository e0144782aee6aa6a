"""The words of the command line: precisions, checks, and finding what a user meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edgecheck.errors import SelectionError

if TYPE_CHECKING:
    pass

PRECISIONS = (
    *("fp32", "fp16", "int16x8", "int8-dynamic", "int8-weights", "int8", "int8-qat"),
    *("int4", "palettized"),
)
# Those that are made with the ranges that calibration data shows.
CALIBRATED = ("int16x8", "int8")
# Of targets, models and variants: they stay whole in case ids, keys and globs.
NAME = re.compile(r"[\w.-]+")
CHECKS = ("export", "parity", "accuracy", "latency", "memory")


def resolve(given: str, known: Iterable[str], what: str, aliases: Mapping[str, str] = {}) -> str:
    """The known name that `given` stands for.

    Raises:
        SelectionError: there is none; the message has the nearest name and the whole list.
    """
    known = list(known)
    name = aliases.get(given, given)
    if name in known:
        return name
    near = difflib.get_close_matches(given, [*known, *aliases], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SelectionError(f"unknown {what} {given!r}{hint} (known: {', '.join(known)})")


def layer_of(parameter: str) -> str:
    """The layer that a parameter belongs to: its module's path, or its own name at the root."""
    return parameter.rpartition(".")[0] or parameter


def split_names(text: str) -> list[str]:
    """The names in a comma-separated list, in order, without blanks and repeats."""
    return list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


SCHEMA = "edgecheck-report/1"
# Verdicts from the worst to the best, the order of every listing.
VERDICTS = ("failed", "inconclusive", "unsupported", "not_checked", "passed")


def model_name_of(class_name: str) -> str:
    """The model's name by its Conformance class: ``TestDigitsCNN`` -> ``digits_cnn``."""
    stem = class_name.removeprefix("Test") or class_name
    letters: list[str] = []
    for position, letter in enumerate(stem):
        previous = stem[position - 1] if position else ""
        following = stem[position + 1 : position + 2]
        starts = letter.isupper() and (
            previous.islower() or previous.isdigit() or (previous.isupper() and following.islower())
        )
        if position and starts:
            letters.append("_")
        letters.append(letter.lower())
    return "".join(letters)
