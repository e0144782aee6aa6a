"""The export check: the file is valid, loads, fits the declaration, and is what it says it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecheck.declare.budget import Limit
from edgecheck.declare.case import find_builder
from edgecheck.errors import ChildError
from edgecheck.judge.verdict import Comparison, Outcome, Verdict, conclude
from edgecheck.targets.common import static_arena

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.devices.local import LoadedModel
    from edgecheck.workbench import Feeds, Workbench

# The core runtime of TensorFlow Lite Micro "just fits in 16 KB on an Arm Cortex M3" (its
# documentation); the kernels that a model needs come on top.
RUNTIME_FLASH_BYTES = 16 * 1024
_SMALLER = ("float16", "bfloat16", "int8", "int4", "palettized")
# Storage types that count as a precision's own.
_STORED_AS = {
    "fp16": ("float16", "bfloat16"),
    "int8-dynamic": ("int8", "int4"),
    "int8": ("int8", "int4"),
    "int8-qat": ("int8", "int4"),
    "int8-weights": ("int8", "int4"),
    "int16x8": ("int8", "int4"),
    "int4": ("int4",),
    "palettized": ("palettized",),
}

# Precisions whose activations are integers, at scales that the file holds.
STATIC = ("int8", "int8-qat", "int16x8")
_NAMED = 5


def run(workbench: Workbench, case: Case) -> Verdict:
    """Build, inspect, load and try the candidate's file."""
    built = workbench.built(case)
    contents = built.contents.as_data()
    if reason := contents.get("not_inspected"):
        return Verdict(Outcome.NOT_CHECKED, reason=reason)
    limits = case.limits()
    memory = _activation_memory(case, contents)
    measurements: dict[str, Any] = {
        "size_bytes": built.size_bytes,
        "size_gzip_bytes": built.gzip_bytes,
        **{key: contents[key] for key in ("format", "operators", "quantized_operators")},
        "weight_elements": contents["weight_elements"],
        "weight_bytes": contents["weight_bytes"],
        "weights_bytes": sum(contents["weight_bytes"].values()),
        "flash_estimate_bytes": built.size_bytes + RUNTIME_FLASH_BYTES,
        "activation_memory": memory,
    }
    activation_bytes = judged_bytes(memory)
    if activation_bytes is not None:
        measurements["activation_memory_bytes"] = activation_bytes
    failures: list[str] = list(contents["failures"])
    # Of a file that can't be read nothing else is known.
    readable = bool(contents["format"])
    warnings: list[str] = list(contents["warnings"])
    unrun = case.target.gap("run", case.precision, case.options)
    if unrun:
        warnings.append(f"the file was built and inspected, but not loaded: {unrun}")
    elif not failures:
        session = workbench.session(case)
        measurements["inputs"] = [_tensor_record(item) for item in session.inputs]
        measurements["outputs"] = [_tensor_record(item) for item in session.outputs]
        failures += _dynamic_axes(case, session)
        failures += _try_batches(workbench, case)
        placement = session.placement(workbench.single_feed(case)).as_record()
        measurements["placement"] = placement
        warnings += judge_placement(placement)
        failures += judge_provider(placement)
    download = download_bytes(built.size_bytes, built.gzip_bytes, measurements.get("placement"))
    if download and "runtime_download_bytes" in measurements["placement"]:
        measurements |= {f"{name}_bytes": size for name, size in download.items()}
    if not download and "download_size" in {item.removesuffix("_gzip") for item in limits}:
        warnings.append("download_size is not judged, since the file was not loaded")
    if _in_training_mode(workbench, case):
        warnings.append("the source returned a module in training mode; it was set to eval()")
    memory_failures, details = judge_memory(memory, limits.get("activation_memory"))
    precision_failures, share = (
        judge_precision(case.precision, contents) if readable else ([], None)
    )
    float_failures, float_warnings = judge_layers(case.precision, contents.get("layers"))
    precision_failures = [*precision_failures, *([] if precision_failures else float_failures)]
    warnings += float_warnings
    undelegated = measurements.get("placement", {}).get("undelegated_operators")
    if "undelegated_operators" in limits and undelegated is None:
        warnings.append(
            "undelegated_operators is not judged: nothing is known of where operators run"
        )
    if share is not None:
        measurements["quantized_weights"] = share
    lint = contents.get("lint")
    if lint is not None:
        measurements["lint_findings"] = len(lint)
    return conclude(
        failures=[*failures, *precision_failures, *memory_failures],
        warnings=warnings,
        comparisons=_compare(
            limits,
            {
                "size": built.size_bytes,
                "size_gzip": built.gzip_bytes,
                **download,
                "weights": measurements["weights_bytes"],
                "activation_memory": activation_bytes,
                "flash": measurements["flash_estimate_bytes"],
                "quantized_weights": share,
                "lint_findings": measurements.get("lint_findings"),
                "undelegated_operators": undelegated,
            },
        ),
        measurements=measurements,
        details=details,
    )


