"""Builds, inspects and runs a target's files for its tests, in child processes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.declare.model import Artifact, Input
from edgecheck.devices.binding import bind
from edgecheck.devices.local import runner_service
from edgecheck.names import CALIBRATED
from edgecheck.process.parent import Child, Service
from edgecheck.targets.base import Inspection, Target
from edgecheck.targets.registry import find_target

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]
TIMEOUT_S = 300.0
# Samples are cut into calls of this size, and the last call is padded to it.
BATCH = 4


class Workshop:
    """Builds and runs the files of a target, each precision once.

    Args:
        network: a ``torch.nn.Module`` in evaluation mode.
        samples: of each input by name, samples on axis 0.
        folder: where files go.
    """

    def __init__(self, target: Target, network: Any, samples: Feed, folder: Path) -> None:
        self.target = target
        self.samples = samples
        self.folder = folder
        self._network = network
        self._inputs = [Input(name, ("batch", *array.shape[1:])) for name, array in samples.items()]
        self._children: dict[str, Child] = {}
        self._files: dict[str, Path] = {}

    def close(self) -> None:
        """End the child processes."""
        for child in self._children.values():
            child.close()

    def builder(self, owner: str) -> Child:
        """The warm child process that builds a target's files."""
        return self._child(f"builder {owner}", Service(find_builder(self.target, owner)))

    @property
    def other_builder(self) -> Child:
        """Another process that builds the target's files."""
        return self._child("other builder", Service(self.target.build.builder))

    def _child(self, name: str, service: Service) -> Child:
        """A child that stays: importing a runtime or a converter takes seconds."""
        if name not in self._children or not self._children[name].alive:
            self._children[name] = Child(service, self.folder)
        return self._children[name]

    @cached_property
    def program(self) -> Path:
        """The network as a .pt2 program, captured here."""
        from edgecheck.capture.torch import capture

        path = self.folder / "program.pt2"
        capture(self._network, self._inputs, ["y"], {"batch": (1, 64)}, path)
        return path

    @cached_property
    def parameters(self) -> int:
        """How many numbers the network's weights and biases are."""
        return sum(item.numel() for item in self._network.parameters())

    def save(self, name: str, arrays: Feed) -> dict[str, str]:
        """Arrays as .npy files, by input."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for input_name, array in arrays.items():
            np.save(folder / f"{input_name}.npy", array, allow_pickle=False)
        return {input_name: str(folder / f"{input_name}.npy") for input_name in arrays}

    def request(self, precision: str, output: Path, *, batch: int = 0) -> dict[str, Any]:
        """What the target's builder is asked for.

        Args:
            batch: that a file without a dynamic batch is fixed to; one if it is not given.
        """
        return self._request(self.target, precision, output, batch)

    def _request(self, target: Target, precision: str, output: Path, batch: int) -> dict[str, Any]:
        maker = target.float_file_of(target.build.precisions[precision])
        source = self.file("fp32", maker) if maker else self.program
        calibration = self.save("calibration", self.samples) if precision in CALIBRATED else None
        rows = batch or (BATCH if target.files.keeps_dynamic_batch else 1)
        one_call = {name: array[:rows] for name, array in self.samples.items()}
        return {
            "precision": precision,
            "source": str(source),
            "output": str(output),
            "inputs": list(self.samples),
            "outputs": ["y"],
            "calibration": calibration,
            "example": self.save(f"example-{rows}", one_call),
            "options": dict(target.options.defaults),
            "dims": {"batch": (1, 64)},
            "program": str(self.program),
        }

    def file(self, precision: str, owner: str = "", *, batch: int = 0) -> Path:
        """The file of a precision; of another target if its name is given.

        Args:
            batch: see `request`.
        """
        name = owner or self.target.name
        key = f"{name}-{precision}{batch or ''}"
        if key not in self._files:
            target = self.target if name == self.target.name else find_target(name)
            path = self.folder / f"{key}{target.files.suffix}"
            request = self._request(target, precision, path, batch)
            self.builder(name).call("build", timeout_s=TIMEOUT_S, **request)
            self._files[key] = path
        return self._files[key]

    def inspect(self, path: Path) -> Inspection:
        """What is in a file."""
        child = self.builder(self.target.name)
        return Inspection.from_data(child.call("inspect", timeout_s=TIMEOUT_S, path=str(path)))

    def runner(
        self, precision: str, *, tracer: bool = False, batch: int = 0, path: Path | None = None
    ) -> Child:
        """A warm child process, with the file of a precision loaded anew and bound.

        Args:
            tracer: whether it is to show intermediate tensors.
            batch: the size of each call; that of the file if it is not given.
            path: of another file to load in its place.
        """
        service = runner_service(self.target)
        if tracer:
            service = Service(self.target.runtime.tracer, environment=service.environment)
        child = self._child("tracer" if tracer else "runner", service)
        keeps = self.target.files.keeps_dynamic_batch
        path = path or self.file(precision, batch=0 if keeps else batch)
        options = {"threads": 1, "target": dict(self.target.options.defaults)}
        loaded = child.call("load", timeout_s=TIMEOUT_S, path=str(path), options=options)
        binding = bind(
            self._inputs, ["y"], loaded["inputs"], loaded["outputs"], Artifact(str(path))
        )
        size = batch or binding.batch
        child.call("bind", timeout_s=TIMEOUT_S, binding={**binding.for_runner(), "batch": size})
        return child

    def run(self, child: Child, feed: Mapping[str, str]) -> Array:
        """The output for a feed: .npy path by input."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            request = {"inputs": dict(feed), "directory": folder}
            (paths,) = child.call("run", timeout_s=TIMEOUT_S, feeds=[request])
            return np.array(np.load(paths["y"], allow_pickle=False))


def find_builder(target: Target, owner: str) -> str:
    """The builder class of a target, or of another one by name."""
    return (target if owner == target.name else find_target(owner)).build.builder
