"""ONNX Runtime Web: runs .onnx files in a headless Chromium, with WebAssembly or WebGPU.

Times and memory are those that the page sees.
"""

from __future__ import annotations

import math
import os
import re
import statistics
import time
from collections import Counter
from typing import Any

import numpy as np

from edgecheck.runtime import memory, timing
from edgecheck.runtime.results import Placement
from edgecheck.runtime.runner import Runner, Tensor
from edgecheck.targets.ort_web import browser, package
from edgecheck.targets.ort_web.browser import BrowserError
from edgecheck.targets.ort_web.package import PACKAGE, Page

_PROVIDERS = {"wasm": "CPUExecutionProvider", "webgpu": "WebGpuExecutionProvider"}
_DTYPES = frozenset(
    {
        *("float32", "float64", "float16", "bool", "int8", "uint8", "int16", "uint16"),
        *("int32", "uint32", "int64", "uint64"),
    }
)
# A sample lasts at least so many steps of the page's clock (5 us): 1 % of error at most.
_CLOCK_STEPS = 100
_MAX_SAMPLES = 1000
# The first warm-up of a file lasts longer: Chromium optimises the functions that are run most, on
# another thread, and inferences were seen to take half as long some 0.3 s later.
_WARM_UP = {"window_ms": 5.0, "least_ms": 100.0, "limit_ms": 1500.0, "steady": 0.99}
_FIRST_WARM_UP = {**_WARM_UP, "least_ms": 600.0, "limit_ms": 3000.0}
_PLACED = re.compile(r"(?:Node\(s\)|All nodes) placed on \[(\w+)\]\. Number of nodes: (\d+)")
_NODE = re.compile(r"\]\s+(\w+) \(.*\)\s*$")


