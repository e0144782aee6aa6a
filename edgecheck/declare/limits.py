"""Limits: what each of a budget's names measures, and one value that holds for a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from edgecheck.units import format_bytes, format_time

Bound = Literal["max", "min"]


@dataclass(frozen=True)
class Kind:
    """What a limit measures.

    Attributes:
        bound: whether the measured value may be at most or at least the limit.
        quantity: how `parse_quantity` reads it, or None for a plain number.
        unit: of the parsed value.
    """

    bound: Bound
    quantity: str | None
    unit: str


_TIME = Kind("max", "time", "ms")
_BYTES = Kind("max", "bytes", "bytes")
_LEAST = Kind("min", None, "")
_MOST = Kind("max", None, "")
_RATIO = Kind("max", None, "x")
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "latency_mean": _TIME,
        "latency_p50": _TIME,
        "latency_p95": _TIME,
        "latency_p99": _TIME,
        "latency_max": _TIME,
        "throughput": Kind("min", "rate", "/s"),
        "load_time": _TIME,
        "first_inference": _TIME,
        "latency_vs_fp32": _RATIO,
        "latency_vs_baseline": _RATIO,
        "peak_memory": _BYTES,
        "load_memory": _BYTES,
        "steady_memory": _BYTES,
        "memory_growth": Kind("max", "bytes", "bytes per inference"),
        "size": _BYTES,
        "size_gzip": _BYTES,
        "download_size": _BYTES,
        "download_size_gzip": _BYTES,
        "weights": _BYTES,
        "activation_memory": _BYTES,
        "flash": _BYTES,
        "quantized_weights": _LEAST,
        "lint_findings": _MOST,
        "undelegated_operators": _MOST,
        "accuracy_drop": _MOST,
        "accuracy_floor": _LEAST,
        "max_abs_error": _MOST,
        "max_relative_error": _MOST,
        "sqnr_db": Kind("min", None, "dB"),
        "cosine": _LEAST,
        "top1_agreement": _LEAST,
        "noise_ratio": _RATIO,
        "hidden_overflow": _MOST,
        "sqnr_below_honest_db": Kind("max", None, "dB"),
        "label_agreement": _LEAST,
        "part_sqnr_db": Kind("min", None, "dB"),
        "kl_divergence": Kind("max", None, "nat"),
        "saturation": _MOST,
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
