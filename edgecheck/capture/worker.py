"""What runs of the user's own code, in a child process: sources, data, builders and metrics.

Frameworks are imported for the sources that need them.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from edgecheck.capture import scoring
from edgecheck.capture.base import Live, SimulationError, user_frame
from edgecheck.capture.data import materialize
from edgecheck.declare.metrics import Metric
from edgecheck.declare.model import Input
from edgecheck.errors import EdgecheckError
from edgecheck.judge.agreement import Agreement
from edgecheck.process.child import one_line
from edgecheck.runtime.runner import Runner, Tensor


class UserCodeError(ValueError):
    """The user's own code failed; the message is the whole story."""

    stands_alone = True


# Opened sources that are held at a time; a large model is not kept for a later check.
_HELD = 3
_FRAMEWORKS = ("torch", "tensorflow")


class SourceService(Runner):
    """Live sources by name. Also runs them: the eager model is the reference of everything else."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, tuple[Live, list[Input], list[str]]] = {}
        self._current: Live | None = None
        self._infer_with: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None

    def use(self, name: str) -> dict[str, Any] | None:
        """Make a source the one that calls are about.

        Returns its ``kind`` and whether it came in ``training`` mode; None if it is not held and
        must be opened.
        """
        held = self._held.pop(name, None)
        if held is None:
            self._current = None
            return None
        self._held[name] = held
        self._current, inputs, outputs = held
        self._inputs = {item.name: {"dtype": item.dtype} for item in inputs}
        self._outputs = {output: {} for output in outputs}
        return {"kind": self._current.kind, "training": self._current.training}

    def open_source(
        self,
        name: str,
        source: bytes | str,
        inputs: list[dict[str, Any]],
        outputs: list[str],
        seed: int,
        what: str,
    ) -> dict[str, Any] | None:
        """Call the source, or load its file, and use it (see `use`)."""
        declared = [_input(item) for item in inputs]
        if isinstance(source, str):
            live = _open_file(source, declared, outputs, what)
        else:
            live = _open_model(_call(source, what, seed), declared, outputs, what)
        while len(self._held) >= _HELD:
            self._held.pop(next(iter(self._held)))
        self._held[name] = (live, declared, outputs)
        return self.use(name)

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        raise TypeError("a source is opened with open_source")

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert self._current is not None
        return (self._infer_with or self._current.infer)(inputs)

    def simulate(
        self,
        arithmetic: dict[str, Any],
        feeds: list[dict[str, Any]],
        calibration: list[dict[str, str]],
    ) -> dict[str, Any]:
        """Run feeds (see `run`) in other arithmetic (see `edgecheck.capture.arithmetic.simulator`).

        Returns ``outputs`` (.npy paths by name for each feed) and ``reason``, why there are none,
        or "". Of half precision also ``overflowing_sums``, a sentence for each operator.
        """
        assert self._current is not None
        samples = [_loaded_arrays(call) for call in calibration]
        try:
            self._infer_with = self._current.simulator(arithmetic, samples)
            outputs = self.run(feeds)
            sums = getattr(self._infer_with, "overflowing_sums", [])
            return {"outputs": outputs, "reason": "", "overflowing_sums": sums}
        except SimulationError as error:
            return {"outputs": [], "reason": str(error)}
        finally:
            self._infer_with = None

    def simulate_keeping(
        self,
        arithmetic: dict[str, Any],
        keeps: list[list[str]],
        feeds: list[dict[str, str]],
        references: list[dict[str, str]],
        calibration: list[dict[str, str]],
    ) -> list[dict[str, float]]:
        """SQNR of each output in dB in simulated quantization, for each choice of float layers.

        Args:
            arithmetic: of kind ``"quantized"`` (see `edgecheck.capture.arithmetic.simulator`).
            keeps: names of the layers that stay in float, each time.
            feeds, references: .npy paths by input and by output, for each call.
            calibration: .npy paths by input, for each call.

        Raises:
            SimulationError: the source does not run so; the message says why.
        """
        assert self._current is not None
        samples = [_loaded_arrays(call) for call in calibration]
        infer: Any = self._current.simulator(arithmetic, samples)
        found = []
        for keep in keeps:
            agreements = {name: Agreement() for name in self._outputs}
            for feed, reference in zip(feeds, references, strict=True):
                given = infer(_loaded_arrays(feed), keep=keep)
                for name, values in _loaded_arrays(reference).items():
                    both = given[name], values
                    if values.dtype.kind == "f" and all(np.isfinite(item).all() for item in both):
                        agreements[name].add(*both, "", classes=False)
            found.append(
                {
                    name: agreement.metrics()["sqnr_db"]
                    for name, agreement in agreements.items()
                    if agreement.worst
                }
            )
        return found

    def capture(
        self, folder: str, dims: dict[str, tuple[int, int]], example: dict[str, str] | None
    ) -> dict[str, str]:
        """Write the program into a folder; return its ``path`` and ``digest``.

        Args:
            example: .npy path by input name of a call that the model takes, or None.
        """
        assert self._current is not None
        arrays = None if example is None else _loaded_arrays(example)
        path, digest = self._current.capture(Path(folder), dims, arrays)
        return {"path": str(path), "digest": digest}

    def build(self, builder: bytes, path: str, source_path: str | None) -> None:
        """Have the user's builder write an artifact."""
        assert self._current is not None
        function = cloudpickle.loads(builder)
        written = Path(path)
        try:
            function(source_path or self._current.model, written)
        except BaseException as error:
            raise UserCodeError(f"the builder raised {_story(error)}") from error
        if not written.is_file() and not (written.is_dir() and any(written.iterdir())):
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

    def compare(
        self,
        function: bytes,
        output: str | None,
        reference: dict[str, str],
        candidate: dict[str, str],
        labels: str,
        seed: int,
        limit_s: float,
    ) -> dict[str, Any]:
        """The paired experiment on two models' saved predictions (see `edgecheck.capture.scoring`).

        Returns the metrics as ``reference`` and ``candidate``, and the rest as ``paired``.
        """
        metric, postprocess = cloudpickle.loads(function)
        truth = np.load(labels, mmap_mode="r", allow_pickle=False)
        one = _score(metric, postprocess, output, reference, truth)
        try:
            other = _score(metric, postprocess, output, candidate, truth)
        except UserCodeError as error:
            raise UserCodeError(f"on the candidate's predictions {error}") from error
        with _users_metric():
            paired = scoring.compare(metric, one, other, truth, seed=seed, limit_s=limit_s)
        return {"reference": one.value, "candidate": other.value, "paired": paired}


