"""Taking over what passed before: what has to be the same for a case not to be measured again."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck import __version__
from edgecheck.build.sources import own_source, qat_name
from edgecheck.capture.pickling import pack
from edgecheck.checks.fuzz import digest as fuzz_digest
from edgecheck.declare.metrics import as_metric
from edgecheck.declare.model import Artifact, Evaluation, artifact_key
from edgecheck.digests import digest_of, file_sha256
from edgecheck.errors import EdgecheckError
from edgecheck.history.results import fingerprint
from edgecheck.targets.base import versions
from edgecheck.targets.registry import find_target

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

# These limits are judged against another file, timed in the same run.
_RELATIVE = ("latency_vs_fp32", "latency_vs_baseline")
_OF_DEVICE = ("latency", "memory")


def inputs_digest(
    case: Case, check: str, workbench: Workbench, device: Mapping[str, Any]
) -> str | None:
    """All that decides a standard check's outcome, as one digest.

    That is the model file and how it is bound, the data, the reference, the limits, the tools'
    versions, the processor, and for latency and memory the whole device. The reference counts by
    its captured program; the user's metric by its function and that one's file.

    Returns None where it can't be told, so that the case must be measured.
    """
    try:
        facts = _facts(case, check, workbench, device)
    except EdgecheckError:
        return None
    return None if facts is None else digest_of(facts)


def _facts(
    case: Case, check: str, workbench: Workbench, device: Mapping[str, Any]
) -> dict[str, Any] | None:
    limits = {
        f"{output}/{part}": {
            name: asdict(limit) for name, limit in case.limits(output, part).items()
        }
        for output in ("", *case.model.outputs)
        for part in ("", *case.model.output(output).parts)
    }
    if check == "latency" and any(name in limits["/"] for name in _RELATIVE):
        return None
    built, model = workbench.built(case), case.model
    facts: dict[str, Any] = {
        "edgecheck": __version__,
        "check": check,
        "artifact": built.sha256,
        "binding": _binding(built.declared),
        "limits": limits,
        "tools": {
            **versions((*case.target.build.distributions, case.target.runtime.package)),
            **case.target.runtime.other_versions(),
        },
        # A runtime's kernels differ between processors, and with them its rounding.
        "processor": [device.get(name) for name in ("system", "machine", "cpu")],
        "inputs": [asdict(item) for item in model.inputs],
        "outputs": [repr(model.output(name)) for name in model.outputs],
        "dims": dict(model.dims),
        "options": case.options,
        "batch_sizes": list(model.batch_sizes),
    }
    if check in _OF_DEVICE:
        facts["device"] = fingerprint(device)
        facts["feed"] = _files_sha256(workbench.single_feed(case))
    if check in ("parity", "accuracy"):
        facts["reference"] = _references(case, workbench)
    if check == "parity":
        facts["vacuous"] = workbench.settings.vacuous
        facts["rebuild"] = workbench.settings.rebuild
        facts["fuzz"] = fuzz_digest(workbench, case)
        facts["draw"] = _code_sha256(model.draw)
        facts["feeds"] = [_files_sha256(item) for item in workbench.feeds(case).feeds]
    if check == "accuracy":
        evaluation = case.model.evaluation
        assert evaluation is not None
        facts["data"] = workbench.data(case, "evaluation")["sha256"]
        facts["evaluation"] = [evaluation.output, evaluation.batch_size, *_scale(evaluation)]
        metric = as_metric(evaluation.metric)
        code = (metric, metric.per_sample, metric.combine, evaluation.postprocess)
        facts["code"] = [_code_sha256(item) for item in code]
        facts["seed"] = model.seed
    return facts


def _references(case: Case, workbench: Workbench) -> list[str]:
    """Digests of the model's reference and of the candidate's own float program."""
    model = case.model
    if model.reference == "source":
        assert model.source is not None
        name = f"{case.model_name}:"
        found = [workbench.sources.program(name, model.source, model)["digest"]]
    else:
        target, precision = artifact_key(model.reference)
        reference = replace(
            case, variant="", target=find_target(target), precision=precision, unsupported=""
        )
        built = workbench.built(reference)
        found = [built.sha256, digest_of(_binding(built.declared))]
    if case.variant:
        found.append(workbench.sources.program(*own_source(case), model)["digest"])
    qat = model.qat_source(case.target.name) if case.precision == "int8-qat" else None
    if qat is not None:
        found.append(workbench.sources.program(qat_name(case), qat, model)["digest"])
    return found


def _binding(artifact: Artifact) -> dict[str, Any]:
    """How the tensors of a file correspond to the declared ones; not where the file is."""
    return {
        "inputs": dict(artifact.inputs),
        "outputs": dict(artifact.outputs),
        "transpose": {name: list(axes) for name, axes in artifact.transpose.items()},
    }


def _scale(evaluation: Evaluation) -> list[Any]:
    metric = as_metric(evaluation.metric)
    return [metric.name, metric.higher_is_better, metric.fraction, evaluation.drop_policy]


def _files_sha256(feed: Mapping[str, str]) -> dict[str, str]:
    return {name: file_sha256(Path(path)) for name, path in feed.items()}


def _code_sha256(code: object) -> str:
    """Of the user's metric or post-processing: the function, and the file that it stands in."""
    function = getattr(code, "function", code)
    digest = hashlib.sha256(pack(function))
    file = getattr(sys.modules.get(getattr(function, "__module__", "")), "__file__", None)
    if file is not None:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()
