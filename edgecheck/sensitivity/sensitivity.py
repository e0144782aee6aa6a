"""Which layers of a quantized candidate, kept in float, bring it inside its limits.

The order in which layers are tried is simulated: one layer at a time is quantized in PyTorch, which
costs no build. Everything else is real: each choice is built, run, and judged by the gate's own
parity and accuracy checks (`rebuilding`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecheck.capture import data
from edgecheck.capture.client import is_onnx
from edgecheck.errors import ChildError, EdgecheckError
from edgecheck.judge.noise import arithmetic_of, rows_needed
from edgecheck.judge.verdict import Outcome, Verdict
from edgecheck.sensitivity.rebuilding import Attempt, Rebuilder, option

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

# Layers whose own gain is measured by a rebuild: the first of the ranking.
_REBUILT = 4
# Rebuilds of one search at most; and layers, where each needs one for want of a simulation.
MOST_REBUILDS = 48
_MOST_UNSIMULATED = 32
# Samples of a feed that are simulated: fewer where they are large, as it takes a run a layer.
_ROWS, _VALUES = 8, 1 << 19
# Choices of layers in one call to the child, which finds the ranges anew each time.
_AT_ONCE = 16
# Layers whose own gain is simulated: the first of the ranking.
_GAINS = 12
# A simulated SQNR that says that nothing was quantized.
_EXACT_DB = 399.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LayerGain:
    """What one layer costs.

    Attributes:
        alone_db: SQNR with no other layer quantized, of the worst output, simulated or else of a
            rebuild; None where the simulation does not have the layer.
        gain_db: SQNR gained where it alone is in float, simulated; of the first few layers.
        rebuilt_gain_db: the same, of a rebuild; None where none was made.
        metric: of that rebuild.
    """

    layer: str
    alone_db: float | None
    gain_db: float | None
    rebuilt_gain_db: float | None = None
    metric: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """A ranking of layers, and a recipe.

    Attributes:
        kind: ``holds`` (nothing is needed), ``found``, ``blocked`` (found, but the export check
            fails with it), ``hopeless`` (it fails with all layers in float), ``unfinished`` (the
            rebuilds did not suffice).
        ranking: the most harmful layer first.
        simulated: why the ranking could not be simulated, or "".
        declared: the candidate as it is declared.
        best: the recipe's rebuild; with all layers where it is hopeless.
        export: the export check of the recipe's rebuild.
        option: of the target, that makes that rebuild.
        minimal: whether every layer of the recipe was found to be needed.
    """

    candidate: str
    kind: str
    ranking: tuple[LayerGain, ...]
    simulated: str
    declared: Attempt
    best: Attempt | None
    export: Verdict | None
    option: Mapping[str, Any]
    minimal: bool
    rebuilds: int


def find(workbench: Workbench, case: Case, progress: Progress = lambda text: None) -> Sensitivity:
    """Rank a quantized candidate's layers, and search the fewest to keep in float.

    Raises:
        EdgecheckError: its precision is not quantized here, or it can't be built or run.
    """
    if arithmetic_of(case.precision) is None or case.precision == "fp16":
        raise EdgecheckError(
            f"{case.candidate} has no sensitivity ranking: "
            "that is for int8, int8-dynamic, int8-weights, int16x8 and int4"
        )
    progress("looking for layers")
    layers = workbench.layers(case)
    if not layers:
        raise EdgecheckError(f"{case.candidate}: no layer was found that could stay in float")
    rebuilder = Rebuilder(workbench, case, MOST_REBUILDS, progress)
    progress("judging the candidate")
    declared = rebuilder.declared()
    ranking, reason = _ranking(workbench, case, layers, rebuilder, progress)
    order = [item.layer for item in ranking]
    kind, minimal, best, verdict = "holds", True, None, None
    if not declared.passed:
        best = rebuilder.attempt(layers)
        kind = "hopeless"
        if best.passed:
            kind, best, minimal = _search(rebuilder, order, best)
        for layer in order[:_REBUILT]:
            if rebuilder.affordable([layer]):
                rebuilder.attempt([layer])
        ranking = [_with_rebuild(item, rebuilder) for item in ranking]
    if kind == "found" and best is not None and best.keep is not None:
        progress("checking the export")
        verdict = rebuilder.export(best.keep)
        kind = "found" if verdict.outcome is Outcome.PASSED else "blocked"
    return Sensitivity(
        case.candidate,
        kind,
        tuple(ranking),
        reason,
        declared,
        best,
        verdict,
        option(case, best.keep or ()) if best and kind in ("found", "blocked") else {},
        minimal,
        rebuilder.count,
    )


def _search(
    rebuilder: Rebuilder, order: Sequence[str], everything: Attempt
) -> tuple[str, Attempt, bool]:
    """The shortest passing prefix of an order, then without what is not needed.

    Returns the kind, the best attempt that passed, and whether each of its layers was tried.
    """
    low, high, best = 0, len(order), everything  # a prefix of `low` fails, one of `high` passes
    step = 1
    while low + 1 < high:
        middle = min(low + step, high - 1) if step else (low + high) // 2
        if not rebuilder.affordable(order[:middle]):
            return "unfinished", best, False
        found = rebuilder.attempt(order[:middle])
        if found.passed:
            high, best, step = middle, found, 0
        else:
            low, step = middle, 2 * step
    needed = list(order[:high])
    for layer in reversed(order[: high - 1]):
        without = [item for item in needed if item != layer]
        if not rebuilder.affordable(without):
            return "found", best, False
        found = rebuilder.attempt(without)
        if found.passed:
            needed, best = without, found
    return "found", best, True


def _with_rebuild(item: LayerGain, rebuilder: Rebuilder) -> LayerGain:
    """With the real gain, where a rebuild kept just this layer."""
    found, plain = rebuilder.known([item.layer]), rebuilder.attempt(())
    if found is None or found.sqnr_db is None or plain.sqnr_db is None:
        return item
    gain = found.sqnr_db - plain.sqnr_db
    return LayerGain(item.layer, item.alone_db, item.gain_db, gain, found.metric)


def _ranking(
    workbench: Workbench,
    case: Case,
    layers: Sequence[str],
    rebuilder: Rebuilder,
    progress: Progress,
) -> tuple[list[LayerGain], str]:
    """The layers in the order of what they cost, and why that was not simulated, or ""."""
    try:
        found = _simulated(workbench, case, layers, progress)
    except ChildError as error:
        reason = str(error)
    else:
        return found, ""
    if len(layers) > _MOST_UNSIMULATED:
        raise EdgecheckError(
            f"{case.candidate} has {len(layers)} layers, too many for a rebuild each, and they "
            f"can't be simulated: {reason}"
        )
    alone = {}
    for layer in layers:
        own = rebuilder.attempt([other for other in layers if other != layer]).sqnr_db
        alone[layer] = math.inf if own is None else own
    order = sorted(layers, key=lambda layer: alone[layer])
    return [LayerGain(layer, alone[layer], None) for layer in order], reason


def _simulated(
    workbench: Workbench, case: Case, layers: Sequence[str], progress: Progress
) -> list[LayerGain]:
    """What each layer costs in a simulated quantization of the reference, the most costly first.

    Raises:
        ChildError: the reference can't be run so.
    """
    arithmetic = arithmetic_of(case.precision)
    assert arithmetic is not None
    source = workbench.reference_source(case, main=False)
    if source is None:
        raise ChildError("the reference is a model file", kind="raised")
    if is_onnx(source[1]):
        raise ChildError(
            "layers of an ONNX source can't be kept in float one by one", kind="raised"
        )
    folder = workbench.settings.scratch / "sensitivity" / case.model_name
    feeds, references = _calls(workbench, case, folder)

    def measured(keeps: Sequence[Sequence[str]], what: str) -> list[float]:
        found: list[float] = []
        for start in range(0, len(keeps), _AT_ONCE):
            progress(f"simulating {what}, {start} of {len(keeps)}")
            some = workbench.sources.simulate_keeping(
                *source,
                case.model,
                folder,
                arithmetic,
                keeps[start : start + _AT_ONCE],
                feeds,
                references,
            )
            found += [min(item.values(), default=math.inf) for item in some]
        return found

    others = [[other for other in layers if other != layer] for layer in layers]
    alone = dict(zip(layers, measured(others, "one layer quantized"), strict=True))
    # What keeps all of its precision without the other layers is not quantized there.
    known = [layer for layer in layers if alone[layer] < _EXACT_DB or layers == [layer]]
    if not known or not all(map(math.isfinite, alone.values())):
        raise ChildError("no layer of the file is among those of the simulation", kind="raised")
    known.sort(key=lambda layer: alone[layer])
    tried = known[:_GAINS]
    nothing, *kept_alone = measured([[], *([layer] for layer in tried)], "one layer in float")
    gains = {layer: own - nothing for layer, own in zip(tried, kept_alone, strict=True)}
    ranking = [LayerGain(layer, alone[layer], gains.get(layer)) for layer in known]
    return [*ranking, *(LayerGain(item, None, None) for item in layers if item not in known)]


def _calls(
    workbench: Workbench, case: Case, folder: Path
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """A few of the inputs that parity judges, and the reference's outputs for them."""
    feeds = workbench.feeds(case)
    references = workbench.reference_outputs(case, feeds.feeds, "parity", main=False)
    chosen = [index for index, label in enumerate(feeds.labels) if label == "samples"]
    inputs, outputs = [], []
    for index in chosen or range(len(feeds.feeds)):
        given = _loaded(feeds.feeds[index])
        expected = _loaded(references[index])
        batch = feeds.sizes[index].get("batch", 0)
        batched = batch > 0 and all(item.batched for item in case.model.inputs)
        if batched and all(item.shape[:1] == (batch,) for item in expected.values()):
            values = min(item[0].size for item in expected.values())
            affordable = _VALUES // max(1, sum(item[0].size for item in given.values()))
            rows = min(batch, max(min(_ROWS, affordable), rows_needed(batch, values)))
            given, expected = (
                {name: item[:rows] for name, item in arrays.items()} for arrays in (given, expected)
            )
        inputs.append(data.save_feed(given, folder / f"inputs-{index}"))
        outputs.append(data.save_feed(expected, folder / f"outputs-{index}"))
    return inputs, outputs


def _loaded(paths: Mapping[str, str]) -> dict[str, Any]:
    return {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in paths.items()}