@contextlib.contextmanager
def _users_metric() -> Iterator[None]:
    try:
        yield
    except (scoring.NotFiniteError, EdgecheckError) as error:
        raise UserCodeError(str(error)) from error
    except BaseException as error:
        raise UserCodeError(f"the metric raised {_story(error)}") from error


def _score(
    metric: Metric,
    postprocess: Callable[[Any], Any] | None,
    output: str | None,
    predictions: Mapping[str, str],
    labels: np.ndarray,
) -> scoring.Scored:
    """The metric of saved predictions."""
    arrays = {
        name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in predictions.items()
    }
    if output is not None:
        scored: Any = arrays[output]
    else:
        scored = next(iter(arrays.values())) if len(arrays) == 1 else arrays
    with _users_metric():
        return scoring.score(metric, postprocess, scored, labels)


def _call(packed: bytes, what: str, seed: int) -> Any:
    """Call a source with seeded generators: all processes of a run must see the same model.

    A framework that the call itself imports was not seeded before, so it is called again.
    """
    try:
        function: Callable[[], Any] = cloudpickle.loads(packed)
        seeded = _seed(seed)
        made = function()
        if _loaded() != seeded:
            _seed(seed)
            made = function()
    except BaseException as error:
        raise UserCodeError(f"{what} raised {_story(error)}") from error
    return made


def _loaded() -> set[str]:
    return {name for name in _FRAMEWORKS if name in sys.modules}


def _seed(seed: int) -> set[str]:
    """Seed the generators of Python, NumPy and the frameworks that are loaded; return those."""
    loaded = _loaded()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the user's code may use the global one
    if "torch" in loaded:
        sys.modules["torch"].manual_seed(seed)
    if "tensorflow" in loaded:
        sys.modules["tensorflow"].random.set_seed(seed)
    return loaded


def _open_file(path: str, inputs: list[Input], outputs: list[str], what: str) -> Live:
    """The model in a .pt2, .onnx or .keras file or a SavedModel directory."""
    if not Path(path).exists():
        raise UserCodeError(f"{what} does not exist")
    if Path(path).suffix == ".pt2":
        from edgecheck.capture.torch import LiveTorch
        from edgecheck.runtime.torch_program import load_program

        return LiveTorch(load_program(path), inputs, outputs)
    if Path(path).suffix == ".onnx":
        from edgecheck.capture.onnx import LiveOnnx

        return LiveOnnx(path, inputs, outputs)
    from edgecheck.capture import tensorflow

    return tensorflow.LiveTensorFlow(tensorflow.load(path, what), inputs, outputs, what)


def _open_model(made: Any, inputs: list[Input], outputs: list[str], what: str) -> Live:
    """What a callable returned. Only what is loaded can have made it."""
    if "torch" in sys.modules:
        from edgecheck.capture.torch import LiveTorch, is_module

        if is_module(made):
            return LiveTorch(made, inputs, outputs)
    if "tensorflow" in sys.modules:
        from edgecheck.capture import tensorflow

        tensorflow.require(what)
        if tensorflow.is_model(made):
            return tensorflow.LiveTensorFlow(made, inputs, outputs, what)
    raise UserCodeError(
        f"{what} returned a {type(made).__name__}, not a torch.nn.Module, a Keras model or a "
        "tf.Module"
    )


def _loaded_arrays(paths: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {name: np.load(path, allow_pickle=False) for name, path in paths.items()}


def _input(item: Mapping[str, Any]) -> Input:
    return Input(**{**item, "shape": tuple(item["shape"])})


def _story(error: BaseException) -> str:
    place = user_frame(error)
    return one_line(error) + (f" ({place})" if place else "")
