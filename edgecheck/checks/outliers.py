"""Evaluation samples on which a float candidate's outputs are not the reference's.

This is a part of `edgecheck.checks.accuracy`, on outputs that it has anyway: a metric does not show
an error in a few samples, and parity compares some samples only. Quantized candidates and variants
are not judged, since they differ by design.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.checks import fuzz
from edgecheck.judge.verdict import Evidence
from edgecheck.workbench import USER_SAMPLES

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

Array = npt.NDArray[Any]

# Rounding can turn a decision within a model (a routing, a threshold), in float32 of hardly a
# sample in 10,000; so fewer than these only warn, and so does fp16.
_FAILING_SHARE = 0.01


def measure(
    workbench: Workbench, case: Case, outputs: Mapping[str, str], expected: Mapping[str, str]
) -> Evidence:
    """Judge the worst sample as adversarial inputs are, if it is beyond a limit.

    Args:
        outputs, expected: .npy paths of the candidate's and the reference's outputs on the
            evaluation data, by name.
    """
    session = workbench.session(case)
    binding = session.binding
    files = workbench.data(case, "evaluation")
    whole = binding is not None and set(files["inputs"]) == set(binding.batched)
    if case.precision not in ("fp32", "fp16") or case.variant or binding is None or not whole:
        return Evidence()
    times = _times_limit(case, outputs, expected, files["count"])
    beyond, worst = int((times > 1.0).sum()), int(times.argmax())
    # The samples that parity compares are its own to judge.
    seen = case.model.samples is None and bool((times[:USER_SAMPLES] > 1.0).any())
    if not beyond or seen:
        return Evidence()
    rows = binding.batch or case.model.dim_range("batch")[0]
    judged = fuzz.Trial(workbench, case).judge(_repeated(files["inputs"], worst, rows))
    if not judged.failure:
        return Evidence()
    sentence = (
        f"on {beyond} of {len(times)} evaluation samples the outputs are not the reference's; on "
        f"sample {worst} {judged.failure}"
    )
    fails = case.precision == "fp32" and beyond >= max(2, _FAILING_SHARE * len(times))
    fails = fails and judged.cause != "reference"
    measured = {"unlike_samples": beyond, "most_unlike_sample": worst}
    return Evidence((sentence,) * fails, (sentence,) * (not fails), measured)


def _times_limit(
    case: Case, outputs: Mapping[str, str], expected: Mapping[str, str], samples: int
) -> Array:
    """The largest relative error of each sample in multiples of its output's limit.

    Returns:
        float64 of shape (samples,); zeros if no output has a limit.
    """
    times: Array = np.zeros(samples)
    for name in case.model.outputs:
        limit = case.limits(name).get("max_relative_error")
        if limit is not None and limit.value > 0.0:
            error = relative_errors(_load(outputs[name]), _load(expected[name]), samples)
            times = np.maximum(times, error / limit.value)
    return times


def _repeated(inputs: Mapping[str, str], position: int, rows: int) -> dict[str, Array]:
    """A batch of `rows` rows that repeat one sample of .npy files, by input name."""
    sample = {name: _load(path)[position : position + 1] for name, path in inputs.items()}
    return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in sample.items()}


def relative_errors(candidate: Array, expected: Array, samples: int) -> Array:
    """The largest error of an output on each sample, over its largest value in any sample.

    It is zero if the output does not hold floats with samples on axis 0; values that are not finite
    are judged by other checks.

    Returns:
        float64 of shape (samples,).
    """
    same = candidate.shape == expected.shape and expected.shape[:1] == (samples,)
    if not same or expected.dtype.kind != "f" or expected.size == 0:
        return np.zeros(samples)
    with np.errstate(invalid="ignore"):
        error = np.abs(candidate.astype(np.float64) - expected).reshape(samples, -1)
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    errors: Array = np.nan_to_num(error, nan=0.0, posinf=0.0).max(axis=1)
    return errors / largest if largest else np.zeros(samples)


def _load(path: str) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
