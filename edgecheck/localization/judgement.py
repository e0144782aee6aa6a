"""The first layer that breaks: its inputs agree with the reference and its output does not.

An operator's output *agrees* if a tensor of the candidate that fits no other output better is
within `MULTIPLE` times the error that correct rounding at the precision gives there (`rounding`),
or within `FLOOR`. An output that no tensor agrees with is *suspect*, unless something that is
computed from it agrees: then it was only fused away. The first suspect that reads no suspect is the
broken layer, if its error is `JUMP` times that of its inputs, each in multiples of the rounding's;
otherwise the error grows gradually, and no layer stands out. Pure. See also `matching`, which finds
the tensors that correspond.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from edgecheck.localization.matching import Pair
from edgecheck.names import CALIBRATED
from edgecheck.runtime.trace import INPUT, Step

# A tensor does not agree beyond this multiple of the error of correct rounding; see docs/checks.md.
MULTIPLE = {"fp32": 30.0, "fp16": 4.0}
_QUANTIZED_MULTIPLE = 4.0
# Errors below these agree whatever the rounding: runtimes approximate exponentials, and quantizers
# take their ranges from other data: the worst samples of a clean file were seen 6 % off at its
# first layer.
FLOOR = {"fp32": 3e-6, "fp16": 1e-3}
_QUANTIZED_FLOOR = 0.1
# The same once something is known to be broken, so that an error that later layers dampen is found
# where it begins. Where ranges are those of calibration, rounding is known well enough for less.
_SHARP_QUANTIZED_FLOOR = 3e-2
_SHARP_CALIBRATED_MULTIPLE = 2.5
# Limits of a faint fault in an int8 file: layers of sound files mostly are within 1.5 times the
# rounding. All that follows the fault is beyond that, and its own error is this many times larger.
_FAINT_QUANTIZED_MULTIPLE, _FAINT_QUANTIZED_FLOOR = 1.5, 2e-2
_FAINT_ERROR = 2.5
# A faint fault's error exceeds that of its inputs this many times: a layer may amplify by less.
_GROWTH = 1.3
# Beyond this nothing agrees, however coarse the rounding: 6 dB.
_CEILING = 0.5
# The noise that is assumed if rounding could not be simulated.
_UNKNOWN_NOISE = {"fp32": 2e-6, "fp16": 2e-3}
_QUANTIZED_UNKNOWN_NOISE = 3e-2
JUMP = 2.0


@dataclass(frozen=True)
class Layer:
    """An operator of the reference as the candidate has it.

    Attributes:
        step: its position among the reference's.
        tensor: position of the candidate's tensor, or None if it makes none.
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
class FaultLocation:
    """The layers that broke, and the evidence for the first of them.

    Attributes:
        layers: one for each step of the reference.
        broken: steps that are suspect though nothing that they read is, in order.
        stands_out: whether the first of them jumps.
        measured_at: the step at which the first one's error was measured: itself, or the first
            after it that the candidate makes.
        error: the error there; infinite if nothing resembles it.
        from_input: whether the first one reads the model's input and nothing else.
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
        sharp: whether something is known to be broken, and only its place is sought.
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
    steps: Sequence[Step],
    pairs: Sequence[Sequence[Pair]],
    tolerated: Sequence[float],
    unseen: Container[int] = (),
) -> FaultLocation | None:
    """The first layer of an int8 candidate that breaks within the tolerance, or None.

    Its error, and that of all that follows it, is more than rounding mostly makes; it jumps there;
    and the layer does not read the input alone, whose error is mostly due to ranges of other data.

    Args:
        tolerated: see `tolerances`. An error beyond them is not a faint fault, but the tensor is
            another layer's.
        unseen: see `judge`.
    """
    limits = [
        _tolerance(
            step, _FAINT_QUANTIZED_MULTIPLE, _FAINT_QUANTIZED_FLOOR, _QUANTIZED_UNKNOWN_NOISE
        )
        for step in steps
    ]
    judged = judge(steps, pairs, limits, unseen)
    at = judged.measured_at
    if at is None or not judged.stands_out or judged.from_input:
        return None
    least = max(
        _FAINT_ERROR / _FAINT_QUANTIZED_MULTIPLE * limits[at],
        _GROWTH * judged.layers[judged.broken[0]].before,
    )
    return judged if least < judged.error <= tolerated[at] else None


def judge(
    steps: Sequence[Step],
    pairs: Sequence[Sequence[Pair]],
    limits: Sequence[float],
    unseen: Container[int] = (),
) -> FaultLocation:
    """Find the first layer that breaks.

    Args:
        pairs: the tensors of the candidate that may be each step's output, the best first (see
            `find_pairs`), with exact errors.
        limits: the error up to which each step agrees: see `tolerances`.
        unseen: steps whose tensors can't be found in any candidate, right or wrong.
    """
    return _decide(steps, _propagate(steps, _match(steps, pairs, limits, unseen), limits))


@dataclass(frozen=True)
class _Match:
    """The tensors of the candidate that a step's output corresponds to.

    Attributes:
        agreeing: the best one within the limit, or None.
        resembling: of a suspect, the tensors that no step agrees with and that resemble no other
            suspect more, in the order of the pairs.
        suspect: whether neither the step nor anything computed from it agrees.
    """

    agreeing: Pair | None
    resembling: tuple[Pair, ...]
    suspect: bool

    def counterpart(self, after: int) -> Pair | None:
        """The tensor that most likely is the output: later than position `after`, or agreeing."""
        later = [pair for pair in self.resembling if pair.tensor > after]
        return self.agreeing or min(later, key=lambda pair: pair.error, default=None)


@dataclass(frozen=True)
class _Passed:
    """The values that a step passes on to those that read it.

    Attributes:
        error: of its tensor; of what it is computed from, if the candidate does not make it.
        position: the last agreeing tensor of the candidate up to here; -1 if there is none.
    """

    error: float
    position: int


def _match(
    steps: Sequence[Step],
    pairs: Sequence[Sequence[Pair]],
    limits: Sequence[float],
    unseen: Container[int],
) -> list[_Match]:
    """The tensors that agree with each step, and those that may be a suspect's output."""
    agreeing = [_best_within(row, limit) for row, limit in zip(pairs, limits, strict=True)]
    backed = _backed(steps, {index for index, pair in enumerate(agreeing) if pair})
    claimed = {pair.tensor for pair in agreeing if pair}
    closest = _closest(pairs, set(range(len(steps))) - backed)
    return [
        _Match(
            agreeing=agreeing[index],
            resembling=tuple(
                pair
                for pair in row
                if pair.tensor not in claimed and closest.get(pair.tensor) == index
            ),
            suspect=index not in backed and index not in unseen,
        )
        for index, row in enumerate(pairs)
    ]


