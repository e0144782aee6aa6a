"""The baselines of parity on a model: its own rounding noise, and a simulated quantizer.

They are measured for each output and judged by `edgecheck.judge.noise`; the findings of vacuity
(`edgecheck.checks.reference_vacuity`) are added. See also `edgecheck.checks.parity`, which makes
the comparison itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.checks import reference_vacuity, yardstick
from edgecheck.checks.compared import Compared, load, rows_to_simulate
from edgecheck.declare.budget import Limit
from edgecheck.judge import vacuity
from edgecheck.judge.agreement import Agreement, divergences, stopped, without_nonfinite
from edgecheck.judge.labels import over_honest
from edgecheck.judge.noise import (
    HONEST_MARGIN_DB,
    Noise,
    arithmetic_of,
    overflow_warnings,
)

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Feeds, Workbench

Array = npt.NDArray[Any]
Paths = Sequence[Mapping[str, str]]
Limits = Mapping[str, Mapping[str, Limit]]


@dataclass(frozen=True)
class Baselines:
    """The evidence on a case that is measured besides the agreement of its outputs.

    Attributes:
        metrics: by output, besides those of agreement.
        measurements: for the record.
    """

    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    measurements: Mapping[str, Any] = field(default_factory=dict)


NONE = Baselines()


def measure(
    workbench: Workbench,
    case: Case,
    feeds: Feeds,
    reference: Paths,
    results: Mapping[int, Mapping[str, str]],
    limits: Limits,
) -> Baselines:
    """Measure noise and vacuity of a case.

    Args:
        reference: .npy path of the reference's outputs by name, for each feed.
        results: those of the candidate by position of the feed, for the feeds that it takes.
        limits: by output and metric.
    """
    findings = reference_vacuity.gather(workbench, case, feeds, reference, limits)
    failures, warnings = vacuity.sort(findings, workbench.settings.vacuous)
    rows = [rows_to_simulate(case, outputs) for outputs in reference]
    compared = Compared(case, feeds, reference, results, rows)
    against = _float_noise if case.precision in ("fp32", "fp16") else _simulated_quantizer
    baselines = against(workbench, compared, limits)
    return Baselines(
        {
            name: {**_others(compared, name), **baselines.metrics.get(name, {})}
            for name in case.model.outputs
        },
        (*failures, *baselines.failures),
        (*warnings, *baselines.warnings),
        {
            "vacuous": [{"finding": item.sentence, "grave": item.grave} for item in findings],
            **baselines.measurements,
        },
    )


@dataclass(frozen=True)
class _OutputResult:
    """The evidence on one output.

    Attributes:
        metrics: by name.
        unmeasured: why a metric is missing, or "".
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unmeasured: str = ""


def _joined(
    results: Mapping[str, _OutputResult], measurements: Mapping[str, Any] | None = None
) -> Baselines:
    """The results of all outputs, by name, as those of the case."""
    unmeasured = {name: item.unmeasured for name, item in results.items() if item.unmeasured}
    return Baselines(
        {name: item.metrics for name, item in results.items()},
        tuple(sentence for item in results.values() for sentence in item.failures),
        tuple(sentence for item in results.values() for sentence in item.warnings),
        {**(measurements or {}), **({"unmeasured": unmeasured} if unmeasured else {})},
    )


def _float_noise(workbench: Workbench, compared: Compared, limits: Limits) -> Baselines:
    """Each output's error in multiples of its own rounding noise, and hidden overflow."""
    precision = compared.case.precision
    everywhere = range(len(compared.feeds.feeds))
    exact, reason = compared.simulated(workbench, {"kind": "float64"}, everywhere)
    arithmetic = yardstick.own_arithmetic(workbench, compared.case)
    own: dict[int, dict[str, str]] = {}
    half_sums: dict[int, dict[str, str]] = {}
    sums: list[str] = []
    if arithmetic and not reason:
        own, reason = compared.simulated(workbench, arithmetic, everywhere)
        sums = compared.overflowing_sums(workbench, arithmetic, everywhere)
    if arithmetic and sums and not reason:
        half_sums, reason = compared.simulated(
            workbench, {**arithmetic, "sums": "half"}, everywhere
        )
    if reason:
        needs = ["noise_ratio", *(["hidden_overflow"] if precision == "fp16" else [])]
        return _unmeasured(precision, reason, limits, needs)
    return _joined(
        {
            name: _judge_noise(
                name, *_noise(compared, name, exact, own, half_sums), limits[name], sums
            )
            for name in compared.case.model.outputs
        },
        {"overflowing_sums": sums} if sums else {},
    )


