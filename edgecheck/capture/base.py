"""What every kind of captured source shares: what it offers, its error, and who is to blame.

Imports no framework.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class CaptureError(ValueError):
    """The source can't be opened or captured; the message is the whole story."""

    stands_alone = True


class SimulationError(ValueError):
    """The source can't be run in other arithmetic; the message says why."""

    stands_alone = True


class Live(Protocol):
    """A source that is opened: the user's model, ready to run and to be captured.

    Attributes:
        kind: ``"torch"``, ``"onnx"`` or ``"tensorflow"``.
        model: what the user's source returned.
        training: whether it came in training mode.
    """

    kind: str
    model: Any
    training: bool

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call of the live model on the CPU: arrays by declared name in and out."""

    def simulator(
        self, arithmetic: Mapping[str, Any], calibration: Sequence[Mapping[str, np.ndarray]]
    ) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """`infer` in other arithmetic (see `edgecheck.capture.arithmetic.simulator`).

        Raises:
            SimulationError: that can't be done; the message says why.
        """

    def capture(
        self,
        folder: Path,
        dims: Mapping[str, tuple[int, int]],
        example: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Path, str]:
        """Write the program into a folder; return its path and the digest of what is in it.

        Args:
            example: inputs that it takes; by default random ones of the declared domain.

        Raises:
            CaptureError: the model can't be captured, or fixes a dimension declared dynamic.
        """


def story(error: BaseException) -> str:
    """An exception as one line: its type, the first telling line, and where in the user's code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    place = user_frame(error)
    return f"{type(error).__name__}: {text[:300]}" + (f" ({place})" if place else "")


def user_frame(error: BaseException) -> str:
    """``file:line`` of the deepest frame outside edgecheck, libraries and Python, or ''."""
    paths = sysconfig.get_paths()
    foreign = tuple(
        str(Path(item).resolve())
        for item in (paths["purelib"], paths["platlib"], paths["stdlib"], Path(__file__).parent)
    )
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *foreign)):
            return f"{frame.filename}:{frame.lineno}"
    return ""
