"""The evidence of one case, as the page shows it: limits, tables, facts, and values to draw.

Pure functions of a record; all numbers become text here but those that are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgecheck.history.compare import CaseComparison
from edgecheck.history.metrics import value_text
from edgecheck.history.results import number
from edgecheck.report.comparison import change_text, needed_text
from edgecheck.report.page import figures, histogram
from edgecheck.report.page.status import STATUSES, Record, limit_name, model_name, status_of
from edgecheck.units import format_bytes, format_time

Data = dict[str, Any]

# Shown by charts and tables of their own, not among the plain facts.
_ELSEWHERE = (
    *("samples_ns", "cpu_samples_ns", "growth_inferences", "growth_held_bytes", "batches"),
    *("outputs", "random_inputs", "variant_against_original", "inputs", "live", "size_bytes"),
)
_MOST_LISTED = 40
# Of an output: the figure of the record, and how its column is called.
_PARITY = {
    "max_abs_error": "max abs error",
    "max_relative_error": "max relative error",
    "sqnr_db": "SQNR",
    "cosine": "cosine",
    "top1_agreement": "top-1 agreement",
    "label_agreement": "labels alike",
    "worst_part_sqnr_db": "SQNR of the worst index",
}
_PARITY_OVER = {
    "outputs": "Outputs against the reference",
    "random_inputs": "On random inputs (recorded, not judged)",
    "variant_against_original": "Variant against the original model (recorded, not judged)",
}


def evidence_of(record: Record, comparison: CaseComparison | None = None) -> Data:
    """What the page shows of a case once it is opened."""
    status = status_of(record)
    return {
        "key": record["key"],
        "title": model_name(record),
        "parts": [record["target"], record["precision"], record["check"]],
        "status": status,
        "word": STATUSES[status][0],
        "mark": STATUSES[status][1],
        "reason": record["reason"],
        "failures": [line for line in record["failures"] if line != record["reason"]],
        "notes": list(_notes(record, comparison)),
        "limits": [_limit(item) for item in record["limits"]],
        "charts": list(_charts(record)),
        "tables": [*_tables(record), *_changes(comparison)],
        "facts": list(_facts(record["measurements"])),
        "details": record["details"],
        "origin": list(_origin(record)),
    }


def _notes(record: Record, comparison: CaseComparison | None) -> Iterator[tuple[str, str]]:
    """A title and a text each, of what a person must know beside the verdict."""
    waiver = record.get("waiver")
    if waiver:
        told = f"{waiver['reason']} — {waiver['owner']}, until {waiver['expires']}"
        yield "Waived", told + (f" ({waiver['issue']})" if waiver.get("issue") else "")
    elif record["expected_failure"]:
        yield "Accepted", record["expected_failure"]
    if record.get("reused"):
        yield "Reused", f"measured by run {record['reused']}: same file, same inputs"
    if comparison is not None and comparison.worse:
        yield "Worse than the baseline", " → ".join(comparison.worse)
    if comparison is not None and comparison.incomparable:
        yield "Not compared with the baseline", comparison.incomparable
    for line in record["warnings"]:
        yield "Warning", line


def _limit(limit: dict[str, Any]) -> Data:
    measured, bound, interval = figures.limit_texts(limit)
    share = figures.used(limit)
    return {
        "name": limit_name(limit),
        "measured": measured,
        "limit": f"{'≤' if limit['bound'] == 'max' else '≥'} {bound}",
        "interval": interval,
        "origin": limit["origin"],
        "outcome": limit["outcome"],
        "used": None if math.isinf(share) else round(share, 4),
    }


def _charts(record: Record) -> Iterator[Data]:
    values = record["measurements"]
    samples_ns = values.get("samples_ns")
    if samples_ns:
        limits_ms = [
            (item["name"].removeprefix("latency_"), item["limit"])
            for item in record["limits"]
            if item["unit"] == "ms" and item["name"].startswith("latency_")
        ]
        yield histogram.of_latency(values, samples_ns, limits_ms)
    held_bytes, inferences = values.get("growth_held_bytes"), values.get("growth_inferences")
    if held_bytes and inferences and len(held_bytes) == len(inferences):
        yield {
            "kind": "growth",
            "title": "Memory held over inferences",
            "note": "Above the first reading.",
            "values": [
                {"inferences": count, "kB": (held - held_bytes[0]) / 1e3}
                for count, held in zip(inferences, held_bytes, strict=True)
            ],
        }
    plan = values.get("activation_memory")
    if isinstance(plan, Mapping) and plan.get("live"):
        where = plan.get("peak_operator") or {}
        yield {
            "kind": "live",
            "title": "Tensors alive at the peak of activation memory",
            "note": f"At {where.get('type', 'an operator')}, operator {where.get('index', '?')} of "
            f"{plan.get('operators', '?')}; {plan.get('live_tensors', '?')} tensors take "
            f"{format_bytes(plan.get('live_bytes', 0))}.",
            "values": [
                {
                    "tensor": f"{position + 1}. {item['name'][-60:]}",
                    "kB": item["size_bytes"] / 1e3,
                    "type": f"{'x'.join(map(str, item['shape']))} {item['dtype']}",
                }
                for position, item in enumerate(plan["live"][:8])
            ],
        }
    for name, output in (values.get("outputs") or {}).items() if _has_outputs(values) else ():
        if output.get("error_histogram"):
            yield histogram.of_errors(name, output["error_histogram"])


def _has_outputs(values: Mapping[str, Any]) -> bool:
    found = values.get("outputs")
    return isinstance(found, Mapping) and all(isinstance(item, Mapping) for item in found.values())


def _tables(record: Record) -> Iterator[Data]:
    values = record["measurements"]
    for name, caption in _PARITY_OVER.items():
        found = values.get(name)
        if isinstance(found, Mapping) and found:
            yield _parity_table(caption, found)
    if _has_outputs(values):
        rows = [
            [name, item["worst"]["input"], _index(item["worst"]["index"])]
            + [figures.quantity("", item["worst"][side]) for side in ("candidate", "reference")]
            for name, item in values["outputs"].items()
            if isinstance(item.get("worst"), Mapping)
        ]
        if rows:
            head = ["output", "input", "index", "candidate", "reference"]
            yield {"caption": "The worst element", "head": head, "rows": rows}
        yield from _details_of_outputs(values["outputs"])
    if values.get("batches"):
        yield {
            "caption": "Other batches",
            "head": ["batch", "p50", "throughput"],
            "rows": [
                [
                    str(item.get("batch")),
                    figures.quantity("_ms", item.get("latency_p50_ms", "")),
                    item.get("error") or figures.quantity("_per_s", item.get("throughput_per_s")),
                ]
                for item in values["batches"]
            ],
        }


def _details_of_outputs(outputs: Mapping[str, Any]) -> Iterator[Data]:
    """The named parts of outputs, and the labels that are taken for one another."""
    parts = [
        [f"{name}/{item['part']}"]
        + [figures.quantity(key, item.get(key, "")) for key in ("sqnr_db", "levels", "spread")]
        for name, output in outputs.items()
        for item in output.get("parts", ())
    ]
    if parts:
        head = ["part", "SQNR against its own spread", "levels", "spread"]
        yield {"caption": "Parts of outputs", "head": head, "rows": parts}
    swaps = [
        [name, str(item["reference"]), str(item["candidate"]), f"{item['entries']} of {item['of']}"]
        for name, output in outputs.items()
        for item in output.get("label_swaps", ())
    ]
    if swaps:
        head = ["output", "reference", "candidate", "entries"]
        yield {"caption": "Labels that differ most often", "head": head, "rows": swaps}


def _parity_table(caption: str, outputs: Mapping[str, Any]) -> Data:
    names = [name for name in _PARITY if any(name in item for item in outputs.values())]
    return {
        "caption": caption,
        "head": ["output", *(_PARITY[name] for name in names)],
        "rows": [
            [output, *(figures.quantity(name, item.get(name, "")) for name in names)]
            for output, item in outputs.items()
        ],
    }


def _index(position: Sequence[int]) -> str:
    return ", ".join(map(str, position))


def _changes(comparison: CaseComparison | None) -> Iterator[Data]:
    """How the numbers stand to the baseline's."""
    if comparison is None or not comparison.changes:
        return
    yield {
        "caption": "Against the baseline",
        "head": ["metric", "before", "now", "change", "counts from", ""],
        "rows": [
            [
                figures.label(item.metric) + (f" of {item.subject}" if item.subject else ""),
                value_text(item.metric, item.before),
                value_text(item.metric, item.after),
                change_text(item),
                needed_text(item),
                "" if item.direction == "unchanged" else str(item.direction),
            ]
            for item in comparison.changes
        ],
    }


