"""How far rounding alone moves an output, and how far a candidate is from that.

The yardstick of parity is not a fixed tolerance but the model's own noise: the error of the
reference, run in the candidate's arithmetic, against the reference in float64. A candidate may be
a small multiple of it away. Pure; not for running references: see `edgecheck.capture.arithmetic`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The spacing of numbers next to 1 (IEEE 754 binary32 and binary16).
EPSILON: Mapping[str, float] = MappingProxyType({"fp32": 2.0**-23, "fp16": 2.0**-10})
# Below so many of those, relative to the largest output, noise is luck: an output that happens to
# be exact, or a function that runtimes approximate (exp, tanh and erf are good to a few).
FLOOR_EPSILONS = 1.0
# Noise that is seen in few values can be small by luck. What it may really be is taken as the
# upper bound of a standard deviation at this error rate, from the chi-square distribution.
_LUCK = 1e-4
# Where rounding moves an output by more than this share of it (RMS), it is not a yardstick.
LARGEST_NOISE: Mapping[str, float] = MappingProxyType({"fp32": 1e-2, "fp16": 0.3})
# How far below a simulated quantizer's SQNR a candidate may be before that is told, where no limit
# holds.
HONEST_MARGIN_DB = 12.0
# Values of each output that noise is estimated from, and samples of each feed at least: cost is
# bounded by them, since float64 is slow.
_VALUES, _ROWS = 64, 2
# Operators with overflowing sums that a warning names.
_SUMS_SHOWN = 3
# Simulated quantization runs in float32, so that more are affordable.
_QUANTIZED_VALUES = 256

# How a precision is simulated; see `edgecheck.capture.arithmetic.simulator`. All of a model's
# convolutions and matrix products are quantized, weights per output channel: the most that a target
# here does. Palettes are of a whole tensor: what coremltools makes by default.
_QUANTIZED = {
    "int8-weights": (8, 8, "none"),
    "int8-dynamic": (8, 8, "dynamic"),
    "int8": (8, 8, "static"),
    "int16x8": (8, 16, "static"),
    "int4": (4, 8, "none"),
    "palettized": (4, 8, "none"),
}


def arithmetic_of(precision: str) -> dict[str, Any] | None:
    """The arithmetic that a precision's candidates are held against, or None.

    None for programs that were quantized before (QAT), whose reference has that in it.
    """
    if precision == "fp16":
        return {"kind": "float16"}
    if precision not in _QUANTIZED:
        return None
    weight_bits, activation_bits, activations = _QUANTIZED[precision]
    return {
        "kind": "quantized",
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "activations": activations,
        "palette": precision == "palettized",
    }


def rows_needed(batch: int, row_values: int, precision: str = "fp32") -> int:
    """How many samples of a feed the noise is estimated from.

    Args:
        batch: samples in the feed.
        row_values: values that one gives in the smallest output.
    """
    values = _VALUES if precision in EPSILON else _QUANTIZED_VALUES
    return min(batch, max(_ROWS, math.ceil(values / max(1, row_values))))


@dataclass
class Spread:
    """Sizes of errors so far: their number, sum of squares and largest."""

    values: int = 0
    power: float = 0.0
    largest: float = 0.0

    def add(self, errors: Array) -> None:
        """Account for errors, in float64."""
        if errors.size:
            self.values += errors.size
            self.power += float(errors.ravel() @ errors.ravel())
            self.largest = max(self.largest, float(np.abs(errors).max()))

    @property
    def rms(self) -> float:
        """Root of the mean square."""
        return math.sqrt(self.power / self.values) if self.values else 0.0


@dataclass
class Noise:
    """Errors of one output, of the reference in the candidate's arithmetic and of the candidate.

    Attributes:
        precision: ``"fp32"`` or ``"fp16"``.
        exact, own, candidate: the float64 reference's values, and the errors against them.
        rest: largest error of the candidate where only a float32 reference is, as a share of the
            largest value there.
        overflowed: values that are infinite or NaN in the reference's half precision, though not
            in float64 and not in the candidate.
        overflowed_sums: further values that depend on a sum inside an operator which half
            precision could not hold.
    """

    precision: str
    exact: Spread = field(default_factory=Spread)
    own: Spread = field(default_factory=Spread)
    candidate: Spread = field(default_factory=Spread)
    rest: float = 0.0
    overflowed: int = 0
    overflowed_sums: int = 0

    def add(
        self, candidate: Array, own: Array, exact: Array, half_sums: Array | None = None
    ) -> None:
        """Account for the same samples of candidate, own arithmetic and float64, finite or not.

        Args:
            half_sums: `own` with NaN where half precision could not hold a sum; None for no such.
        """
        left, middle, right = (
            item.astype(np.float64, copy=False).ravel() for item in (candidate, own, exact)
        )
        told = np.isfinite(left) & np.isfinite(right)
        self.overflowed += int((told & ~np.isfinite(middle)).sum())
        told &= np.isfinite(middle)
        if half_sums is not None:
            self.overflowed_sums += int((told & ~np.isfinite(half_sums.ravel())).sum())
        left, middle, right = left[told], middle[told], right[told]
        self.exact.add(right)
        self.own.add(middle - right)
        self.candidate.add(left - right)

    def add_rest(self, candidate: Array, reference: Array) -> None:
        """Account for samples that were not run in float64."""
        if candidate.size:
            scale = float(np.abs(reference).max())
            error = np.abs(candidate.astype(np.float64) - reference.astype(np.float64))
            self.rest = max(self.rest, float(error.max()) / max(scale, self.exact.largest, 1e-300))

    @property
    def reason(self) -> str:
        """Why this is not a yardstick, or ""."""
        if not self.exact.values:
            return "no value is finite in the reference's own arithmetic"
        if self.own.rms > LARGEST_NOISE[self.precision] * self.exact.rms:
            share = self.own.rms / self.exact.rms if self.exact.rms else math.inf
            return (
                f"rounding in {self.precision} alone moves it by {100 * share:.2g} % (RMS), so "
                "agreement with it says little"
            )
        return ""

    def metrics(self) -> dict[str, float]:
        """How many times the noise the candidate's error is, and what that is made of."""
        luck = luck_factor(self.own.values)
        floor = FLOOR_EPSILONS * EPSILON[self.precision] * self.exact.largest
        rms, largest = max(luck * self.own.rms, floor), max(luck * self.own.largest, floor)
        ratios = {
            "noise_ratio_rms": _ratio(self.candidate.rms, rms),
            "noise_ratio_max": max(
                _ratio(self.candidate.largest, largest),
                _ratio(self.rest * self.exact.largest, largest),
            ),
        }
        return {
            "noise_ratio": max(ratios.values()),
            **ratios,
            "noise_rms": self.own.rms,
            "noise_max": self.own.largest,
            "noise_values": self.own.values,
        }