def download_bytes(
    size_bytes: int, gzip_bytes: int, placement: Mapping[str, Any] | None
) -> dict[str, int]:
    """What is downloaded to run the file: itself, and the runtime where a page loads one.

    Args:
        placement: what the driver told, which has ``runtime_download_bytes`` and
            ``runtime_download_gzip_bytes`` where that is so; None where it was not loaded, so that
            nothing is known.
    """
    if placement is None:
        return {}
    return {
        "download_size": size_bytes + placement.get("runtime_download_bytes", 0),
        "download_size_gzip": gzip_bytes + placement.get("runtime_download_gzip_bytes", 0),
    }


def judged_bytes(memory: Mapping[str, Any]) -> int | None:
    """What a microcontroller would take for activations: the greedy plan's arena and variables.

    None where there is no plan.
    """
    if "arena_bytes" not in memory:
        return None
    return int(memory["arena_bytes"] + memory["variables_bytes"])


def judge_memory(memory: Mapping[str, Any], limit: Limit | None) -> tuple[list[str], str]:
    """Why a stated limit can't be judged, and what fills the memory where it is broken.

    Args:
        memory: `edgecheck.targets.common.static_arena.describe`, or ``unplanned``: the reason why
            there is no plan.
    """
    if limit is None:
        return [], ""
    measured = judged_bytes(memory)
    if measured is None:
        _, stated = limit.texts(limit.value)
        return [
            f"activation_memory can't be planned, so it is not <= {stated} ({limit.origin}): "
            f"{memory['unplanned']}"
        ], ""
    return [], "" if limit.allows(measured) else static_arena.chart(memory)


