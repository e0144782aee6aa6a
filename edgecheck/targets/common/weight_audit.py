"""The weights that a file stores against those of its program: layers that are the program's but
for a few elements.

A flipped bit of one stored weight hides below quantization noise, and stands out here: whoever
rounds to the nearest is at most half a step away. Exact, and silent where a layer as a whole is not
the program's (fine-tuned, equalized, pruned, rounded by learning): how far outputs may be off is
the parity check's. Knows no file format: see `ort_weights` and its siblings. No biases.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.targets.common.weight_bits import odd, rows

Array = npt.NDArray[Any]

# Precisions whose files are audited: the others store no rounded copy of the program's weights.
PRECISIONS = ("fp32", "fp16", "int16x8", "int8-dynamic", "int8-weights", "int8", "palettized")
# Of a layer's elements that tell anything, the share that must be honest for the layer to be the
# program's; one at least may differ, of 16 at least.
_SHARE, _LEAST = 0.99, 16
# Errors in units: steps of a quantized weight, distances to the next value of a palette, else 2^-10
# (float16) or 2^-23 (float32) of the element. Rounding to the nearest gives 0.5 at most; scales,
# factors of channels and folded batch norms are rounded as well, and 321 sound files of 24 networks
# had 0.73, 1.03 and 1.5.
_HONEST = {"int8": 0.75, "palette": 0.75, "float16": 1.5, "float32": 3.0}
_DAMAGED = {"int8": 2.0, "palette": 2.0, "float16": 4.0, "float32": 8.0}
# Relative to a layer's largest weight, and absolute (converters move float16's smallest numbers):
# below it an error of a float weight is none.
_FLOAT32_SPACING, _FLOAT32_NOTHING = 2.0**-23, 1e-8
_HALF_SPACING, _HALF_NOTHING, _SMALLEST_HALF = 2.0**-10, 1e-6, 1e-7
# Elements of a channel from which its factor is estimated.
_FEWEST, _MOST = 4, 64
# For matching: elements along an axis by number of axes, and the share that must fit.
_SAMPLED = {1: 256, 2: 16, 3: 8}
_SAMPLED_SHARE = 0.95
_MOST_AXES = 5


@dataclass(frozen=True)
class Stored:
    """A weight as a file stores it, in any order of axes.

    Attributes:
        name: in the file.
        values: the numbers that it stands for, float32; up to a factor for each channel where the
            scale is not `scaled`.
        step: of the quantization, in the same unit, that broadcasts with `values`; None of floats.
            Of a palette, what lies between two of its values mostly.
        ends: 1 where an element has the largest number that is stored, -1 where the smallest.
        half: whether it is stored in half precision.
        scaled: whether the scale is known.
        palette: the values that there are, in ascending order, where it is one.
    """

    name: str
    values: Array
    step: Array | None = None
    ends: Array | None = None
    half: bool = False
    scaled: bool = True
    palette: Array | None = None

    @property
    def storage(self) -> str:
        """``int8``, ``palette``, ``float16`` or ``float32``."""
        if self.palette is not None:
            return "palette"
        return "int8" if self.step is not None else "float16" if self.half else "float32"


@dataclass(frozen=True)
class Damage:
    """Elements of a layer that are not the program's, where the others are.

    Attributes:
        layer: of the program.
        name: of the weight in the file.
        count, of: elements that are not, and all.
        index: of the worst, in the program's order of axes.
        error: of the worst: in steps of a quantized weight, else in 2^-10 or 2^-23 of the element.
        quantized: which of the two.
        stored, expected: the worst as it is, and as the program has it, in the program's unit.
    """

    layer: str
    name: str
    count: int
    of: int
    index: tuple[int, ...]
    error: float
    quantized: bool
    stored: float
    expected: float


def from_integers(
    name: str, integers: Array, scale: Array | None, zero_point: Array | float
) -> Stored:
    """A weight stored as 8-bit integers.

    Args:
        scale, zero_point: broadcast with the integers; no scale where it is not known.
    """
    # Of the range that is used: quantizers may leave numbers out, the smallest one often.
    limits = np.iinfo(integers.dtype)
    smallest = max(int(integers.min(initial=limits.max)), int(limits.min) + 1)
    ends = (integers == integers.max(initial=limits.min)).astype(np.int8) - (integers <= smallest)
    values = integers.astype(np.float32) - np.asarray(zero_point, np.float32)
    step = np.ones((1,) * integers.ndim, np.float32) if scale is None else scale
    step = np.abs(np.asarray(step, np.float32))
    if scale is not None:
        values *= np.asarray(scale, np.float32)
    return Stored(name, values, step, ends, scaled=scale is not None)


def from_palette(name: str, indices: Array, table: Array) -> Stored:
    """A weight stored as indices into a table of float numbers."""
    values = table.astype(np.float32)[indices]
    palette = np.unique(values)
    between = float(np.median(np.diff(palette))) if palette.size > 1 else 0.0
    step = np.full((1,) * values.ndim, between, np.float32)
    return Stored(name, values, step, palette=palette)


def from_floats(name: str, floats: Array) -> Stored:
    """A weight stored in float16 or float32."""
    half = floats.dtype == np.float16
    values = floats.astype(np.float32)
    # onnxconverter-common stops at 1e4 by default, the type itself at 65504.
    large = np.abs(values) >= 9984.0
    ends = np.where(large, np.sign(values), 0).astype(np.int8) if half and large.any() else None
    return Stored(name, values, ends=ends, half=half)


def audited(stored: Sequence[Stored], weights: Mapping[str, Sequence[Array]]) -> dict[str, Any]:
    """What the audit of a file found, as plain data.

    Args:
        weights: of the program, by layer (see `program_weights.read`).

    Returns:
        ``stored_weights`` and ``stored_elements`` of the file, ``matched_weights`` and
        ``matched_elements``, those that are the program's, and ``damaged``, each a `Damage`.
    """
    left = [(layer, weight) for layer, own in weights.items() for weight in own]
    matched = elements = 0
    damaged = []
    for item in stored:
        best: tuple[int, Damage | None] | None = None
        for position, (layer, weight) in enumerate(left):
            known, damage = match(weight, item, layer)
            if known and (best is None or _count(damage) < _count(best[1])):
                best = position, damage
            if known and damage is None:
                break
        if best is None:
            continue
        # Of layers that are alike, each is taken once, in order.
        left.append(left.pop(best[0]))
        matched += 1
        elements += item.values.size
        if best[1] is not None:
            damaged.append({**asdict(best[1]), "index": list(best[1].index)})
    return {
        "stored_weights": len(stored),
        "stored_elements": sum(item.values.size for item in stored),
        "matched_weights": matched,
        "matched_elements": elements,
        "damaged": damaged,
    }


def match(weight: Array, item: Stored, layer: str = "") -> tuple[bool, Damage | None]:
    """Whether a stored weight is one of the program's, and the elements that are not.

    Of all orders of axes and factors of channels that fit, one without damage counts.
    """
    found: Damage | None = None
    for turned in _orders(item, weight.shape):
        left = weight.reshape(turned.values.shape)
        for axis in _axes(turned):
            if not _fits(*_sample(left, turned), axis):
                continue
            known, damage = _compare(left, turned, axis)
            if known and damage is None:
                return True, None
            if damage is not None and (found is None or damage.count < found.count):
                found = damage
            if known and axis is None and item.step is None and _count(damage) < _FEWEST:
                break  # no channel's factor explains so few
    if found is None:
        return False, None
    flat = np.ravel_multi_index(found.index, [size for size in weight.shape if size > 1])
    index = tuple(int(one) for one in np.unravel_index(flat, weight.shape))
    return True, replace(found, layer=layer, index=index)


def _count(damage: Damage | None) -> int:
    return damage.count if damage is not None else 0


def _orders(item: Stored, shape: Sequence[int]) -> Iterator[Stored]:
    """A stored weight in the orders of axes that give a shape, both without axes of one element."""
    values = item.values
    wanted = tuple(size for size in shape if size > 1)
    kept = [axis for axis, size in enumerate(values.shape) if size > 1]
    sizes = [values.shape[axis] for axis in kept]
    if sorted(sizes) != sorted(wanted) or len(wanted) > _MOST_AXES or not wanted:
        return
    gone = tuple(axis for axis, size in enumerate(values.shape) if size == 1)
    for order in itertools.permutations(range(len(kept))):
        if tuple(sizes[axis] for axis in order) != wanted:
            continue

        def turn(array: Array | None, order: tuple[int, ...] = order) -> Array | None:
            return None if array is None else array.squeeze(gone).transpose(order)

        turned = turn(values)
        assert turned is not None
        yield replace(item, values=turned, step=turn(item.step), ends=turn(item.ends))


def _axes(item: Stored) -> list[int | None]:
    """Axes that a factor may go along: none, or the output channels (the second axis of transposed
    convolutions)."""
    axes: list[int | None] = list(range(min(2, item.values.ndim)))
    return [None, *axes] if item.scaled else axes


def _sample(weight: Array, item: Stored) -> tuple[Array, Stored]:
    most = _SAMPLED.get(weight.ndim, 6)
    spread = np.ix_(
        *(np.unique(np.linspace(0, size - 1, min(size, most)).astype(int)) for size in weight.shape)
    )

    def cut(array: Array | None) -> Array | None:
        return None if array is None else np.broadcast_to(array, weight.shape)[spread]

    values = cut(item.values)
    assert values is not None
    return weight[spread], replace(item, values=values, step=cut(item.step), ends=cut(item.ends))


def _fits(weight: Array, item: Stored, axis: int | None) -> bool:
    found = _errors(weight, item, axis)
    honest = found.errors[found.telling] <= _HONEST[item.storage]
    allowed = max(1.0, (1.0 - _SAMPLED_SHARE) * honest.size)
    return bool(honest.size and np.count_nonzero(~honest) <= allowed)


@dataclass(frozen=True)
class _Errors:
    """Of each element: its error in units, and whether it tells anything; what is expected, the
    factors, and how far each may be off, per unit of the weight."""

    errors: Array
    telling: Array
    unit: Array
    expected: Array
    factor: Array
    slack: Array


def _compare(weight: Array, item: Stored, axis: int | None) -> tuple[bool, Damage | None]:
    """The same for an order of axes, and a factor for each entry of an axis (None: no factor)."""
    found = _errors(weight, item, axis)
    errors = found.errors
    dishonest = ~(errors <= _HONEST[item.storage]) & found.telling
    of = int(np.count_nonzero(found.telling))
    if of < _LEAST or np.count_nonzero(dishonest) > max(1.0, (1.0 - _SHARE) * of):
        return False, None
    damaged = errors > _DAMAGED[item.storage]
    if damaged.any():
        with np.errstate(all="ignore"):
            damaged &= errors > _HONEST[item.storage] + found.slack * np.abs(weight) / found.unit
    elif item.step is None:
        telling = found.telling if item.ends is None else found.telling & (item.ends == 0)
        damaged = odd(weight, item.values, telling, half=item.half, axis=axis)
    count = int(np.count_nonzero(damaged))
    if not count:
        return True, None
    at = np.unravel_index(int(np.argmax(np.where(damaged, errors, -1.0))), errors.shape)
    scale = float(np.broadcast_to(found.factor, errors.shape)[at]) or 1.0
    return True, Damage(
        layer="",
        name=item.name,
        count=count,
        of=errors.size,
        index=tuple(int(one) for one in at),
        error=float(errors[at]),
        quantized=item.step is not None,
        stored=float(item.values[at]) / scale,
        expected=float(found.expected[at]) / scale,
    )


def _errors(weight: Array, item: Stored, axis: int | None) -> _Errors:
    values, weight = item.values, np.asarray(weight, np.float32)
    with np.errstate(all="ignore"):
        factor, slack = np.ones((1,) * values.ndim, np.float32), np.zeros((1,) * values.ndim)
        if axis is not None:
            factor, slack = _factors(weight, values, item.step, axis)
        expected = weight * factor
        unit = _unit(expected, item)
        errors = np.nan_to_num(np.abs(values - expected) / unit, nan=np.inf, posinf=np.inf)
        if item.ends is not None:
            errors[item.ends * (expected - values) > 0] = 0.0  # beyond what can be stored
        largest = np.fmax(np.abs(expected), np.abs(values))
        telling = largest > _DAMAGED[item.storage] * unit
        if item.palette is not None:
            telling = unit < np.inf  # each says which stretch the program's lies in
    return _Errors(errors, telling, unit, expected, factor, slack)


def _unit(expected: Array, item: Stored) -> Array:
    if item.palette is not None:
        # To the next value on that side; beyond the first and the last there is none.
        gaps = np.concatenate(([np.inf], np.diff(item.palette), [np.inf]))
        place = np.searchsorted(item.palette, item.values)
        found: Array = gaps[place + (expected > item.values)].astype(np.float32)
        return found
    if item.step is not None:
        return np.maximum(item.step, np.float32(np.finfo(np.float32).tiny))
    size = np.abs(expected)
    largest = float(np.max(size, where=np.isfinite(size), initial=0.0))
    spacing, nothing = _FLOAT32_SPACING, _FLOAT32_NOTHING * largest
    if item.half:
        spacing, nothing = _HALF_SPACING, max(_HALF_NOTHING * largest, _SMALLEST_HALF)
    unit: Array = size * np.float32(spacing)
    return unit + np.float32(max(nothing, float(np.finfo(np.float32).tiny)))


def _factors(weight: Array, values: Array, step: Array | None, axis: int) -> tuple[Array, Array]:
    """The factor of each entry of an axis, and how far it may be off where all others are honest.

    The median of its largest elements' ratios, weighted by their squares; of quantized weights then
    the least squares fit of those that this explains, within 2 steps, which the rounding of honest
    elements w moves by no more than honest * sum(step |w|) / sum(w^2). NaN where there are too few.
    """
    left, right = rows(weight, axis), rows(values, axis)
    count = left.shape[1]
    shape = [1] * weight.ndim
    shape[axis] = len(left)
    if count < _FEWEST:
        return np.full(shape, np.nan, np.float32), np.zeros(shape)
    most = min(count, max(_FEWEST, min(count // 4, _MOST)))
    largest = np.argpartition(np.abs(left), count - most, axis=1)[:, count - most :]
    weights = np.take_along_axis(left, largest, 1)
    ratios = np.nan_to_num(np.take_along_axis(right, largest, 1) / weights, nan=1.0)
    order = np.argsort(ratios, axis=1)
    shares = np.cumsum(np.take_along_axis(np.square(weights, dtype=np.float64), order, 1), axis=1)
    middle = np.argmax(shares >= shares[:, -1:] / 2, axis=1)[:, None]
    factor = np.take_along_axis(np.take_along_axis(ratios, order, 1), middle, 1)
    slack = np.zeros(factor.shape)
    if step is not None:
        steps = rows(np.broadcast_to(step, weight.shape), axis)
        explained = np.abs(right - left * factor) <= _DAMAGED["int8"] * steps
        power = (left * left * explained).sum(axis=1, keepdims=True, dtype=np.float64)
        fitted = (left * right * explained).sum(axis=1, keepdims=True, dtype=np.float64) / power
        moved = (steps * np.abs(left) * explained).sum(axis=1, keepdims=True, dtype=np.float64)
        slack = _HONEST["int8"] * moved / power
        factor = np.where(np.isfinite(fitted), fitted, factor)
    return factor.reshape(shape).astype(np.float32), slack.reshape(shape)
