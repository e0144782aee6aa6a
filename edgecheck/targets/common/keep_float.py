"""Layers that stay in float in a quantized file: the option ``keep_float``, and what it means.

Users name layers by module paths of their own model; files name operators by nothing of the kind.
So a layer is found by its weights: their values are the same but for order of axes, rounding, and
one factor a channel where a batch norm was folded in. Knows no file format: see `ort_kept` and its
siblings.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.names import layer_of

Array = npt.NDArray[Any]
OPTION = "keep_float"
# Relative error (RMS) up to which two weights are the same: half precision gives 2^-11.
_SAME = 2e-3
# Elements along each axis that are compared, and the fewest that tell a factor from a difference.
_SAMPLED, _LEAST = 8, 4
_MOST_AXES = 4
_SHOWN = 12


class KeepFloatError(ValueError):
    """The option names what the file has not; the message is the whole story."""

    stands_alone = True


@dataclass(frozen=True)
class Operator:
    """An operator of a float file.

    Attributes:
        name: by which the quantizer knows it.
        reads, writes: names of tensors; constants may be left out.
        weights: the constants of two axes or more that it multiplies by, by name.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    weights: Mapping[str, Array]


def key(variant: str, precision: str) -> str:
    """The key of the option for a model's candidates of a precision, or for a variant's."""
    return f"{variant}/{precision}" if variant else precision


def option_problem(options: Mapping[str, Any], precisions: Collection[str]) -> str:
    """What is wrong with the option's form, or "".

    Args:
        precisions: those that it is for.
    """
    given = options[OPTION]
    if not isinstance(given, Mapping):
        return f"{OPTION} is a {type(given).__name__}; it is a dict of layer names by precision"
    named = {str(name).rpartition("/")[2] for name in given}
    if unknown := sorted(named - set(precisions)):
        return f"{OPTION} has {', '.join(unknown)}; it may have {', '.join(precisions)}"
    for precision, names in given.items():
        if isinstance(names, str) or not isinstance(names, Sequence):
            return f"{OPTION}[{precision!r}] is a {type(names).__name__}; it is a list of names"
        if wrong := [name for name in names if not isinstance(name, str) or not name]:
            return f"{OPTION}[{precision!r}] names {wrong[0]!r}, which is not a layer's name"
    return ""


def chosen(options: Mapping[str, Any], precision: str) -> list[str]:
    """The names that a build's options keep at a precision."""
    names: list[str] = options.get(OPTION, {}).get(precision, [])
    return names


def program_weights(path: str) -> dict[str, list[Array]]:
    """Float parameters of two axes or more in a .pt2 file, by layer; none for another file."""
    if not path.endswith(".pt2"):
        return {}
    from edgecheck.runtime.torch_program import load_program

    found: dict[str, list[Array]] = {}
    for name, tensor in load_program(path).state_dict.items():
        if tensor.is_floating_point() and tensor.dim() >= 2:
            found.setdefault(layer_of(name), []).append(tensor.detach().float().numpy())
    return found


def layers(operators: Sequence[Operator], weights: Mapping[str, Sequence[Array]]) -> dict[str, str]:
    """The layer of each operator with weights, by the operator's name.

    One whose weights are not parameters of the program is a layer of its own name.

    Args:
        weights: of the program, by layer (see `program_weights`).
    """
    found: dict[str, str] = {}
    left = [(layer, weight) for layer, own in weights.items() for weight in own]
    known: dict[str, str] = {}
    for operator in operators:
        for constant, values in operator.weights.items():
            if constant not in known:
                errors = [difference(weight, values) for _, weight in left]
                best = int(np.argmin(errors)) if errors else 0
                if not errors or errors[best] > _SAME:
                    continue
                # Of layers that are alike, each is taken once, in order.
                known[constant] = left.pop(best)[0]
            found.setdefault(operator.name, known[constant])
        if operator.weights:
            found.setdefault(operator.name, operator.name)
    return found


