"""The metrics that are followed over time: which way is better, and what change is too small.

One table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgecheck.errors import SelectionError
from edgecheck.names import resolve, split_names
from edgecheck.units import format_bytes, format_time

LOWER, HIGHER = "lower", "higher"
_DIGITS = 4


@dataclass(frozen=True)
class Metric:
    """A number that is followed.

    Attributes:
        name: with its unit, as in the report's measurements.
        better: "lower", "higher", or "" where the record says it.
        effect: the least change that matters: a share of the earlier value, or in the metric's own
            unit where `absolute`.
        absolute: whether changes are differences, not shares.
        floor: a change of less than this in the metric's own unit never matters.
        spread: how far the same file's value varies between runs on one machine (standard
            deviation, as a share), where the history does not show it.
        of_device: whether it depends on the machine, so that machines must not be mixed.
    """

    name: str
    better: str
    effect: float
    absolute: bool = False
    floor: float = 0.0
    spread: float = 0.0
    of_device: bool = False


def _time(name: str, effect: float, spread: float, floor: float = 0.0) -> Metric:
    return Metric(name, LOWER, effect, spread=spread, floor=floor, of_device=True)


def _size(name: str) -> Metric:
    return Metric(name, LOWER, 0.01)


# Spreads are chosen on the safe side: a shared machine's speed was seen to change by up to a half
# within a second (docs/benchmarks.md); tails and single events vary more. Loads and first
# inferences of under a millisecond are luck. The memory of one file repeats to 0.2 MB
# (docs/checks.md).
METRICS = {
    metric.name: metric
    for metric in (
        _size("size_bytes"),
        _size("size_gzip_bytes"),
        _size("download_size_bytes"),
        _size("download_size_gzip_bytes"),
        _size("weights_bytes"),
        _size("flash_estimate_bytes"),
        _size("activation_memory_bytes"),
        # 3 dB: twice the power of the error. Less comes and goes with a runtime's kernels.
        Metric("sqnr_db", HIGHER, 3.0, absolute=True),
        Metric("top1_agreement", HIGHER, 0.01, absolute=True),
        Metric("accuracy", "", 0.005),
        _time("latency_p50_ms", 0.05, spread=0.20),
        _time("latency_p95_ms", 0.10, spread=0.25),
        _time("latency_p99_ms", 0.20, spread=0.35),
        _time("first_inference_ms", 0.20, spread=0.35, floor=1.0),
        _time("load_time_ms", 0.20, spread=0.35, floor=5.0),
        Metric("throughput_per_s", HIGHER, 0.05, spread=0.20, of_device=True),
        Metric("peak_memory_bytes", LOWER, 0.05, spread=0.01, floor=1e6, of_device=True),
        Metric("load_memory_bytes", LOWER, 0.05, spread=0.01, floor=1e6, of_device=True),
        Metric("steady_memory_bytes", LOWER, 0.05, spread=0.01, floor=1e6, of_device=True),
    )
}


def with_effects(text: str) -> Mapping[str, Metric]:
    """The table with the effects of ``--edge-effects``, as in ``latency_p50_ms=3%,sqnr_db=1``.

    Raises:
        SelectionError: a metric does not exist, or an effect is not a number of the right kind.
    """
    table = dict(METRICS)
    for part in split_names(text):
        name, _, value = (item.strip() for item in part.partition("="))
        metric = table[resolve(name, METRICS, "metric of --edge-effects")]
        table[metric.name] = replace(metric, effect=_effect(value, metric))
    return table


def _effect(text: str, metric: Metric) -> float:
    share = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100 if share else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or share == metric.absolute:
        kind = "a number, as in 1.5" if metric.absolute else "a percentage, as in 5%"
        raise SelectionError(f"--edge-effects: {metric.name}={text}: its effect is {kind}")
    return value


def value_text(metric: str, value: float) -> str:
    """A metric's value for people, by the unit at the end of the metric's name."""
    if metric.endswith("_ms"):
        return format_time(value, _DIGITS)
    if metric.endswith("_bytes"):
        return format_bytes(value, _DIGITS)
    if metric.endswith("_per_s"):
        return f"{value:.{_DIGITS}g} /s"
    if metric.endswith("_db"):
        return f"{value:.{_DIGITS}g} dB"
    return f"{value:.{_DIGITS}g}"
