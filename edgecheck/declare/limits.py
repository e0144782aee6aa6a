"""Limits: what each of a budget's names measures, and one value that holds for a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from edgecheck.names import PRECISIONS
from edgecheck.units import format_bytes, format_time

Bound = Literal["max", "min"]


@dataclass(frozen=True)
class Kind:
    """What a limit measures.

    Attributes:
        bound: whether the measured value may be at most or at least the limit.
        quantity: how `parse_quantity` reads it, or None for a plain number.
        unit: of the parsed value.
        check: that measures it.
        precisions: for which it has a meaning; for all where that is empty.
    """

    bound: Bound
    quantity: str | None
    unit: str
    check: str
    precisions: tuple[str, ...] = ()


def _time(check: str = "latency") -> Kind:
    return Kind("max", "time", "ms", check)


def _size(check: str) -> Kind:
    return Kind("max", "bytes", "bytes", check)


def _least(check: str, *precisions: str) -> Kind:
    return Kind("min", None, "", check, precisions)


def _most(check: str, *precisions: str) -> Kind:
    return Kind("max", None, "", check, precisions)


_FLOAT = ("fp32", "fp16")
_REDUCED = tuple(item for item in PRECISIONS if item != "fp32")
_QUANTIZED = tuple(item for item in _REDUCED if item != "fp16")
# Of what was quantized before, or is simulated nowhere, there is no honest figure.
_SIMULATED = tuple(item for item in _QUANTIZED if item != "int8-qat")
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "latency_mean": _time(),
        "latency_p50": _time(),
        "latency_p95": _time(),
        "latency_p99": _time(),
        "latency_max": _time(),
        "throughput": Kind("min", "rate", "/s", "latency"),
        "load_time": _time(),
        "first_inference": _time(),
        "latency_vs_fp32": Kind("max", None, "x", "latency", _REDUCED),
        "latency_vs_baseline": Kind("max", None, "x", "latency"),
        "peak_memory": _size("memory"),
        "load_memory": _size("memory"),
        "steady_memory": _size("memory"),
        "memory_growth": Kind("max", "bytes", "bytes per inference", "memory"),
        "size": _size("export"),
        "size_gzip": _size("export"),
        "download_size": _size("export"),
        "download_size_gzip": _size("export"),
        "weights": _size("export"),
        "activation_memory": _size("export"),
        "flash": _size("export"),
        "quantized_weights": _least("export", *_REDUCED),
        "lint_findings": _most("export"),
        "undelegated_operators": _most("export"),
        "accuracy_drop": _most("accuracy"),
        "accuracy_floor": _least("accuracy"),
        "max_abs_error": _most("parity"),
        "max_relative_error": _most("parity"),
        "sqnr_db": Kind("min", None, "dB", "parity"),
        "cosine": _least("parity"),
        "top1_agreement": _least("parity"),
        "label_agreement": _least("parity"),
        "label_errors_over_honest": _most("parity", *_SIMULATED),
        "noise_ratio": Kind("max", None, "x", "parity", _FLOAT),
        "hidden_overflow": _most("parity", "fp16"),
        "sqnr_below_honest_db": Kind("max", None, "dB", "parity", _SIMULATED),
        "part_sqnr_db": Kind("min", None, "dB", "parity", _QUANTIZED),
        "kl_divergence": Kind("max", None, "nat", "parity"),
        "saturation": _most("parity"),
    }
)


@dataclass(frozen=True)
class Limit:
    """One limit that holds for one case.

    Attributes:
        name: a field of `Budget`.
        value: in `unit`.
        origin: who says so: ``budget``, ``profile NAME`` or ``default``.
    """

    name: str
    value: float
    bound: Bound
    unit: str
    origin: str

    def allows(self, measured: float) -> bool:
        """Whether a measured value keeps the limit; NaN never does.

        One part in 10^9 is forgiven, so that 0.98 - 0.96 keeps a limit of 0.02.
        """
        slack = 1e-9 * abs(self.value)
        if self.bound == "max":
            return measured <= self.value + slack
        return measured >= self.value - slack

    def widened(self, share: float) -> Limit:
        """The same limit, made easier by a share of itself."""
        slack = share * abs(self.value)
        return replace(self, value=self.value + (slack if self.bound == "max" else -slack))

    def texts(self, measured: float) -> tuple[str, str]:
        """A measured value and the limit for a person, with digits enough to tell them apart."""
        for digits in range(3, 18):
            pair = self._text(measured, digits), self._text(self.value, digits)
            if pair[0] != pair[1] or measured == self.value:
                break
        return pair

    def _text(self, number: float, digits: int) -> str:
        if self.unit == "ms":
            return format_time(number, digits)
        if self.unit.startswith("bytes"):
            return format_bytes(number, digits) + self.unit.removeprefix("bytes")
        return f"{number:.{digits}g}{' ' if self.unit else ''}{self.unit}"
