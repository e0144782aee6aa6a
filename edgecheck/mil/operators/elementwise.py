"""Operators that compute each element by itself, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgecheck.mil.call import Call, Handler


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Handler:
    return lambda call: function(call.tensor("x"))


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Handler:
    return lambda call: function(call.tensor("x"), call.tensor("y"))


def _logical(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Handler:
    return lambda call: function(call.tensor("x").bool(), call.tensor("y").bool())


def _shifted(call: Call, epsilon: float) -> torch.Tensor:
    """x + epsilon; the default is of the type of x, in which it may vanish."""
    if not call.has("epsilon") and call.outputs and call.outputs[0].dtype == "fp16":
        epsilon = float(torch.tensor(epsilon, dtype=torch.float16))
    return call.tensor("x") + call.number("epsilon", epsilon)


def _clip(call: Call) -> torch.Tensor:
    return call.tensor("x").clamp(call.number("alpha"), call.number("beta"))


def _threshold(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return torch.maximum(x, call.tensor("alpha").to(x.dtype))


def _real_div(call: Call) -> torch.Tensor:
    x, y = call.tensor("x"), call.tensor("y")
    if not x.is_floating_point() and not y.is_floating_point():
        raise call.unsupported("of integers")
    return x / y


def _floor_div(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.div(x, y, rounding_mode="floor")


def _select(call: Call) -> torch.Tensor:
    return torch.where(call.tensor("cond").bool(), call.tensor("a"), call.tensor("b"))


HANDLERS: dict[str, Handler] = {
    "abs": _unary(torch.abs),
    "acos": _unary(torch.acos),
    "add": _binary(torch.add),
    "asin": _unary(torch.asin),
    "atan": _unary(torch.atan),
    "atanh": _unary(torch.atanh),
    "ceil": _unary(torch.ceil),
    "clip": _clip,
    "cos": _unary(torch.cos),
    "cosh": _unary(torch.cosh),
    "equal": _binary(torch.eq),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "exp2": _unary(torch.exp2),
    "floor": _unary(torch.floor),
    "floor_div": _binary(_floor_div),
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "inverse": lambda call: _shifted(call, 1e-4).reciprocal(),
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "log": lambda call: _shifted(call, 1e-45).log(),
    "logical_and": _logical(torch.logical_and),
    "logical_not": lambda call: ~call.tensor("x").bool(),
    "logical_or": _logical(torch.logical_or),
    "logical_xor": _logical(torch.logical_xor),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    # Of the sign of y, as Python's.
    "mod": _binary(torch.remainder),
    "mul": _binary(torch.mul),
    "not_equal": _binary(torch.ne),
    "pow": _binary(torch.pow),
    "real_div": _real_div,
    # Halves to even: coremltools documents that 0.5 becomes 0.
    "round": _unary(torch.round),
    "rsqrt": lambda call: _shifted(call, 1e-12).rsqrt(),
    "select": _select,
    "sign": _unary(torch.sign),
    "sin": _unary(torch.sin),
    "sinh": _unary(torch.sinh),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "sub": _binary(torch.sub),
    "tan": _unary(torch.tan),
    "tanh": _unary(torch.tanh),
    "threshold": _threshold,
}
