"""Data of whole calls: samples that are all inputs of one call (see `takes_whole_calls`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgecheck.capture.data import save_feed


def save_calls(
    inputs: Mapping[str, str], positions: Iterable[int], folder: Path
) -> list[dict[str, str]]:
    """Save some calls of stored data, each as a feed of its own.

    Args:
        inputs: .npy path by input name, calls on axis 0.
    """
    arrays = {
        name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in inputs.items()
    }
    return [
        save_feed({name: array[index] for name, array in arrays.items()}, folder / f"call-{index}")
        for index in positions
    ]


def join_outputs(calls: Sequence[Mapping[str, str]], folder: Path) -> dict[str, str]:
    """Save the outputs of several calls with the call on axis 0, in place of a batch of one."""
    arrays: dict[str, np.ndarray] = {}
    for name in calls[0]:
        parts = [np.load(call[name], allow_pickle=False) for call in calls]
        single = all(part.shape[:1] == (1,) for part in parts)
        arrays[name] = np.concatenate(parts) if single else np.stack(parts)
    return save_feed(arrays, folder)
