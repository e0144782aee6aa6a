"""Weighing a model in its own process: loading, running, steady state, and growth over inferences.

Self-contained (standard library and NumPy), since it is sent to the device. Linux only: it reads
/proc (proc(5)).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# Allocators and memory plans settle within a few inferences; slow models get fewer of them.
SETTLING_RUNS = 10
SETTLING_LIMIT_S = 1.0
READINGS = 40
# glibc's malloc.h, and its initial value of both.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_THRESHOLD_BYTES = 128 * 1024
_CLEAR_REFS = Path("/proc/self/clear_refs")
_ROLLUP = Path("/proc/self/smaps_rollup")
_SMAPS = Path("/proc/self/smaps")
# A mapping's first line: range, permissions, offset, device, inode, path (proc(5)).
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)")


class Weighed(Protocol):
    """What weighing needs of a runner; see `edgecheck.runtime.runner.Runner`."""

    def warm_runtime(self) -> None: ...

    def load(self, path: str, options: dict[str, Any]) -> dict[str, Any]: ...

    def bind(self, binding: dict[str, Any]) -> None: ...

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def reported_memory(self, feed: dict[str, str]) -> dict[str, int]: ...

    def _file_inputs(self, declared: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...


def measure(
    runner: Weighed,
    path: str,
    options: dict[str, Any],
    binding: dict[str, Any],
    feed: dict[str, str],
    *,
    runs: int,
    growth_runs: tuple[int, int],
    growth_limit_s: float,
) -> dict[str, Any]:
    """Resident memory of loading and running a model, in bytes.

    Only meaningful as the first call in a fresh process. Peaks are the kernel's own high-water mark
    (VmHWM, reset through clear_refs).

    Args:
        feed: .npy path by declared input, one call.
        runs: inferences that the peak is taken over.
        growth_runs: the least and the most inferences of the growth series, after those.
        growth_limit_s: the series has no more inferences than fit in this time, but the least.

    Returns:
        ``runtime_bytes``: the empty runtime. ``load_bytes``, ``peak_bytes``: the peak of loading,
        and of loading and running, above it. ``loaded_bytes``, ``steady_bytes``: what is resident
        above it after loading, and once inferences have settled. ``mapped_bytes``,
        ``mapped_resident_bytes``: how much of the model's files is memory-mapped, and how much of
        that is resident. ``inferences``, ``held_bytes``: the growth series, memory of no file after
        so many inferences. ``reported``: what the runtime itself says (see
        `Runner.reported_memory`).

    Raises:
        RuntimeError: the kernel tells no such figures (not Linux).
    """
    if not _CLEAR_REFS.exists() or not _ROLLUP.exists():
        raise RuntimeError("peak memory needs Linux's /proc/self/clear_refs and smaps_rollup")
    _fix_thresholds()
    runner.warm_runtime()
    arrays = {name: np.load(file, allow_pickle=False) for name, file in feed.items()}
    gc.collect()
    before = _rollup_bytes("Rss")
    _CLEAR_REFS.write_text("5")
    runner.load(path, options)
    load_peak = _peak_bytes()
    loaded = _rollup_bytes("Rss")
    runner.bind(binding)
    inputs = runner._file_inputs(arrays)
    for _ in range(runs):
        runner.infer(inputs)
    peak = _peak_bytes()
    count = _settle(runner, inputs, growth_runs, growth_limit_s)
    steady = _rollup_bytes("Rss")
    inferences, held = _series(runner, inputs, count)
    mapped, mapped_resident = _mapped_bytes(Path(path))
    return {
        "runtime_bytes": before,
        "load_bytes": max(0, load_peak - before),
        "loaded_bytes": max(0, loaded - before),
        "peak_bytes": max(0, peak - before),
        "steady_bytes": max(0, steady - before),
        "mapped_bytes": mapped,
        "mapped_resident_bytes": mapped_resident,
        "inferences": inferences,
        "held_bytes": held,
        "reported": runner.reported_memory(feed),
    }


def _fix_thresholds() -> None:
    """Hold glibc to the thresholds that it starts with (mallopt(3)), instead of adapting them.

    Adapting, it keeps freed memory by the luck of addresses: a 14 MB network was seen to peak at
    anything from 42 to 46 MB, and at 30 MB without.
    """
    with contextlib.suppress(AttributeError):  # another C library
        allocator = ctypes.CDLL(None)
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            allocator.mallopt(parameter, _THRESHOLD_BYTES)


def _settle(
    runner: Weighed, inputs: dict[str, np.ndarray], bounds: tuple[int, int], limit_s: float
) -> int:
    """Run until memory has settled; return how many inferences fit in `limit_s`, within bounds."""
    times_s: list[float] = []
    while len(times_s) < SETTLING_RUNS and sum(times_s) < SETTLING_LIMIT_S:
        start = time.perf_counter()
        runner.infer(inputs)
        times_s.append(time.perf_counter() - start)
    least, most = bounds
    return max(least, min(most, int(limit_s / max(statistics.median(times_s), 1e-9))))


def _series(
    runner: Weighed, inputs: dict[str, np.ndarray], count: int
) -> tuple[list[int], list[int]]:
    """Memory held after so many inferences, at evenly spaced points from 0 to about `count`."""
    step = math.ceil(count / READINGS)
    # Python's own garbage must not read as growth; frozen, what there is costs collections no time.
    gc.collect()
    gc.freeze()
    inferences, held = [0], [_held_bytes()]
    while inferences[-1] < count:
        for _ in range(step):
            runner.infer(inputs)
        inferences.append(inferences[-1] + step)
        held.append(_held_bytes())
    gc.unfreeze()
    return inferences, held


def _held_bytes() -> int:
    """Memory in use that belongs to no file, wherever it is.

    Pages of a mapped model file are not growth. From smaps_rollup, which walks the page tables: the
    counters behind statm and status are only approximate on many kernels (proc(5)). What is free
    goes back to the kernel first, where the C library can (glibc's malloc_trim(3)): loading leaves
    megabytes of it, which a leak would fill unseen.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    text = _ROLLUP.read_text()
    return _field_bytes(text, "Anonymous") + _field_bytes(text, "Swap")


def _rollup_bytes(field: str) -> int:
    return _field_bytes(_ROLLUP.read_text(), field)


def _peak_bytes() -> int:
    return _field_bytes(Path("/proc/self/status").read_text(), "VmHWM")


def _field_bytes(text: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the kernel tells no {field}")
    return int(found[1]) * 1024


def _mapped_bytes(model: Path) -> tuple[int, int]:
    """Bytes mapped of the files in the model's directory (it may have weights beside it), and how
    many of them are resident."""
    directory = os.path.realpath(model.parent)
    size = resident = 0
    inside = False
    for line in _SMAPS.read_text(errors="replace").splitlines():
        if mapping := _MAPPING.fullmatch(line):
            inside = os.path.dirname(mapping[1]) == directory  # noqa: PTH120
        elif inside and line.startswith("Size:"):
            size += _field_bytes(line, "Size")
        elif inside and line.startswith("Rss:"):
            resident += _field_bytes(line, "Rss")
    return size, resident
