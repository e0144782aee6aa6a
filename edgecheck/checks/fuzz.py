"""Adversarial inputs of the parity check: tries them on reference and candidate, keeps what fails.

An input is held against parity's limits on the error, relative to the largest output that parity's
own inputs gave: alone it may give next to nothing. What the model's rounding explains at that very
input is not a finding. Quantized candidates must only come out finite and in shape.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.capture import data
from edgecheck.checks import fuzz_inputs, yardstick
from edgecheck.checks.fuzz_inputs import Judged
from edgecheck.declare.budget import Limit
from edgecheck.declare.model import BATCH, Input
from edgecheck.digests import digest_of, file_sha256
from edgecheck.errors import ChildError, EdgecheckError
from edgecheck.judge.agreement import Agreement, compare_basics, without_nonfinite
from edgecheck.judge.noise import Noise
from edgecheck.judge.verdict import Comparison, Evidence

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

# Of parity's limits those that mean something on a single input.
_HELD = ("max_abs_error", "max_relative_error", "sqnr_db")
_FLOAT = ("fp32", "fp16")
# Kept inputs that are tried first, the newest.
_KEPT = 100
# Of a .npz member, so that the same input gives the same file (the first year that ZIP knows).
_DATE = (1980, 1, 1, 0, 0, 0)


def wanted(workbench: Workbench, case: Case) -> int:
    """How many inputs to try."""
    asked = workbench.settings.fuzz
    return case.model.fuzz if asked is None else asked


def measure(workbench: Workbench, case: Case) -> Evidence:
    """Try adversarial inputs: the one to replay, or else the kept ones and then a search."""
    settings, count = workbench.settings, wanted(workbench, case)
    if settings.replay is not None:
        trial = Trial(workbench, case)
        arrays = load(settings.replay)
        if problem := misfit(arrays, case.model.inputs):
            raise EdgecheckError(
                f"{settings.replay} is not an input of {case.model_name}: {problem}"
            )
        judged = trial.judge(arrays)
        measured = {"replayed": settings.replay.name, "score": judged.score}
        return _told(judged, arrays, settings.replay, measured, "replayed")
    if not count:
        return Evidence()
    trial, warnings = Trial(workbench, case), []
    kept = _kept(workbench, case)
    for path in kept:
        try:
            arrays = load(path)
            problem = misfit(arrays, case.model.inputs)
        except EdgecheckError as error:
            problem = str(error)
        if problem:
            warnings.append(f"the kept input {path} is not tried, delete it: {problem}")
            continue
        judged = trial.judge(arrays)
        if judged.failure:
            measured = {"kept": len(kept), "examples": 0, "score": judged.score}
            return _told(judged, arrays, path, measured, "kept from an earlier run")
    seed, draw = case.model.seed, case.model.draw
    found = fuzz_inputs.search(
        case.model.inputs, trial.sizes, trial.judge, count=count, seed=seed, draw=draw
    )
    measured = {
        "kept": len(kept),
        "examples": found.examples,
        "score": found.score,
        "worst": found.label,
        "rounding": trial.excused,
    }
    if found.arrays is None or found.judged is None:
        return Evidence(warnings=tuple(warnings), measurements={"fuzz": measured})
    path = save(found.arrays, settings.fuzz_folder, _stem(case))
    origin = f"input {found.examples} of {count} drawn with seed {seed}, made small"
    told = _told(found.judged, found.arrays, path, measured, origin)
    return Evidence(told.failures, tuple(warnings), told.measurements, told.details)


def digest(workbench: Workbench, case: Case) -> list[Any]:
    """All that decides what `measure` does and does not find besides the files and limits."""
    replay = workbench.settings.replay
    kept = _kept(workbench, case) if wanted(workbench, case) else []
    paths = [*kept, *([replay] if replay is not None and replay.is_file() else [])]
    return [wanted(workbench, case), case.model.seed, sorted(file_sha256(path) for path in paths)]


def _told(
    judged: Judged, arrays: Arrays, path: Path, measured: dict[str, Any], origin: str
) -> Evidence:
    """The evidence of one input, failing or not."""
    if not judged.failure:
        return Evidence(measurements={"fuzz": measured})
    details = (
        f"adversarial input ({origin}):\n{fuzz_inputs.describe(arrays)}\n"
        f"it is in {path}; try it again with\n{replay_command(path)}"
    )
    measured = {**measured, "failing": path.name}
    return Evidence(
        (f"adversarial input {path.name}: {judged.failure}",),
        measurements={"fuzz": measured},
        details=details,
    )


def replay_command(path: Path) -> str:
    """The command that tries a saved input again on the candidate whose test this is."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    return shlex.join(["pytest", *([test] if test else []), f"--edge-replay={path}"])


