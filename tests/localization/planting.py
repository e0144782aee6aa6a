"""Small networks with their traced references, and how files made of them are judged."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecheck.capture import torch as program
from edgecheck.declare.model import Input
from edgecheck.localization import locate
from edgecheck.localization.judgement import FaultLocation
from edgecheck.localization.reference import ReferenceTracer
from edgecheck.runtime import trace as traces
from edgecheck.targets.registry import all_targets


class Block(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(width, width, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Convolutional(torch.nn.Module):
    """Convolutions with batch norms, one of them beside a shortcut, and two linear layers."""

    shape = (3, 12, 12)
    layers = ("stem", "first.conv", "second.conv", "third.conv", "hidden", "head")

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first, self.second, self.third = Block(8), Block(8), Block(8)
        self.hidden, self.head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.first(torch.relu(self.stem(image)))
        x = self.third(self.second(x) + x)
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


class Encoder(torch.nn.Module):
    """Layer norms and square linear layers beside shortcuts, as in a transformer."""

    shape = (6, 16)
    layers = ("embed", "expand.0", "contract.0", "expand.1", "contract.1", "head")

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Linear(16, 16), torch.nn.Linear(16, 4)
        self.norm = torch.nn.ModuleList(torch.nn.LayerNorm(16) for _ in range(2))
        self.expand = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(2))
        self.contract = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.embed(image)
        for norm, expand, contract in zip(self.norm, self.expand, self.contract, strict=True):
            x = x + contract(torch.nn.functional.gelu(expand(norm(x))))
        return self.head(x.mean(1))


NETWORKS: dict[str, Any] = {"convolutional": Convolutional, "encoder": Encoder}


def randomized(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights as training leaves them: no two layers alike, statistics that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "num_batches" in name:
                continue
            scale = 1.6 / np.sqrt(value[0].numel()) if value.ndim > 1 else 0.3
            drawn = torch.randn(value.shape, generator=generator) * scale
            if "running_var" in name or ("norm" in name and "weight" in name):
                drawn = drawn.abs() + 0.7
            value.copy_(drawn)
    return network.eval()


@dataclass(frozen=True)
class Bench:
    """A network with its program and traced reference, to build candidates from.

    Attributes:
        layers: paths of the layers with weights, in order.
    """

    folder: Path
    layers: tuple[str, ...]
    feeds: list[dict[str, str]]

    def build(self, target: str, precision: str) -> Path:
        """The file of a precision, built once."""
        kind = all_targets()[target]
        path = self.folder / f"{target}-{precision}{kind.files.suffix}"
        if not path.exists():
            source = self.folder / "m.pt2"
            if kind.build.precisions[precision] == "float":
                source = self.build(target, "fp32")
            module, name = kind.build.builder.split(":")
            tools = getattr(__import__(module, fromlist=[name]), name)()
            tools.build(
                precision=precision,
                source=str(source),
                output=str(path),
                inputs=["image"],
                outputs=["scores"],
                calibration={"image": str(self.folder / "calibration.npy")},
                example={"image": self.feeds[0]["image"]},
                options=dict(kind.options.defaults),
                dims={},
            )
        return path

    def reference(self, precision: str) -> tuple[traces.Step, ...]:
        folder = self.folder / f"reference-{precision}"
        folder.mkdir(exist_ok=True)
        found = ReferenceTracer().trace(
            program=str(self.folder / "m.pt2"),
            feeds=self.feeds,
            outputs=["scores"],
            precision=precision,
            directory=str(folder),
            limit_bytes=1 << 28,
            calibration=[{"image": str(self.folder / "calibration.npy")}],
        )
        return tuple(map(traces.step, found["steps"]))


def bench(name: str, folder: Path, seed: int = 0) -> Bench:
    network = NETWORKS[name]
    inputs = [Input("image", ("batch", *network.shape), low=-1.0, high=1.0)]
    program.capture(randomized(network(), seed), inputs, ["scores"], {}, folder / "m.pt2")
    rng = np.random.default_rng(seed)
    images = rng.uniform(-1, 1, (20, *network.shape)).astype(np.float32)
    np.save(folder / "calibration.npy", images[4:])
    feeds = []
    for index in range(4):
        np.save(folder / f"{index}.npy", images[index : index + 1])
        feeds.append({"image": str(folder / f"{index}.npy")})
    return Bench(folder, network.layers, feeds)


def judged(
    made: Bench, steps: tuple[traces.Step, ...], target: str, precision: str, path: Path
) -> tuple[FaultLocation, np.ndarray[Any, Any]]:
    """The judgement of a file, and its outputs, (calls, *shape)."""
    module, name = all_targets()[target].runtime.tracer.split(":")
    tracer = getattr(importlib.import_module(module), name)()
    options = dict(all_targets()[target].options.defaults)
    info = tracer.load(str(path), {"threads": 1, "target": options})
    tracer.bind(
        {
            "inputs": {"image": {"name": info["inputs"][0]["name"], "transpose": None}},
            "outputs": {"scores": {"name": info["outputs"][0]["name"], "transpose": None}},
            "batched": ["image"],
            "batch": 1,
        }
    )
    folder = made.folder / "candidate"
    folder.mkdir(exist_ok=True)
    trace = tracer.trace(feeds=made.feeds, directory=str(folder))
    outputs = np.load(trace.outputs["scores"])
    return locate.judge_traces(steps, trace.tensors, precision, trace.slack)[0], outputs


def distance(made: Bench, steps: tuple[traces.Step, ...], found: FaultLocation, layer: str) -> int:
    """How many of the model's modules lie between the one named and the true one; -1 for none."""
    if not found.broken or not found.stands_out:
        return -1
    modules = list(dict.fromkeys(step.module for step in steps if step.module))
    named = steps[found.broken[0]].module
    if not named:  # an operator of the whole model: the module before it
        named = next(step.module for step in reversed(steps[: found.broken[0]]) if step.module)
    apart = abs(modules.index(named) - modules.index(layer))
    # An operator of the block that the layer is in, such as its activation.
    return min(apart, 1) if layer.startswith(f"{named}.") else apart