def difference(weight: Array, constant: Array) -> float:
    """Relative error (RMS) of a file's constant as a program's weight; infinite for other shapes.

    In any order of axes, and up to a factor for each entry of one of the weight's first two axes,
    the output channels (the second one of transposed convolutions).
    """
    # Axes of one element come and go between formats.
    left = weight.reshape([size for size in weight.shape if size > 1])
    right = constant.reshape([size for size in constant.shape if size > 1])
    if sorted(left.shape) != sorted(right.shape) or left.ndim > _MOST_AXES + 1:
        return float("inf")
    best = float("inf")
    for order in itertools.permutations(range(right.ndim)):
        if tuple(right.shape[axis] for axis in order) != left.shape:
            continue
        one, other = _sample(left), _sample(right.transpose(order))
        best = min(best, _relative(one, other), *_scaled(one, other))
        if 1 in weight.shape[:2]:  # a single channel has a factor, too
            best = min(best, *_scaled(one[None], other[None]))
    return best


def _sample(values: Array) -> Array:
    spread = [
        np.unique(np.linspace(0, size - 1, min(size, _SAMPLED)).astype(int))
        for size in values.shape
    ]
    return np.asarray(values[np.ix_(*spread)] if spread else values, np.float64)


def _relative(one: Array, other: Array) -> float:
    power = float((one * one).sum())
    error = float(((one - other) ** 2).sum())
    return float(np.sqrt(error / power)) if power > 0.0 else float("inf")


def _scaled(one: Array, other: Array) -> Iterable[float]:
    """The error that is left with the best factor for each entry of an axis."""
    for axis in range(min(2, one.ndim)):
        left = np.moveaxis(one, axis, 0).reshape(one.shape[axis], -1)
        right = np.moveaxis(other, axis, 0).reshape(one.shape[axis], -1)
        if left.shape[1] < _LEAST or not right.any():
            continue
        power = (left * left).sum(axis=1, keepdims=True)
        factor = (left * right).sum(axis=1, keepdims=True) / np.where(power > 0.0, power, 1.0)
        # Never better than an exact match, of which there may be two.
        yield _relative(right, factor * left) + _SAME / 10


def expanded(keep: Iterable[str], known: Collection[str]) -> frozenset[str]:
    """The layers that names stand for: layers, or modules that hold some.

    Raises:
        KeepFloatError: there is none of a name; the message has the nearest ones.
    """
    found: set[str] = set()
    for name in keep:
        own = {layer for layer in known if layer == name or layer.startswith(f"{name}.")}
        if not own:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            listed = sorted(known)
            more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
            raise KeepFloatError(
                f"{OPTION} names {name!r}, which is not a layer that this precision quantizes"
                f"{hint} "
                f"(there are {', '.join(listed[:_SHOWN]) or 'none'}{more})"
            )
        found |= own
    return frozenset(found)


def kept(
    operators: Sequence[Operator], layer_by_operator: Mapping[str, str], keep: Collection[str]
) -> tuple[set[str], set[str]]:
    """What stays in float, where these layers do: names of operators, and of tensors.

    An operator without weights stays in float where all layers next before it do, or, with none
    before it, all next after it. A tensor does where what gives it and what takes it do.
    """
    if not keep:
        return set(), set()
    before = _nearest(operators, layer_by_operator)
    after = _nearest(
        [
            Operator(item.name, item.writes, item.reads, item.weights)
            for item in reversed(operators)
        ],
        layer_by_operator,
    )
    chosen: set[str] = set()
    for item in operators:
        own = layer_by_operator.get(item.name)
        near = {own} if own is not None else before[item.name] or after[item.name]
        if near and near <= set(keep):
            chosen.add(item.name)
    tensors = {name for item in operators for name in (*item.reads, *item.writes)}
    quantized = {
        name
        for item in operators
        if item.name not in chosen
        for name in (*item.reads, *item.writes)
    }
    return chosen, tensors - quantized


def _nearest(
    operators: Sequence[Operator], layer_by_operator: Mapping[str, str]
) -> dict[str, set[str]]:
    """The layers next before each operator, of operators in the order of execution."""
    reaching: dict[str, set[str]] = {}
    found: dict[str, set[str]] = {}
    for item in operators:
        near: set[str] = set().union(*(reaching.get(name, set()) for name in item.reads))
        found[item.name] = near
        own = layer_by_operator.get(item.name)
        for name in item.writes:
            passed_on = {own} if own is not None else near
            # Looking backwards, a tensor has several takers.
            reaching[name] = reaching.get(name, set()) | passed_on
    return found
