"""Sums that leave half precision inside an operator, in files that hide it by adding in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import edgecheck
from tests.faults.bench import Bench
from tests.faults.fault import Fault

_IMAGE = edgecheck.Input("image", ("batch", 1, 128, 128), low=0.0, high=1.0)


class Summed(nn.Module):
    """A head on a sum of 16,384 values of about 8, each far within half precision."""

    def __init__(self, reduce: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.reduce, self.head = reduce, nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.cat([image + 8.0, image + 9.0, 9.0 - image, 10.0 - image], dim=1)
        return self.head(self.reduce(x))


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def _scaled_sum(x: Tensor) -> Tensor:
    return x.flatten(2).sum(-1) * 2.0**-14


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(2), dim=-1) * 2.0**-10


def _pool(x: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)


_REDUCTIONS = {"mean": _mean, "sum": _scaled_sum, "norm": _norm, "pool": _pool}


def network(name: str) -> nn.Module:
    """The module with a reduction of this name."""
    torch.manual_seed(0)
    return Summed(_REDUCTIONS[name]).eval()


def _fault(name: str, target: str) -> Fault:
    def plant(bench: Bench, path: Path) -> None:
        bench.build(network(name), "cnn", target, "fp16", path, inputs=[_IMAGE])

    return Fault(
        "half-precision sum",
        f"{name}-of-16384-{target}-fp16",
        "cnn",
        target,
        "fp16",
        plant,
        says="hidden_overflow",
        declared={
            "source": partial(network, name),
            "inputs": [_IMAGE],
            "calibration": None,
            "evaluation": None,
        },
        budget={"hidden_overflow": 0},
    )


FAULTS = tuple(_fault(name, target) for name in _REDUCTIONS for target in ("ort", "tflite"))