class OrtWebRunner(Runner):
    """An inference session in a page. Loading starts the browser, if there is none yet.

    The target's option ``adapter`` chooses WebGPU: ``"hardware"`` or ``"software"``.
    """

    def __init__(self, page: Page | None = None) -> None:
        super().__init__()
        self._page = page
        self._number = 0
        self._load_ns = 0
        self._warmed: set[str] = set()

    def probe(self, adapter: str) -> dict[str, Any]:
        """The WebGPU adapter that this machine's browser has (see `web_runtime.probe`)."""
        return package.probe(adapter)

    def _opened(self, options: dict[str, Any]) -> Page:
        if self._page is None:
            if options.get("cpus"):
                os.sched_setaffinity(0, options["cpus"])  # the browser's processes inherit it
            self._page = Page(options.get("target", {}).get("adapter", ""), options["threads"])
        return self._page

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        page = self._opened(options)
        try:
            self._number, found = page.load(path, optimize=options.get("optimize", True))
        except BrowserError as error:
            raise _explained(error, page) from None
        self._load_ns = found["load_ns"]
        for item in [*found["inputs"], *found["outputs"]]:
            if item["dtype"] not in _DTYPES:
                raise BrowserError(
                    f"tensor {item['name']!r} has type {item['dtype']}, which is not handled"
                )
        if page.provider == "webgpu" and not options.get("timed"):
            self._check_provider(page)
        return found["inputs"], found["outputs"]

    def _check_provider(self, page: Page) -> None:
        """The runtime falls back to WebAssembly without a word, even for the whole model."""
        operators, _ = self._places()
        if operators and _PROVIDERS["webgpu"] not in operators:
            raise BrowserError(f"no operator runs on WebGPU: they are placed on {dict(operators)}")

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert self._page is not None
        try:
            self._page.feed(self._number, inputs)
            return self._page.outputs(self._number)
        except BrowserError as error:
            raise _explained(error, self._page) from None

    def placement(self, feed: dict[str, str]) -> Placement:
        """Operators by provider, the browser, the adapter, and what the page downloaded.

        With WebGPU, operators that the runtime placed elsewhere are told as undelegated.
        """
        page = self._page
        assert page is not None
        operators, left = self._places()
        facts: dict[str, Any] = {
            "providers": [page.provider],
            "browser": page.tab.version,
            "runtime": f"{PACKAGE} {page.about['version']}",
            **{name: page.about[name] for name in ("adapter", "software") if name in page.about},
            **page.download(),
        }
        by_provider = dict(sorted(operators.items()))
        if page.provider != "webgpu":
            return Placement(operators_by_provider=by_provider, facts=facts)
        return Placement(
            operators=operators.total(),
            undelegated_operators=left.total(),
            undelegated_operators_by_type=dict(sorted(left.items())),
            operators_by_provider=by_provider,
            facts=facts,
        )

    def _places(self) -> tuple[Counter[str], Counter[str]]:
        """Number of operators by provider, and by type of those that WebGPU does not run."""
        assert self._page is not None
        operators: Counter[str] = Counter()
        left: Counter[str] = Counter()
        provider = ""
        for line in self._page.tab.call("places", id=self._number):
            if placed := _PLACED.search(line):
                provider = placed[1]
                operators[provider] += int(placed[2])
            elif (node := _NODE.search(line)) and provider != _PROVIDERS["webgpu"]:
                left[node[1]] += 1
        return operators, left

    def time_round(
        self, candidates: list[dict[str, Any]], *, duration_s: float, blocks: int
    ) -> dict[str, Any]:
        """Load candidates afresh and time them in turns, by the page's own clock.

        As `edgecheck.runtime.timing.time_round`, but that no clock in a page tells CPU time: there
        is no ``first_cpu_ns`` and no ``cpu_ns``. A time is that of ``session.run`` with tensors
        that are ready, outputs copied back included. The loop is in the page; ``contention`` is
        that of Chromium's renderer processes.
        """
        page = self._opened(candidates[0]["options"])
        processes = page.tab.processes()
        before = browser.contention(processes)
        timed = []
        for candidate in candidates:
            runner = type(self)(page)
            runner.load(candidate["path"], {**candidate["options"], "timed": True})
            runner.bind(candidate["binding"])
            page.feed(runner._number, runner._load_feed(candidate["feed"]))
            page.tab.call("settle", id=runner._number)
            page.tab.heap_bytes(collected=True)
            known = candidate["path"] in self._warmed
            found = page.tab.call(
                "warm", id=runner._number, **(_WARM_UP if known else _FIRST_WARM_UP)
            )
            self._warmed.add(candidate["path"])
            call_ns = max(1, found.pop("call_ns"))
            calls = math.ceil(_CLOCK_STEPS * page.about["clock_grain_ns"] / call_ns)
            found |= {"load_ns": runner._load_ns, "calls_per_sample": calls, "blocks": []}
            timed.append((runner._number, found))
        calls = max(found["calls_per_sample"] for _, found in timed)
        share_ms = 1e3 * duration_s / (blocks * len(timed))
        for _, found in timed:
            found["calls_per_sample"] = calls
        for turn in range(blocks):
            for number, found in timed if turn % 2 == 0 else reversed(timed):
                wall_ns = page.tab.call(
                    "sample", id=number, calls=calls, duration_ms=share_ms, most=_MAX_SAMPLES
                )
                found["blocks"].append({"wall_ns": wall_ns})
        for number, _ in timed:
            page.tab.call("release", id=number)
        return {
            "candidates": [found for _, found in timed],
            "contention": browser.difference(before, browser.contention(processes)),
            "cpus": timing.cpus(),
            "frequency_mhz": timing.frequency_mhz(),
        }

    def measure_memory(
        self,
        path: str,
        options: dict[str, Any],
        binding: dict[str, Any],
        feed: dict[str, str],
        **settings: Any,
    ) -> dict[str, Any]:
        """Memory of the page: WebAssembly's, and what JavaScript holds with its array buffers.

        The keys are those of `edgecheck.runtime.memory.measure`. WebAssembly's memory grows in
        steps and never shrinks, so that its size is its peak; what the runtime has reserved when it
        starts (``runtime_bytes``) may already hold a small model. Loading is read while the page
        still has the file that it downloaded, peaks before garbage is collected, all else after.
        Not in it: the browser itself, the machine code that it compiles, workers' own heaps, and
        buffers on a GPU. ``reported`` has the two parts as they are at the end.
        """
        page = self._opened(options)
        runtime = _total(page.held_bytes(collected=True))
        self.load(path, options)
        self.bind(binding)
        load_peak = _total(page.held_bytes(collected=False)) - runtime
        page.tab.call("settle", id=self._number)
        loaded = _total(page.held_bytes(collected=True)) - runtime
        page.feed(self._number, self._load_feed(feed))
        peak = load_peak
        for _ in range(settings["runs"]):
            page.tab.call("infer", id=self._number, runs=1)
            peak = max(peak, _total(page.held_bytes(collected=False)) - runtime)
        count = self._settle(page, settings["growth_runs"], settings["growth_limit_s"])
        steady = _total(page.held_bytes(collected=True)) - runtime
        inferences, held = self._series(page, count)
        return {
            "runtime_bytes": runtime,
            "load_bytes": max(0, load_peak),
            "loaded_bytes": max(0, loaded),
            "peak_bytes": max(0, peak),
            "steady_bytes": max(0, steady),
            "mapped_bytes": 0,
            "mapped_resident_bytes": 0,
            "inferences": inferences,
            "held_bytes": held,
            "reported": page.held_bytes(collected=True),
        }

    def _settle(self, page: Page, bounds: tuple[int, int], limit_s: float) -> int:
        """Run until memory has settled; return how many inferences fit in `limit_s`."""
        times_s: list[float] = []
        while len(times_s) < memory.SETTLING_RUNS and sum(times_s) < memory.SETTLING_LIMIT_S:
            start = time.perf_counter()
            page.tab.call("infer", id=self._number, runs=1)
            times_s.append(time.perf_counter() - start)
        least, most = bounds
        return max(least, min(most, int(limit_s / max(statistics.median(times_s), 1e-9))))

    def _series(self, page: Page, count: int) -> tuple[list[int], list[int]]:
        """Memory held after so many inferences; see `edgecheck.runtime.memory`."""
        step = math.ceil(count / memory.READINGS)
        inferences, held = [0], [_total(page.held_bytes(collected=True))]
        while inferences[-1] < count:
            page.tab.call("infer", id=self._number, runs=step)
            inferences.append(inferences[-1] + step)
            held.append(_total(page.held_bytes(collected=True)))
        return inferences, held


def _total(parts: dict[str, int]) -> int:
    return sum(parts.values())


def _explained(error: BrowserError, page: Page) -> BrowserError:
    """Say what an adapter has not, where that is what the runtime complains of."""
    text = str(error)
    if page.about.get("float16") is False and re.search(r"f16|float16", text, re.IGNORECASE):
        text = (
            f"the WebGPU adapter ({page.about['adapter']}) has no shader-f16, which float16 "
            f"operators need: {text}"
        )
    return BrowserError(text)
