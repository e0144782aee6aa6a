"""The parent's side of localisation: feeds, child processes, and the finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecheck.build.sources import own_source, qat_name
from edgecheck.capture import data
from edgecheck.capture.client import is_onnx
from edgecheck.declare.model import Artifact, Source, artifact_key
from edgecheck.devices.binding import bind
from edgecheck.errors import EdgecheckError
from edgecheck.localization import judgement, matching
from edgecheck.names import CALIBRATED
from edgecheck.process.parent import Child, Service
from edgecheck.runtime import trace as traces
from edgecheck.targets.registry import target_of_source

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.localization.judgement import FaultLocation
    from edgecheck.workbench import Workbench

_REFERENCE = "edgecheck.localization.reference:ReferenceTracer"
# Inputs within 100x of the worst error power are equally good.
_MUCH_WORSE = 100.0
# Inferences that are traced, those with the largest errors.
CALLS = 4
# Of one side's intermediate tensors.
_LIMIT_BYTES = 1 << 28

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Localization:
    """Where a candidate departs from its reference.

    Attributes:
        kind: ``none`` (outputs agree), ``layer``, ``input`` (the first layer that reads the input),
            ``outputs`` (only there), ``spread`` (no layer stands out), ``capture`` (the captured
            program is not the model), ``runtime`` (only with all of the runtime's optimizations),
            ``faint`` (outputs agree, and a layer of an int8 candidate stands out).
        judgement: of the layers.
        permuted: outputs that carry another's values.
        output_errors: root of the relative error power by output, of the looked-into calls.
        calls: how many.
        inputs: what they are.
        note: how the candidate was traced.
    """

    candidate: str
    kind: str
    steps: tuple[traces.Step, ...]
    tensors: tuple[traces.Tensor, ...]
    judgement: FaultLocation
    permuted: Mapping[str, str]
    output_errors: Mapping[str, float]
    calls: int
    inputs: str
    note: str


def unavailable(case: Case) -> str:
    """Why a candidate can't be traced, or ""."""
    if not case.target.runtime.tracer:
        unknown = f"{case.target.name} candidates can't be traced"
        return case.target.runtime.untraceable or unknown
    return _reference_source(case)[0]


def _reference_source(case: Case) -> tuple[str, str, Source]:
    """Why the reference can't be traced or "", and else its name and source.

    The same one that parity compares with (`Workbench.reference_outputs`).
    """
    model = case.model
    if not case.variant and case.precision == "int8-qat":
        own = model.qat_source(case.target.name)
        if own is not None:
            return "", qat_name(case), own
    if case.variant:
        return "", *own_source(case)
    if model.reference != "source":
        name, precision = artifact_key(model.reference)
        return f"the reference is the {name} {precision} file, which is not traced", "", ""
    if model.source is None:
        return "the model has no source to trace", "", ""
    return "", f"{case.model_name}:", model.source


def localize(
    workbench: Workbench, case: Case, progress: Progress = lambda text: None
) -> Localization:
    """Look into a candidate and its reference.

    Args:
        progress: is told what is being done.

    Raises:
        EdgecheckError: it can't be had, run, or traced.
    """
    if reason := unavailable(case):
        raise EdgecheckError(f"{case.candidate} can't be localized: {reason}")
    folder = _folder(workbench, case)
    progress("running candidate and reference")
    feeds, inputs = worst_feeds(workbench, case, folder / "feeds")
    progress("tracing the reference")
    reference = _trace_reference(workbench, case, feeds, folder / "reference")
    feeds = feeds[: reference["calls"]]
    progress("tracing the candidate")
    candidate = _trace_candidate(workbench, case, feeds, folder / "candidate")
    progress("matching layers")
    steps = tuple(map(traces.step, reference["steps"]))
    judged, limits, faint = judge_traces(steps, candidate.tensors, case.precision, candidate.slack)
    real = _real_outputs(workbench, case, feeds, folder)
    errors = _output_errors(reference["outputs"], real["candidate"])
    traced = _output_errors(reference["outputs"], candidate.outputs)
    captured = _output_errors(real["reference"], reference["outputs"])
    limit = max(limits[-3:], default=judgement.FLOOR["fp32"])
    permuted = judgement.permuted_outputs(errors, limit)
    own = {name: row.get(name, float("inf")) for name, row in errors.items()}
    kind = _kind(judged, permuted, own, traced, captured, limit)
    if kind == "none" and faint is not None:
        kind, judged = "faint", faint
    return Localization(
        candidate=case.candidate,
        kind=kind,
        steps=steps,
        tensors=candidate.tensors,
        judgement=judged,
        permuted=permuted,
        output_errors=own,
        calls=len(feeds),
        inputs=inputs,
        note=candidate.note,
    )


def judge_traces(
    steps: Sequence[traces.Step],
    tensors: Sequence[traces.Tensor],
    precision: str,
    slack: Mapping[str, float],
) -> tuple[FaultLocation, list[float], FaultLocation | None]:
    """The judgement of two traces, the error up to which each step agrees (`Tracer.slack`), and a
    faint fault."""
    left = [traces.load(item.path) for item in steps]
    right = [traces.load(item.path) for item in tensors]
    pairs = matching.refined(matching.find_pairs(left, right), left, right)
    limits = judgement.tolerances(steps, precision, slack=slack)
    unseen = {position for position, values in enumerate(left) if matching.too_small(values)}
    judged = judgement.judge(steps, pairs, limits, unseen)
    if judged.broken:
        sharp = judgement.tolerances(steps, precision, slack=slack, sharp=True)
        sharper = judgement.judge(steps, pairs, sharp, unseen)
        judged = sharper if sharper.stands_out else judged
    # Looked for where it was tried on sound files: a quantizer to 4 bits has more freedom.
    faint = None
    if precision == "int8":
        faint = judgement.judge_faint(steps, pairs, limits, unseen)
    return judged, limits, faint


def _kind(
    judged: FaultLocation,
    permuted: Mapping[str, str],
    own: Mapping[str, float],
    traced: Mapping[str, Mapping[str, float]],
    captured: Mapping[str, Mapping[str, float]],
    limit: float,
) -> str:
    if any(row.get(name, float("inf")) > limit for name, row in captured.items()):
        return "capture"
    if permuted:
        return "outputs"
    if judged.broken and judged.stands_out:
        return "input" if judged.from_input else "layer"
    if all(error <= limit for error in own.values()):
        return "none"
    if judged.broken:
        return "spread"
    inside = max(row.get(name, float("inf")) for name, row in traced.items())
    return "runtime" if inside <= limit else "outputs"


def _folder(workbench: Workbench, case: Case) -> Path:
    safe = "".join(letter if letter.isalnum() else "-" for letter in case.candidate)
    folder = workbench.settings.scratch / "localization" / safe
    for name in ("feeds", "reference", "candidate", "real"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def worst_feeds(workbench: Workbench, case: Case, folder: Path) -> tuple[list[dict[str, str]], str]:
    """Single calls of the candidate's inputs with the largest errors, and what they are of.

    Raises:
        EdgecheckError: its outputs do not have the reference's shapes.
    """
    feeds = workbench.feeds(case)
    results = workbench.feed_outputs(case)
    expected = workbench.reference_outputs(case, feeds.feeds, "parity", main=False)
    binding = workbench.binding(case)
    powers = {
        index: _row_errors(outputs, expected[index], case) for index, outputs in results.items()
    }
    sampled = [index for index in results if feeds.labels[index] == "samples"]
    # Quantizers are made for the data: see the parity check.
    worst = max(power for power, _ in powers.values())
    bad = [index for index, (power, _) in powers.items() if power * _MUCH_WORSE >= worst]
    if sampled and case.precision not in ("fp32", "fp16"):
        chosen = sampled[0]
    else:  # samples where they show it, else as many rows as there are
        chosen = max(bad, key=lambda index: (index in sampled, len(powers[index][1])))
    arrays = {
        name: np.load(path, mmap_mode="r", allow_pickle=False)
        for name, path in feeds.feeds[chosen].items()
    }
    label = f"{feeds.labels[chosen]}, seed {case.model.seed}"
    if not binding.batched:
        return [data.save_feed(arrays, folder / "0")], label
    step = binding.batch or 1
    rows = len(arrays[binding.batched[0]])
    error = np.resize(powers[chosen][1], rows)
    groups = [np.arange(start, start + step) % rows for start in range(0, rows, step)]
    groups.sort(key=lambda group: -float(error[group].sum()))
    calls = []
    for number, group in enumerate(groups[:CALLS]):
        call = {
            name: array[group] if name in binding.batched else array
            for name, array in arrays.items()
        }
        calls.append(data.save_feed(call, folder / str(number)))
    return calls, label


def _row_errors(
    outputs: Mapping[str, str], expected: Mapping[str, str], case: Case
) -> tuple[float, np.ndarray[Any, Any]]:
    """The largest relative error of a feed's outputs, and the error power of each row."""
    worst, rows = 0.0, np.zeros(1)
    for name in case.model.outputs:
        left = np.load(expected[name], allow_pickle=False).astype(np.float64)
        right = np.load(outputs[name], allow_pickle=False).astype(np.float64)
        # A file of fixed batch takes a part of the feed.
        if left.shape[1:] != right.shape[1:] or left.ndim != right.ndim:
            raise EdgecheckError(
                f"output {name!r} has shape {right.shape}, the reference {left.shape}: "
                "there is nothing to localize before they agree"
            )
        left = left[: len(right)] if left.ndim else left
        error = np.nan_to_num((right - left) ** 2, nan=1e300, posinf=1e300)
        power = float((left**2).sum())
        worst = max(worst, float(error.sum()) / power if power > 0 else 0.0)
        own = error.reshape(len(error), -1).sum(axis=1) if error.ndim else error.reshape(1)
        rows = own if len(rows) < len(own) else rows + np.resize(own, len(rows))
    return worst, rows


def _trace_reference(
    workbench: Workbench, case: Case, feeds: Sequence[Mapping[str, str]], folder: Path
) -> dict[str, Any]:
    _, name, source = _reference_source(case)
    timeout_s = workbench.settings.timeout_s
    arguments = {"feeds": [dict(feed) for feed in feeds], "directory": str(folder)}
    if is_onnx(source):
        target = target_of_source("onnx")
        options = {"threads": 1, "optimize": False, "target": dict(target.options.defaults)}
        with _child(workbench, target.runtime.tracer) as child:
            info = _open(child, workbench.sources.existing(source, "source"), options, timeout_s)
            own = bind(
                case.model.inputs,
                case.model.outputs,
                info["inputs"],
                info["outputs"],
                Artifact(str(source)),
            )
            child.call("bind", timeout_s=timeout_s, binding=own.for_runner())
            found: dict[str, Any] = child.call(
                "reference", timeout_s=timeout_s, limit_bytes=_LIMIT_BYTES, **arguments
            )
        return found
    program = workbench.sources.program(name, source, case.model)
    if program["kind"] != "torch":
        raise EdgecheckError(
            f"{case.candidate} can't be localized: its source is a {program['kind']} model, "
            "and only PyTorch and ONNX ones are traced"
        )
    calibrated = case.precision in CALIBRATED
    calls = workbench.sources.calibration(case.model_name, case.model, folder) if calibrated else []
    # Kept for the next case: what costs is importing torch.
    child, _ = workbench.workers.get("reference tracer", _service(_REFERENCE))
    traced: dict[str, Any] = child.call(
        "trace",
        timeout_s=timeout_s,
        program=program["path"],
        outputs=list(case.model.outputs),
        precision=case.precision,
        limit_bytes=_LIMIT_BYTES,
        calibration=calls,
        **arguments,
    )
    return traced


def _trace_candidate(
    workbench: Workbench, case: Case, feeds: Sequence[Mapping[str, str]], folder: Path
) -> traces.Trace:
    options = {"threads": 1, "optimize": True, "target": dict(case.options)}
    binding, timeout_s = workbench.binding(case).for_runner(), workbench.settings.timeout_s
    with _child(workbench, case.target.runtime.tracer) as child:
        _open(child, workbench.built(case).path, options, timeout_s)
        child.call("bind", timeout_s=timeout_s, binding=binding)
        fields = child.call(
            "trace_data",
            timeout_s=timeout_s,
            feeds=[dict(feed) for feed in feeds],
            directory=str(folder),
        )
    return traces.Trace.from_data(fields)


def _child(workbench: Workbench, service: str) -> Child:
    return Child(_service(service), workbench.settings.scratch / "logs")


def _service(name: str) -> Service:
    return Service(name, environment={"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"})


def _open(child: Child, path: Path, options: Mapping[str, Any], timeout_s: float) -> Any:
    return child.call("load", timeout_s=timeout_s, path=str(path), options=dict(options))


def _real_outputs(
    workbench: Workbench, case: Case, feeds: list[dict[str, str]], folder: Path
) -> dict[str, dict[str, str]]:
    """What candidate and reference really give for the feeds, stacked, by side and output."""
    found = {
        "candidate": workbench.session(case).run(feeds, folder / "real"),
        "reference": workbench.reference_outputs(
            case, feeds, f"localization {case.candidate}", main=False
        ),
    }
    stacked: dict[str, dict[str, str]] = {}
    for side, calls in found.items():
        stacked[side] = {}
        for position, name in enumerate(case.model.outputs):
            values = np.stack([np.load(call[name], allow_pickle=False) for call in calls])
            path = folder / f"{side}-{position}.npy"
            np.save(path, values, allow_pickle=False)
            stacked[side][name] = str(path)
    return stacked


def _output_errors(
    reference: Mapping[str, str], candidate: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Errors of outputs of equal shape, by the reference's name and the candidate's."""
    left = {name: traces.load(path) for name, path in reference.items()}
    right = {name: traces.load(path) for name, path in candidate.items()}
    return {
        name: {
            other: _error(values, found)
            for other, found in right.items()
            if found.shape == values.shape
        }
        for name, values in left.items()
    }


def _error(reference: traces.Array, candidate: traces.Array) -> float:
    if not np.asarray(reference).any():
        return 0.0 if not np.asarray(candidate).any() else float("inf")
    return matching.relative_error(reference, candidate, range(reference.ndim - 1))
