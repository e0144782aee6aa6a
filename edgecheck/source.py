"""What runs of the user's own code, in a child process: sources, data, builders and metrics.

Not for code of edgecheck's own that builds artifacts: see `edgecheck.targets`; not for the parent's
side: see `edgecheck.packing`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
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


class SourceService(TorchDriver):
    """One model's source, live. Also runs it: eager PyTorch is the reference of everything else."""

    def __init__(self) -> None:
        super().__init__()
        self._declared: list[Input] = []

    def open_source(
        self,
        source: bytes | str,
        inputs: list[dict[str, Any]],
        outputs: list[str],
        seed: int,
        what: str,
    ) -> bool:
        """Call the source or load its .pt2 file; return whether it came in training mode."""
        self._declared = [_input(item) for item in inputs]
        self._inputs = {item.name: {"dtype": item.dtype} for item in self._declared}
        self._outputs = {name: {} for name in outputs}
        if isinstance(source, str):
            if not Path(source).is_file():
                raise UserCodeError(f"{what} {source} does not exist")
            module = load_program(source)
        else:
            module = self._call(cloudpickle.loads(source), what, seed)
        self._module = program.check_module(module, self._declared, what)
        training = self._module.training and not isinstance(source, str)
        try:
            self._module.eval()
        except NotImplementedError:  # exported programs have no modes
            training = False
        return bool(training)

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
        return program.capture(self._module, self._declared, list(self._outputs), dims, Path(path))

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
