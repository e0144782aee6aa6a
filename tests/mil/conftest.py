"""What the tests of edgecheck.mil share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coremltools as ct
import pytest
import torch

from tests.mil import packages
from tests.mil.packages import WEIGHT, mb


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with one weight in the weight file and a bias of immediate values."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(2, 256))], opset_version=ct.target.iOS17)
    def program(image: Any) -> Any:
        return mb.linear(x=image, weight=WEIGHT, name="logits")

    return packages.converted(program, tmp_path_factory.mktemp("linear"))


@pytest.fixture
def package(linear: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(linear, tmp_path / "copy.mlpackage"))
