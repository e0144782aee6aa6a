"""Adversarial inputs: drawn from the declared domain, guided towards the worst, made small.

Hypothesis draws a recipe (a pattern and a few single values an input), not an array: large inputs
cost nothing, and what fails shrinks fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.capture.data import random_inputs
from edgecheck.capture.drawing import drawn_inputs, tied_inputs
from edgecheck.declare.model import BATCH, Draw, Input
from edgecheck.errors import EdgecheckError

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

# Simple patterns first: Hypothesis shrinks towards them.
PATTERNS = ("constant", "ramp", "alternating", "blocks", "extremes", "random")
# Values of interest; those that a domain does not have are its lowest.
LEVELS = ("zero", "low", "high", "middle", "over low", "under high", "tiny", "odd")
# Other values are so many parts of the domain from its low end: what a search can climb along.
PARTS = 1024
_EDITS = 4
_POSITIONS = 1_000_003  # edits are placed by this modulus, so that small shapes are covered evenly
_SHRINK_RUNS = 300
_SIMPLIFY_RUNS = 200
# Scores are guided on a logarithmic scale within this range.
_LOWEST, _HIGHEST = 1e-12, 1e12


@dataclass(frozen=True)
class Pattern:
    """What one input is made of.

    Attributes:
        base: one of `PATTERNS`.
        level: the constant, and the one end of what alternates: one of `LEVELS`, or a number of
            `PARTS`.
        seed: of what is random.
        edits: single elements, as position (modulo the number of elements) and level.
    """

    base: str = "constant"
    level: str | int = "zero"
    seed: int = 0
    edits: tuple[tuple[int, str | int], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """All inputs of one call, with the sizes of the named dimensions."""

    sizes: tuple[tuple[str, int], ...]
    patterns: tuple[Pattern, ...]

    @property
    def label(self) -> str:
        """The recipe in words."""
        words = []
        for item in self.patterns:
            value = f"{item.level}/{PARTS}" if isinstance(item.level, int) else item.level
            text = f"{item.base} {value}" if item.base == "constant" else item.base
            words.append(f"{text} with {len(item.edits)} single values" if item.edits else text)
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes)
        return " / ".join(words) + (f", {sizes}" if sizes else "")


@dataclass(frozen=True)
class Judged:
    """What one input showed.

    Attributes:
        score: error over what is allowed; above 1 is a disagreement, finite or not.
        failure: a sentence where the input fails, or "".
        cause: of a failure: ``"reference"`` or ``"candidate"`` where that does not take the input
            or gives NaN, infinite values or another shape; ``"error"`` beyond what rounding
            explains; ``"unexplained"``, where nothing is known of rounding.
    """

    score: float
    failure: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        examples: inputs that were judged before the first failure, or in all.
        score, label: of the worst of those that did not fail.
        arrays, judged: the smallest failing input and what it showed; None where none fails.
    """

    examples: int
    score: float
    label: str
    arrays: Arrays | None = None
    judged: Judged | None = None


Judge = Callable[[Arrays], Judged]


def level(item: Input, name: str | int) -> Any:
    """A value of interest of an input's domain, in its dtype; for a number, so many `PARTS`."""
    dtype = np.dtype(item.dtype)
    if isinstance(name, int):
        return _part(item, name)
    if dtype.kind == "b":
        return np.bool_(name in ("high", "under high", "odd"))
    if dtype.kind in "iu":
        low, high = math.ceil(item.low), math.floor(item.high)
        # 2^24 + 1 is the first integer that float32 can't hold.
        odd = 2**24 + 1
        whole = {
            "zero": 0,
            "high": high,
            "middle": (low + high) // 2,
            "over low": low + 1,
            "under high": high - 1,
            "tiny": 1,
            "odd": odd if odd <= high else high,
        }.get(name, low)
        return dtype.type(whole if low <= whole <= high else low)
    low_value, high_value = dtype.type(item.low), dtype.type(item.high)
    if item.step is not None:
        count = int((item.high - item.low) / item.step + 1e-6)
        at = {
            "zero": round(-item.low / item.step),
            "high": count,
            "middle": count // 2,
            "over low": 1,
            "under high": count - 1,
            "odd": count // 3,
        }.get(name, 0)
        return dtype.type(item.low + min(max(at, 0), count) * item.step)
    number = {
        "zero": dtype.type(0),
        "high": high_value,
        "middle": dtype.type(item.low / 2 + item.high / 2),
        "over low": np.nextafter(low_value, high_value),
        "under high": np.nextafter(high_value, low_value),
        "tiny": np.finfo(dtype).smallest_subnormal,
        "odd": dtype.type(item.low + (item.high - item.low) / 3),
    }.get(name, low_value)
    return number if low_value <= number <= high_value else low_value


