"""Whether a candidate gives the same output again: what is rounding, and what is a fault.

The same input twice, and again after another one, must give the same bits; another place in a batch
or another number of threads may change the order of sums. Pure; the runs are made in
`edgecheck.checks.rerun`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# How an input is run again, in the order in which a cause is named, and what differing means.
TWICE, AFTER_OTHERS, BATCH, THREADS = "twice", "after_others", "batch", "threads"
BUILDS = "builds"
_MEANING: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        TWICE: (
            "on the same input twice",
            "the candidate draws random numbers, or keeps something between calls",
        ),
        AFTER_OTHERS: (
            "on the same input after another one",
            "the candidate remembers what it was given before",
        ),
        BATCH: (
            "for the same sample beside others in a batch",
            "a sample's output depends on what else is in its batch",
        ),
        THREADS: (
            "on the same input with more threads, freshly loaded",
            "it depends on the number of threads, or on what was run before",
        ),
        BUILDS: (
            "between two builds of the same program",
            "the export draws random numbers, or depends on an order that is not fixed",
        ),
    }
)
_STRICT = (TWICE, AFTER_OTHERS, BUILDS)

# What another order of sums may move an output by, as a share of its largest value.
# fp32: runtimes differ by up to 7e-6, see `edgecheck.declare.budget`. fp16: four roundings (2^-10).
# Quantized: two steps of 8 bits, since a value that lies between two steps may fall to either.
_ROUNDING: Mapping[str, float] = MappingProxyType({"fp32": 1e-5, "fp16": 4 * 2.0**-10})
_QUANTIZED_ROUNDING = 2 / 127
# Rounding grows with depth, as it does between runtimes: so much more than that is a fault.
_BEYOND_ROUNDING = 10.0
# The scale of activations is taken from the whole batch (ONNX Runtime's dynamic quantization).
_SCALED_BY_BATCH = ("int8-dynamic",)


@dataclass(frozen=True)
class Difference:
    """How far two outputs for one input are apart.

    Attributes:
        max_abs_error: largest difference; infinite where shapes differ, or NaN are elsewhere.
        largest: largest magnitude in the first output.
        differing: how many of `values` are not equal.
        integers: whether they are not floats, where a near-tie may turn.
    """

    max_abs_error: float
    largest: float
    differing: int
    values: int
    integers: bool

    @property
    def share(self) -> float:
        """Largest difference over the largest magnitude."""
        if self.max_abs_error == 0.0:
            return 0.0
        return self.max_abs_error / self.largest if self.largest > 0.0 else math.inf

    def as_data(self) -> dict[str, float]:
        """Plain data for the record."""
        return {
            "max_abs_error": self.max_abs_error,
            "max_relative_error": self.share,
            "differing": self.differing,
            "values": self.values,
        }


def difference(first: Array, again: Array) -> Difference:
    """How far an output is from what it was the first time."""
    integers = first.dtype.kind not in "fc"
    finite = first[np.isfinite(first)]
    largest = float(np.abs(finite.astype(np.float64)).max(initial=0.0))
    if first.shape != again.shape:
        return Difference(math.inf, largest, first.size, first.size, integers)
    equal = first == again
    if not integers:
        equal |= np.isnan(first) & np.isnan(again)
    if equal.all():
        return Difference(0.0, largest, 0, first.size, integers)
    with np.errstate(invalid="ignore"):
        errors = np.abs(first[~equal].astype(np.float64) - again[~equal].astype(np.float64))
    worst = math.inf if np.isnan(errors).any() else float(errors.max())
    return Difference(worst, largest, int((~equal).sum()), first.size, integers)


def judge(
    precision: str,
    found: Mapping[str, Mapping[str, Difference]],
    noise: Mapping[str, float],
    *,
    repeats: bool = False,
) -> tuple[list[str], list[str]]:
    """Failures and warnings.

    Args:
        repeats: whether the runtime gives the same for the same call (`Target.repeats`): then what
            differs beyond float32's rounding is a fault in any precision.
        found: by way of running again, the difference of each output.
        noise: by output, how much rounding alone moves it, in its unit, where that is known.
    """
    failures: list[str] = []
    warnings: list[str] = []
    blamed: set[str] = set()
    for way in _MEANING:
        for name, item in found.get(way, {}).items():
            # One cause shows in all that follow.
            if name in blamed or item.differing == 0:
                continue
            share = _ROUNDING.get(precision, _QUANTIZED_ROUNDING)
            rounding = max(share * item.largest, noise.get(name, 0.0))
            expected = way not in _STRICT and (
                item.integers or (way == BATCH and precision in _SCALED_BY_BATCH)
            )
            strict = _ROUNDING["fp32"] * item.largest if repeats else rounding
            fault = strict if way in _STRICT else _BEYOND_ROUNDING * rounding
            if item.max_abs_error > fault and not expected:
                failures.append(_sentence(way, name, item))
                blamed.add(name)
            elif way in _STRICT or item.max_abs_error > rounding:
                warnings.append(_sentence(way, name, item))
    return failures, warnings


def _sentence(way: str, name: str, item: Difference) -> str:
    what, meaning = _MEANING[way]
    size = f"by up to {item.max_abs_error:.3g}"
    if math.isfinite(item.share):
        size += f" ({100 * item.share:.2g} % of the largest)"
    return (
        f"output {name!r} differs {what}, in {item.differing} of {item.values} values {size}: "
        f"{meaning}"
    )
