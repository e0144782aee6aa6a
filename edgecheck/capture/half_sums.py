"""The sums inside PyTorch operators that half precision could not hold.

A mean of 65,536 values is small though their sum is not: an operator that adds in float32 gives the
mean, one that adds in half precision gives infinity. Considered are the sums whose value does not
depend on the order of addition: of a mean, a variance, a norm, an averaging pool, a softmax, the
scores of attention. Partial sums are left out: whether one overflows depends on the order, which
is the runtime's. Results of matrix products, convolutions and plain sums are tensors, and rounded
as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# The smallest number that half precision rounds to infinity: beyond its largest, 65504, by half of
# the spacing there (IEEE 754-2019, 4.3.1).
OVERFLOW = 65520.0
_aten = torch.ops.aten


@dataclass(frozen=True)
class Sums:
    """What an operator added up.

    Attributes:
        values: magnitude of each sum; broadcasts with the operator's first result.
        terms: how many values the largest of them adds.
    """

    values: torch.Tensor
    terms: int

    @property
    def overflowing(self) -> torch.Tensor:
        """Where half precision could not hold the sum, though each of its terms was finite."""
        return (self.values >= OVERFLOW) & self.values.isfinite()


def sums_inside(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Any]
) -> Sums | None:
    """The sums inside a call of an operator; None for operators without any.

    Args:
        results: what the operator gave, in float32.
    """
    measure = _MEASURES.get(func)
    if measure is None:
        return None
    names = [argument.name for argument in func._schema.arguments]
    defaults = {item.name: item.default_value for item in func._schema.arguments}
    given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
    first = results[0]
    if not isinstance(first, torch.Tensor) or not first.is_floating_point() or not first.numel():
        return None
    return measure(given, results)


_Given = dict[str, Any]
_Results = Sequence[torch.Tensor]


def _mean(given: _Given, results: _Results) -> Sums:
    terms = given["self"].numel() // results[0].numel()
    return Sums(results[0].abs() * terms, terms)


def _variance(given: _Given, results: _Results) -> Sums:
    x, variance = given["self"], results[0]
    terms = x.numel() // variance.numel()
    axes, keep = given["dim"], given["keepdim"]
    mean = results[1] if len(results) > 1 else x.mean(axes or list(range(x.ndim)), keep)
    correction = 1 if given["correction"] is None else given["correction"]
    return Sums(torch.fmax(mean.abs() * terms, variance * (terms - correction)), terms)


def _deviation(given: _Given, results: _Results) -> Sums:
    return _variance(given, (results[0].square(), *results[1:]))


def _norm(given: _Given, results: _Results) -> Sums | None:
    order = next((given[name] for name in ("ord", "p") if given.get(name) is not None), 2.0)
    if not 1.0 < float(order) < math.inf:
        return None  # of order 1 the sum is the result
    norm = results[0]
    x = given["x1"] if "x1" in given else given["self"]
    terms = x.shape[-1] if "x1" in given else x.numel() // norm.numel()
    return Sums(norm.pow(float(order)), terms)


def _statistics(
    mean: torch.Tensor, inverse: torch.Tensor, epsilon: float, terms: int, shape: Sequence[int]
) -> Sums:
    """The sums behind a mean and 1/sqrt(variance + epsilon)."""
    squares = (inverse.pow(-2) - epsilon) * terms
    return Sums(torch.fmax(mean.abs() * terms, squares).reshape(*shape), terms)


def _layer_norm(given: _Given, results: _Results) -> Sums:
    terms = math.prod(given["normalized_shape"])
    return _statistics(results[1], results[2], given["eps"], terms, results[1].shape)


def _group_norm(given: _Given, results: _Results) -> Sums:
    each = given["C"] // given["group"]
    mean, inverse = (item.repeat_interleave(each, dim=1) for item in results[1:3])
    shape = (*mean.shape, *[1] * (results[0].ndim - 2))
    return _statistics(mean, inverse, given["eps"], each * given["HxW"], shape)


def _batch_norm(given: _Given, results: _Results) -> Sums | None:
    if not given["training"]:
        return None  # statistics are constants
    channels = results[0].shape[1]
    shape = (1, channels, *[1] * (results[0].ndim - 2))
    terms = results[0].numel() // channels
    return _statistics(results[1], results[2], given["eps"], terms, shape)


def _average_pool(function: Callable[..., torch.Tensor]) -> Callable[[_Given, _Results], Sums]:
    def measure(given: _Given, results: _Results) -> Sums:
        rest = {name: value for name, value in given.items() if name != "divisor_override"}
        kernel = given["kernel_size"]
        axes = 3 if function is _aten.avg_pool3d.default else 2
        terms = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** axes
        return Sums(function(**rest, divisor_override=1).abs(), terms)

    return measure


def _adaptive_pool(given: _Given, results: _Results) -> Sums:
    counts = torch.ones(())
    sizes = given["output_size"]
    for size, count in zip(given["self"].shape[-len(sizes) :], sizes, strict=True):
        # The windows of torch's adaptive pools: from floor(i n / m) to ceil((i + 1) n / m).
        widths = [-(-(i + 1) * size // count) - i * size // count for i in range(count)]
        counts = counts[..., None] * torch.tensor(widths)
    return Sums(results[0].abs() * counts, int(counts.max()))


def _softmax(given: _Given, results: _Results) -> Sums | None:
    x, axis = given["self"], given["dim"]
    terms = x.shape[axis] if x.ndim else 1
    if terms < OVERFLOW:
        return None  # none of the terms is above 1
    return Sums((x - x.amax(axis, keepdim=True)).exp().sum(axis, keepdim=True), terms)


def _attention(given: _Given, results: _Results) -> Sums | None:
    """Scores: the products of queries and keys, times the scale."""
    query, key = given["query"], given["key"]
    scale = given["scale"]
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    # By Cauchy and Schwarz no score is above this.
    bound = abs(scale) * query.norm(dim=-1).max() * key.norm(dim=-1).max()
    if bound < OVERFLOW or query.shape[:-2] != key.shape[:-2]:
        return None
    scores = (query @ key.transpose(-1, -2) * scale).abs().amax(-1, keepdim=True)
    return Sums(scores, query.shape[-1])


_MEASURES: dict[Any, Callable[[_Given, _Results], Sums | None]] = {
    _aten.mean.default: _mean,
    _aten.mean.dim: _mean,
    _aten.var.correction: _variance,
    _aten.var_mean.correction: _variance,
    _aten.std.correction: _deviation,
    _aten.std_mean.correction: _deviation,
    _aten.linalg_vector_norm.default: _norm,
    _aten.norm.ScalarOpt_dim: _norm,
    _aten._cdist_forward.default: _norm,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.native_group_norm.default: _group_norm,
    _aten.native_batch_norm.default: _batch_norm,
    _aten._native_batch_norm_legit.no_stats: _batch_norm,
    _aten.avg_pool2d.default: _average_pool(_aten.avg_pool2d.default),
    _aten.avg_pool3d.default: _average_pool(_aten.avg_pool3d.default),
    _aten._adaptive_avg_pool2d.default: _adaptive_pool,
    _aten._adaptive_avg_pool3d.default: _adaptive_pool,
    _aten._softmax.default: _softmax,
    _aten._log_softmax.default: _softmax,
    _aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
}
