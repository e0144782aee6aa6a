"""Normalizations. Their formulas are those of coremltools' operator definitions."""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from edgecheck.mil.call import Call, Handler


def _batch_norm(call: Call) -> torch.Tensor:
    return functional.batch_norm(
        call.tensor("x"),
        call.tensor("mean"),
        call.tensor("variance"),
        call.optional("gamma"),
        call.optional("beta"),
        eps=call.number("epsilon", 1e-5),
    )


def _instance_norm(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return _standardized(call, x, list(range(2, x.ndim)), (-1, *[1] * (x.ndim - 2)))


def _layer_norm(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    axes = sorted(axis % x.ndim for axis in call.integers("axes", range(x.ndim)))
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    return _standardized(call, x, axes, shape)


def _standardized(
    call: Call, x: torch.Tensor, axes: list[int], shape: tuple[int, ...] | list[int]
) -> torch.Tensor:
    """Zero mean and unit variance over the axes, then gamma and beta in the given shape."""
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    y = (x - mean) * torch.rsqrt(variance + call.number("epsilon", 1e-5))
    gamma, beta = call.optional("gamma"), call.optional("beta")
    if gamma is not None:
        y = y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


def _l2_norm(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    squares = x.square().sum((-3, -2, -1), keepdim=True)
    return x / (squares + call.number("epsilon", 1e-6)).sqrt()


def _local_response_norm(call: Call) -> torch.Tensor:
    size = call.integer("size")
    if size % 2 == 0:
        raise call.unsupported("over an even number of channels")
    return functional.local_response_norm(
        call.tensor("x"),
        size,
        call.number("alpha", 1e-4),
        call.number("beta", 0.75),
        call.number("k", 1.0),
    )


HANDLERS: dict[str, Handler] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
}
