"""The operators of ML Programs, by what they do: one module each, with a `HANDLERS` table.

A handler takes a `Call` and returns a tensor, or a tuple of them where the operator has several
results. Floats come in as float32 and go out so; the evaluator rounds them to the declared type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from edgecheck.mil.call import Call

Handler = Callable[[Call], Any]


@cache
def handlers() -> dict[str, Handler]:
    """Every handler by operator."""
    from edgecheck.mil.operators import (
        activation,
        compression,
        convolution,
        elementwise,
        image,
        indexing,
        linear,
        normalization,
        pooling,
        recurrent,
        reduction,
        shaping,
        sorting,
    )

    modules = (
        *(activation, compression, convolution, elementwise, image, indexing, linear),
        *(normalization, pooling, recurrent, reduction, shaping, sorting),
    )
    by_operator: dict[str, Handler] = {}
    for module in modules:
        by_operator.update(module.HANDLERS)
    return by_operator
