"""Warns when another target's file of the same precision keeps much more of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecheck.judge.noise import HONEST_MARGIN_DB

# All of a file's layers are quantized in these, on any target; int8-dynamic leaves others float on
# each, and the 4-bit schemes differ.
_ALIKE = ("int8", "int8-weights", "int16x8")


def added(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records, parity's with a warning where another target's SQNR is far above its own."""
    reached: dict[tuple[Any, ...], dict[str, float]] = {}
    for record in records:
        for output, sqnr_db in _sqnr_db(record).items():
            reached.setdefault((*_group(record), output), {})[record["target"]] = sqnr_db
    return [_judged(record, reached) for record in records]


def _group(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record["model"], record["variant"], record["precision"]


def _sqnr_db(record: Mapping[str, Any]) -> dict[str, float]:
    """The SQNR of each output that a parity case compared."""
    if record["check"] != "parity" or record["precision"] not in _ALIKE:
        return {}
    outputs = record["measurements"].get("outputs", {})
    found = {name: item.get("sqnr_db") for name, item in outputs.items()}
    # Exact agreement has no number.
    return {name: value for name, value in found.items() if isinstance(value, float)}


def _judged(
    record: dict[str, Any], reached: Mapping[tuple[Any, ...], Mapping[str, float]]
) -> dict[str, Any]:
    warnings = list(record["warnings"])
    for output, own_db in _sqnr_db(record).items():
        others = reached[(*_group(record), output)]
        best = max(others, key=lambda target: others[target])
        if others[best] - own_db <= HONEST_MARGIN_DB:
            continue
        sentence = (
            f"output {output!r}: SQNR is {own_db:.3g} dB, and {best}'s {record['precision']} file "
            f"of the same model reaches {others[best]:.3g} dB"
        )
        warnings += [] if sentence in warnings else [sentence]
    return {**record, "warnings": warnings}
