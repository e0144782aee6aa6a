"""Every operator's handler, by the operator's name."""

from __future__ import annotations

from functools import cache

from edgecheck.mil.call import Handler
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

_MODULES = (
    *(activation, compression, convolution, elementwise, image, indexing, linear),
    *(normalization, pooling, recurrent, reduction, shaping, sorting),
)


@cache
def handlers() -> dict[str, Handler]:
    """Every handler by operator."""
    return {name: handler for module in _MODULES for name, handler in module.HANDLERS.items()}
