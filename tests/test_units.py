"""Quantities with units: what parses, what is refused, and that printing keeps the value."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.errors import DeclarationError
from edgecheck.units import format_bytes, format_time, parse_quantity

law = settings(deadline=None, derandomize=True, max_examples=50)

# Unit -> how many of the base unit it is, stated anew: milliseconds, bytes, per second.
TIMES: dict[str, float] = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1000}
SIZES: dict[str, float] = {
    **{"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3},
    **{"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3},
}
FACTORS: dict[str, dict[str, float]] = {"time": TIMES, "bytes": SIZES, "rate": {"/s": 1}}
EVERY_UNIT = [(kind, unit) for kind, units in FACTORS.items() for unit in units]
numbers = st.floats(0, 1e12, allow_nan=False) | st.integers(0, 10**12)
blanks = st.text(" \t", max_size=3)


@law
@given(numbers, st.sampled_from(EVERY_UNIT), blanks, blanks, blanks)
def test_a_number_with_any_unit_parses_to_the_base_unit(
    number: float, kind_and_unit: tuple[str, str], before: str, mid: str, after: str
) -> None:
    kind, unit = kind_and_unit
    text = f"{before}{number!r}{mid}{unit}{after}"
    assert parse_quantity(text, kind) == pytest.approx(number * FACTORS[kind][unit], rel=1e-12)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5 ms", "time", 5.0),
        ("2s", "time", 2000.0),
        ("1.5 us", "time", 0.0015),
        ("64 MB", "bytes", 64_000_000),
        ("2 MiB", "bytes", 2_097_152),
        ("0 B", "bytes", 0),
        ("200 /s", "rate", 200),
        ("1e3 kB", "bytes", 1e6),
    ],
)
def test_the_documented_forms_parse_exactly(text: str, kind: str, value: float) -> None:
    assert parse_quantity(text, kind) == value


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("5", "time"),
        ("ms", "time"),
        ("", "time"),
        ("5 mb", "bytes"),
        ("5 Ms", "time"),
        ("5 MS", "time"),
        ("5 ms", "bytes"),
        ("5 MB", "time"),
        ("200", "rate"),
        ("-5 ms", "time"),
        ("nan ms", "time"),
        ("inf ms", "time"),
        ("5,5 ms", "time"),
        ("5 ms 3", "time"),
        ("1..5 ms", "time"),
        (5, "time"),
        (5.0, "bytes"),
        (None, "time"),
        (b"5 ms", "time"),
        (True, "bytes"),
    ],
)
def test_what_is_no_number_with_a_known_unit_is_refused(text: str, kind: str) -> None:
    with pytest.raises(DeclarationError, match=re.escape(repr(text))):
        parse_quantity(text, kind)


def test_a_refusal_names_the_units_and_an_example() -> None:
    with pytest.raises(DeclarationError) as caught:
        parse_quantity("64 megs", "bytes")
    message = str(caught.value)
    assert "MB" in message and "MiB" in message and '"64 MB"' in message


def test_a_quantity_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(DeclarationError):
        parse_quantity("1e999 ms", "time")


@law
@given(st.floats(1e-6, 1e7))
def test_a_printed_time_parses_back_to_three_digits(milliseconds: float) -> None:
    assert parse_quantity(format_time(milliseconds), "time") == pytest.approx(
        milliseconds, rel=0.0051
    )


@law
@given(st.integers(0, 10**13))
def test_printed_bytes_parse_back_to_three_digits(count: int) -> None:
    assert parse_quantity(format_bytes(count), "bytes") == pytest.approx(count, rel=0.0051)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.0, "0 ns"),
        (0.00025, "250 ns"),
        (0.25, "250 us"),
        (1.0, "1 ms"),
        (12.3456, "12.3 ms"),
        (1000.0, "1 s"),
        (1234.5, "1.23 s"),
    ],
)
def test_times_print_in_the_unit_a_person_would_choose(milliseconds: float, text: str) -> None:
    assert format_time(milliseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_500_000, "1.5 MB"),
        (2 * 10**9, "2 GB"),
        (-2_000_000, "-2 MB"),
    ],
)
def test_bytes_print_in_the_unit_a_person_would_choose(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize("milliseconds", [0.9996, 999.6, 1_500_000.0])
def test_a_time_is_never_printed_in_scientific_notation(milliseconds: float) -> None:
    assert "e+" not in format_time(milliseconds)


@pytest.mark.parametrize("count", [999_600, 999_999_999, 5 * 10**12])
def test_bytes_are_never_printed_in_scientific_notation(count: int) -> None:
    assert "e+" not in format_bytes(count)


def test_printing_nan_does_not_raise() -> None:
    assert "nan" in format_time(math.nan)
    assert "nan" in format_bytes(math.nan)
