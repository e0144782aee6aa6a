"""Budgets: the limits a user states, and the defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from edgecheck.declare.limits import KINDS as KINDS
from edgecheck.declare.limits import Limit as Limit
from edgecheck.errors import DeclarationError, SelectionError
from edgecheck.names import resolve
from edgecheck.units import parse_quantity

Quantity = str | float
# One value for every case, or one by words that select cases (see `Budget`).
Stated = Quantity | Mapping[str, Quantity] | None
DEFAULT = "default"


@dataclass(frozen=True)
class Budget:
    """The limits a model must keep. What is not stated is taken from the profile and the defaults.

    Every limit is one value, or a mapping from words that select cases to values. A word is a
    target, a precision, a variant, an output or a device profile; ``"tflite/int8"`` needs both;
    ``"default"`` is for the rest. The most words win; among equally many the stricter value.

    Attributes:
        latency_mean, latency_p50, latency_p95, latency_p99, latency_max: time of one inference,
            with a unit: ``"5 ms"``.
        throughput: at least so many samples a second: ``"200 /s"``.
        load_time, first_inference: of loading the file, and of the first inference after it, in a
            fresh process.
        latency_vs_fp32: how many times as long as the target's fp32 candidate it may take: 1.0 for
            "not slower".
        latency_vs_baseline: how many times as long as the baseline file of `Model.baselines`: 1.05
            for "at most 5 % slower".
        peak_memory, load_memory, steady_memory: resident memory above an empty runtime: the peak of
            loading and running, the peak of loading, what stays once runs settled: ``"64 MB"``.
        memory_growth: how much more memory each inference may keep: ``"1 kB"``.
        size, size_gzip: of the model file: ``"1 MB"``.
        download_size, download_size_gzip: of the model file and what is downloaded with it to run
            it: a web page's runtime.
        weights: stored in the file.
        activation_memory: of a static plan of the tensors' lifetimes; see
            `edgecheck.targets.common.static_arena`.
        flash: an estimate: the file and a runtime's core, without its kernels.
        quantized_weights: share of weights, 0 to 1, that must be stored at the case's precision.
        lint_findings: how many of the export check's lint findings may stay warnings.
        undelegated_operators: how many operators may run elsewhere than on the delegate, or on the
            first provider that ``target_options`` name.
        accuracy_drop: how much worse than the reference the metric may be.
        accuracy_floor: the worst value of the metric itself that may ship (for a metric where
            lower is better, the largest).
        max_abs_error, max_relative_error, sqnr_db, cosine, top1_agreement, kl_divergence,
            saturation: agreement of outputs with the reference; see `edgecheck.judge.agreement` for
            their definitions.
        noise_ratio: of float precisions: how many times the reference's own rounding noise the
            error may be; see `edgecheck.judge.noise`.
        hidden_overflow: of fp16: values that overflow in true half precision while the candidate's
            are finite.
        sqnr_below_honest_db: of quantized precisions: how far the SQNR may be below that of a
            simulated quantization of the reference.
        label_agreement: share of the integers or booleans of an output that are the reference's;
            see `edgecheck.judge.labels`.
        label_errors_over_honest: of quantized precisions: how many times as many of them may
            differ as in a simulated quantization of the reference.
        part_sqnr_db: of quantized precisions: the least SQNR of any part of an output, against
            that part's own spread; see `edgecheck.judge.parts`.

    Raises:
        DeclarationError: a value that is not a number, or has an unknown unit.
    """

    latency_mean: Stated = None
    latency_p50: Stated = None
    latency_p95: Stated = None
    latency_p99: Stated = None
    latency_max: Stated = None
    throughput: Stated = None
    load_time: Stated = None
    first_inference: Stated = None
    latency_vs_fp32: Stated = None
    latency_vs_baseline: Stated = None
    peak_memory: Stated = None
    load_memory: Stated = None
    steady_memory: Stated = None
    memory_growth: Stated = None
    size: Stated = None
    size_gzip: Stated = None
    download_size: Stated = None
    download_size_gzip: Stated = None
    weights: Stated = None
    activation_memory: Stated = None
    flash: Stated = None
    quantized_weights: Stated = None
    lint_findings: Stated = None
    undelegated_operators: Stated = None
    accuracy_drop: Stated = None
    accuracy_floor: Stated = None
    max_abs_error: Stated = None
    max_relative_error: Stated = None
    sqnr_db: Stated = None
    cosine: Stated = None
    top1_agreement: Stated = None
    noise_ratio: Stated = None
    hidden_overflow: Stated = None
    sqnr_below_honest_db: Stated = None
    label_agreement: Stated = None
    label_errors_over_honest: Stated = None
    part_sqnr_db: Stated = None
    kl_divergence: Stated = None
    saturation: Stated = None

    def __post_init__(self) -> None:
        for name, stated in self._stated():
            for value in stated.values():
                _parse(name, value)

    def _stated(self) -> Iterable[tuple[str, Mapping[str, Quantity]]]:
        for item in fields(self):
            stated = getattr(self, item.name)
            if stated is not None:
                yield item.name, stated if isinstance(stated, Mapping) else {DEFAULT: stated}

    def statements(self) -> list[tuple[str, str]]:
        """What is stated: the limit's name and the words that select cases, or "default"."""
        return [(name, key) for name, stated in self._stated() for key in stated]

    def check_words(self, known: Iterable[str], where: str) -> None:
        """Check that every selecting word means something.

        Raises:
            DeclarationError: a word is none of `known`.
        """
        known = list(known)
        for name, stated in self._stated():
            for key in stated:
                for word in [] if key == DEFAULT else key.split("/"):
                    try:
                        resolve(word, known, "word")
                    except SelectionError as error:
                        raise DeclarationError(f"{where}: budget {name}: {error}") from None

    def select(self, words: frozenset[str], origin: str) -> dict[str, Limit]:
        """The limits by name that hold where all of `words` are true of a case."""
        limits = {}
        for name, stated in self._stated():
            kind = KINDS[name]
            found: dict[int, list[float]] = {}
            for key, value in stated.items():
                parts = set() if key == DEFAULT else set(key.split("/"))
                if parts <= words:
                    found.setdefault(len(parts), []).append(_parse(name, value))
            if found:
                strictest = min if kind.bound == "max" else max
                value = strictest(found[max(found)])
                limits[name] = Limit(name, value, kind.bound, kind.unit, origin)
        return limits