def _activation_memory(case: Case, contents: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plan in a file's contents, unless its one open axis is declared to be no batch."""
    for item in case.model.inputs if case.target.files.keeps_dynamic_batch else ():
        axis = item.shape[0] if item.shape else 1
        if isinstance(axis, str) and axis != "batch":
            return {"unplanned": f"the first axis of input {item.name!r}, {axis!r}, varies"}
    memory: Mapping[str, Any] = contents.get(
        "activation_memory", {"unplanned": "the file can't be read"}
    )
    return memory


def judge_precision(precision: str, contents: Mapping[str, Any]) -> tuple[list[str], float | None]:
    """Whether the file holds the requested precision at all, and the share of weights that do.

    The share is None where the precision stores weights as they are.
    """
    elements = contents["weight_elements"]
    if precision not in _STORED_AS:
        others = {kind: count for kind, count in elements.items() if kind in _SMALLER}
        quantized = sum(contents["quantized_operators"].values())
        if quantized or others:
            found = ", ".join(f"{count} {kind}" for kind, count in others.items()) or "no"
            return [
                f"the file is not {precision} throughout: it has {quantized} quantized operators "
                f"and {found} weights"
            ], None
        return [], None
    total = sum(elements.values())
    stored = sum(elements.get(kind, 0) for kind in _STORED_AS[precision])
    share = stored / total if total else 0.0
    if stored == 0:
        found = ", ".join(f"{count} {kind}" for kind, count in elements.items()) or "none"
        return [f"nothing in the file is {precision}: its weights are {found}"], share
    if precision != "fp16" and not contents["quantized_operators"]:
        return [f"no operator of the file works on its {precision} weights"], share
    return [], share


def judge_layers(
    precision: str, layers: Mapping[str, list[str]] | None
) -> tuple[list[str], list[str]]:
    """Failures and warnings of layers that work on float data where integers are promised.

    Args:
        layers: see `edgecheck.targets.Tools.inspect`; None where that is not known.
    """
    if precision not in STATIC or layers is None or not layers["float"]:
        return [], []
    integer, floats = layers["integer"], layers["float"]
    if not integer:
        count = len(floats)
        return [
            f"no layer computes on integers: the activations of {_all(count)} are float, or "
            f"quantized at run time, and a file of {precision} has their scales in it"
        ], []
    named = ", ".join(floats[:_NAMED]) + (", ..." if len(floats) > _NAMED else "")
    return [], [f"{len(floats)} of {len(integer) + len(floats)} layers compute in float: {named}"]


def _all(count: int) -> str:
    return "its one layer" if count == 1 else f"all {count} layers"


def judge_placement(placement: Mapping[str, Any]) -> list[str]:
    """What a person should know about where operators run."""
    left = placement.get("undelegated_operators", 0)
    if not left:
        return []
    kinds = ", ".join(
        f"{count} {name}" for name, count in placement["undelegated_operators_by_type"].items()
    )
    return [f"{left} of {placement['operators']} operators are not delegated: {kinds}"]


def judge_provider(placement: Mapping[str, Any]) -> list[str]:
    """Whether the provider that was asked for first runs anything at all.

    ONNX Runtime enables a provider that then takes no operator, without a word.
    """
    asked = placement.get("asked_provider")
    counts: Mapping[str, int] = placement.get("operators_by_provider", {})
    if asked is None or counts.get(asked):
        return []
    ran = ", ".join(f"{count} on {name}" for name, count in counts.items()) or "none ran"
    return [f"no operator runs on {asked}, which target_options ask for: {ran}"]


def _compare(
    limits: Mapping[str, Limit], measured: Mapping[str, float | None]
) -> Iterable[Comparison]:
    return [
        Comparison(limits[name], value)
        for name, value in measured.items()
        if value is not None and name in limits
    ]


def _tensor_record(tensor: Mapping[str, Any]) -> dict[str, Any]:
    record = {"name": tensor["name"], "shape": tensor["shape"], "dtype": tensor["dtype"]}
    if tensor.get("scale"):
        record |= {"scale": tensor["scale"], "zero_point": tensor["zero_point"]}
    return record


def _dynamic_axes(case: Case, session: LoadedModel) -> list[str]:
    """Dimensions declared dynamic that the file fixes, where the target could keep them."""
    assert session.binding is not None
    if not case.target.files.keeps_dynamic_batch:
        return []
    return [
        f"dimension {name!r} is declared dynamic, but the file fixes it to {size}"
        for name, size in session.binding.fixed.items()
    ]


def _try_batches(workbench: Workbench, case: Case) -> list[str]:
    """Run the parity inputs at each batch size; the batch axis of every output must follow."""
    feeds = workbench.feeds(case)
    failures = []
    try:
        results = workbench.feed_outputs(case)
    except ChildError as error:
        if error.kind != "raised" or not (problem := _size_that_fails(workbench, case, feeds)):
            raise
        return [problem]
    for index, outputs in results.items():
        batch = feeds.sizes[index].get("batch")
        for name, path in outputs.items():
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            if batch is not None and shape[:1] not in ((batch,), ()):
                failures.append(
                    f"output {name!r} has shape {shape} for {feeds.labels[index]}: "
                    "its first axis does not follow the batch"
                )
    return failures


def _size_that_fails(workbench: Workbench, case: Case, feeds: Feeds) -> str:
    """What a file that runs at some sizes only says at another, or "" if it is not the sizes."""
    session = workbench.session(case)
    ran: list[int] = []
    for index, feed in enumerate(feeds.feeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                session.run([feed], Path(folder))
            except ChildError as error:
                if not ran or feeds.sizes[index] in [feeds.sizes[other] for other in ran]:
                    return ""
                return (
                    f"the file runs on {', '.join(feeds.labels[other] for other in ran)}, but not "
                    f"on {feeds.labels[index]}: a size is fixed within it, as by a reshape to that "
                    f"of the exporter's example ({error})"
                )
        ran.append(index)
    return ""


def _in_training_mode(workbench: Workbench, case: Case) -> bool:
    source = case.model.source
    brought = case.artifact or find_builder(case.model, case.target.name, case.precision)
    if brought or case.variant or source is None or case.precision == "int8-qat":
        return False
    program = workbench.sources.program(f"{case.model_name}:", source, case.model)
    return bool(program.get("training"))
