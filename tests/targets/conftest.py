"""What of the tests of targets `make test` leaves to `make test-long`."""

from __future__ import annotations

import pytest

# Precisions that show how a target builds float and calibrated files.
_SHORT = ("fp32", "int8")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that targets inherit are long at all but two precisions."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        precision = parameters.params.get("precision", "fp32") if parameters else "fp32"
        if "test_conformance.py" in item.nodeid and precision not in _SHORT:
            item.add_marker(pytest.mark.long)