@dataclass(frozen=True)
class _Scale:
    """How large parity's own inputs make an output: largest magnitude, and mean square."""

    largest: float
    power: float

    def agreement(self, values: int) -> Agreement:
        """An agreement that holds errors against so many values of that size already."""
        return Agreement(max_reference=self.largest, reference_power=self.power * values)


class Trial:
    """Tries inputs on the reference and the candidate, in their running processes.

    Attributes:
        sizes: of the named dimensions, as the file leaves them (see
        `edgecheck.checks.fuzz_inputs.recipes`).
        excused: inputs beyond a limit that rounding explains.
    """

    def __init__(self, workbench: Workbench, case: Case) -> None:
        self._workbench = workbench
        self._case = case
        self._folder = (
            workbench.settings.scratch / "fuzz" / digest_of({"case": case.candidate})[:40]
        )
        _, self._reference = workbench.reference_runner(case, main=False)
        self._limits = {
            name: {key: limit for key, limit in case.limits(name).items() if key in _HELD}
            for name in case.model.outputs
        }
        usable = list(workbench.feed_outputs(case))
        outputs = workbench.reference_outputs(
            case, workbench.feeds(case).feeds, "parity", main=False
        )
        self._scales = {
            name: _scale([_load(outputs[index][name]) for index in usable])
            for name in case.model.outputs
        }
        self.sizes = self._sizes()
        self.excused = 0

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        model = self._case.model
        binding = self._workbench.session(self._case).binding
        assert binding is not None
        named = {size for item in model.inputs for size in item.shape if isinstance(size, str)}
        sizes: dict[str, tuple[int, ...]] = {}
        for name in named:
            low, high = model.dim_range(name)
            if name in binding.fixed:
                sizes[name] = (binding.fixed[name],) * 2
            elif name == BATCH:
                sizes[name] = (low, *model.batch_sizes)
            else:
                sizes[name] = (low, high)
        return sizes

    def judge(self, arrays: Arrays) -> Judged:
        """Run both and compare."""
        feed = data.save_feed(arrays, self._folder / "inputs")
        outcome = self._run(feed)
        if isinstance(outcome, Judged):
            return outcome
        outputs, expected = outcome
        for name, output in outputs.items():
            match = self._case.model.output(name).matches_nonfinite
            if problem := compare_basics(output, expected[name], name, "it", match_nonfinite=match):
                broken_reference = problem.startswith("the reference")
                return Judged(math.inf, problem, "reference" if broken_reference else "candidate")
        score, broken = 0.0, dict[str, list[Comparison]]()
        for name, output in outputs.items():
            comparisons = self._comparisons(name, output, expected[name])
            score = max([score, *(_times(item.measured, item.limit) for item in comparisons)])
            if beyond := [item for item in comparisons if not item.passed]:
                broken[name] = beyond
        if self._case.precision not in _FLOAT or not broken:
            return Judged(score)
        for name, comparisons in broken.items():
            rounding = self._is_rounding(feed, arrays, name, outputs, expected)
            if failure := _unexplained(comparisons, rounding):
                return Judged(score, *failure)
        self.excused += 1
        return Judged(0.0)  # the search is to go elsewhere

    def _run(self, feed: Mapping[str, str]) -> tuple[Arrays, Arrays] | Judged:
        """The outputs of candidate and reference, or the failure of the one that can't run."""
        try:
            (paths,) = self._reference([feed], self._folder / "reference", None)
            expected = {name: _load(path) for name, path in paths.items()}
        except ChildError as error:
            return Judged(math.inf, f"the reference does not take it: {error}", "reference")
        try:
            session = self._workbench.session(self._case)
            (paths,) = session.run([feed], self._folder / "candidate")
            outputs = {name: _load(path) for name, path in paths.items()}
        except ChildError as error:
            return Judged(math.inf, f"the candidate does not take it: {error}", "candidate")
        return outputs, expected

    def _comparisons(self, name: str, output: Array, expected: Array) -> list[Comparison]:
        """The agreement of an output, beside each of its limits."""
        declared = self._case.model.output(name)
        if declared.matches_nonfinite:
            expected, output = without_nonfinite(expected, output)
        if expected.dtype.kind in "iub" and not declared.magnitudes:
            return []  # a label at a bound of the domain may be a tie
        agreement = self._scales[name].agreement(output.size)
        agreement.add(output, expected, "", classes=False)
        metrics = agreement.metrics()
        return [Comparison(limit, metrics[key], name) for key, limit in self._limits[name].items()]

    def _is_rounding(
        self,
        feed: Mapping[str, str],
        arrays: Arrays,
        name: str,
        outputs: Arrays,
        expected: Arrays,
    ) -> bool | None:
        """Whether the reference itself rounds as much on this input; None if that is unknown."""
        case = self._case
        source = yardstick.simulated_source(self._workbench, case)
        if source is None:
            return None
        own = {"kind": "float64"}, yardstick.own_arithmetic(self._workbench, case)
        references = []
        for arithmetic in own:
            if arithmetic is None:
                references.append(expected[name])
                continue
            simulated = self._workbench.sources.simulate(
                *source, case.model, [feed], [None], f"fuzz {_sha256(arrays)}", arithmetic
            )
            if simulated["reason"]:
                return None
            references.append(_load(simulated["outputs"][0][name]))
        exact, middle = references
        if exact.shape != middle.shape or exact.shape != outputs[name].shape:
            return None
        noise = Noise(case.precision)
        noise.add(outputs[name], middle, exact)
        if noise.reason:
            return True
        limit = case.limits(name).get("noise_ratio")
        return limit is not None and limit.allows(noise.metrics()["noise_ratio"])


