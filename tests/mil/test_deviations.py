"""Uses of operators that Core ML computes otherwise are found in converted packages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgecheck.mil import deviations
from edgecheck.mil.reader import read
from tests.mil.packages import converted

pytest.importorskip("coremltools")


def warnings(layer: nn.Module, size: int, folder: Path) -> list[str]:
    example = (torch.rand(1, 2, size, size),)
    program = torch.export.export(layer.eval(), example).run_decompositions({})
    package = read(converted(program, folder))
    return deviations.warnings(package.functions[package.default_function])


@pytest.mark.parametrize(
    ("layer", "size", "words"),
    [
        (nn.AvgPool2d(2, 2, ceil_mode=True), 7, "avg_pool, ceil_mode without"),
        (nn.AvgPool2d(2, 2, ceil_mode=True), 8, ""),  # no window is cut
        (nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), 7, ""),
        (nn.AvgPool2d(2, 2), 7, ""),
        (nn.AvgPool2d(7, 4, padding=3), 16, "(avg_pool, kernel 7 with padding 3)"),
        (nn.AvgPool2d(3, 2, padding=1), 16, ""),
        (nn.Conv2d(2, 2, (3, 2), 2, 1), 5, "(conv, a kernel that is not square, with padding"),
        (nn.Conv2d(2, 2, 3, 2, 1), 5, ""),
        (nn.Conv2d(2, 2, (3, 2)), 5, ""),
    ],
)
def test_a_use_that_deviates_is_a_warning_with_its_source(
    layer: nn.Module, size: int, words: str, tmp_path: Path
) -> None:
    found = warnings(layer, size, tmp_path)
    assert len(found) == bool(words)
    if words:
        assert words in found[0] and "https://github.com/apple/coremltools/issues/" in found[0]


def test_every_entry_has_a_source_and_a_line_in_the_documentation() -> None:
    targets = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    for entry in deviations.TABLE:
        assert entry.source in targets
        assert entry.handling in (deviations.COMPUTED, deviations.REFUSED, deviations.REPORTED)