def overflow_warnings(name: str, noise: Noise, sums: Sequence[str]) -> Iterator[str]:
    """What half precision could not hold of an output, in words.

    Args:
        sums: of the operators whose sums it could not hold, a sentence each.
    """
    if noise.overflowed:
        yield (
            f"output {name!r}: {noise.overflowed} values overflow half precision (65504) where "
            "each operator rounds to it, and are finite here: this runtime hides it by "
            "computing in float32, a device with real half precision will not"
        )
    if noise.overflowed_sums:
        yield (
            f"output {name!r}: {noise.overflowed_sums} values depend on a sum inside an operator "
            f"that half precision (65504) can't hold ({'; '.join(sums[:_SUMS_SHOWN])}): this "
            "runtime adds in float32, a device that adds in half precision loses them; scale the "
            "values down before they are added, or keep that operator in float32"
        )


def luck_factor(values: int) -> float:
    """How many times what was seen in so many values the true standard deviation may be.

    The upper confidence bound of a normal standard deviation, sqrt(n / chi2(alpha, n)).
    """
    if values < 1:
        return math.inf
    from scipy.special import gammaincinv

    return math.sqrt(values / (2.0 * float(gammaincinv(values / 2.0, _LUCK))))


def _ratio(error: float, noise: float) -> float:
    if error == 0.0:
        return 0.0
    return error / noise if noise > 0.0 else math.inf
