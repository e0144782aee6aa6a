"""Tests that every target passes; inherit them for a target of your own.

from edgecheck.testing import TargetConformance
from my_package import TARGET

class TestMyTarget(TargetConformance):
    target = TARGET
"""

from edgecheck.testing.conformance import TargetConformance

__all__ = ["TargetConformance"]
