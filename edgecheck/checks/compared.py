"""The outputs of a candidate and its reference that are compared, and how they are simulated.

A part of `edgecheck.checks.reference_baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecheck.checks import yardstick
from edgecheck.judge.labels import without_ties
from edgecheck.judge.noise import rows_needed

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.workbench import Feeds, Workbench

Array = npt.NDArray[Any]
Paths = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Compared:
    """The outputs that are compared.

    Attributes:
        reference, results: see `measure`.
        rows: how many samples of each feed are simulated; None for all.
    """

    case: Case
    feeds: Feeds
    reference: Paths
    results: Mapping[int, Mapping[str, str]]
    rows: Sequence[int | None]

    def simulated(
        self, workbench: Workbench, arithmetic: Mapping[str, Any], positions: Sequence[int]
    ) -> tuple[dict[int, dict[str, str]], str]:
        """Outputs in other arithmetic by position of the feed, and why there are none, or "".

        See `edgecheck.capture.client.Sources.simulate`.
        """
        simulation = self._simulation(workbench, arithmetic, positions)
        return dict(zip(positions, simulation["outputs"], strict=False)), simulation["reason"]

    def overflowing_sums(
        self, workbench: Workbench, arithmetic: Mapping[str, Any], positions: Sequence[int]
    ) -> list[str]:
        """What adds up inside an operator to more than half precision holds, as sentences."""
        found: list[str] = self._simulation(workbench, arithmetic, positions).get(
            "overflowing_sums", []
        )
        return found

    def _simulation(
        self, workbench: Workbench, arithmetic: Mapping[str, Any], positions: Sequence[int]
    ) -> dict[str, Any]:
        named_source = yardstick.simulated_source(workbench, self.case)
        if named_source is None:
            return {
                "outputs": [],
                "reason": "the reference is a model file, and not an .onnx file in float",
            }
        name, source = named_source
        return workbench.sources.simulate(
            name,
            source,
            self.case.model,
            [self.feeds.feeds[index] for index in positions],
            [self.rows[index] for index in positions],
            f"parity {list(positions)}",
            arithmetic,
        )

    @property
    def judged(self) -> list[int]:
        """Positions of the feeds that quantized precisions are judged on (see `parity.run`)."""
        labels = self.feeds.labels
        own = [index for index in self.results if labels[index] == "samples"]
        return own if own and self.case.precision not in ("fp32", "fp16") else list(self.results)

    def pair(self, index: int, name: str) -> tuple[Array, Array] | None:
        """Candidate and reference of an output that can be subtracted, or None."""
        candidate, expected = load(self.results[index][name]), load(self.reference[index][name])
        same = candidate.shape == expected.shape and expected.size > 0
        return (candidate, expected) if same and expected.dtype.kind == "f" else None

    def label_errors(
        self, name: str, simulations: Mapping[int, Mapping[str, str]]
    ) -> tuple[list[float], list[float]]:
        """Shares of an output's labels that differ, by sample: the candidate's, and simulated.

        Empty for an output that is not of integers or booleans. Ties are no difference.

        Args:
            simulations: .npy path of the simulated outputs by name, by position of the feed.
        """
        own: list[float] = []
        plain: list[float] = []
        for index in self.judged:
            if load(self.reference[index][name]).dtype.kind not in "iub":
                continue
            sides = [self.results[index], self.reference[index], simulations[index]]
            count = self.rows[index]
            candidate, expected, simulated = (
                {key: _first(load(paths[key]), count) for key in self.case.model.outputs}
                for paths in sides
            )
            labels = expected[name]
            shapes = {candidate[name].shape, labels.shape, simulated[name].shape}
            if not labels.size or len(shapes) > 1:
                continue
            for found, shares in ((candidate, own), (simulated, plain)):
                pairs = [(found[key], expected[key]) for key in self.case.model.outputs]
                differ = np.atleast_1d(without_ties(found[name], labels, pairs) != labels)
                shares.extend(differ.reshape(len(differ), -1).mean(axis=1).tolist())
        return own, plain


def _first(array: Array, count: int | None) -> Array:
    """The first samples of an output; all of it where there is no number, or no axis."""
    return array[:count] if count is not None and array.ndim else array


def rows_to_simulate(case: Case, outputs: Mapping[str, str]) -> int | None:
    """How many samples of a feed to simulate; None for all, if outputs have no batch axis."""
    if not all(item.batched for item in case.model.inputs):
        return None
    arrays = [load(path) for path in outputs.values()]
    sizes = {array.shape[0] if array.ndim else 0 for array in arrays}
    if len(sizes) != 1 or 0 in sizes:
        return None
    (batch,) = sizes
    # Labels of one sample are not independent: they say as much as one value.
    values = min(
        1 if array.dtype.kind in "iub" else int(np.prod(array.shape[1:])) for array in arrays
    )
    return rows_needed(batch, values, case.precision)


def load(path: str) -> Array:
    """A .npy file, mapped."""
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