def _noise(
    compared: Compared,
    name: str,
    exact: Mapping[int, Mapping[str, str]],
    own: Mapping[int, Mapping[str, str]],
    half_sums: Mapping[int, Mapping[str, str]],
) -> tuple[Noise, str]:
    """The noise of an output, and why it can't be measured on some feed, or "".

    Args:
        exact, own: outputs of the reference in float64 and in the candidate's arithmetic, by
            position of the feed; `own` is empty if that arithmetic is the reference's.
        half_sums: `own` with NaN where a sum overflowed; empty if none did.
    """
    noise, reason = Noise(compared.case.precision), ""
    rest = []
    for index in compared.results:
        pair = compared.pair(index, name)
        if pair is None:
            continue
        candidate, expected = pair
        truth = load(exact[index][name])
        count = len(truth) if truth.ndim and compared.rows[index] is not None else None
        same = ... if count is None else slice(count)  # a scalar has no rows
        middle = load(own[index][name]) if own else expected[same]
        if truth.shape != middle.shape or truth.shape != candidate[same].shape:
            reason = f"in float64 its shape is {truth.shape}"
            continue
        added = load(half_sums[index][name]) if half_sums else None
        if compared.case.model.output(name).matches_nonfinite:
            _, middle, truth = without_nonfinite(expected[same], middle, truth)
            expected, candidate = without_nonfinite(expected, candidate)
        noise.add(candidate[same], middle, truth, added)
        if count is not None:
            rest.append((candidate[count:], expected[count:]))
    for candidate, expected in rest:
        noise.add_rest(candidate, expected)
    return noise, reason


def _judge_noise(
    name: str, noise: Noise, reason: str, limits: Mapping[str, Limit], sums: Sequence[str]
) -> _OutputResult:
    """The metrics of an output's noise, or why they can't be measured; `sums` for its warnings."""
    if not noise.exact.values and not noise.overflowed:
        return _OutputResult(unmeasured=reason)  # integers, or nothing that fits
    metrics: dict[str, float] = {}
    warnings: tuple[str, ...] = ()
    if noise.precision == "fp16":
        metrics["hidden_overflow"] = noise.overflowed + noise.overflowed_sums
    if "hidden_overflow" not in limits:
        warnings = tuple(overflow_warnings(name, noise, sums))
    reason = reason or noise.reason
    if not reason:
        return _OutputResult({**metrics, **noise.metrics()}, warnings=warnings)
    missing = _unmeasured(
        noise.precision, f"output {name!r}: {reason}", {name: limits}, ["noise_ratio"]
    )
    return _OutputResult(metrics, missing.failures, (*warnings, *missing.warnings), reason)


def _others(compared: Compared, name: str) -> dict[str, float]:
    """``saturation``: share of values clipped; ``kl_divergence``: mean of class scores, in nats.

    Each is missing if no values can be compared.
    """
    values = clipped = 0
    rows: list[Array] = []
    for index in compared.judged:
        pair = compared.pair(index, name)
        if pair is None or not all(np.isfinite(item).all() for item in pair):
            continue
        values += pair[1].size
        clipped += stopped(*pair)
        if name == compared.case.model.classifier_output and pair[1].ndim:
            rows.append(divergences(*pair).ravel())
    return {
        **({"saturation": clipped / values} if values else {}),
        **({"kl_divergence": float(np.concatenate(rows).mean())} if rows else {}),
    }


def _unmeasured(precision: str, reason: str, limits: Limits, needs: Sequence[str]) -> Baselines:
    """A warning that fixed limits hold instead; a failure if the user set one of `needs`."""
    stated = sorted(
        {
            name
            for by_name in limits.values()
            for name in needs
            if name in by_name and by_name[name].origin != "default"
        }
    )
    if stated:
        text = f"{', '.join(stated)} can't be measured: {reason}"
        return Baselines(failures=(text,), measurements={"unmeasured": reason})
    warnings: tuple[str, ...] = ()
    if "noise_ratio" in needs:
        warnings = (
            f"the model's own rounding noise is unknown, so the fixed limits of {precision} "
            f"hold: {reason}",
        )
    elif "sqnr_below_honest_db" in needs:
        warnings = (
            f"what a plain quantization to {precision} of this model reaches is unknown, so only "
            f"the fixed limits hold: {reason}",
        )
    return Baselines(warnings=warnings, measurements={"unmeasured": reason})