def _facts(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """All plain measurements: what each is called, and its text with the unit."""
    for name, value in values.items():
        called = f"{prefix}{figures.label(name)}"
        if name in _ELSEWHERE and not prefix:
            continue
        if isinstance(value, Mapping):
            if value and all(isinstance(item, int) for item in value.values()):
                yield called, _counts(name, value)
            else:
                yield from _facts(value, f"{called}: ")
        elif isinstance(value, list):
            if name != "live" and value and not isinstance(value[0], Mapping | list):
                yield called, ", ".join(figures.quantity(name, item) for item in value[:16])
        elif value is not None and value != "":
            yield called, figures.quantity(name, value)


def _counts(name: str, value: Mapping[str, int]) -> str:
    """As in "12 Conv, 3 Relu", the most first."""
    ordered = sorted(value.items(), key=lambda item: -item[1])
    unit = "_bytes" if name.endswith("_bytes") else ""
    told = [f"{figures.quantity(unit, count)} {what}" for what, count in ordered[:_MOST_LISTED]]
    if len(ordered) > _MOST_LISTED:
        told.append(f"and {len(ordered) - _MOST_LISTED} more")
    return ", ".join(told)


def _origin(record: Record) -> Iterator[tuple[str, str]]:
    """Where the case and its file come from, and on what it ran."""
    yield "test", record["nodeid"]
    artifact = record["artifact"]
    if artifact:
        yield "file", f"{artifact['file']}, {format_bytes(artifact['size_bytes'])}"
        yield "SHA-256", artifact["sha256"]
        cached = record["timings"].get("cached")
        yield "origin", artifact["origin"] + (", from the cache" if cached else "")
    for name, what in (("build_s", "built in"), ("duration_s", "judged in")):
        seconds = number(record["timings"].get(name))
        if seconds is not None:
            yield what, format_time(1e3 * seconds)
    device = record.get("device")
    if device:
        told = (
            f"{name} {_flat(value)}" for name, value in device.items() if value not in ("", None)
        )
        yield "device", ", ".join(told)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_flat(item)}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
