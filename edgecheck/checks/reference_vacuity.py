"""The findings of vacuity on a case, gathered from runs and judged by `edgecheck.judge.vacuity`.

They are about the reference's outputs, how they react to changed inputs, and the user's data. This
is a part of `edgecheck.checks.reference_baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.capture import data
from edgecheck.capture.drawing import drawn_inputs
from edgecheck.declare.budget import Limit
from edgecheck.declare.model import Input, Model
from edgecheck.errors import ChildError
from edgecheck.judge import vacuity
from edgecheck.judge.vacuity import Finding
from edgecheck.names import CALIBRATED

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Feeds, Workbench

Array = npt.NDArray[Any]

# Inputs that are changed one at a time to see whether the reference reacts, at most.
_PROBED_INPUTS = 8
# Values that are tried of an input whose dtype is not a float.
_DISCRETE_PROBES = 4
_DRAWS = 8  # an input of few possible values may be drawn unchanged
# Evenly spaced samples of a data set from which its range is taken.
_RANGED_SAMPLES = 256


def gather(
    workbench: Workbench,
    case: Case,
    feeds: Feeds,
    reference: Sequence[Mapping[str, str]],
    limits: Mapping[str, Mapping[str, Limit]],
) -> list[Finding]:
    """The findings about the reference's outputs, then those about the user's data.

    Args:
        reference: .npy path of the reference's outputs by name, for each feed.
        limits: by output and metric.
    """
    outputs = {name: [_load(paths[name]) for paths in reference] for name in case.model.outputs}
    probes = _probe(workbench, case, feeds)
    constant = {
        name: vacuity.constant_output(name, _calls(name, arrays, feeds, probes))
        for name, arrays in outputs.items()
    }
    findings: list[Finding] = []
    for name, arrays in outputs.items():
        findings += constant[name] or vacuity.magnitude(name, _largest(arrays), limits[name])
    if not all(constant.values()):
        findings += _dead_inputs(reference[0], probes)
    return findings + _sample_findings(case, feeds) + _calibration_findings(workbench, case)


@dataclass(frozen=True)
class _Probe:
    """The first feed with one input changed.

    Attributes:
        changed: the input's name.
        outputs: .npy path of the reference's outputs by name.
    """

    changed: str
    outputs: Mapping[str, str]


def _calls(
    name: str, arrays: Sequence[Array], feeds: Feeds, probes: Sequence[_Probe]
) -> list[list[Array]]:
    """The values of an output that should differ: all of inputs of one shape, and the probes."""
    by_shape: dict[Any, list[Array]] = {}
    for array, feed, sizes in zip(arrays, feeds.feeds, feeds.sizes, strict=True):
        rows = {len(item) for item in map(_load, feed.values()) if item.ndim}
        batched = array.ndim > 0 and {len(array)} == rows
        others = tuple(sorted((key, size) for key, size in sizes.items() if key != "batch"))
        group = by_shape.setdefault((others, batched, () if batched else array.shape), [])
        group += list(array) if batched else [array]
    return [
        *by_shape.values(),
        [arrays[0], *(_load(probe.outputs[name]) for probe in probes)],
    ]


def _largest(arrays: Sequence[Array]) -> float:
    """The largest finite magnitude; 0 without any."""
    return max(
        (float(np.abs(item[np.isfinite(item)]).max(initial=0.0)) for item in arrays), default=0.0
    )


def _dead_inputs(unchanged: Mapping[str, str], probes: Sequence[_Probe]) -> list[Finding]:
    """A finding for each input that changes no output, whichever of its probes is tried."""
    before = {name: _load(path) for name, path in unchanged.items()}
    by_input: dict[str, list[list[Finding]]] = {}
    for probe in probes:
        after = {name: _load(path) for name, path in probe.outputs.items()}
        dead = vacuity.dead_input(probe.changed, before, after)
        by_input.setdefault(probe.changed, []).append(dead)
    return [item for tried in by_input.values() if all(tried) for item in tried[0]]


def _probe(workbench: Workbench, case: Case, feeds: Feeds) -> list[_Probe]:
    """Run the reference on the first feed with one input changed at a time."""
    probes, changed = _probe_feeds(workbench, case, feeds)
    if not probes:
        return []
    if case.model.draw is not None:
        return _valid_probes(workbench, case, probes, changed)
    outputs = workbench.reference_outputs(case, probes, "probes", main=False)
    return [_Probe(name, paths) for name, paths in zip(changed, outputs, strict=True)]


def _valid_probes(
    workbench: Workbench,
    case: Case,
    probes: Sequence[Mapping[str, str]],
    changed: Sequence[str],
) -> list[_Probe]:
    """The probes that the reference takes: drawn inputs may be valid together only."""
    found = []
    for position, (feed, name) in enumerate(zip(probes, changed, strict=True)):
        what = f"probe {position}"
        try:
            (paths,) = workbench.reference_outputs(case, [feed], what, main=False)
        except ChildError:
            continue
        found.append(_Probe(name, paths))
    return found


def _probe_feeds(
    workbench: Workbench, case: Case, feeds: Feeds
) -> tuple[list[dict[str, str]], list[str]]:
    """The first feed with one input changed at a time, and the names of those inputs.

    An input whose dtype is not a float is changed several times: two ids may well mean the same.
    """
    folder = workbench.settings.scratch / "probes" / case.model_name
    rng = np.random.default_rng(case.model.seed + 1)
    probes: list[dict[str, str]] = []
    changed: list[str] = []
    for item in case.model.inputs[:_PROBED_INPUTS]:
        before = _load(feeds.feeds[0][item.name])
        left = 1 if np.dtype(item.dtype).kind == "f" else _DISCRETE_PROBES
        for _ in range(_DRAWS):
            drawn = _drawn(case.model, item, feeds.sizes[0], rng)
            if not np.array_equal(drawn[item.name], before):
                paths = data.save_feed(drawn, folder / str(len(probes)))
                probes.append({**feeds.feeds[0], **paths})
                changed.append(item.name)
                left -= 1
                if not left:
                    break
    return probes, changed


def _drawn(
    model: Model, item: Input, sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, Array]:
    """Another value of an input."""
    others = drawn_inputs(model.inputs, sizes, rng, model.draw)
    if item.name in others:
        return {item.name: others[item.name]}
    return data.random_inputs([item], sizes, rng)


def _sample_findings(case: Case, feeds: Feeds) -> list[Finding]:
    """Findings about the user's samples: whether they are within the declared domain."""
    pairs = zip(feeds.feeds, feeds.labels, strict=True)
    samples = [feed for feed, label in pairs if label == "samples"]
    if not samples:
        return []
    return [
        finding
        for item in case.model.inputs
        if item.dtype != "bool"
        for finding in vacuity.sample_domain(
            item.name,
            np.concatenate([_load(feed[item.name]).reshape(-1) for feed in samples]),
            item.low,
            item.high,
        )
    ]


def _calibration_findings(workbench: Workbench, case: Case) -> list[Finding]:
    """Findings about the calibration data: whether its range is that of the evaluation data."""
    model = case.model
    if case.precision not in CALIBRATED or model.calibration is None or not model.evaluation:
        return []
    calibration, evaluation = (
        workbench.data(case, what)["inputs"] for what in ("calibration", "evaluation")
    )
    return [
        finding
        for item in model.inputs
        if np.dtype(item.dtype).kind == "f"
        for finding in vacuity.calibration_range(
            item.name, _spread(calibration[item.name]), _spread(evaluation[item.name])
        )
    ]


def _spread(path: str) -> Array:
    """Evenly spaced samples of a .npy file, few enough to read."""
    array = _load(path)
    rows = np.linspace(0, len(array) - 1, min(len(array), _RANGED_SAMPLES)).astype(int)
    samples: Array = array[rows]
    return samples


def _load(path: str) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
