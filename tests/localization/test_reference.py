"""The reference's trace: the error that honest rounding makes at each operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgecheck.capture import torch as program
from edgecheck.declare.model import Input
from edgecheck.localization.reference import ReferenceTracer


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 16)
        self.second = torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return found


def noises(
    folder: Path,
    precision: str,
    calibration: np.ndarray | None,
    network: type[torch.nn.Module] = Network,
) -> dict[str, float]:
    """By operator."""
    torch.manual_seed(0)  # of the weights too, which the network draws
    inputs = [Input("x", ("batch", 8), low=-1.0, high=1.0)]
    program.capture(network().eval(), inputs, ["y"], {}, folder / "m.pt2")
    np.save(folder / "x.npy", np.random.default_rng(0).uniform(-1, 1, (4, 8)).astype(np.float32))
    calls = []
    if calibration is not None:
        np.save(folder / "calibration.npy", calibration.astype(np.float32))
        calls = [{"x": str(folder / "calibration.npy")}]
    (folder / precision).mkdir(exist_ok=True)
    found = ReferenceTracer().trace(
        program=str(folder / "m.pt2"),
        feeds=[{"x": str(folder / "x.npy")}],
        outputs=["y"],
        precision=precision,
        directory=str(folder / precision),
        limit_bytes=1 << 20,
        calibration=calls,
    )
    return {step["module"] or step["operator"]: step["noise"] for step in found["steps"]}


class Masked(torch.nn.Module):
    """Attention over what is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.scores(x).masked_fill(x < 0, -torch.inf), dim=-1) * x


def test_a_mask_of_infinity_leaves_the_rounding_of_all_else(tmp_path: Path) -> None:
    found = noises(tmp_path, "int8", spread(1.0), Masked)
    assert 0 < found["scores"] < 0.03
    assert 0 < found["aten.softmax.int"] < 0.03


def spread(most: float) -> np.ndarray:
    return np.random.default_rng(1).uniform(-most, most, (64, 8))


def test_int8_rounds_in_the_ranges_that_calibration_shows(tmp_path: Path) -> None:
    like, wide, narrow = (noises(tmp_path, "int8", spread(most)) for most in (1.0, 20.0, 0.2))
    for layer in ("first", "second"):
        assert 0 < like[layer] < 0.03
        assert narrow[layer] > 0.2  # most values are cut off
    assert wide["first"] > 5 * like["first"]  # a coarser step


def test_an_input_is_rounded_too_where_its_range_is_known(tmp_path: Path) -> None:
    assert (
        noises(tmp_path, "int8", spread(1.0))["first"]
        > 1.1 * noises(tmp_path, "int8", None)["first"]
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-dynamic", "int8-weights", "int4"])
def test_ranges_of_other_precisions_are_not_of_calibration(tmp_path: Path, precision: str) -> None:
    assert noises(tmp_path, precision, spread(0.2)) == noises(tmp_path, precision, None)