def _simulated_quantizer(workbench: Workbench, compared: Compared, limits: Limits) -> Baselines:
    """How far each output's SQNR is below that of a simulated quantization."""
    precision = compared.case.precision
    arithmetic = arithmetic_of(precision)
    if arithmetic is None:
        return Baselines(measurements={"unmeasured": f"{precision} is not simulated"})
    simulations, reason = compared.simulated(workbench, arithmetic, compared.judged)
    if reason:
        return _unmeasured(
            precision, reason, limits, ["sqnr_below_honest_db", "label_errors_over_honest"]
        )
    results = {}
    for name in compared.case.model.outputs:
        own, plain = compared.label_errors(name, simulations)
        results[name] = (
            _judge_labels(own, plain, limits[name])
            if own and not compared.case.model.output(name).magnitudes
            else _judge_sqnr(
                name, precision, *_agreements(compared, name, simulations), limits[name]
            )
        )
    return _joined(results, {"honest": arithmetic})


def _judge_labels(
    own: Sequence[float], plain: Sequence[float], limits: Mapping[str, Limit]
) -> _OutputResult:
    """Labels that differ over those of the simulation, where a default limit is surely broken."""
    metrics = {"honest_label_agreement": 1.0 - float(np.mean(plain))}
    limit = limits.get("label_errors_over_honest")
    if limit is None:
        return _OutputResult(metrics)
    ratio, proven = over_honest(own, plain, limit.value)
    if limit.origin != "default" or proven or limit.allows(ratio):
        metrics["label_errors_over_honest"] = ratio
    return _OutputResult(metrics)


def _agreements(
    compared: Compared, name: str, simulations: Mapping[int, Mapping[str, str]]
) -> tuple[Agreement, Agreement]:
    """Agreement with the reference of an output, simulated and of the candidate, on equal samples.

    Args:
        simulations: .npy path of the simulated outputs by name, by position of the feed.
    """
    baseline, candidates = Agreement(), Agreement()
    for index in compared.judged:
        pair = compared.pair(index, name)
        simulated = load(simulations[index][name])
        if pair is not None and compared.case.model.output(name).matches_nonfinite:
            count = len(simulated) if compared.rows[index] is not None else None
            same = ... if count is None else slice(count)
            _, simulated = without_nonfinite(pair[1][same], simulated)
            expected, candidate = without_nonfinite(pair[1], pair[0])
            pair = candidate, expected
        if pair is None or not all(np.isfinite(item).all() for item in (*pair, simulated)):
            continue
        candidate, expected = (
            item[: len(simulated)] if compared.rows[index] is not None else item for item in pair
        )
        if simulated.shape == expected.shape:
            label = compared.feeds.labels[index]
            baseline.add(simulated, expected, label, classes=False)
            candidates.add(candidate, expected, label, classes=False)
    return baseline, candidates


def _judge_sqnr(
    name: str,
    precision: str,
    baseline: Agreement,
    candidates: Agreement,
    limits: Mapping[str, Limit],
) -> _OutputResult:
    """The SQNR of both in dB, and a warning if the candidate's is far below the simulation's."""
    if not baseline.worst:
        return _OutputResult()
    reached = baseline.metrics()["sqnr_db"]
    below = reached - candidates.metrics()["sqnr_db"]
    metrics = {"honest_sqnr_db": reached, "sqnr_below_honest_db": below}
    limit = limits.get("sqnr_below_honest_db")
    exceeded = below > HONEST_MARGIN_DB if limit is None else not limit.allows(below)
    if not exceeded:
        return _OutputResult(metrics)
    warning = (
        f"output {name!r}: SQNR is {below:.3g} dB below the {reached:.3g} dB that a plain "
        f"quantization to {precision} of this model reaches: look at its calibration "
        "and granularity, and whether it is this model's file"
    )
    return _OutputResult(metrics, warnings=(warning,))