def _part(item: Input, part: int) -> Any:
    dtype = np.dtype(item.dtype)
    if dtype.kind == "b":
        return np.bool_(part > PARTS // 2)
    if dtype.kind in "iu":
        low, high = math.ceil(item.low), math.floor(item.high)
        return dtype.type(low + (high - low) * part // PARTS)
    if item.step is not None:
        count = int((item.high - item.low) / item.step + 1e-6)
        return dtype.type(item.low + (count * part // PARTS) * item.step)
    # Either end exactly: their difference may overflow.
    low_part, high_part = item.low * ((PARTS - part) / PARTS), item.high * (part / PARTS)
    return min(max(dtype.type(low_part + high_part), dtype.type(item.low)), dtype.type(item.high))


def build(inputs: Sequence[Input], recipe: Recipe, draw: Draw | None = None) -> Arrays:
    """The arrays of a recipe, but for the inputs that `draw` returns."""
    sizes = dict(recipe.sizes)
    arrays = {
        item.name: _array(item, pattern, sizes)
        for item, pattern in zip(inputs, recipe.patterns, strict=True)
    }
    rng = np.random.default_rng([pattern.seed for pattern in recipe.patterns])
    return {**arrays, **drawn_inputs(inputs, sizes, rng, draw)}


def _array(item: Input, pattern: Pattern, sizes: Mapping[str, int]) -> Array:
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in item.shape)
    dtype, elements = np.dtype(item.dtype), math.prod(shape)
    one, other = level(item, pattern.level), level(item, "high")
    if one == other:
        other = level(item, "low")
    order = np.arange(elements)
    rng = np.random.default_rng(pattern.seed)
    if pattern.base == "random":
        flat = random_inputs([item], sizes, rng)[item.name].reshape(-1)
    elif pattern.base == "ramp":
        steps = np.linspace(item.low, item.high, elements)
        if item.step is not None:
            steps = item.low + np.floor((steps - item.low) / item.step + 1e-6) * item.step
        with np.errstate(invalid="ignore"):  # the ends of int64 are beyond float64
            flat = (steps if dtype.kind == "f" else np.rint(steps)).astype(dtype)
        flat = np.clip(flat, level(item, "low"), level(item, "high")) if dtype.kind != "b" else flat
    else:
        chosen = {
            "alternating": order % 2 == 1,
            "blocks": order >= elements // 2,
            "extremes": rng.integers(0, 2, elements) == 1,
        }.get(pattern.base, np.zeros(elements, bool))
        flat = np.where(chosen, other, one).astype(dtype)
    for position, name in pattern.edits if elements else ():
        flat[position % elements] = level(item, name)
    return flat.reshape(shape)


def recipes(
    inputs: Sequence[Input],
    sizes: Mapping[str, Sequence[int]],
    tied: frozenset[str] = frozenset(),
) -> SearchStrategy[Recipe]:
    """All recipes.

    Args:
        sizes: of the named dimensions: the batch's choices, and smallest and largest of others.
        tied: inputs that are random in all of them (see `tied_inputs`).
    """
    st = _hypothesis().strategies
    levels = st.sampled_from(LEVELS) | st.integers(0, PARTS)
    seeds = st.integers(0, 2**16)
    random = st.builds(Pattern, st.just("random"), seed=seeds)
    patterns = st.builds(
        Pattern,
        st.sampled_from(PATTERNS),
        levels,
        seeds,
        st.lists(st.tuples(st.integers(0, _POSITIONS - 1), levels), max_size=_EDITS).map(tuple),
    )
    drawn = [
        st.tuples(st.just(name), st.sampled_from(sorted(set(given))))
        if name == BATCH
        else st.tuples(st.just(name), st.integers(*given))
        for name, given in sorted(sizes.items())
    ]
    found: SearchStrategy[Recipe] = st.builds(
        Recipe,
        st.tuples(*drawn),
        st.tuples(*(random if item.name in tied else patterns for item in inputs)),
    )
    return found


class _FailedError(Exception):
    """An input fails: what Hypothesis shrinks."""


def search(
    inputs: Sequence[Input],
    sizes: Mapping[str, Sequence[int]],
    judge: Judge,
    *,
    count: int,
    seed: int,
    draw: Draw | None = None,
) -> Search:
    """Look for an input that fails, guided by the score, and shrink it; the same for the same seed.

    Args:
        sizes: see `recipes`.
        count: inputs to try.
        draw: see `edgecheck.Model.draw`.
    """
    hypothesis = _hypothesis()
    tied = tied_inputs(inputs, {name: min(found) for name, found in sizes.items()}, draw)
    known: dict[Recipe, Judged] = {}
    before: list[int] = []  # inputs that were judged up to the first failure
    failing: list[Recipe] = []

    def attempt(recipe: Recipe) -> None:
        judged = known.get(recipe)
        if judged is None:
            if before and len(known) >= before[0] + _SHRINK_RUNS:
                return
            judged = known[recipe] = judge(build(inputs, recipe, draw))
        hypothesis.target(math.log10(min(max(judged.score, _LOWEST), _HIGHEST)))
        if judged.failure:
            if not before:
                before.append(len(known))
            failing.append(recipe)
            raise _FailedError

    drawing = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.target, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
    )
    run = hypothesis.seed(seed)(drawing(hypothesis.given(recipes(inputs, sizes, tied))(attempt)))
    try:
        run()
    except _FailedError:
        free = [item for item in inputs if item.name not in tied]
        smallest = build(inputs, failing[-1], draw)
        arrays, judged = _simplified(free, smallest, known[failing[-1]], judge, _SIMPLIFY_RUNS)
        return Search(before[0], *_worst(known), arrays, judged)
    return Search(len(known), *_worst(known))


def _worst(known: Mapping[Recipe, Judged]) -> tuple[float, str]:
    kept = {recipe: judged.score for recipe, judged in known.items() if not judged.failure}
    if not kept:
        return 0.0, ""
    recipe = max(kept, key=lambda item: kept[item])
    return kept[recipe], recipe.label


def _simplified(
    inputs: Sequence[Input], arrays: Arrays, judged: Judged, judge: Judge, runs: int
) -> tuple[Arrays, Judged]:
    """The failing input with as much of it at its simplest value as still fails.

    By halves, quarters and so on down to single elements, as delta debugging does.
    """
    for item in inputs:
        simplest = level(item, "zero")
        chunk = arrays[item.name].size
        while chunk >= 1 and runs > 0:
            for start in range(0, arrays[item.name].size, chunk):
                trial = arrays[item.name].copy()
                part = trial.reshape(-1)[start : start + chunk]
                if (part == simplest).all():
                    continue
                if runs == 0:
                    break
                runs -= 1
                part[:] = simplest
                changed = {**arrays, item.name: trial}
                found = judge(changed)
                if found.failure:
                    arrays, judged = changed, found
            chunk //= 2
    return arrays, judged


def describe(arrays: Mapping[str, Array]) -> str:
    """Inputs in words: each one's most frequent value, and the single ones besides."""
    lines = []
    for name, array in arrays.items():
        values, counts = np.unique(array, return_counts=True)
        text = f"{name}: {array.dtype} {array.shape}"
        if values.size:
            common = values[counts.argmax()]
            others = np.argwhere(array != common)
            text += f", all {common:.9g}" if not len(others) else ""
            if 0 < len(others) <= 3:
                single = ", ".join(
                    f"{array[tuple(index)]:.9g} at {[int(axis) for axis in index]}"
                    for index in others
                )
                text += f", {common:.9g} but for {single}"
            elif len(others):
                text += f", {values.size} values in {values[0]:.9g} .. {values[-1]:.9g}"
        lines.append(text)
    return "\n".join(lines)


def _hypothesis() -> Any:
    try:
        import hypothesis
        import hypothesis.strategies
    except ImportError as error:
        raise EdgecheckError(
            "adversarial inputs need Hypothesis: pip install 'edgecheck[fuzz]'"
        ) from error
    return hypothesis
