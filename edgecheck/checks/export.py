"""The export check: the file is valid, loads, fits the declaration, and has its precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgecheck.checks import batch_sizes
from edgecheck.declare.budget import Limit
from edgecheck.declare.case import find_builder
from edgecheck.judge.verdict import Comparison, Outcome, Verdict, conclude
from edgecheck.targets.common import static_arena

if TYPE_CHECKING:
    from edgecheck.build.builder import Built
    from edgecheck.declare.case import Case
    from edgecheck.devices.local import LoadedModel
    from edgecheck.workbench import Workbench

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


# The limits that a file is held to, in the order of the report.
_LIMITS = (
    *("size", "size_gzip", "download_size", "download_size_gzip", "weights", "activation_memory"),
    *("flash", "quantized_weights", "lint_findings", "undelegated_operators"),
)


@dataclass(frozen=True)
class _Result:
    """The part of the verdict that one of the checks below adds.

    Attributes:
        measured: values that may have a limit, by its name; None if it is not known.
        details: lines below the verdict.
    """

    failures: Sequence[str] = ()
    warnings: Sequence[str] = ()
    measurements: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, float | None] = field(default_factory=dict)
    details: str = ""


def run(workbench: Workbench, case: Case) -> Verdict:
    """Build, inspect, load and try the candidate's file."""
    built = workbench.built(case)
    contents = built.contents.as_data()
    if reason := contents.get("not_inspected"):
        return Verdict(Outcome.NOT_CHECKED, reason=reason)
    results = list(_checks(workbench, case, built, contents))
    limits = case.limits()
    measured = {name: value for result in results for name, value in result.measured.items()}
    return conclude(
        failures=[sentence for result in results for sentence in result.failures],
        warnings=[sentence for result in results for sentence in result.warnings],
        comparisons=[
            Comparison(limits[name], value)
            for name in _LIMITS
            if name in limits and (value := measured.get(name)) is not None
        ],
        measurements={
            name: value for result in results for name, value in result.measurements.items()
        },
        details="\n".join(result.details for result in results if result.details),
    )


def _checks(
    workbench: Workbench, case: Case, built: Built, contents: Mapping[str, Any]
) -> Iterator[_Result]:
    """The checks of a file that was inspected, in the order of the report."""
    limits = case.limits()
    memory = _activation_memory(case, contents)
    yield _check_contents(built, contents, memory)
    loaded = _check_loading(workbench, case, contents)
    yield loaded
    placement = loaded.measurements.get("placement")
    yield _check_download(built, placement, limits)
    yield _check_training_mode(workbench, case)
    yield _check_precision(case.precision, contents)
    yield _check_memory(memory, limits)
    yield _check_delegation(placement, limits)
    yield _check_lint(contents)


def _check_contents(
    built: Built, contents: Mapping[str, Any], memory: Mapping[str, Any]
) -> _Result:
    """The sizes and contents of the file, and the findings of its inspection."""
    weights_bytes = sum(contents["weight_bytes"].values())
    flash_bytes = built.size_bytes + RUNTIME_FLASH_BYTES
    activation_bytes = judged_bytes(memory)
    return _Result(
        failures=contents["failures"],
        warnings=contents["warnings"],
        measurements={
            "size_bytes": built.size_bytes,
            "size_gzip_bytes": built.gzip_bytes,
            **{key: contents[key] for key in ("format", "operators", "quantized_operators")},
            "weight_elements": contents["weight_elements"],
            "weight_bytes": contents["weight_bytes"],
            "weights_bytes": weights_bytes,
            "flash_estimate_bytes": flash_bytes,
            "activation_memory": memory,
            **({} if activation_bytes is None else {"activation_memory_bytes": activation_bytes}),
        },
        measured={
            "size": built.size_bytes,
            "size_gzip": built.gzip_bytes,
            "weights": weights_bytes,
            "flash": flash_bytes,
        },
    )


