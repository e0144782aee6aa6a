"""Sound files as a suite of Conformance classes: none of them may fail.

The bundled models and `architectures`, in fp32, fp16 and int8. Each seed draws weights (of the
architectures), data and inputs, and takes the next of the targets. Not for counting: see
`verdicts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import edgecheck
from tests.faults import architectures, bench

TARGETS = ("ort", "tflite", "coreml")
SEEDS = 20


def declare(seeds: range, models: Sequence[str] = ()) -> dict[str, type[edgecheck.Conformance]]:
    """A Conformance class for each model, or each of these, and each seed."""
    return {
        f"Test{position}": _suite(model)
        for position, model in enumerate(_declarations(seeds, models or names()))
    }


def names() -> list[str]:
    """The models, without their seeds."""
    return [*bench.BUNDLED, *architectures.ARCHITECTURES]


def _declarations(seeds: range, models: Sequence[str]) -> Iterator[edgecheck.Model]:
    for seed in seeds:
        for position, name in enumerate(models):
            target = TARGETS[(seed + position) % len(TARGETS)]
            if name in bench.BUNDLED:
                targets = {target: architectures.PRECISIONS}
                yield bench.declaration(name, name=f"{name}-{seed}", seed=seed, targets=targets)
            else:
                architecture = architectures.ARCHITECTURES[name]
                if target not in architecture.unbuilt:
                    made_for = {target: architecture.precisions}
                    yield architectures.declaration(name, seed, targets=made_for)


def _suite(model: edgecheck.Model) -> type[edgecheck.Conformance]:
    members: dict[str, Any] = {"model": model, "test_latency": None, "test_memory": None}
    return type(str(model.name), (edgecheck.Conformance,), members)
