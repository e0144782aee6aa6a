"""pytest's items: which case and check each is of, and the order in which they run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgecheck.declare.case import Case


def is_suite(cls: Any) -> bool:
    """Whether a class is a Conformance; nothing can be where that was never imported."""
    module = sys.modules.get("edgecheck.plugin.conformance")
    return module is not None and isinstance(cls, type) and issubclass(cls, module.Conformance)


def case_of(item: pytest.Item) -> Case | None:
    """The case of a test of a Conformance class, or None."""
    from edgecheck.declare.case import Case

    callspec = getattr(item, "callspec", None)
    if callspec is None or not is_suite(getattr(item, "cls", None)):
        return None
    case: Case | object = callspec.params.get("case")
    # An empty matrix leaves a test whose parameter is pytest's mark of nothing.
    return case if isinstance(case, Case) else None


def check_of(item: pytest.Item) -> str:
    return getattr(item, "originalname", item.name).removeprefix("test_")


def marks_of(case: Case, check: str) -> list[pytest.MarkDecorator]:
    from edgecheck.names import CHECKS

    names = [case.target.name, case.precision, *([check] if check in CHECKS else [])]
    return [getattr(pytest.mark, name) for name in names]


def arrange(items: Sequence[pytest.Item], *, crowded: bool) -> list[pytest.Item]:
    """Drop the place-holders of empty matrices; keep the cases of one model file together.

    What one check builds and loads is still warm for the next. Timing, for which the other workers
    of a run must wait, comes last.

    Args:
        crowded: whether this is one of several workers.
    """
    from edgecheck.declare.case import Case

    kept: list[pytest.Item] = []
    groups: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        if not (
            is_suite(getattr(item, "cls", None)) and "case" in getattr(item, "fixturenames", ())
        ):
            kept.append(item)
            continue
        case = item.callspec.params.get("case")  # type: ignore[attr-defined]
        if not isinstance(case, Case):
            continue
        place = (item.nodeid.rpartition("::")[0], case.id)
        if place not in groups:
            groups[place] = []
            kept.append(item)
        groups[place].append(item)
    arranged = [member for item in kept for member in _group_of(item, groups)]
    if crowded:
        _spread(arranged)
    return arranged


def _group_of(
    item: pytest.Item, groups: dict[tuple[str, str], list[pytest.Item]]
) -> list[pytest.Item]:
    case = case_of(item)
    if case is None:
        return [item]
    return groups[(item.nodeid.rpartition("::")[0], case.id)]


def _spread(items: list[pytest.Item]) -> None:
    """Order items for workers that each take a stretch: targets apart, timing last.

    A worker that stays with a target imports only its tools. Every other target goes through the
    models backwards, so that workers seldom want the same program at once.
    """
    cases = [case for item in items if (case := case_of(item)) is not None]
    targets = sorted({case.target.name for case in cases})
    models = list(dict.fromkeys(case.model_name for case in cases))

    def place(item: pytest.Item) -> tuple[int, int, int]:
        case = case_of(item)
        if case is None:
            return 0, 0, 0
        target, model = targets.index(case.target.name), models.index(case.model_name)
        timed = check_of(item) == "latency"
        return 2 if timed else 1, target, -model if target % 2 else model

    items.sort(key=place)
