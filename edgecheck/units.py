"""Parsing and printing of quantities with units: "5 ms", "64 MB", "200 /s"."""

from __future__ import annotations

import math
import re

from edgecheck.errors import DeclarationError

# SI prefixes are decimal and IEC prefixes binary (IEC 80000-13): 1 MB = 10^6, 1 MiB = 2^20 bytes.
_UNITS: dict[str, dict[str, float]] = {
    "time": {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    "bytes": {
        "B": 1,
        "kB": 1e3,
        "KB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
    },
    "rate": {"/s": 1.0},
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([^\s0-9]+)\s*")


def parse_quantity(text: str, kind: str) -> float:
    """Parse a quantity with its unit.

    Args:
        text: a number and a unit, as in ``"5 ms"``.
        kind: ``"time"`` (result in milliseconds), ``"bytes"`` or ``"rate"`` (per second).

    Raises:
        DeclarationError: the text is not a number with a known unit.
    """
    units = _UNITS[kind]
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise DeclarationError(
            f"{text!r} is not a {kind} quantity: write a number and one of {', '.join(units)}, "
            f'as in "{_EXAMPLES[kind]}"'
        )
    value = float(match[1]) * units[match[2]]
    if not math.isfinite(value):
        raise DeclarationError(f"{text!r} is too large for a {kind} quantity")
    return value


_EXAMPLES = {"time": "5 ms", "bytes": "64 MB", "rate": "200 /s"}


def format_time(milliseconds: float, digits: int = 3) -> str:
    """Milliseconds as a short text with so many significant digits."""
    return _format(milliseconds, (("s", 1e3), ("ms", 1.0), ("us", 1e-3), ("ns", 1e-6)), digits)


def format_bytes(count: float, digits: int = 3) -> str:
    """Bytes as a short decimal text with so many significant digits."""
    return _format(count, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)), digits)


def _format(value: float, units: tuple[tuple[str, float], ...], digits: int) -> str:
    rounded = abs(float(f"{value:.{digits}g}"))
    unit, factor = next((item for item in units if rounded >= item[1]), units[-1])
    number = f"{value / factor:.{digits}g}"
    if "e" in number:  # only where no unit is large or small enough
        number = f"{value / factor:.0f}"
    return f"{number} {unit}"
