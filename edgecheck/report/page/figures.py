"""Numbers as people read them; the unit is the end of the number's name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgecheck.declare.budget import Limit
from edgecheck.units import format_bytes, format_time

Format = Callable[[float], str]

# The longest suffix that fits counts, so the order is from the longest down.
_SUFFIXES: tuple[tuple[str, Format], ...] = (
    ("_bytes_per_inference", lambda value: f"{_bytes(value)} per inference"),
    ("_per_s", lambda value: f"{number(value)} /s"),
    ("_bytes", lambda value: _bytes(value)),
    ("_share", lambda value: f"{100 * value:.3g} %"),
    ("_mhz", lambda value: f"{number(value)} MHz"),
    ("_db", lambda value: f"{number(value)} dB"),
    ("_ms", format_time),
    ("_ns", lambda value: format_time(value / 1e6)),
    ("_s", lambda value: format_time(value * 1e3)),
)
_SCALES: dict[str, tuple[tuple[str, float], ...]] = {
    "_bytes": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)),
    "_per_s": (("/s", 1.0),),
    "_db": (("dB", 1.0),),
    "_ms": (("s", 1e3), ("ms", 1.0), ("us", 1e-3), ("ns", 1e-6)),
}
_ACRONYMS = {"sqnr": "SQNR", "cpu": "CPU", "ir": "IR", "p50": "p50", "std": "standard deviation"}


def number(value: float, digits: int = 4) -> str:
    """A bare number: integers in full, others to so many significant digits."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _bytes(value: float) -> str:
    return format_bytes(value) if value >= 0 else f"-{format_bytes(-value)}"


def quantity(name: str, value: Any) -> str:
    """A value as text, by the unit at the end of its name; "inf" and "nan" may be text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not known"}[value]
    if isinstance(value, str):
        if value not in ("inf", "-inf", "nan"):
            return value
        value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return number(value) + (" dB" if name.endswith("_db") else "")
    for suffix, show in _SUFFIXES:
        if name.endswith(suffix):
            return show(value)
    return number(value)


def label(name: str) -> str:
    """A measurement's name without its unit, in words: "latency p50"."""
    for suffix, _ in _SUFFIXES:
        if suffix != "_share" and name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    return " ".join(_ACRONYMS.get(word, word) for word in name.split("_"))


def scale(name: str, typical: float) -> tuple[str, float]:
    """The unit that suits values of about this size, and by what to divide them for it."""
    for suffix, units in _SCALES.items():
        if name.endswith(suffix):
            return next((item for item in units if abs(typical) >= item[1]), units[-1])
    return "", 1.0


def limit_texts(limit: dict[str, Any]) -> tuple[str, str, str]:
    """What was measured, the limit, and the interval or "", of an entry of a record's limits."""
    rule = Limit(limit["name"], limit["limit"], limit["bound"], limit["unit"], limit["origin"])
    measured, bound = rule.texts(float(limit["measured"]))
    interval = ""
    if limit["interval"] is not None:
        interval = " to ".join(rule.texts(float(value))[0] for value in limit["interval"])
    return measured, bound, interval


def used(limit: dict[str, Any]) -> float:
    """What share of a limit is used up: 1 at the limit, more beyond it.

    Of a least share, as of an accuracy of 0.95, it is what is missing from 1.
    """
    measured, bound = float(limit["measured"]), float(limit["limit"])
    if math.isnan(measured):
        return math.inf
    if limit["bound"] == "min":
        if not limit["unit"] and 0 <= bound <= 1 and 0 <= measured <= 1:
            measured, bound = 1 - measured, 1 - bound
        else:
            measured, bound = bound, measured
    if bound <= 0 or math.isinf(measured):
        return 0.0 if measured <= bound else math.inf
    return max(0.0, measured / bound)