def _check_loading(workbench: Workbench, case: Case, contents: Mapping[str, Any]) -> _Result:
    """Whether the file loads and runs at all batch sizes, and where its operators run."""
    if unrun := case.target.gap("run", case.precision, case.options):
        return _Result(
            warnings=[f"the file was built and inspected, but not loaded: {unrun}"],
        )
    if contents["failures"]:
        return _Result()
    session = workbench.session(case)
    inputs = [_tensor_record(item) for item in session.inputs]
    outputs = [_tensor_record(item) for item in session.outputs]
    failures = [*_dynamic_axes(case, session), *batch_sizes.try_all(workbench, case)]
    placed = session.placement(workbench.single_feed(case))
    placement = placed.as_record()
    return _Result(
        failures=[*failures, *judge_provider(placement)],
        warnings=[*placed.warnings, *judge_placement(placement)],
        measurements={"inputs": inputs, "outputs": outputs, "placement": placement},
    )


def _check_download(
    built: Built, placement: Mapping[str, Any] | None, limits: Mapping[str, Limit]
) -> _Result:
    """How much is downloaded to run the file."""
    download = download_bytes(built.size_bytes, built.gzip_bytes, placement)
    if not download:
        limited = "download_size" in limits or "download_size_gzip" in limits
        text = "download_size is not judged, since the file was not loaded"
        return _Result(warnings=[text] if limited else [])
    if not placement or "runtime_download_bytes" not in placement:
        return _Result(measured=download)
    measurements = {f"{name}_bytes": size for name, size in download.items()}
    return _Result(measurements=measurements, measured=download)


def _check_training_mode(workbench: Workbench, case: Case) -> _Result:
    """Whether the source returned a module that still was in training mode."""
    text = "the source returned a module in training mode; it was set to eval()"
    return _Result(warnings=[text] if _in_training_mode(workbench, case) else [])


def _check_precision(precision: str, contents: Mapping[str, Any]) -> _Result:
    """Whether weights and activations have the precision; the first failure of the two counts."""
    failures: list[str] = []
    share = None
    if contents["format"]:  # nothing is known of a file that can't be read
        failures, share = judge_precision(precision, contents)
    layer_failures, warnings = judge_layers(precision, contents.get("layers"))
    told = precision in STATIC or bool(contents.get("half_operators"))
    if contents["format"] and share is None and precision in _STORED_AS and not (failures or told):
        warnings = [*warnings, f"the file has no weights, so none of them is {precision}"]
    return _Result(
        failures=failures or layer_failures,
        warnings=warnings,
        measurements={} if share is None else {"quantized_weights": share},
        measured={"quantized_weights": share},
    )


def _check_memory(memory: Mapping[str, Any], limits: Mapping[str, Limit]) -> _Result:
    """Whether the activations fit."""
    failures, details = judge_memory(memory, limits.get("activation_memory"))
    measured = {"activation_memory": judged_bytes(memory)}
    return _Result(failures=failures, measured=measured, details=details)


def _check_delegation(placement: Mapping[str, Any] | None, limits: Mapping[str, Limit]) -> _Result:
    """How many operators are not delegated, if the driver reported that."""
    undelegated = (placement or {}).get("undelegated_operators")
    if "undelegated_operators" in limits and undelegated is None:
        text = "undelegated_operators is not judged: nothing is known of where operators run"
        return _Result(warnings=[text])
    return _Result(measured={"undelegated_operators": undelegated})


def _check_lint(contents: Mapping[str, Any]) -> _Result:
    """How many findings the format's linter has, if there is one."""
    lint = contents.get("lint")
    if lint is None:
        return _Result()
    return _Result(measurements={"lint_findings": len(lint)}, measured={"lint_findings": len(lint)})