def _unexplained(
    comparisons: Sequence[Comparison], rounding: bool | None
) -> tuple[str, str] | None:
    """The sentence and cause of an error that rounding does not excuse, or None.

    Rounding excuses default limits only.

    Args:
        comparisons: those of an output that are beyond their limits.
        rounding: whether rounding explains the error; None if that is unknown.
    """
    stated = [item for item in comparisons if item.limit.origin != "default"]
    if rounding and not stated:
        return None
    cause = "error" if stated or rounding is not None else "unexplained"
    return (stated or comparisons)[0].sentence(), cause


def _scale(arrays: list[Array]) -> _Scale:
    largest = power = 0.0
    values = 0
    for array in arrays:
        finite = array[np.isfinite(array)].astype(np.float64).ravel()
        largest = max(largest, float(np.abs(finite).max(initial=0.0)))
        power += float(finite @ finite)
        values += finite.size
    return _Scale(largest, power / max(1, values))


def _times(measured: float, limit: Limit) -> float:
    """How many times what a limit allows the error is."""
    if limit.bound == "min":
        return float(10.0 ** ((limit.value - measured) / 20.0))
    if limit.value > 0.0:
        return measured / limit.value
    return math.inf if measured > 0.0 else 0.0


# -- saved inputs


def _stem(case: Case) -> str:
    """The candidate's name as part of a file's."""
    return case.candidate.replace("/", "-").replace(":", "-")


def _kept(workbench: Workbench, case: Case) -> list[Path]:
    """The saved inputs that failed on a candidate before, newest first."""
    found = []
    # The digest has no dash in it: names of other candidates may begin alike.
    for path in workbench.settings.fuzz_folder.glob(f"{_stem(case)}-*.npz"):
        if "-" not in path.stem.removeprefix(f"{_stem(case)}-"):
            found.append(path)
    return sorted(found, key=lambda path: (-path.stat().st_mtime, path.name))[:_KEPT]


def save(arrays: Mapping[str, Array], folder: Path, stem: str) -> Path:
    """Write inputs to a .npz file named by its content; an array by input name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{_sha256(arrays)[:12]}.npz"
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    partial.replace(path)
    return path


def load(path: Path) -> Arrays:
    """The inputs in a .npz file.

    Raises:
        EdgecheckError: it is none.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise EdgecheckError(f"{path} is not an .npz file of inputs: {error}") from error


def misfit(arrays: Mapping[str, Array], inputs: Sequence[Input]) -> str:
    """Why saved arrays are not inputs of a model, or ""."""
    names = [item.name for item in inputs]
    if sorted(arrays) != sorted(names):
        return f"it has {sorted(arrays)}, the inputs are {sorted(names)}"
    sizes: dict[str, int] = {}
    for item in inputs:
        array = arrays[item.name]
        if array.dtype != np.dtype(item.dtype):
            return f"{item.name!r} is {array.dtype}, not {item.dtype}"
        fits = len(array.shape) == len(item.shape) and all(
            sizes.setdefault(size, given) == given if isinstance(size, str) else size == given
            for size, given in zip(item.shape, array.shape, strict=True)
        )
        if not fits or 0 in array.shape:
            return f"{item.name!r} has shape {array.shape}, not {item.shape}"
    return ""


def _sha256(arrays: Mapping[str, Array]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _load(path: str) -> Array:
    array: Array = np.load(path, allow_pickle=False)
    return array