def _best_within(row: Sequence[Pair], limit: float) -> Pair | None:
    fitting = [pair for pair in row if not pair.taken and pair.error <= limit]
    return min(fitting, key=lambda pair: pair.error, default=None)


def _propagate(
    steps: Sequence[Step], matches: Sequence[_Match], limits: Sequence[float]
) -> list[Layer]:
    """Each step with its own error and the largest that comes in, from the inputs on."""
    passed = {INPUT: _Passed(0.0, -1)}
    layers: list[Layer] = []
    for index, (step, match, limit) in enumerate(zip(steps, matches, limits, strict=True)):
        sources = [passed[source] for source in step.sources]
        before = max((source.error for source in sources), default=0.0)
        after = max((source.position for source in sources), default=-1)
        pair = match.counterpart(after)
        # A step that was fused away passes on the error before it.
        passed[index] = _Passed(
            error=pair.error if pair else before,
            position=match.agreeing.tensor if match.agreeing else after,
        )
        layers.append(
            Layer(
                step=index,
                tensor=pair.tensor if pair else None,
                error=pair.error if pair else None,
                before=before,
                tolerance=limit,
                agrees=match.agreeing is not None,
                suspect=match.suspect,
            )
        )
    return layers


def _decide(steps: Sequence[Step], layers: Sequence[Layer]) -> FaultLocation:
    """The suspects that read no suspect, and whether the error jumps at the first of them."""
    broken = tuple(
        layer.step
        for layer in layers
        if layer.suspect and not _reads_suspect(steps[layer.step], layers)
    )
    if not broken:
        return FaultLocation(tuple(layers))
    first = broken[0]
    measured = _first_seen(steps, layers, first)
    error = layers[measured].error
    error = math.inf if error is None else error
    jump = JUMP * _ratio_before(steps, layers, first)
    return FaultLocation(
        tuple(layers),
        broken,
        stands_out=error / layers[measured].tolerance > jump,
        measured_at=measured,
        error=error,
        from_input=steps[first].sources == (INPUT,) and layers[first].before == 0.0,
    )


def _reads_suspect(step: Step, layers: Sequence[Layer]) -> bool:
    return any(source != INPUT and layers[source].suspect for source in step.sources)


def _backed(steps: Sequence[Step], agreeing: Container[int]) -> set[int]:
    """The steps that agree, and those that an agreeing step is computed from."""
    backed: set[int] = set()
    for index in range(len(steps) - 1, -1, -1):
        if index in agreeing:
            backed.add(index)
        if index in backed:
            backed.update(source for source in steps[index].sources if source != INPUT)
    return backed


def _closest(pairs: Sequence[Sequence[Pair]], suspects: Container[int]) -> dict[int, int]:
    """The suspect that each tensor of the candidate resembles most."""
    closest: dict[int, tuple[float, int]] = {}
    for index, row in enumerate(pairs):
        for pair in row if index in suspects else ():
            nearest = closest.get(pair.tensor, (math.inf, index))
            closest[pair.tensor] = min(nearest, (pair.error, index))
    return {tensor: index for tensor, (_, index) in closest.items()}


def _first_seen(steps: Sequence[Step], layers: Sequence[Layer], first: int) -> int:
    """The first step from `first` on that is computed from it and that the candidate makes.

    If the candidate makes none of them, `first` itself.
    """
    reached = {first}
    for index in range(first, len(steps)):
        if index != first and not reached.intersection(steps[index].sources):
            continue
        reached.add(index)
        if layers[index].error is not None:
            return index
    return first


def _ratio_before(steps: Sequence[Step], layers: Sequence[Layer], first: int) -> float:
    """The largest error before a step, in multiples of the tolerance there."""
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
            ratios.append(error / layers[index].tolerance)
    return max(ratios)


def permuted_outputs(errors: Mapping[str, Mapping[str, float]], limit: float) -> dict[str, str]:
    """Outputs that carry another output's values: its name by theirs.

    Args:
        errors: by the reference's output and the candidate's, of those of equal shape.
        limit: the error up to which two are the same.
    """
    permuted = {}
    for name, row in errors.items():
        best = min(row, key=lambda other: row[other], default=name)
        if best != name and row[best] <= limit and row.get(name, math.inf) > 2 * row[best]:
            permuted[name] = best
    return permuted