def download_bytes(
    size_bytes: int, gzip_bytes: int, placement: Mapping[str, Any] | None
) -> dict[str, int]:
    """The bytes downloaded to run the file, by limit: itself, and a runtime that a page loads.

    Args:
        placement: the driver's report, which has ``runtime_download_bytes`` and
            ``runtime_download_gzip_bytes`` if a page loads the runtime; None if the file was not
            loaded, so that nothing is known and the result is empty.
    """
    if placement is None:
        return {}
    return {
        "download_size": size_bytes + placement.get("runtime_download_bytes", 0),
        "download_size_gzip": gzip_bytes + placement.get("runtime_download_gzip_bytes", 0),
    }


def judged_bytes(memory: Mapping[str, Any]) -> int | None:
    """The bytes a microcontroller needs for activations: the greedy plan's arena and variables.

    None if there is no plan.
    """
    if "arena_bytes" not in memory:
        return None
    return int(memory["arena_bytes"] + memory["variables_bytes"])


def judge_memory(memory: Mapping[str, Any], limit: Limit | None) -> tuple[list[str], str]:
    """Why a stated limit can't be judged, and a chart of the memory if the limit is exceeded.

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

    The share, from 0 to 1, is None if the precision stores weights as they are, or there are none.
    """
    elements = contents["weight_elements"]
    if precision not in _STORED_AS:
        others = {kind: count for kind, count in elements.items() if kind in _SMALLER}
        quantized = sum(contents["quantized_operators"].values())
        if quantized or others:
            listed = ", ".join(f"{count} {kind}" for kind, count in others.items()) or "no"
            return [
                f"the file is not {precision} throughout: it has {quantized} quantized operators "
                f"and {listed} weights"
            ], None
        return [], None
    total = sum(elements.values())
    if not total:
        return _judge_without_weights(precision, contents), None
    stored = sum(elements.get(kind, 0) for kind in _STORED_AS[precision])
    share = stored / total
    if stored == 0:
        listed = ", ".join(f"{count} {kind}" for kind, count in elements.items())
        return [f"nothing in the file is {precision}: its weights are {listed}"], share
    if precision != "fp16" and not contents["quantized_operators"]:
        return [f"no operator of the file works on its {precision} weights"], share
    return [], share


def _judge_without_weights(precision: str, contents: Mapping[str, Any]) -> list[str]:
    """Whether a file without weights has the precision: by what its operators compute in.

    Precisions that are about weights alone ask nothing of it, nor does fp16 where only weights are
    stored in it.
    """
    if precision == "fp16" and contents.get("half_operators") == 0:
        return ["nothing in the file is fp16: it has no weights, and no operator computes in it"]
    if precision in STATIC and not contents["quantized_operators"]:
        return [
            f"nothing in the file is {precision}: it has no weights, and no operator computes on "
            "integers: leave the precision out for this model"
        ]
    return []


def judge_layers(
    precision: str, layers: Mapping[str, list[str]] | None
) -> tuple[list[str], list[str]]:
    """Failures and warnings of layers that work on float data although integers are promised.

    Args:
        layers: see `edgecheck.targets.Tools.inspect`; None if that is not known.
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
    """Warnings about operators that are not delegated."""
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


def _tensor_record(tensor: Mapping[str, Any]) -> dict[str, Any]:
    record = {"name": tensor["name"], "shape": tensor["shape"], "dtype": tensor["dtype"]}
    if tensor.get("scale"):
        record |= {"scale": tensor["scale"], "zero_point": tensor["zero_point"]}
    return record


def _dynamic_axes(case: Case, session: LoadedModel) -> list[str]:
    """Dimensions declared dynamic that the file fixes, although the target could keep them."""
    assert session.binding is not None
    if not case.target.files.keeps_dynamic_batch:
        return []
    return [
        f"dimension {name!r} is declared dynamic, but the file fixes it to {size}"
        for name, size in session.binding.fixed.items()
    ]


def _in_training_mode(workbench: Workbench, case: Case) -> bool:
    source = case.model.source
    brought = case.artifact or find_builder(case.model, case.target.name, case.precision)
    if brought or case.variant or source is None or case.precision == "int8-qat":
        return False
    program = workbench.sources.program(f"{case.model_name}:", source, case.model)
    return bool(program.get("training"))
