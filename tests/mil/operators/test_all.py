"""Every operator of the iOS15 to iOS18 sets has a handler, but for a stated few."""

from __future__ import annotations

import pytest

from edgecheck.mil import control
from edgecheck.mil.handlers import handlers

# The evaluator runs the first three itself; `conv_quantized` is experimental and no converter
# emits it; the last is not an operator of a file.
ELSEWHERE = {"cond", "const", "while_loop", "conv_quantized", "_const_symbolic"}
SETS = ("iOS15", "iOS16", "iOS17", "iOS18")


def test_every_core_operator_has_a_handler() -> None:
    registry = pytest.importorskip("coremltools.converters.mil.mil.ops.registry")
    operators = {
        name
        for name, versions in registry.SSAOpRegistry.core_ops.items()
        if any(version.name in SETS for version in versions)
    }
    assert len(operators) > 150
    assert operators - handlers().keys() - control.HANDLERS.keys() == ELSEWHERE
