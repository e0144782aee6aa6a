"""What parity is worth on a model: its own rounding noise, an honest quantizer, and vacuity.

Gathers what `edgecheck.judge.noise` and `edgecheck.judge.vacuity` judge. Not for the comparison
itself: see `edgecheck.checks.parity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.capture import data
from edgecheck.declare.budget import Limit
from edgecheck.judge import vacuity
from edgecheck.judge.agreement import Agreement, divergences, stopped
from edgecheck.judge.noise import HONEST_MARGIN_DB, Noise, arithmetic_of, rows_needed
from edgecheck.judge.vacuity import Finding
from edgecheck.names import CALIBRATED

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Feeds, Workbench

Array = npt.NDArray[Any]
Paths = Sequence[Mapping[str, str]]
Limits = Mapping[str, Mapping[str, Limit]]

# Inputs that are changed one at a time to see whether the reference reacts, at most.
_PROBED_INPUTS = 8
# Values tried of an input that is no float.
_DISCRETE_PROBES = 4
# Samples of a data set whose range is looked at, evenly spaced.
_LOOKED_AT = 256


@dataclass(frozen=True)
class Floors:
    """What was found.

    Attributes:
        metrics: by output, besides those of agreement.
        measurements: for the record.
    """

    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    measurements: Mapping[str, Any] = field(default_factory=dict)


NONE = Floors()


def measure(
    workbench: Workbench,
    case: Case,
    feeds: Feeds,
    reference: Paths,
    results: Mapping[int, Mapping[str, str]],
    limits: Limits,
) -> Floors:
    """Measure noise and vacuity of a case.

    Args:
        reference: outputs of the reference by feed.
        results: outputs of the candidate by position of the feed, for those that it takes.
    """
    findings = _outputs(workbench, case, feeds, reference, limits) + _data(workbench, case, feeds)
    failures, warnings = vacuity.sort(findings, workbench.settings.vacuous)
    rows = [_rows(case, outputs) for outputs in reference]
    compared = _Compared(case, feeds, reference, results, rows)
    if case.precision in ("fp32", "fp16"):
        found = _float_noise(workbench, compared, limits)
    else:
        found = _honest(workbench, compared, limits)
    others = {name: _others(compared, name) for name in case.model.outputs}
    metrics = {name: {**others[name], **found.metrics.get(name, {})} for name in others}
    measurements = {
        "vacuous": [{"finding": item.sentence, "grave": item.grave} for item in findings],
        **found.measurements,
    }
    return Floors(
        metrics,
        (*failures, *found.failures),
        (*warnings, *found.warnings),
        measurements,
    )


@dataclass(frozen=True)
class _Compared:
    case: Case
    feeds: Feeds
    reference: Paths
    results: Mapping[int, Mapping[str, str]]
    rows: Sequence[int | None]

    def simulated(
        self, workbench: Workbench, arithmetic: Mapping[str, Any], positions: Sequence[int]
    ) -> tuple[dict[int, dict[str, str]], str]:
        """Outputs in other arithmetic by position of the feed, and why there are none, or "".

        See `edgecheck.capture.client.Sources.simulate`.
        """
        found = workbench.reference_source(self.case, main=False)
        if found is None:
            return {}, "the reference is a model file"
        name, source = found
        given = workbench.sources.simulate(
            name,
            source,
            self.case.model,
            [self.feeds.feeds[index] for index in positions],
            [self.rows[index] for index in positions],
            f"parity {list(positions)}",
            arithmetic,
        )
        return dict(zip(positions, given["outputs"], strict=False)), given["reason"]

    @property
    def judged(self) -> list[int]:
        """Positions of the feeds that quantized precisions are judged on (see `parity.run`)."""
        labels = self.feeds.labels
        own = [index for index in self.results if labels[index] == "samples"]
        return own if own and self.case.precision not in ("fp32", "fp16") else list(self.results)

    def pair(self, index: int, name: str) -> tuple[Array, Array] | None:
        """Candidate and reference of an output that can be subtracted, or None."""
        candidate, expected = _load(self.results[index][name]), _load(self.reference[index][name])
        same = candidate.shape == expected.shape and expected.size > 0
        return (candidate, expected) if same and expected.dtype.kind == "f" else None


def _float_noise(workbench: Workbench, compared: _Compared, limits: Limits) -> Floors:
    """How many times its own rounding noise each output is off, and hidden overflow."""
    case = compared.case
    everywhere = range(len(compared.feeds.feeds))
    exact, reason = compared.simulated(workbench, {"kind": "float64"}, everywhere)
    arithmetic = arithmetic_of(case.precision)
    own: dict[int, dict[str, str]] = {}
    if arithmetic and not reason:
        own, reason = compared.simulated(workbench, arithmetic, everywhere)
    if reason:
        needs = ["noise_ratio", *(["hidden_overflow"] if arithmetic else [])]
        return _unmeasured(case, reason, limits, needs)
    metrics: dict[str, dict[str, float]] = {}
    failures: list[str] = []
    warnings: list[str] = []
    unmeasured: dict[str, str] = {}
    for name in case.model.outputs:
        noise = Noise(case.precision)
        rest = []
        for index in compared.results:
            pair = compared.pair(index, name)
            if pair is None:
                continue
            candidate, expected = pair
            truth = _load(exact[index][name])
            count = len(truth) if truth.ndim and compared.rows[index] is not None else None
            middle = _load(own[index][name]) if own else expected[slice(count)]
            if truth.shape != middle.shape or truth.shape != candidate[slice(count)].shape:
                unmeasured[name] = f"in float64 its shape is {truth.shape}"
                continue
            noise.add(candidate[slice(count)], middle, truth)
            if count is not None:
                rest.append((candidate[count:], expected[count:]))
        for candidate, expected in rest:
            noise.add_rest(candidate, expected)
        if not noise.exact.values and not noise.overflowed:
            continue  # integers, or nothing that fits: other comparisons tell
        if case.precision == "fp16":
            metrics.setdefault(name, {})["hidden_overflow"] = noise.overflowed
        if noise.overflowed and "hidden_overflow" not in limits[name]:
            warnings.append(
                f"output {name!r}: {noise.overflowed} values overflow half precision (65504) where "
                "each operator rounds to it, and are finite here: this runtime hides it by "
                "computing in float32, a device with real half precision will not"
            )
        if reason := unmeasured.get(name) or noise.reason:
            found = _unmeasured(
                case, f"output {name!r}: {reason}", {name: limits[name]}, ["noise_ratio"]
            )
            failures += found.failures
            warnings += found.warnings
            unmeasured[name] = reason
            continue
        metrics.setdefault(name, {}).update(noise.metrics())
    return Floors(
        metrics,
        tuple(failures),
        tuple(warnings),
        {"unmeasured": unmeasured} if unmeasured else {},
    )


def _others(compared: _Compared, name: str) -> dict[str, float]:
    """``saturation``: share of values clipped; ``kl_divergence``: mean of class scores, in nats."""
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
    found = {"saturation": clipped / values} if values else {}
    return {**found, **({"kl_divergence": float(np.concatenate(rows).mean())} if rows else {})}


def _unmeasured(case: Case, reason: str, limits: Limits, needs: Sequence[str]) -> Floors:
    """A warning that fixed limits hold instead; a failure where the user stated one of `needs`."""
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
        return Floors(failures=(text,), measurements={"unmeasured": reason})
    warnings: tuple[str, ...] = ()
    if "noise_ratio" in needs:
        warnings = (
            f"the model's own rounding noise is unknown, so the fixed limits of {case.precision} "
            f"hold: {reason}",
        )
    return Floors(warnings=warnings, measurements={"unmeasured": reason})


def _honest(workbench: Workbench, compared: _Compared, limits: Limits) -> Floors:
    """How far each output's SQNR is below that of a simulated quantization."""
    case = compared.case
    arithmetic = arithmetic_of(case.precision)
    if arithmetic is None:
        return Floors(measurements={"unmeasured": f"{case.precision} is not simulated"})
    simulations, reason = compared.simulated(workbench, arithmetic, compared.judged)
    if reason:
        return _unmeasured(case, reason, limits, ["sqnr_below_honest_db"])
    labels = compared.feeds.labels
    metrics: dict[str, dict[str, float]] = {}
    warnings: list[str] = []
    for name in case.model.outputs:
        honest, candidates = Agreement(), Agreement()
        for index in compared.judged:
            pair = compared.pair(index, name)
            simulated = _load(simulations[index][name])
            if pair is None or not all(np.isfinite(item).all() for item in (*pair, simulated)):
                continue
            candidate, expected = (
                item[: len(simulated)] if compared.rows[index] is not None else item
                for item in pair
            )
            if simulated.shape == expected.shape:
                honest.add(simulated, expected, labels[index], classes=False)
                candidates.add(candidate, expected, labels[index], classes=False)
        if not honest.worst:
            continue
        reached = honest.metrics()["sqnr_db"]
        below = reached - candidates.metrics()["sqnr_db"]
        metrics[name] = {"honest_sqnr_db": reached, "sqnr_below_honest_db": below}
        limit = limits[name].get("sqnr_below_honest_db")
        if below > HONEST_MARGIN_DB if limit is None else not limit.allows(below):
            warnings.append(
                f"output {name!r}: SQNR is {below:.3g} dB below the {reached:.3g} dB that a plain "
                f"quantization to {case.precision} of this model reaches: look at its calibration "
                "and granularity, and whether it is this model's file"
            )
    return Floors(metrics, warnings=tuple(warnings), measurements={"honest": arithmetic})


