"""Activations. Their formulas are those of coremltools' operator definitions (iOS15, iOS17)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as functional

from edgecheck.mil.call import Call, Handler


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Handler:
    return lambda call: function(call.tensor("x"))


def _by_channel(call: Call, parameter: str) -> torch.Tensor:
    """A vector [C] so that it broadcasts over x [N, C, ...]."""
    x, values = call.tensor("x"), call.tensor(parameter)
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _clamped_relu(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.where(x >= 0, x, x * call.number("alpha")).clamp(max=call.number("beta"))


def _elu(call: Call) -> torch.Tensor:
    return functional.elu(call.tensor("x"), call.number("alpha"))


def _gelu(call: Call) -> torch.Tensor:
    x, mode = call.tensor("x"), call.text("mode", "EXACT")
    if mode == "EXACT":
        return functional.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return functional.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise call.unsupported(f"with mode {mode!r}")


def _leaky_relu(call: Call) -> torch.Tensor:
    return functional.leaky_relu(call.tensor("x"), call.number("alpha"))


def _linear_activation(call: Call) -> torch.Tensor:
    return call.tensor("x") * call.number("alpha") + call.number("beta")


def _prelu(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.where(x > 0, x, x * _by_channel(call, "alpha"))


def _scaled_tanh(call: Call) -> torch.Tensor:
    return call.number("alpha") * torch.tanh(call.number("beta") * call.tensor("x"))


def _sigmoid_hard(call: Call) -> torch.Tensor:
    return _linear_activation(call).clamp(0, 1)


def _softmax(call: Call) -> torch.Tensor:
    return functional.softmax(call.tensor("x"), call.integer("axis", -1))


def _softplus_parametric(call: Call) -> torch.Tensor:
    scaled = _by_channel(call, "beta") * call.tensor("x")
    return _by_channel(call, "alpha") * functional.softplus(scaled)


def _thresholded_relu(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.where(x >= call.number("alpha"), x, torch.zeros_like(x))


HANDLERS: dict[str, Handler] = {
    "clamped_relu": _clamped_relu,
    "elu": _elu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "linear_activation": _linear_activation,
    "prelu": _prelu,
    "relu": _unary(functional.relu),
    "relu6": _unary(functional.relu6),
    "scaled_tanh": _scaled_tanh,
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": _sigmoid_hard,
    "silu": _unary(functional.silu),
    "softmax": _softmax,
    "softplus": _unary(functional.softplus),
    "softplus_parametric": _softplus_parametric,
    "softsign": _unary(functional.softsign),
    "thresholded_relu": _thresholded_relu,
}
