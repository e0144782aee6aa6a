"""The bounds of the declared domain, which random inputs never hit: all lowest, all highest, zero.

Part of the parity check: three single inferences of reference and candidate, judged as adversarial
inputs are. Constant inputs are also where a variance is zero. Inputs for which the declaration says
that such calls are not valid stay random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecheck.capture.drawing import tied_inputs
from edgecheck.checks import fuzz, fuzz_inputs
from edgecheck.checks.fuzz_inputs import Pattern, Recipe
from edgecheck.judge.verdict import Evidence

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Workbench

_LEVELS = {"low": "their lowest", "high": "their highest", "zero": "zero"}


def measure(workbench: Workbench, case: Case) -> Evidence:
    """Run both sides with all inputs at a bound that may be.

    A candidate that does not take one, or gives NaN, infinite values or another shape where the
    reference does not, fails; so does an error that rounding does not explain, or of which nothing
    is known but that it is beyond the fixed limits. It is a warning where it is the reference that
    gives NaN.
    """
    trial = fuzz.Trial(workbench, case)
    model, inputs = case.model, case.model.inputs
    sizes = tuple((name, min(found)) for name, found in sorted(trial.sizes.items()))
    tied = tied_inputs(inputs, dict(sizes), model.draw)
    free = [item.name for item in inputs if item.name not in tied]
    if not free:
        return Evidence(measurements={"boundary": {}})
    subject = "all inputs" if not tied else f"inputs {', '.join(free)}"
    failures, warnings, scores = [], [], {}
    tried: list[fuzz.Arrays] = []
    for level, words in _LEVELS.items():
        bases = ("random" if item.name in tied else "constant" for item in inputs)
        recipe = Recipe(sizes, tuple(Pattern(base, level) for base in bases))
        arrays = fuzz_inputs.build(inputs, recipe, model.draw)
        if any(all(np.array_equal(one[key], arrays[key]) for key in free) for one in tried):
            continue
        tried.append(arrays)
        judged = trial.judge(arrays)
        scores[level] = judged.score
        if not judged.failure:
            continue
        sentence = f"with {subject} at {words} (declared domain): {judged.failure}"
        if judged.cause == "reference":
            warnings.append(sentence)
        else:
            failures.append(sentence)
    return Evidence(tuple(failures), tuple(warnings), {"boundary": scores})