def _rows(case: Case, outputs: Mapping[str, str]) -> int | None:
    """How many samples of a feed to simulate; None for all, where outputs have no batch axis."""
    if not all(item.batched for item in case.model.inputs):
        return None
    shapes = [_load(path).shape for path in outputs.values()]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        return None
    (batch,) = sizes
    values = min(int(np.prod(shape[1:])) for shape in shapes)
    return rows_needed(batch, values, case.precision)


def _outputs(
    workbench: Workbench, case: Case, feeds: Feeds, reference: Paths, limits: Limits
) -> list[Finding]:
    """Findings about the reference's outputs."""
    model = case.model
    probes, changed = _probes(workbench, case, feeds)
    probed = workbench.reference_outputs(case, probes, "probes", main=False) if probes else []
    findings: list[Finding] = []
    still: set[str] = set()
    for name in model.outputs:
        arrays = [_load(paths[name]) for paths in reference]
        calls: list[list[Array]] = []
        for array, sizes in zip(arrays, feeds.sizes, strict=True):
            batched = array.ndim > 0 and array.shape[0] == sizes.get("batch")
            calls.append(list(array) if batched else [array])
        calls.append([arrays[0], *(_load(paths[name]) for paths in probed)])
        found = vacuity.constant_output(name, calls)
        still |= {name} if found else set()
        largest = max(
            (float(np.abs(item[np.isfinite(item)]).max(initial=0.0)) for item in arrays),
            default=0.0,
        )
        findings += found or vacuity.magnitude(name, largest, limits[name])
    if len(still) < len(model.outputs):
        before = {name: _load(path) for name, path in reference[0].items()}
        for name in dict.fromkeys(changed):
            dead = [
                vacuity.dead_input(name, before, {key: _load(path) for key, path in paths.items()})
                for other, paths in zip(changed, probed, strict=True)
                if other == name
            ]
            findings += dead[0] if all(dead) else []
    return findings


