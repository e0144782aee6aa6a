"""The matrix of candidates by checks, what failed, and what was not checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.names import CHECKS, PRECISIONS
from edgecheck.report.page.status import (
    CLOSING,
    STATUSES,
    Record,
    headline,
    model_name,
    status_of,
    tightest,
)

# Reasons and cases of each that are listed; the rest is counted, and all are in the matrix.
_LISTED = 100
_NAMED = 12
# Cases whose evidence is packed together: what is unpacked to show one of them.
PACK = 100
# The bar of a cell has this many steps: its width is a class, which needs no inline style.
_STEPS = 20


@dataclass(frozen=True)
class Cell:
    """A case in the matrix.

    Attributes:
        figure: the number that a person looks at, or "".
        value: the same for sorting; None where there is none.
        tip: what it tells when pointed at: status, reason, the tightest limit.
        step: how much of the tightest limit is used up, in 20ths; None without limits.
        flags: "regression", "warning", "reused".
        pack: which of the page's packs has its evidence.
    """

    key: str
    status: str
    figure: str
    value: float | None
    tip: str
    step: int | None
    flags: tuple[str, ...]
    pack: int

    @property
    def classes(self) -> str:
        """How it looks: one class each for status, flags and the share used up."""
        used = () if self.step is None else (f"w{self.step}",)
        return " ".join((self.status, *self.flags, *used))

    @property
    def word(self) -> str:
        """The status in words."""
        return STATUSES[self.status][0]


@dataclass(frozen=True)
class Row:
    """A candidate: a model (with its variant) on a target at a precision."""

    model: str
    variant: str
    target: str
    precision: str
    cells: Mapping[str, Cell]

    @property
    def precision_order(self) -> int:
        """From the widest precision down."""
        return _precision_order(self.precision)


@dataclass(frozen=True)
class Group:
    """Cases that ended alike for the same reason.

    Attributes:
        cases: keys and how they are called beside the model's name.
        more: how many further cases are not named.
        lines: what each failed of, where that is more than the reason.
    """

    model: str
    status: str
    reason: str
    accepted: str
    cases: Sequence[tuple[str, str]]
    more: int
    lines: Sequence[str]
    details: str

    @property
    def word(self) -> str:
        """The status in words."""
        return STATUSES[self.status][0]

    @property
    def mark(self) -> str:
        """The status as a sign."""
        return STATUSES[self.status][1]


def checks_of(records: Iterable[Record]) -> list[str]:
    """The columns: the standard checks, then one's own."""
    found = {str(item["check"]) for item in records}
    return [name for name in CHECKS if name in found] + sorted(found - set(CHECKS))


def rows_of(records: Iterable[Record], regressed: frozenset[str]) -> list[Row]:
    """The candidates, what closes the gate first.

    Args:
        regressed: keys of the cases that got worse than the baseline.
    """
    found: dict[tuple[str, str, str, str], dict[str, Cell]] = {}
    for position, item in enumerate(records):
        identity = (item["model"], item["variant"], item["target"], item["precision"])
        cell = _cell(item, item["key"] in regressed, position // PACK)
        found.setdefault(identity, {})[item["check"]] = cell
    rows = [Row(*identity, cells) for identity, cells in found.items()]
    return sorted(rows, key=_row_order)


def _row_order(row: Row) -> tuple[Any, ...]:
    closing = any(cell.status in CLOSING for cell in row.cells.values())
    return not closing, row.model, row.variant, row.target, row.precision_order, row.precision


def _precision_order(name: str) -> int:
    return PRECISIONS.index(name) if name in PRECISIONS else len(PRECISIONS)


def _cell(record: Record, regressed: bool, pack: int) -> Cell:
    status = status_of(record)
    figure, value = headline(record)
    told = [f"{record['key']}: {STATUSES[status][0]}"]
    if record["reason"]:
        told.append(record["reason"])
    if record["expected_failure"]:
        told.append(f"accepted: {record['expected_failure']}")
    near = tightest(record)
    step = None
    if near is not None:
        name, share = near
        step = _STEPS if share >= 1 else round(share * _STEPS)  # the share may be infinite
        if share <= 1:
            told.append(f"{share:.0%} of the limit {name} used up")
    flags = [
        flag
        for flag, holds in (
            ("regression", regressed),
            ("warning", record["warnings"]),
            ("reused", record.get("reused")),
        )
        if holds
    ]
    return Cell(record["key"], status, figure, value, "\n".join(told), step, tuple(flags), pack)


def groups_of(records: Iterable[Record], statuses: Sequence[str]) -> tuple[list[Group], int]:
    """Cases of these statuses by model and reason, the worst first; and how many groups are left.

    Cases are ordered as they ran within a group.
    """
    found: dict[tuple[str, str, str, str], list[Record]] = {}
    for item in records:
        status = status_of(item)
        if status in statuses:
            accepted = str(item["expected_failure"] or "")
            identity = (status, model_name(item), item["reason"], accepted)
            found.setdefault(identity, []).append(item)
    ordered = sorted(found.items(), key=lambda entry: statuses.index(entry[0][0]))
    groups = [
        Group(
            model,
            status,
            reason,
            accepted,
            [(item["key"], _short(item)) for item in cases[:_NAMED]],
            max(0, len(cases) - _NAMED),
            _lines(cases),
            str(cases[0]["details"]),
        )
        for (status, model, reason, accepted), cases in ordered[:_LISTED]
    ]
    return groups, max(0, len(ordered) - _LISTED)


def _short(record: Record) -> str:
    return f"{record['target']} / {record['precision']} / {record['check']}"


def _lines(cases: Sequence[Record]) -> list[str]:
    """What failed beside the reason, without repeats."""
    lines = [line for item in cases for line in item["failures"] if line != item["reason"]]
    return list(dict.fromkeys(lines))[:_NAMED]


def absences_of(document: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """What was not made for lack of data: what, why, and of which candidates."""
    found: dict[tuple[str, str], list[str]] = {}
    for item in document["absences"]:
        found.setdefault((item["what"], item["reason"]), []).append(item["subject"])
    return [(what, reason, sorted(subjects)) for (what, reason), subjects in sorted(found.items())]
