"""Finds targets: those of the folders beside this file, and those that register by entry point."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from edgecheck.errors import SelectionError
from edgecheck.names import NAME, PRECISIONS, resolve
from edgecheck.targets import built_in_names
from edgecheck.targets.base import Target

ENTRY_POINTS = "edgecheck.targets"


def all_targets() -> dict[str, Target]:
    """Every target by name, in the order of reports: edgecheck's own, then those of others.

    Others add theirs through the entry-point group ``edgecheck.targets``: each entry point is a
    `Target`, or several in a tuple.

    Raises:
        SelectionError: an entry point does not load, or is not a target that can be added.
    """
    return dict(_registered())


def find_target(given: str) -> Target:
    """The target of a name or alias.

    Raises:
        SelectionError: there is none.
    """
    targets = all_targets()
    aliases = {alias: target.name for target in targets.values() for alias in target.aliases}
    return targets[resolve(given, targets, "target", aliases)]


def target_of_source(kind: str) -> Target:
    """The target that runs sources of a kind as they are, such as ``"onnx"``."""
    return next(item for item in all_targets().values() if item.files.source_kind == kind)


@cache
def _registered() -> Mapping[str, Target]:
    targets: dict[str, Target] = {}
    for name in built_in_names():
        module = importlib.import_module(f"edgecheck.targets.{name.replace('-', '_')}")
        targets[name] = module.TARGET
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        for target in _load(point):
            taken = {name for known in targets.values() for name in (known.name, *known.aliases)}
            if problem := _unfit(target, taken):
                raise SelectionError(f"{_place(point)} {problem}")
            targets[target.name] = target
    return targets


def _load(point: importlib.metadata.EntryPoint) -> tuple[Any, ...]:
    try:
        loaded = point.load()
    except Exception as error:  # of code that others wrote
        text = " ".join(str(error).split())[:300]
        raise SelectionError(
            f"{_place(point)} does not load: {type(error).__name__}: {text}"
        ) from error
    return tuple(loaded) if isinstance(loaded, (tuple, list)) else (loaded,)


def _place(point: importlib.metadata.EntryPoint) -> str:
    package = f" of {point.dist.name}" if point.dist is not None else ""
    return f"the entry point {point.name!r}{package} in {ENTRY_POINTS}"


def _unfit(target: Any, taken: Collection[str]) -> str:
    """Why something can't be added as a target, or ""."""
    if not isinstance(target, Target):
        return f"is a {type(target).__name__}, not an edgecheck.targets.base.Target"
    for name in (target.name, *target.aliases):
        if not NAME.fullmatch(name):
            return f"names a target {name!r}: use letters, digits, '_', '-', '.'"
        if name in taken:
            return f"names a target {name!r}, which exists already"
    if unknown := sorted(set(target.build.precisions) - set(PRECISIONS)):
        return f"has unknown precisions {unknown}; precisions are {', '.join(PRECISIONS)}"
    if target.files.shared_with and target.files.shared_with not in taken:
        return f"runs the files of {target.files.shared_with!r}, which is not a target"
    return ""