def _probes(
    workbench: Workbench, case: Case, feeds: Feeds
) -> tuple[list[dict[str, str]], list[str]]:
    """The first feed with one input changed at a time, and the names of those inputs.

    One that is no float is changed several times: two ids may well mean the same.
    """
    folder = workbench.settings.scratch / "probes" / case.model_name
    rng = np.random.default_rng(case.model.seed + 1)
    probes: list[dict[str, str]] = []
    changed: list[str] = []
    for item in case.model.inputs[:_PROBED_INPUTS]:
        before = _load(feeds.feeds[0][item.name])
        left = 1 if np.dtype(item.dtype).kind == "f" else _DISCRETE_PROBES
        for _ in range(8):  # of few possible values, the same one may be drawn again
            drawn = data.random_inputs([item], feeds.sizes[0], rng)
            if not np.array_equal(drawn[item.name], before):
                paths = data.save_feed(drawn, folder / str(len(probes)))
                probes.append({**feeds.feeds[0], **paths})
                changed.append(item.name)
                left -= 1
                if not left:
                    break
    return probes, changed


def _data(workbench: Workbench, case: Case, feeds: Feeds) -> list[Finding]:
    """Findings about the user's data."""
    model = case.model
    findings: list[Finding] = []
    if "samples" in feeds.labels:
        paths = feeds.feeds[feeds.labels.index("samples")]
        for item in model.inputs:
            if item.dtype != "bool":
                findings += vacuity.sample_domain(
                    item.name, _load(paths[item.name]), item.low, item.high
                )
    if case.precision in CALIBRATED and model.calibration is not None and model.evaluation:
        own, others = (
            workbench.data(case, what)["inputs"] for what in ("calibration", "evaluation")
        )
        for item in model.inputs:
            if np.dtype(item.dtype).kind == "f":
                findings += vacuity.calibration_range(
                    item.name, _some(own[item.name]), _some(others[item.name])
                )
    return findings


def _some(path: str) -> Array:
    array = _load(path)
    rows = np.linspace(0, len(array) - 1, min(len(array), _LOOKED_AT)).astype(int)
    found: Array = array[rows]
    return found


def _load(path: str) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
