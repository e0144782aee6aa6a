"""Plants faults, has their files judged, and tells what became of each.

Not for what is planted: see `corpus`; nor for the counts: see `__main__`.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case, Selection, expand
from edgecheck.declare.settings import Settings
from edgecheck.targets.registry import find_target
from edgecheck.workbench import Workbench
from tests.faults import bench, planted
from tests.faults.bench import BUNDLED, MODELS, Bench
from tests.faults.fault import Fault
from tests.faults.judging import judge, progress

# Kinds of localisation that name a layer as the cause (see `edgecheck.localization`).
_OF_A_LAYER = ("layer", "input", "faint")
_FOLDED = ("BatchNorm1d", "BatchNorm2d", "ReLU", "Dropout", "Identity")


@dataclass(frozen=True)
class Score:
    """What the gate made of one fault.

    Attributes:
        detected: whether any check failed.
        right_check: whether the one that should fail did, and said why.
        layer: what was named as the broken layer; None where the fault is not of one layer.
        right_layer: whether that is it, or its neighbour.
        failures: the first failure of each check that failed, by check.
    """

    fault: Fault
    detected: bool
    right_check: bool
    layer: str | None
    right_layer: bool
    failures: Mapping[str, str]


def plant(faults: Sequence[Fault], folder: Path) -> dict[str, str]:
    """Write the files; what was wrong with each that could not be written, by name."""
    tools = Bench(folder)
    problems = {}
    for number, fault in enumerate(faults, 1):
        progress(f"planting {number}/{len(faults)}: {fault.name}")
        path = planted.file_of(fault, folder)
        path.parent.mkdir()
        try:
            # The converters report their progress.
            with contextlib.redirect_stdout(io.StringIO()):
                if fault.against != "module":
                    target = "ort" if fault.against == "onnx source" else "tflite"
                    tools.sound(fault.model, target, "fp32")
                fault.plant(tools, path)
        except Exception as error:  # one that can't be planted must not hide the others
            problems[fault.name] = f"{type(error).__name__}: {error}"
            continue
        if not path.exists():
            problems[fault.name] = "no file was written"
    progress("")
    return problems


def scores(faults: Sequence[Fault], folder: Path, workers: int) -> list[Score]:
    """Have the planted files judged; what became of each fault."""
    return scored(faults, judge(folder, suite(faults), targets(faults), workers))


def suite(faults: Sequence[Fault]) -> str:
    """The source of a test module in the folder of the planted files."""
    names = sorted(fault.name for fault in faults)
    return (
        "from pathlib import Path\n\nfrom tests.faults.planted import declare\n\n"
        f"globals().update(declare(Path(__file__).parent, set({names!r})))\n"
    )


def targets(faults: Sequence[Fault]) -> set[str]:
    """The targets of the planted files."""
    return {fault.target for fault in faults}


def scored(faults: Sequence[Fault], report: Mapping[str, Any]) -> list[Score]:
    """What became of each fault, by the report of a run of `suite`."""
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for case in report["cases"]:
        by_model.setdefault(case["model"], []).append(case)
    return [_score(fault, by_model.get(fault.name, [])) for fault in faults]


def _score(fault: Fault, cases: Sequence[Mapping[str, Any]]) -> Score:
    failed = {case["check"]: case for case in cases if case["verdict"] == "failed"}
    right = failed.get(fault.check)
    found = [case["measurements"].get("localization", {}) for case in failed.values()]
    layer = next((item["module"] for item in found if item.get("kind") in _OF_A_LAYER), "")
    return Score(
        fault,
        detected=bool(failed),
        right_check=right is not None and any(re.search(fault.says, t) for t in right["failures"]),
        layer=layer if fault.layer else None,
        right_layer=bool(fault.layer and layer) and distance(fault, layer) <= 1,
        failures={check: case["reason"] for check, case in failed.items()},
    )


def distance(fault: Fault, named: str) -> int:
    """How many of the model's layers lie between the one named and the broken one.

    What files fold into the layer before it is a part of that layer; a block that the broken layer
    is in counts as its neighbour.
    """
    source = fault.declared.get("source", MODELS[fault.model].source)
    places: dict[str, int] = {}
    for name, module in source().named_modules():
        if not any(module.children()):
            folded = type(module).__name__ in _FOLDED and bool(places)
            places[name] = max(places.values(), default=-1) + (not folded)
    if fault.layer.startswith(f"{named}."):
        return 1
    return abs(places[named] - places[fault.layer]) if named in places else len(places)


def effects(faults: Iterable[Fault], folder: Path) -> dict[str, float]:
    """How far the planted files are from the sound ones, by fault.

    In units of the sound file's own error: the largest difference of an output over the largest
    error of the sound file against the reference, on parity's inputs. Faults of another source or
    other inputs than the bundled model's are left out: theirs has no such error, or is wrong too.
    """
    workbench = Workbench(Settings(folder / "cache", folder / "effects"))
    tools = Bench(folder)
    found = {}
    try:
        for fault in faults:
            own = fault.model not in BUNDLED or fault.against != "module"
            if not own and not {"source", "inputs", "artifacts"} & set(fault.declared):
                sound = tools.sound(fault.model, fault.target, fault.precision)
                found[fault.name] = _effect(
                    workbench,
                    _case(fault, f"{fault.name}-sound", sound),
                    _case(fault, fault.name, planted.file_of(fault, folder)),
                )
    finally:
        workbench.close()
    return found


def _case(fault: Fault, name: str, path: Path) -> Case:
    artifacts = {(fault.target, fault.precision): path}
    model = bench.declaration(fault.model, artifacts=artifacts, targets=None)
    selection = Selection((find_target(fault.target),), precisions=(fault.precision,))
    return expand(name, model, Budget(), selection).cases[0]


def _effect(workbench: Workbench, sound: Case, broken: Case) -> float:
    expected = workbench.reference_outputs(
        sound, workbench.feeds(sound).feeds, "parity", main=False
    )
    left, right = workbench.feed_outputs(sound), workbench.feed_outputs(broken)
    largest = 0.0
    for name in sound.model.outputs:
        changed = own = 0.0
        for index in left.keys() & right.keys():
            one, other = np.load(left[index][name]), np.load(right[index][name])
            reference = np.load(expected[index][name])[: len(one)]
            changed = max(changed, float(np.abs(one - other).max()))
            own = max(own, float(np.abs(one - reference).max()))
        largest = max(largest, changed / own if own else float("inf") if changed else 0.0)
    return largest
