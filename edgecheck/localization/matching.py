"""Which tensor of the candidate is which operator's output in the reference: by values, not names.

Converters rename, fuse, decompose, and change layouts. So two tensors of equal size are compared in
every order of the reference's axes; what agrees within tolerance is the same, in whatever shape.
What the candidate never makes (fused away) has no match. Pure; not for judging errors: see
`judgement`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecheck.runtime.trace import Array

# Elements of each tensor that are compared when looking for pairs.
_SAMPLED = 4096
# Fewer elements than this agree by chance.
_LEAST_ELEMENTS = 4
# Orders of more axes than this are too many to try.
_MOST_AXES = 4
# A tensor of the candidate may agree with this many times the error of the one that it fits best:
# operators that only move values have the same ones.
_AMBIGUITY = 3.0
_RESOLUTION = 1e-6
# Pairs of each tensor whose error is computed from all elements.
_REFINED = 3


@dataclass(frozen=True)
class Pair:
    """A tensor of the candidate that may be an operator's output.

    Attributes:
        tensor: its position among the candidate's.
        axes: order of the reference's axes, calls not counted, in which the two are compared.
        error: root of the relative error power; infinite where the candidate is not finite.
        taken: whether another operator's output is the better fit.
    """

    tensor: int
    axes: tuple[int, ...]
    error: float
    taken: bool


def axis_orders(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The orders of a shape's axes that give different sequences of its elements.

    The given one is first. Of more than four axes longer than one, the channels first or last.
    """
    wide = [axis for axis, size in enumerate(shape) if size > 1]
    unit = [axis for axis, size in enumerate(shape) if size <= 1]
    if len(wide) <= _MOST_AXES:
        orders: Iterator[Sequence[int]] = itertools.permutations(wide)
    else:
        batch, first, *rest = wide
        orders = iter([wide, [batch, *rest, first], [batch, rest[-1], first, *rest[:-1]]])
    return [(*unit, *order) for order in orders]


def too_small(values: Array) -> bool:
    """Whether a tensor, as a scalar, has too few elements to be told from others."""
    return values.size < _LEAST_ELEMENTS


def find_pairs(reference: Sequence[Array], candidate: Sequence[Array]) -> list[list[Pair]]:
    """For each tensor of the reference those of the candidate of equal size, the best first.

    Args:
        reference, candidate: (calls, *shape) each.

    A tensor of the reference that is constant zero, not finite, or tiny has none.
    """
    pairs: list[list[Pair]] = [[] for _ in reference]
    sizes: dict[int, tuple[list[int], list[int]]] = {}
    for position, values in enumerate(reference):
        if not too_small(values) and np.isfinite(values).all() and values.any():
            sizes.setdefault(values.size, ([], []))[0].append(position)
    for position, values in enumerate(candidate):
        if values.size in sizes:
            sizes[values.size][1].append(position)
    for size, (left, right) in sizes.items():
        if not right:
            continue
        errors, axes = _errors(
            [reference[item] for item in left], [candidate[item] for item in right], size
        )
        best = errors.min(axis=0)
        for row, position in enumerate(left):
            found = [
                Pair(
                    right[column],
                    axes[row][column],
                    float(errors[row, column]),
                    bool(errors[row, column] > _AMBIGUITY * best[column] + _RESOLUTION),
                )
                for column in np.argsort(errors[row], kind="stable")
            ]
            pairs[position] = found
    return pairs


def _errors(
    reference: Sequence[Array], candidate: Sequence[Array], size: int
) -> tuple[Array, list[list[tuple[int, ...]]]]:
    """Relative errors (reference, candidate) in the best order of axes, and those orders."""
    count = min(size, _SAMPLED)
    # Evenly spread, with a step that falls in with no axis.
    positions = np.unique((np.arange(count) * (size / count)).astype(np.int64))
    right = np.stack([_flat(values)[positions] for values in candidate])
    finite = np.isfinite(right).all(axis=1)
    right = np.where(finite[:, None], right, 0.0)
    power = (right * right).sum(axis=1)
    errors = np.full((len(reference), len(candidate)), np.inf)
    axes: list[list[tuple[int, ...]]] = [[() for _ in candidate] for _ in reference]
    for row, values in enumerate(reference):
        for order in axis_orders(values.shape[1:]):
            left = _at(values, order, positions)
            own = float(left @ left)
            if own == 0.0:
                continue
            squared = own + power - 2.0 * (right @ left)
            found = np.sqrt(np.maximum(squared, 0.0) / own)
            better = found < errors[row] * (1 - 1e-9)
            for column in np.flatnonzero(better):
                axes[row][column] = order
            errors[row] = np.where(better, found, errors[row])
    errors[:, ~finite] = np.inf
    return errors, axes


def _flat(values: Array) -> Array:
    flat: Array = np.asarray(values).reshape(-1).astype(np.float64)
    return flat


def _at(values: Array, order: Sequence[int], positions: Array) -> Array:
    """Elements of (calls, *shape) values at flat positions of their transpose."""
    axes = (0, *(axis + 1 for axis in order))
    index = np.unravel_index(positions, tuple(values.shape[axis] for axis in axes))
    original: list[Array] = [np.empty(0)] * values.ndim
    for place, axis in enumerate(axes):
        original[axis] = index[place]
    found: Array = np.asarray(values[tuple(original)], np.float64)
    return found


def refined(
    pairs: Sequence[Sequence[Pair]], reference: Sequence[Array], candidate: Sequence[Array]
) -> list[list[Pair]]:
    """The best pairs of each tensor with their errors over all elements."""
    return [
        [
            replace(pair, error=relative_error(reference[index], candidate[pair.tensor], pair.axes))
            if place < _REFINED
            else pair
            for place, pair in enumerate(found)
        ]
        for index, found in enumerate(pairs)
    ]


def relative_error(reference: Array, candidate: Array, axes: Sequence[int]) -> float:
    """Root of the error's power over the reference's, over all elements.

    Args:
        axes: order of the reference's axes, calls not counted, that gives the candidate's elements.
    """
    transposed = np.transpose(reference, (0, *(axis + 1 for axis in axes)))
    left, right = _flat(transposed), _flat(candidate)
    if not np.isfinite(right).all():
        return float("inf")
    power = float(left @ left)
    error = left - right
    return float(np.sqrt(float(error @ error) / power)) if power > 0.0 else float("inf")
