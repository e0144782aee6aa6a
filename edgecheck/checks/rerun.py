"""Runs a candidate on the same input again: twice, after another, in a batch, with more threads.

Part of the parity check's evidence, at single-sample size: about ten inferences and one load. Not
for judging the differences: see `edgecheck.judge.determinism`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.capture import data, drawing
from edgecheck.digests import digest_of
from edgecheck.judge import determinism
from edgecheck.judge.determinism import AFTER_OTHERS, BATCH, THREADS, TWICE, Difference
from edgecheck.judge.verdict import Evidence

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.devices.binding import Binding
    from edgecheck.workbench import Workbench

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

# Of the run with more threads; the same number on all machines.
_THREADS = 4


def measure(workbench: Workbench, case: Case, noise: Mapping[str, float]) -> Evidence:
    """Whether the candidate repeats itself.

    Args:
        noise: by output, how much rounding alone moves it, in its unit, where that is known.
    """
    usable = workbench.feed_outputs(case)
    session = workbench.session(case)
    binding = session.binding
    assert binding is not None
    folder = workbench.settings.scratch / "repeating" / digest_of({"case": case.candidate})[:40]
    first, other = _inputs(workbench, case, binding, list(usable))
    one, two = data.save_feed(first, folder / "first"), data.save_feed(other, folder / "other")
    paths = session.run([one, one, two, one], folder / "runs")
    before, twice, _, after = (_load(item) for item in paths)
    found = {TWICE: _differences(before, twice), AFTER_OTHERS: _differences(before, after)}
    found |= _in_batch(workbench, case, binding, first, other, before)
    reopened = workbench.device.reopen(
        case.candidate,
        case.target,
        workbench.built(case).path,
        case.options,
        binding,
        threads=_THREADS,
    )
    (threaded,) = reopened.run([one], folder / "threads")
    found[THREADS] = _differences(before, _load(threaded))
    failures, warnings = determinism.judge(
        case.precision, found, noise, repeats=case.target.runtime.deterministic
    )
    measured = {
        way: {name: item.as_data() for name, item in differences.items()}
        for way, differences in found.items()
    }
    return Evidence(
        tuple(failures),
        tuple(warnings),
        {"repeatability": {"threads": _THREADS, "differences": measured}},
    )


def _inputs(
    workbench: Workbench, case: Case, binding: Binding, usable: list[int]
) -> tuple[Arrays, Arrays]:
    """The smallest call that the file takes, of the user's samples if there are any; another."""
    model = case.model
    feeds = workbench.feeds(case)
    position = next((item for item in usable if feeds.labels[item] == "samples"), usable[0])
    rows = binding.batch or model.dim_range("batch")[0]
    first: Arrays = {}
    for name, path in feeds.feeds[position].items():
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        batched = name in binding.batched
        first[name] = np.resize(array, (rows, *array.shape[1:])) if batched else np.array(array)
    rng = np.random.default_rng(model.seed + 2)
    sizes = {**feeds.sizes[position], "batch": rows}
    return first, drawing.random_call(model.inputs, sizes, rng, model.draw)


def _in_batch(
    workbench: Workbench,
    case: Case,
    binding: Binding,
    first: Arrays,
    other: Arrays,
    before: Arrays,
) -> dict[str, dict[str, Difference]]:
    """Difference between running alone and batched, if the batch was declared to be one.

    Between two others where the file takes as many; where it is fixed to a batch, its first sample
    as the last beside others.
    """
    batched = [item.name for item in case.model.inputs if item.batched]
    if not batched:
        return {}
    rows = len(first[batched[0]])
    called = dict(first)
    if binding.batch is None:
        high = case.model.dim_range("batch")[1]
        if high < 2 * rows:
            return {}
        for name in batched:
            trio = (other[name], first[name], other[name])
            called[name] = np.concatenate(trio if high >= 3 * rows else trio[:2])
        own, place = slice(None), slice(rows, 2 * rows)
    elif rows > 1:
        for name in batched:
            called[name] = np.concatenate((other[name][1:], first[name][:1]))
        own, place = slice(1), slice(rows - 1, None)
    else:
        return {}
    folder = workbench.settings.scratch / "repeating" / digest_of({"batch": case.candidate})[:40]
    (paths,) = workbench.session(case).run([data.save_feed(called, folder / "inputs")], folder)
    found: dict[str, Difference] = {}
    for name, array in _load(paths).items():
        alone = before[name]
        # An output of another size has no row a sample.
        if alone.shape[:1] == (rows,) and array.shape[:1] == (len(called[batched[0]]),):
            found[name] = determinism.difference(alone[own], array[place])
    return {BATCH: found}


def _differences(first: Arrays, again: Arrays) -> dict[str, Difference]:
    return {name: determinism.difference(array, again[name]) for name, array in first.items()}


def _load(paths: Mapping[str, str]) -> Arrays:
    return {name: np.load(path, allow_pickle=False) for name, path in paths.items()}
