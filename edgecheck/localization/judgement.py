"""The first layer that breaks: where the inputs agree with the reference and the output does not.

The rule. An operator's output *agrees* where a tensor of the candidate that fits no other output
better is within `MULTIPLE` times the error that honest rounding at the precision gives there
(`rounding`), and never less than `FLOOR`. One that no tensor agrees with is *suspect*, unless
something that is computed from it agrees: then it was only fused away. The first suspect whose
inputs are none is the broken layer, if its error is `JUMP` times theirs, each in multiples of the
rounding's; else the error grows by and by, and no layer stands out. Pure; not for matching.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from edgecheck.localization.matching import Pair
from edgecheck.names import CALIBRATED
from edgecheck.runtime.trace import INPUT, Step

# Of the error of honest rounding, beyond which a tensor does not agree; see docs/checks.md.
MULTIPLE = {"fp32": 30.0, "fp16": 4.0}
_QUANTIZED_MULTIPLE = 4.0
# What agrees whatever the rounding: runtimes approximate exponentials, and quantizers take their
# ranges from other data: the worst samples of a clean file were seen 6 % off at its first layer.
FLOOR = {"fp32": 3e-6, "fp16": 1e-3}
_QUANTIZED_FLOOR = 0.1
# The same once something is known to be broken, so that an error that later layers dampen is found
# where it begins. Where ranges are those of calibration, rounding is known well enough for less.
_SHARP_QUANTIZED_FLOOR = 3e-2
_SHARP_CALIBRATED_MULTIPLE = 2.5
# What an int8 file is held to for a faint fault: layers of sound ones mostly are within 1.5 times
# the rounding. All that follows it is beyond that, and the fault itself this many times off.
_FAINT_QUANTIZED_MULTIPLE, _FAINT_QUANTIZED_FLOOR = 1.5, 2e-2
_FAINT_ERROR = 2.5
# How many times what comes in the error of a faint fault is: less may be what a layer amplifies.
_GROWTH = 1.3
# Beyond this nothing agrees, however coarse the rounding: 6 dB.
_CEILING = 0.5
# Where rounding could not be simulated.
_UNKNOWN_NOISE = {"fp32": 2e-6, "fp16": 2e-3}
_QUANTIZED_UNKNOWN_NOISE = 3e-2
JUMP = 2.0


@dataclass(frozen=True)
class Layer:
    """An operator of the reference as the candidate has it.

    Attributes:
        step: its position among the reference's.
        tensor: position of the candidate's tensor, or None where it makes none.
        error: of that tensor: root of the relative error power; None without one.
        before: the largest error among what it is computed from, as far as that can be seen.
        tolerance: the error up to which it agrees.
        agrees: whether it does.
        suspect: whether neither it nor anything computed from it does.
    """

    step: int
    tensor: int | None
    error: float | None
    before: float
    tolerance: float
    agrees: bool
    suspect: bool


@dataclass(frozen=True)
class Judgement:
    """What broke first.

    Attributes:
        layers: one for each step of the reference.
        broken: steps that are suspect though nothing that they read is, in order.
        stands_out: whether the first of them jumps.
        measured_at: the step at which the first one's error was measured: itself, or the first
            after it that the candidate makes.
        error: there; infinite where nothing resembles it.
        from_input: whether it reads the model's input and nothing else.
    """

    layers: tuple[Layer, ...]
    broken: tuple[int, ...] = ()
    stands_out: bool = False
    measured_at: int | None = None
    error: float = 0.0
    from_input: bool = False


def tolerances(
    steps: Sequence[Step],
    precision: str,
    *,
    slack: Mapping[str, float] = MappingProxyType({}),
    sharp: bool = False,
) -> list[float]:
    """The error up to which each step agrees.

    Args:
        slack: see `edgecheck.runtime.tracer.Tracer`.
        sharp: whether something is known to be broken, and only where is asked.
    """
    multiple = slack.get(precision, 1.0) * MULTIPLE.get(precision, _QUANTIZED_MULTIPLE)
    if sharp and precision in CALIBRATED:
        multiple = _SHARP_CALIBRATED_MULTIPLE
    floor = FLOOR.get(precision, _SHARP_QUANTIZED_FLOOR if sharp else _QUANTIZED_FLOOR)
    unknown = _UNKNOWN_NOISE.get(precision, _QUANTIZED_UNKNOWN_NOISE)
    return [_tolerance(step, multiple, floor, unknown) for step in steps]


def _tolerance(step: Step, multiple: float, floor: float, unknown: float) -> float:
    return min(_CEILING, max(floor, multiple * (unknown if step.noise is None else step.noise)))


def judge_faint(
    steps: Sequence[Step], pairs: Sequence[Sequence[Pair]], tolerated: Sequence[float]
) -> Judgement | None:
    """The first layer of an int8 candidate that breaks within the tolerance, or None.

    Its error, and that of all that follows it, is more than rounding mostly makes; it jumps there;
    and what the layer reads is not the input alone, where ranges of other data make most of it.

    Args:
        tolerated: see `tolerances`. Beyond them it is no faint fault, but another layer's tensor.
    """
    limits = [
        _tolerance(
            step, _FAINT_QUANTIZED_MULTIPLE, _FAINT_QUANTIZED_FLOOR, _QUANTIZED_UNKNOWN_NOISE
        )
        for step in steps
    ]
    found = judge(steps, pairs, limits)
    at = found.measured_at
    if at is None or not found.stands_out or found.from_input:
        return None
    least = max(
        _FAINT_ERROR / _FAINT_QUANTIZED_MULTIPLE * limits[at],
        _GROWTH * found.layers[found.broken[0]].before,
    )
    return found if least < found.error <= tolerated[at] else None


def judge(
    steps: Sequence[Step], pairs: Sequence[Sequence[Pair]], limits: Sequence[float]
) -> Judgement:
    """Find the first layer that breaks.

    Args:
        pairs: of each step, the best first (see `find_pairs`), its error exact.
        limits: see `tolerances`.
    """
    good: dict[int, Pair] = {}
    for index, found in enumerate(pairs):
        fitting = [pair for pair in found if not pair.taken and pair.error <= limits[index]]
        if fitting:
            good[index] = min(fitting, key=lambda pair: pair.error)
    backed = _backed(steps, good.keys())
    claimed = {pair.tensor for pair in good.values()}
    closest = _closest(pairs, set(range(len(steps))) - backed)
    layers: list[Layer] = []
    errors: dict[int, float] = {INPUT: 0.0}
    last: dict[int, int] = {INPUT: -1}  # the candidate's position that each step comes after
    for index, step in enumerate(steps):
        before = max((errors[source] for source in step.sources), default=0.0)
        after = max((last[source] for source in step.sources), default=-1)
        agreed = good.get(index)
        suspect = index not in backed
        pair = agreed or _counterpart(pairs[index], index, closest, claimed, after)
        # What was fused away and is backed hands on the error before it.
        shown = pair if agreed or suspect else None
        errors[index] = shown.error if shown else before
        last[index] = shown.tensor if agreed and shown else after
        layers.append(
            Layer(
                step=index,
                tensor=shown.tensor if shown else None,
                error=shown.error if shown else None,
                before=before,
                tolerance=limits[index],
                agrees=agreed is not None,
                suspect=suspect,
            )
        )
    broken = tuple(
        layer.step
        for layer in layers
        if layer.suspect
        and not any(
            source != INPUT and layers[source].suspect for source in steps[layer.step].sources
        )
    )
    if not broken:
        return Judgement(tuple(layers))
    first = broken[0]
    seen = _first_seen(steps, layers, first)
    error = layers[seen].error if seen is not None else None
    measured = first if seen is None else seen
    error = math.inf if error is None else error
    before = layers[first].before
    return Judgement(
        tuple(layers),
        broken,
        stands_out=error / limits[measured] > JUMP * _ratio_before(steps, layers, first, limits),
        measured_at=measured,
        error=error,
        from_input=steps[first].sources == (INPUT,) and before == 0.0,
    )


def _backed(steps: Sequence[Step], good: Container[int]) -> set[int]:
    """Steps that agree, or that something computed from them does."""
    backed: set[int] = set()
    for index in range(len(steps) - 1, -1, -1):
        if index in good:
            backed.add(index)
        if index in backed:
            backed.update(source for source in steps[index].sources if source != INPUT)
    return backed


def _closest(pairs: Sequence[Sequence[Pair]], suspects: Container[int]) -> dict[int, int]:
    """The suspect that each tensor of the candidate resembles most."""
    found: dict[int, tuple[float, int]] = {}
    for index, row in enumerate(pairs):
        for pair in row if index in suspects else ():
            found[pair.tensor] = min(found.get(pair.tensor, (math.inf, index)), (pair.error, index))
    return {tensor: index for tensor, (_, index) in found.items()}


def _counterpart(
    found: Sequence[Pair], index: int, closest: Mapping[int, int], claimed: set[int], after: int
) -> Pair | None:
    """The tensor that a suspect most likely is: later than its inputs, and nothing else's."""
    left = [
        pair
        for pair in found
        if pair.tensor not in claimed and pair.tensor > after and closest.get(pair.tensor) == index
    ]
    return min(left, key=lambda pair: pair.error, default=None)


