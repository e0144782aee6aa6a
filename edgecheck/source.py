"""What runs of the user's own code, in a child process: sources, data, builders and metrics.

Not for code of edgecheck's own that builds artifacts: see `edgecheck.targets`; not for the parent's
side: see `edgecheck.packing`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch

from edgecheck import program
from edgecheck.child import one_line
from edgecheck.data import materialize
from edgecheck.drivers.torch import TorchDriver, load_program
from edgecheck.errors import EdgecheckError
from edgecheck.model import Input


class UserCodeError(ValueError):
    """The user's own code failed; the message is the whole story."""

    stands_alone = True


# Opened sources that are held at a time; a large model is not kept for a later check.
_HELD = 3


@dataclass(frozen=True)
class _Opened:
    module: Any
    inputs: list[Input]
    outputs: list[str]
    training: bool


class SourceService(TorchDriver):
    """Live sources by name. Also runs them: eager PyTorch is the reference of everything else."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, _Opened] = {}
        self._current: _Opened | None = None

    def use(self, name: str) -> bool | None:
        """Make a source the one that calls are about.

        Returns whether it came in training mode; None if it is not held and must be opened.
        """
        self._current = self._held.pop(name, None)
        if self._current is None:
            return None
        self._held[name] = self._current
        self._module = self._current.module
        self._inputs = {item.name: {"dtype": item.dtype} for item in self._current.inputs}
        self._outputs = {output: {} for output in self._current.outputs}
        return self._current.training

    def open_source(
        self,
        name: str,
        source: bytes | str,
        inputs: list[dict[str, Any]],
        outputs: list[str],
        seed: int,
        what: str,
    ) -> bool | None:
        """Call the source, or load its .pt2 file, and use it (see `use`)."""
        declared = [_input(item) for item in inputs]
        if isinstance(source, str):
            if not Path(source).is_file():
                raise UserCodeError(f"{what} does not exist")
            module = load_program(source)
        else:
            module = self._call(cloudpickle.loads(source), what, seed)
        module = program.check_module(module, declared, what)
        training = bool(module.training) and not isinstance(source, str)
        try:
            module.eval()
        except NotImplementedError:  # exported programs have no modes
            training = False
        while len(self._held) >= _HELD:
            self._held.pop(next(iter(self._held)))
        self._held[name] = _Opened(module, declared, outputs, training)
        return self.use(name)

    @staticmethod
    def _call(function: Callable[[], Any], what: str, seed: int) -> Any:
        """Call a source with seeded generators: all processes of a run must see the same model."""
        random.seed(seed)
        np.random.seed(seed % 2**32)  # the user's code may use the global one
        torch.manual_seed(seed)
        try:
            return function()
        except BaseException as error:
            raise UserCodeError(f"{what} raised {_story(error)}") from error

    def capture(self, path: str, dims: dict[str, tuple[int, int]]) -> str:
        """Write the program; return its digest."""
        current = self._current
        assert current is not None
        return program.capture(current.module, current.inputs, current.outputs, dims, Path(path))

    def build(self, builder: bytes, path: str, source_path: str | None) -> None:
        """Have the user's builder write an artifact."""
        function = cloudpickle.loads(builder)
        try:
            function(source_path or self._module, Path(path))
        except BaseException as error:
            raise UserCodeError(f"the builder raised {_story(error)}") from error
        if not Path(path).is_file():
            raise UserCodeError(f"the builder wrote no file at the path that it was given ({path})")

    def materialize(
        self,
        data: bytes,
        labels: bytes | None,
        inputs: list[dict[str, Any]],
        directory: str,
        what: str,
    ) -> dict[str, Any]:
        """Call a data callable and write what it returns; `labels` is None where there are none."""
        try:
            files = materialize(
                cloudpickle.loads(data),
                cloudpickle.loads(labels) if labels is not None else None,
                [_input(item) for item in inputs],
                Path(directory),
                what,
                labels is not None,
            )
        except EdgecheckError as error:
            raise UserCodeError(str(error)) from error
        except BaseException as error:
            raise UserCodeError(f"{what} data raised {_story(error)}") from error
        return files.as_dict()

    def score(
        self, function: bytes, output: str | None, predictions: dict[str, str], labels: str
    ) -> float:
        """The metric of saved predictions; `function` holds the metric and the post-processing."""
        metric, postprocess = cloudpickle.loads(function)
        arrays = {
            name: np.load(path, mmap_mode="r", allow_pickle=False)
            for name, path in predictions.items()
        }
        if output is not None:
            scored: Any = arrays[output]
        else:
            scored = next(iter(arrays.values())) if len(arrays) == 1 else arrays
        truth = np.load(labels, mmap_mode="r", allow_pickle=False)
        try:
            if postprocess is not None:
                scored = postprocess(scored)
            value = float(metric(scored, truth))
        except BaseException as error:
            raise UserCodeError(f"the metric raised {_story(error)}") from error
        if not math.isfinite(value):
            raise UserCodeError(f"the metric returned {value}")
        return value


def _input(item: Mapping[str, Any]) -> Input:
    return Input(**{**item, "shape": tuple(item["shape"])})


def _story(error: BaseException) -> str:
    place = program.user_frame(error)
    return one_line(error) + (f" ({place})" if place else "")
