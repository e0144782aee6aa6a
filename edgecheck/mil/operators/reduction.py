"""Reductions over some axes, or over all of them where none are given."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgecheck.mil.call import Call, Handler

_Reduce = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _over_axes(function: _Reduce, *, integers: bool = True) -> Handler:
    def handle(call: Call) -> torch.Tensor:
        x = call.tensor("x")
        if not integers and not x.is_floating_point():
            raise call.unsupported("of integers")
        axes = call.integers("axes", range(x.ndim))
        # Torch would take an empty list for all axes.
        if x.ndim and not axes:
            raise call.unsupported("over no axis")
        return function(x, axes, call.flag("keep_dims", False)).to(x.dtype)

    return handle


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x if keep else x.squeeze(axes)


def _index_of(function: Callable[..., torch.Tensor]) -> Handler:
    def handle(call: Call) -> torch.Tensor:
        x = call.tensor("x")
        if x.is_floating_point() and bool(x.isnan().any()):
            raise call.unsupported("of NaN, for which Core ML gives an arbitrary index,")
        found = function(x, call.integer("axis", -1), keepdim=call.flag("keep_dims", False))
        # uint16, the other output_dtype, is left to the declared type.
        return found.to(torch.int32)

    return handle


HANDLERS: dict[str, Handler] = {
    "reduce_argmax": _index_of(torch.argmax),
    "reduce_argmin": _index_of(torch.argmin),
    "reduce_l1_norm": _over_axes(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "reduce_l2_norm": _over_axes(
        lambda x, axes, keep: x.square().sum(axes, keep).sqrt(), integers=False
    ),
    "reduce_log_sum": _over_axes(lambda x, axes, keep: x.sum(axes, keep).log(), integers=False),
    "reduce_log_sum_exp": _over_axes(lambda x, axes, keep: x.logsumexp(axes, keep), integers=False),
    "reduce_max": _over_axes(lambda x, axes, keep: x.amax(axes, keep)),
    "reduce_mean": _over_axes(lambda x, axes, keep: x.mean(axes, keep), integers=False),
    "reduce_min": _over_axes(lambda x, axes, keep: x.amin(axes, keep)),
    "reduce_prod": _over_axes(_product),
    "reduce_sum": _over_axes(lambda x, axes, keep: x.sum(axes, keep)),
    "reduce_sum_square": _over_axes(lambda x, axes, keep: x.square().sum(axes, keep)),
}