def _parse(name: str, value: Quantity) -> float:
    kind = KINDS[name]
    if kind.quantity is not None:
        try:
            return parse_quantity(value, kind.quantity)  # type: ignore[arg-type]
        except DeclarationError as error:
            raise DeclarationError(f"budget {name}: {error}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DeclarationError(f"budget {name}: {value!r} is not a finite number")
    return float(value)


# What a precision may cost where nothing is stated.
# accuracy_drop: usual costs in the field (post-training int8 1-2 points, QAT 0.5, int4 1-3;
#   a float export only rounds, which can flip single near-ties: 0.1 points).
# noise_ratio: over 23 small architectures the error of ONNX Runtime, LiteRT and ExecuTorch against
#   the reference in float64 was at most 3.5 times the noise of `judge.noise`, the most where
#   XNNPACK approximates (instance norm, hard swish); that of the bundled models in half precision
#   at most 5.3 times (ExecuTorch). 10 leaves both room.
#   In fp16 it is 3 where these runtimes add up half-precision products in float32, as on x86-64:
#   440 sound files of 22 architectures were at most 1.6 times the noise away there. Others, such as
#   XNNPACK's half-precision kernels, add up in half precision, which the noise does not contain.
# max_relative_error and sqnr_db of fp32 and fp16 hold only where that noise can't be measured.
#   Runtimes differ from eager PyTorch by 1e-8 to 7e-6 of the largest output; 1e-4 is an order of
#   magnitude above that and an order below the usual rtol of 1e-3. Half precision has a unit
#   roundoff of 4.9e-4 (IEEE 754), which grows to 1e-3 .. 2e-2 over the depth of common networks.
# sqnr_db: float exports are at 130-140 dB (fp32) and 60-70 dB (fp16) on small networks, 110 and
#   39 dB on deep ones fed with noise; quantized ones at 30-50 dB (int8) and 16-33 dB (int4) on
#   small networks and 15 dB on deep ones. At 10 dB a tenth of the signal's power is noise.
# sqnr_below_honest_db: sound int8 files of 22 architectures on three runtimes were at most 8.7 dB
#   below a simulated quantization; per-tensor weights where channels differ, and most wrong zero
#   points and files of other weights, were 12.5 dB or more. Of 144 sound int4 and palettized files
#   of 18 architectures the worst were 4.0 and 7.3 dB below; a layer of 16 inputs in int4 on ONNX
#   Runtime was 7.8 dB.
# quantized_weights: under half the weights at the stated precision, the file is not what it says.
#   Weight-only routes leave convolutions as they are on some targets, where a third of a network's
#   weights is usual.
# label_agreement: what the largest of 100 independent normal scores keeps under noise at this
#   precision's limit of sqnr_db: 0.96 at 30 dB, 0.87 at 20 dB, 0.69 at 12 dB, 0.56 at 8 dB (0.92 at
#   12 dB for two scores). fp32 errs by 1e-4 of the scores at most: fewer than one flip in 1000.
# label_errors_over_honest: labels of near-ties change in proportion to the error, and 12 dB are
#   four times the error.
# part_sqnr_db: at 10 dB a tenth of the variance of a part is noise.
# memory_growth: an interval reached up to 0.1 kB where ONNX Runtime and LiteRT ran small networks
#   hundreds of times, and 0.4 kB at 20 times (allocators that settle); sustained through the
#   series it was 0.01 kB at most. A tensor of 250 values that is never freed is 1 kB.
_LEAK = "1 kB"
# True of cases whose runtime adds up half-precision products in float32 (`Runtime.wide_half_sums`).
WIDE_HALF_SUMS = "wide-half-sums"
DEFAULTS: Mapping[str, Budget] = MappingProxyType(
    {
        "fp32": Budget(
            accuracy_drop=0.001,
            memory_growth=_LEAK,
            noise_ratio=10,
            max_relative_error=1e-4,
            sqnr_db=80,
            label_agreement=0.999,
        ),
        "fp16": Budget(
            accuracy_drop=0.001,
            memory_growth=_LEAK,
            noise_ratio={"default": 10, WIDE_HALF_SUMS: 3},
            max_relative_error=5e-2,
            sqnr_db=30,
            label_agreement=0.95,
            quantized_weights=0.5,
        ),
        **{
            precision: Budget(
                accuracy_drop=accuracy_drop,
                memory_growth=_LEAK,
                sqnr_db=12,
                label_agreement=0.68,
                part_sqnr_db=10,
                sqnr_below_honest_db=12,
                label_errors_over_honest=4,
                quantized_weights=share,
            )
            for precision, accuracy_drop, share in (
                ("int8-dynamic", 0.01, 0.25),
                ("int16x8", 0.01, 0.5),
                ("int8-weights", 0.01, 0.5),
                ("int8", 0.02, 0.5),
            )
        },
        "int8-qat": Budget(
            accuracy_drop=0.005,
            memory_growth=_LEAK,
            sqnr_db=20,
            label_agreement=0.85,
            part_sqnr_db=10,
            quantized_weights=0.5,
        ),
        **{
            precision: Budget(
                accuracy_drop=0.03,
                memory_growth=_LEAK,
                sqnr_db=8,
                label_agreement=0.55,
                part_sqnr_db=10,
                sqnr_below_honest_db=12,
                label_errors_over_honest=4,
                quantized_weights=share,
            )
            for precision, share in (("int4", 0.25), ("palettized", 0.5))
        },
    }
)
