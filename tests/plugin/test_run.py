"""What a run's options would select, were it there: so that nothing else counts as gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecheck.history.past import Past
from edgecheck.plugin.options import Options
from edgecheck.plugin.run import Run

EXPORT = "tiny/ort/fp32/export"


@pytest.mark.parametrize(
    ("options", "key", "selected"),
    [
        ({}, EXPORT, True),
        ({"targets": "ort"}, EXPORT, True),
        ({"targets": "tflite"}, EXPORT, False),
        ({"precisions": "int8"}, EXPORT, False),
        ({"checks": "parity"}, EXPORT, False),
        ({"checks": "parity"}, "tiny/ort/fp32/mine", True),
        ({"models": "ti*"}, EXPORT, True),
        ({"models": "other"}, EXPORT, False),
        # A variant is named with its model.
        ({"models": "tiny"}, "tiny:small/ort/fp32/export", False),
        ({"models": "tiny:*"}, "tiny:small/ort/fp32/export", True),
        # A microcontroller has no float16.
        ({"profile": "mcu"}, "tiny/ort/fp16/export", False),
        ({"profile": "mcu"}, "tiny/ort/int8/export", True),
        ({}, "no-key", False),
    ],
)
def test_what_is_selected(
    tmp_path: Path, options: dict[str, str], key: str, selected: bool
) -> None:
    run = Run(Options(**options), tmp_path, "id", Past())
    assert run.selects(key) is selected
