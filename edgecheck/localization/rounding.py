"""What honest rounding at a precision does to a program, operator by operator, in PyTorch.

The yardstick of localisation: an error is judged against the one that the precision itself gives at
that very operator, with the ranges that calibration data show there. Not a quantizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgecheck.names import CALIBRATED

Round = Callable[[torch.Tensor], torch.Tensor]
# Smallest and largest value that calibration shows; None for those of the very tensor.
Range = tuple[float, float] | None
RoundIn = Callable[[torch.Tensor, Range], torch.Tensor]
# Values that share a scale in 4-bit weights; as edgecheck's own builds have it.
_BLOCK = 32


@dataclass(frozen=True)
class Rounding:
    """How a precision rounds.

    Attributes:
        weights, activations: what is done to each; None for nothing.
        calibrated: whether the ranges of activations are those of calibration data.
        double: whether the truth is computed in float64 instead, and float32 is what rounds.
    """

    weights: Round | None = None
    activations: RoundIn | None = None
    calibrated: bool = False
    double: bool = False


def rounding_of(precision: str) -> Rounding:
    """The rounding of a precision, by edgecheck's name of it."""
    if precision == "fp32":
        return Rounding(double=True)
    if precision == "fp16":
        return Rounding(_half, lambda values, _: _half(values))
    if precision in ("int4", "palettized"):
        return Rounding(_four_bits)
    if precision == "int8-weights":
        return Rounding(_eight_bits)
    levels = _sixteen_levels if precision == "int16x8" else _levels
    return Rounding(_eight_bits, levels, calibrated=precision in CALIBRATED)


def _half(values: torch.Tensor) -> torch.Tensor:
    return values.half().float()


def _levels(values: torch.Tensor, given: Range, bits: int = 8) -> torch.Tensor:
    """Affine, one scale for all values, the range including zero (TFLite's specification)."""
    low, high = given or (float(values.min()), float(values.max()))
    low, high = min(low, 0.0), max(high, 0.0)
    if not math.isfinite(high - low):
        return values  # an attention mask: no scale holds infinity
    scale = max((high - low) / (2**bits - 1), torch.finfo(torch.float32).tiny)
    zero_point = round(-low / scale)
    steps = torch.clamp(torch.round(values / scale) + zero_point, 0, 2**bits - 1)
    levels: torch.Tensor = (steps - zero_point) * scale
    return levels


def _sixteen_levels(values: torch.Tensor, given: Range) -> torch.Tensor:
    return _levels(values, given, 16)


def _symmetric(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Symmetric, one scale a row."""
    top = 2 ** (bits - 1) - 1
    scale = values.abs().amax(dim=1, keepdim=True) / top
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
    rounded: torch.Tensor = torch.round(values / scale) * scale
    return rounded


def _eight_bits(weight: torch.Tensor) -> torch.Tensor:
    """Per output channel, the first axis in PyTorch's layers."""
    if weight.ndim < 2:
        return weight
    return _symmetric(weight.reshape(len(weight), -1), 8).reshape(weight.shape)


def _four_bits(weight: torch.Tensor) -> torch.Tensor:
    """In blocks; per output channel where they do not fit."""
    if weight.ndim < 2:
        return weight
    width = _BLOCK if weight.numel() // len(weight) % _BLOCK == 0 else weight.numel() // len(weight)
    return _symmetric(weight.reshape(-1, width), 4).reshape(weight.shape)
