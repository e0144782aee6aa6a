"""What the tests of the operators' handlers share: a call made by hand."""

from __future__ import annotations

from typing import Any

import torch

from edgecheck.mil.call import Call, TensorType
from edgecheck.mil.handlers import handlers


def call(operator: str, *, outputs: tuple[TensorType, ...] = (), **inputs: Any) -> Call:
    """A call whose inputs are given as tensors, words, numbers, or (nested) lists of those."""
    return Call(operator, "op", {name: _value(given) for name, given in inputs.items()}, outputs)


def run(operator: str, **inputs: Any) -> Any:
    """What the operator's handler gives."""
    return handlers()[operator](call(operator, **inputs))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normally distributed float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    """Same type, same shape, about the same values; NaN where NaN is expected."""
    torch.testing.assert_close(
        actual, torch.as_tensor(expected), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _value(given: Any) -> Any:
    if isinstance(given, (str, torch.Tensor)):
        return given
    if isinstance(given, list) and given and isinstance(given[0], torch.Tensor):
        return given
    value = torch.tensor(given)
    return value.to(torch.int32) if value.dtype == torch.int64 else value
