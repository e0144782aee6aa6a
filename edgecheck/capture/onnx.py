"""An ONNX file as a live source: it runs in ONNX's reference implementation, not in a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.capture.base import CaptureError, SimulationError
from edgecheck.declare.model import Input

Infer = Callable[..., dict[str, np.ndarray]]


class LiveOnnx:
    """The graph of an .onnx file (see `edgecheck.capture.base.Live`).

    Raises:
        CaptureError: it does not take the declared inputs and outputs.
    """

    kind = "onnx"
    training = False

    def __init__(self, path: str, inputs: Sequence[Input], outputs: Sequence[str]) -> None:
        self.model = load(Path(path))
        self._inputs, self._outputs = [item.name for item in inputs], list(outputs)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call in float32."""
        return self.simulator({"kind": "float32"}, [])(inputs)

    def simulator(
        self, arithmetic: Mapping[str, Any], calibration: Sequence[Mapping[str, np.ndarray]]
    ) -> Infer:
        """The graph in other arithmetic (see `edgecheck.capture.onnx_arithmetic.simulator`)."""
        return simulator(self.model, self._inputs, self._outputs, arithmetic, calibration)

    def capture(
        self,
        folder: Path,
        dims: Mapping[str, tuple[int, int]],
        example: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Path, str]:
        """Not needed: the file is its own program."""
        raise CaptureError("an ONNX file is its own program")


def simulator(
    model: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    arithmetic: Mapping[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]],
) -> Infer:
    """A function of declared names that runs an ``onnx.ModelProto`` in other arithmetic.

    Raises:
        SimulationError: it does not run so; the message says why. The function too.
    """
    from edgecheck.capture import onnx_arithmetic

    stored = {item.name for item in model.graph.initializer}
    own = [item.name for item in model.graph.input if item.name not in stored]
    entries = _matched("input", inputs, own)
    exits = _matched("output", outputs, [item.name for item in model.graph.output])

    def entering(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {entries[name]: array for name, array in feed.items()}

    run = onnx_arithmetic.simulator(model, arithmetic, [entering(feed) for feed in calibration])

    def infer(feed: Mapping[str, np.ndarray], **keeping: Any) -> dict[str, np.ndarray]:
        if keeping:
            raise SimulationError("layers of an ONNX graph can't be kept in float one by one")
        found = run(entering(feed))
        return {name: np.asarray(found[exits[name]], order="C") for name in outputs}

    return infer


def _matched(what: str, declared: Sequence[str], own: Sequence[str]) -> dict[str, str]:
    """The graph's name for each declared one: the same, or all in order if none is.

    Raises:
        SimulationError: their numbers differ, or only some names fit.
    """
    if set(declared) == set(own):
        return {name: name for name in declared}
    if len(declared) != len(own) or set(declared) & set(own):
        raise SimulationError(f"{what}s {list(declared)} are declared, the graph has {list(own)}")
    return dict(zip(declared, own, strict=True))


def load(path: Path) -> Any:
    """The ``onnx.ModelProto`` in a file, with its external data.

    Raises:
        CaptureError: onnx is not installed.
        SimulationError: the file does not load.
    """
    try:
        from edgecheck.capture import onnx_graph
    except ModuleNotFoundError as error:
        raise CaptureError(
            f"{error.name} is not installed: pip install 'edgecheck[ort]'"
        ) from error
    return onnx_graph.load(path)