def _first_seen(steps: Sequence[Step], layers: Sequence[Layer], first: int) -> int | None:
    """The first step computed from one, itself included, that the candidate makes a tensor of."""
    reached = {first}
    for index in range(first, len(steps)):
        if index != first and not reached.intersection(steps[index].sources):
            continue
        reached.add(index)
        if layers[index].error is not None:
            return index
    return None


def _ratio_before(
    steps: Sequence[Step], layers: Sequence[Layer], first: int, limits: Sequence[float]
) -> float:
    """The largest error before a step in multiples of what agrees there."""
    ratios, reading, met = [0.0], list(steps[first].sources), {INPUT}
    while reading:
        index = reading.pop()
        if index in met:
            continue
        met.add(index)
        error = layers[index].error
        if error is None:
            reading += steps[index].sources
        else:
            ratios.append(error / limits[index])
    return max(ratios)


def permuted_outputs(errors: Mapping[str, Mapping[str, float]], limit: float) -> dict[str, str]:
    """Outputs that carry another output's values: its name by theirs.

    Args:
        errors: by the reference's output and the candidate's, of those of equal shape.
        limit: the error up to which two are the same.
    """
    found = {}
    for name, row in errors.items():
        best = min(row, key=lambda other: row[other], default=name)
        if best != name and row[best] <= limit and row.get(name, math.inf) > 2 * row[best]:
            found[name] = best
    return found
