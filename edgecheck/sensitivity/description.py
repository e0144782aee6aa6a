"""A sensitivity ranking and its recipe in words, a table, and plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgecheck.judge.verdict import Outcome, Verdict
from edgecheck.localization.description import shortened
from edgecheck.sensitivity.rebuilding import Attempt, maker
from edgecheck.sensitivity.sensitivity import Sensitivity
from edgecheck.targets.common import keep_float
from edgecheck.units import format_bytes

if TYPE_CHECKING:
    from edgecheck.declare.case import Case

_TITLES = (
    "layer",
    "SQNR, alone quantized",
    "gain, alone in float",
    "gain, rebuilt",
    "metric, rebuilt",
)
_SHOWN = 12


def sentences(found: Sensitivity, case: Case) -> list[str]:
    """What was found, one paragraph a line."""
    best = found.best
    if found.kind == "holds":
        declared = case.model.target_options.get(maker(case), {}).get(keep_float.OPTION, {})
        names = declared.get(keep_float.key(case.variant, case.precision), [])
        needed = f", with {', '.join(names)} in float" if names else ": no layer need stay in float"
        return [f"{found.candidate} is inside its limits already{needed}"]
    lines = [f"{found.candidate}: {'; '.join(found.declared.failures)}"]
    assert best is not None and best.keep is not None
    if found.kind == "hopeless":
        return [
            *lines,
            "no recipe helps: with all layers in float it fails too "
            f"({'; '.join(best.failures)}); look at `edgecheck explain` without --sensitivity",
        ]
    layers = f"{len(best.keep)} of {len(found.ranking)} layers"
    if found.kind == "unfinished":
        return [
            *lines,
            f"the search ended after {found.rebuilds} rebuilds: the fewest that passed were "
            f"{layers} in float; leave this precision, or train for it (int8-qat)",
        ]
    verb = "brings" if len(best.keep) == 1 else "bring"
    lines.append(
        f"{', '.join(best.keep)} in float {verb} it inside its limits"
        + ("" if found.minimal else "; fewer may do, which was not tried to the end")
        + ". Declare it, and the next run builds and judges it:"
    )
    lines.append(f"    {recipe(found, case)}")
    lines.append(f"verified by a rebuild with just that: {_verified(found, best)}")
    lines.append(f"cost: {_cost(found, best, layers)}")
    if found.kind == "blocked" and found.export is not None:
        broken = "; ".join(found.export.failures)
        lines.append(f"the gate stays closed with it, by the export check: {broken}")
    return lines


def recipe(found: Sensitivity, case: Case) -> str:
    """The declaration that makes the rebuild."""
    return f"Model(target_options={json.dumps({maker(case): found.option})})"


def _verified(found: Sensitivity, best: Attempt) -> str:
    parts = [f"parity {best.parity.outcome}"]
    if best.sqnr_db is not None and found.declared.sqnr_db is not None:
        parts[0] += f", SQNR {best.sqnr_db:.1f} dB instead of {found.declared.sqnr_db:.1f} dB"
    if best.accuracy is not None:
        own = best.accuracy.measurements
        parts.append(
            f"accuracy {best.accuracy.outcome}, {own['metric']} {own['candidate']:.4g}, "
            f"reference {own['reference']:.4g}"
        )
    if found.export is not None:
        parts.append(f"export {found.export.outcome}")
    return "; ".join(parts)


def _cost(found: Sensitivity, best: Attempt, layers: str) -> str:
    text = (
        f"{format_bytes(found.declared.size_bytes)} -> {format_bytes(best.size_bytes)}; "
        f"{layers} in float"
    )
    share, limit = _share(found.export)
    if share is not None:
        text += f"; {100 * share:.3g} % of the weights are quantized"
        text += f" (at least {100 * limit:.3g} %)" if limit is not None else ""
    return text


def _share(export: Verdict | None) -> tuple[float | None, float | None]:
    """The share of quantized weights, and its limit."""
    if export is None:
        return None, None
    limit = next(
        (item.limit.value for item in export.comparisons if item.limit.name == "quantized_weights"),
        None,
    )
    return export.measurements.get("quantized_weights"), limit


def table(found: Sensitivity, *, everything: bool = False) -> tuple[Sequence[str], list[list[str]]]:
    """The ranking: titles and rows."""
    shown = found.ranking if everything else found.ranking[:_SHOWN]
    columns = 3 if found.kind == "holds" else len(_TITLES)
    rows = [
        [
            item.layer,
            _decibels(item.alone_db),
            _decibels(item.gain_db, signed=True),
            _decibels(item.rebuilt_gain_db, signed=True),
            "" if item.metric is None else f"{item.metric:.4g}",
        ][:columns]
        for item in shown
    ]
    return _TITLES[:columns], rows


def legend(found: Sensitivity, *, everything: bool = False) -> list[str]:
    """How the table was made."""
    how = (
        f"the ranking is by rebuilds, since it can't be simulated: {found.simulated}"
        if found.simulated
        else "ranked by a simulated quantization of the reference, with one layer quantized alone"
    )
    if found.kind != "holds":
        how += f'; "rebuilt" is measured on real files, of {found.rebuilds} rebuilds'
    rest = len(found.ranking) - _SHOWN
    more = f"; {rest} more layers with --all" if rest > 0 and not everything else ""
    return shortened([f"{how}{more}"])


def _decibels(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:+.1f} dB" if signed else f"{value:.1f} dB"


def as_data(found: Sensitivity, case: Case) -> dict[str, Any]:
    """Plain data for JSON."""
    share, limit = _share(found.export)
    chosen = found.kind in ("found", "blocked")
    return {
        "candidate": found.candidate,
        "kind": found.kind,
        "sentences": sentences(found, case),
        "ranking": [asdict(item) for item in found.ranking],
        "ranking_is": "rebuilt" if found.simulated else "simulated",
        "not_simulated": found.simulated,
        "declared": _attempt(found.declared),
        "best": _attempt(found.best) if found.best else None,
        "export": _verdict(found.export) if found.export else None,
        "quantized_weights": share,
        "quantized_weights_limit": limit,
        "target_options": {maker(case): found.option} if chosen else None,
        "minimal": found.minimal,
        "rebuilds": found.rebuilds,
    }


def _attempt(attempt: Attempt) -> Mapping[str, Any]:
    return {
        "keep_float": attempt.keep,
        "passed": attempt.passed,
        "failures": attempt.failures,
        "sqnr_db": attempt.sqnr_db,
        "metric": attempt.metric,
        "size_bytes": attempt.size_bytes,
    }


def _verdict(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "passed": verdict.outcome is Outcome.PASSED,
        "failures": verdict.failures,
        "warnings": verdict.warnings,
    }
