"""A localisation in words: one sentence, and a table of layers; and as plain data."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgecheck.localization.locate import Localization
from edgecheck.runtime.trace import Step

TITLES = ("", "layer", "operator", "shape", "error before -> after", "of the candidate")
# Layers that are shown before and after the first broken one.
_BEFORE, _AFTER = 4, 6
_LONGEST_MODULE = 34


def percent(error: float | None) -> str:
    """A relative error as people read it."""
    if error is None or not math.isfinite(error):
        return "nothing alike"
    if error == 0.0:
        return "0"
    if error < 1e-3:
        return f"{error:.1e}"
    return f"{error * 100:.0f} %" if error >= 0.1 else f"{error * 100:.2g} %"


def sentence(found: Localization) -> str:
    """The verdict."""
    judged = found.judgement
    errors = ", ".join(f"{name} {percent(value)}" for name, value in found.output_errors.items())
    if found.kind == "none":
        return f"no layer stands out: the outputs agree ({errors} off, as rounding makes it)"
    if found.kind == "capture":
        return (
            "the captured program already differs from the model itself: look for branches, "
            "training mode, randomness or state, not for a layer of the candidate"
        )
    if found.kind == "runtime":
        return (
            f"every layer agrees when traced ({found.note}), and the outputs do not "
            f"({errors} off): it is the runtime's fusions or delegate"
        )
    if found.kind == "outputs":
        if found.permuted:
            named = ", ".join(f"{name!r} carries {by!r}" for name, by in found.permuted.items())
            return f"all layers agree, but outputs are swapped: {named}"
        return (
            f"all layers agree, and the outputs do not ({errors} off): look at what comes after "
            "the last layer"
        )
    assert judged.measured_at is not None
    first = found.steps[judged.broken[0]]
    if found.kind == "spread":
        return (
            f"no layer stands out: the error grows from layer to layer, and passes what rounding "
            f"gives at {name_of(first)} ({percent(judged.error)})"
        )
    before = judged.layers[judged.broken[0]].before
    if found.kind == "faint":
        return (
            f"{name_of(first)} stands out, though the outputs agree: error {percent(before)} -> "
            f"{percent(judged.error)}, where rounding alone gives {percent(first.noise)}"
        )
    lead = "broken from the input on: the first layer," if judged.from_input else "first broken:"
    text = (
        f"{lead} {name_of(first)}, shape {_shape(first)}: "
        f"error {percent(before)} -> {percent(judged.error)}"
    )
    if judged.measured_at != judged.broken[0]:
        text += f", seen at {name_of(found.steps[judged.measured_at])}"
    if judged.from_input:
        text += "; its weights, or the pre-processing or layout of what it reads"
    if first.place:
        text += f" ({_nearer(first.place)})"
    others = [found.steps[index] for index in judged.broken[1:]]
    if others:
        text += f"; apart from it {', '.join(map(name_of, others[:3]))}"
        text += f" and {len(others) - 3} more" if len(others) > 3 else ""
    return text


def name_of(step: Step) -> str:
    """A layer as people call it: its path and type in the user's model, and the operator."""
    operator = step.operator.removeprefix("aten.")
    if not step.module:
        return operator
    kind = f" ({step.module_type})" if step.module_type else ""
    return f"{step.module}{kind}, {operator}"


def rows(found: Localization, *, everything: bool = False) -> list[list[str]]:
    """Layers that the candidate makes, around the first broken one, or all; see `TITLES`."""
    judged = found.judgement
    first = judged.broken[0] if judged.broken else None
    shown = [
        layer
        for layer in judged.layers
        if layer.error is not None or layer.step in judged.broken[:1]
    ]
    if not everything and first is not None:
        place = next(index for index, layer in enumerate(shown) if layer.step == first)
        shown = shown[max(0, place - _BEFORE) : place + _AFTER + 1]
    table = []
    for layer in shown:
        step = found.steps[layer.step]
        mark = ">" if layer.step == first else "" if layer.agrees else "x"
        tensor = found.tensors[layer.tensor] if layer.tensor is not None else None
        table.append(
            [
                mark,
                _short(step.module or step.module_type or "-"),
                step.operator.removeprefix("aten."),
                _shape(step),
                f"{percent(layer.before)} -> "
                + (percent(layer.error) if tensor is not None else "fused"),
                tensor.operator if tensor is not None else "",
            ]
        )
    return table


def _nearer(place: str) -> str:
    """A place in the user's code, from the current directory where it is below that."""
    try:
        return str(Path(place).relative_to(Path.cwd()))
    except ValueError:
        return place


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_MODULE else f"...{name[3 - _LONGEST_MODULE :]}"


def _shape(step: Step) -> str:
    return "x".join(map(str, step.shape)) or "scalar"


def shortened(lines: Sequence[str], width: int = 100) -> list[str]:
    """Lines wrapped at words."""
    return [part for line in lines for part in textwrap.wrap(line, width) or [""]]


def as_data(found: Localization) -> dict[str, Any]:
    """Plain data for JSON: no paths of files that are gone after the run, null for infinity."""
    document: dict[str, Any] = _finite(asdict(found))
    for item in (*document["steps"], *document["tensors"]):
        del item["path"]
    return document


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
