"""The operators of ML Programs, by what they do: one module each, with a `HANDLERS` table.

A handler takes a `Call` and returns a tensor, or a tuple of them where the operator has several
results. Floats come in as float32 and go out so; the evaluator rounds them to the declared type.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from edgecheck.mil.call import Call

Handler = Callable[[Call], Any]

_MODULES = (
    "activation",
    "compression",
    "convolution",
    "elementwise",
    "image",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "shaping",
    "sorting",
)


@cache
def handlers() -> dict[str, Handler]:
    """Every handler by operator."""
    found: dict[str, Handler] = {}
    for name in _MODULES:
        found.update(importlib.import_module(f"edgecheck.mil.operators.{name}").HANDLERS)
    return found
