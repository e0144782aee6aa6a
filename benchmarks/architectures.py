"""``python -m benchmarks.architectures``: the Core ML reference executor against PyTorch.

Exports, converts, saves, reads and evaluates architectures that others wrote (`benchmarks.zoo`), in
fp32 and fp16, and holds the outputs against the eager module's on inputs that the conversion did
not see. Each in its own process with a time limit. Prints a Markdown table; exits with 1 where an
fp32 program is off by more than the limit, or too few are within it. Not part of ``python -m
benchmarks``: it needs packages that nothing else here does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import zoo

LIMIT = 1e-4
ENOUGH = 30
_FRESH_INPUTS = 2
# Outputs of two inputs differ by at least this share of the largest, else they say little.
_REACTION = 1e-3
_SMALLEST, _LARGEST = 1e-3, 1e4
_TIMEOUT_S = 240
_PRELOADED = [
    "torch",
    "coremltools",
    "transformers",
    "benchmarks.zoo",
    "edgecheck.mil.evaluator",
    "edgecheck.mil.reader",
]


@dataclass(frozen=True)
class Outcome:
    """What became of one architecture.

    Attributes:
        operators: of the fp32 program, without constants.
        fp32_error, fp16_error: max|error| / max|reference|, the worst of all outputs and inputs.
        trouble: why there is no error, "" where there is.
    """

    operators: Counter[str]
    fp32_error: float | None = None
    fp16_error: float | None = None
    trouble: str = ""


def main() -> int:
    """Evaluate all, or those named; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="ARCHITECTURE", help="all if none")
    chosen = parser.parse_args().names
    if unknown := sorted(set(chosen) - {each.name for each in zoo.ARCHITECTURES}):
        parser.error(f"unknown architectures {unknown}; see benchmarks/zoo.py")
    architectures = [each for each in zoo.ARCHITECTURES if not chosen or each.name in chosen]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    outcomes = {}
    for architecture in architectures:
        start = time.perf_counter()
        outcomes[architecture.name] = outcome = _in_child(context, architecture.name)
        took = time.perf_counter() - start
        print(f"{_row(architecture, outcome)} {took:.0f} s", file=sys.stderr, flush=True)
    print("| architecture | from | operators (kinds) | fp32 | fp16 | |")
    print("|---|---|---|---|---|---|")
    for architecture in architectures:
        print(_row(architecture, outcomes[architecture.name]))
    errors = [each.fp32_error for each in outcomes.values() if each.fp32_error is not None]
    within = sum(error <= LIMIT for error in errors)
    print(f"\n{within} of {len(outcomes)} within {LIMIT:g}, {len(errors) - within} over it.")
    return 0 if within == len(errors) and within >= min(ENOUGH, len(architectures)) else 1


def _row(architecture: zoo.Architecture, outcome: Outcome) -> str:
    counted = f"{outcome.operators.total()} ({len(outcome.operators)})"
    errors = [
        "" if error is None else f"{error:.1e}"
        for error in (outcome.fp32_error, outcome.fp16_error)
    ]
    over = outcome.fp32_error is not None and outcome.fp32_error > LIMIT
    remark = outcome.trouble or ("over the limit" if over else "")
    cells = [architecture.name, architecture.source, counted if outcome.operators else "", *errors]
    return f"| {' | '.join(cells)} | {remark} |"


def _in_child(context: Any, name: str) -> Outcome:
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(name, sender))
    child.start()
    sender.close()
    outcome = Outcome(Counter(), trouble="ended without a word")
    deadline = time.monotonic() + _TIMEOUT_S
    # A child that has fp32 done and then takes too long has at least that to tell.
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            outcome = receiver.recv()
    except EOFError:
        pass
    else:
        outcome = replace(outcome, trouble=f"not done after {_TIMEOUT_S} s")
        child.kill()
    child.join()
    receiver.close()
    return outcome


def _child(name: str, sender: Connection) -> None:
    """Send what is known so far: after fp32, and after fp16."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    (architecture,) = (each for each in zoo.ARCHITECTURES if each.name == name)
    outcome = Outcome(Counter())
    try:
        model = zoo.calibrated(architecture)
        references = _references(model, architecture)
        exported = _exported(model, architecture)
        with tempfile.TemporaryDirectory() as directory:
            for precision in ("fp32", "fp16"):
                package = Path(directory) / f"{precision}.mlpackage"
                _convert(exported, architecture.target, precision, package)
                operators, error = _evaluated(package, references)
                if precision == "fp32":
                    outcome = replace(outcome, operators=operators, fp32_error=error)
                else:
                    outcome = replace(outcome, fp16_error=error)
                sender.send(outcome)
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200].replace("|", "/")
        sender.send(replace(outcome, trouble=f"{type(error).__name__}: {reason}"))


References = list[tuple[tuple[Any, ...], list[Any]]]


def _references(model: Any, architecture: zoo.Architecture) -> References:
    """Inputs and what the eager module makes of them.

    Raises:
        ValueError: if the outputs are too small, too large, or hardly depend on the input.
    """
    import torch

    torch.manual_seed(1)
    found: References = []
    for _ in range(_FRESH_INPUTS):
        inputs = architecture.draw(1)
        found.append((inputs, [model(*inputs).numpy()]))
    (_, (first,)), (_, (second,)) = found
    largest = float(abs(first).max())
    if not _SMALLEST < largest < _LARGEST:
        raise ValueError(f"outputs of {largest:.1e} at most")
    if float(abs(first - second).max()) < _REACTION * largest:
        raise ValueError("outputs that hardly depend on the input")
    return found


def _exported(model: Any, architecture: zoo.Architecture) -> Any:
    import torch

    torch.manual_seed(2)
    return torch.export.export(model, architecture.draw(1))


def _convert(exported: Any, target: str, precision: str, package: Path) -> None:
    """Write the package of an exported program."""
    import coremltools

    from edgecheck.targets.coreml.build import convert_program

    names = {"fp32": "FLOAT32", "fp16": "FLOAT16"}
    how = {
        "minimum_deployment_target": coremltools.target[target],
        "compute_precision": coremltools.precision[names[precision]],
    }
    convert_program(exported, **how).save(str(package))


def _evaluated(package: Path, references: References) -> tuple[Counter[str], float]:
    """What operators run, and the worst error."""
    import numpy as np

    from edgecheck.mil.evaluator import Evaluator
    from edgecheck.mil.reader import read

    program = read(package)
    function = program.functions[program.default_function]
    operators = Counter(
        operation.operator for operation in function.block.walk() if operation.operator != "const"
    )
    evaluator, worst = Evaluator(program), 0.0
    for inputs, expected in references:
        names = (variable.name for variable in function.inputs)
        given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        outputs = evaluator.run(given).values()
        for output, reference in zip(outputs, expected, strict=True):
            if output.shape != reference.shape:
                raise ValueError(f"an output of shape {output.shape}, not {reference.shape}")
            error = np.abs(output.astype(np.float64) - reference).max() / np.abs(reference).max()
            worst = max(worst, float(error)) if np.isfinite(error) else float("inf")
    return operators, worst


if __name__ == "__main__":
    sys.exit(main())
