"""Edgecheck's latencies beside a bare loop's, litert-benchmark's and pytest-benchmark's.

All have the machine to themselves. The bare loop and edgecheck take turns in short bursts, both in
processes that are alive at once, since the speed of a shared machine drifts within a second; the
other tools take whole turns, which is as near as they can be had. Not for how well slowdowns are
told: that is `benchmarks.regressions`.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import chain
from benchmarks.common import BenchmarkError, Row, environment, pytest, python, told, within
from edgecheck.checks.latency import ROUNDS, SHORT_S
from edgecheck.devices.local import Loadable, LocalDevice
from edgecheck.judge.latency_statistics import CONFIDENCE, Interval, Samples, center_interval
from edgecheck.process.lock import MachineLock, default_path
from edgecheck.process.parent import Pool
from edgecheck.targets.registry import find_target

LOW, HIGH = 0.98, 1.02
# Edgecheck and the bare loop take turns until their ratio is known to this, but not for ever.
PRECISE = 0.005
LEAST_PAIRS = 40
PAIRS_LIMIT_S, QUICK_LIMIT_S = 75.0, 10.0
# Bursts by one pair of processes; the next pair has other luck with its addresses.
PROCESS_PAIRS = 10
BURST_S = 0.05
TURNS, QUICK_TURNS = 7, 2
RUNTIMES = ("ort", "tflite")
# Sampling of one turn by any of the other tools: as long as the latency check's first rounds.
_DURATION_S = ROUNDS * SHORT_S
_LEAST_RUNS = 6
_WARM_UP_MS = 30.0
# litert-benchmark rounds its times to this; one that this moves by more is told by its throughput.
_ROUNDING_MS = 0.01
_ROUNDING_SHARE = 0.002
_TEST = {
    "ort": """
import numpy, onnxruntime

def test_inference(benchmark):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession({model!r}, options)
    benchmark(session.run, None, {{session.get_inputs()[0].name: numpy.load({feed!r})}})
""",
    "tflite": """
import numpy
from ai_edge_litert.interpreter import Interpreter

def test_inference(benchmark):
    interpreter = Interpreter({model!r}, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], numpy.load({feed!r}))
    benchmark(interpreter.invoke)
""",
}


@dataclass(frozen=True)
class Bench:
    """A model and where to time it; `nominal_ms` is about what one inference takes."""

    device: LocalDevice
    lock: MachineLock
    place: Path
    runtime: str
    model: Loadable
    nominal_ms: float

    @property
    def feed(self) -> str:
        """The .npy path of the one input."""
        return self.model.feed["x"]


# What a tool found in one turn, in ms: some of "p50", "mean", "load" and "first".
Found = dict[str, float]
Tool = Callable[[Bench], Found]


def measure(quick: bool) -> list[Row]:
    """Time chains of all sizes on both runtimes by all tools in turns."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        lock = MachineLock(default_path())
        pool = Pool(place, 1)
        device = LocalDevice(pool, 300, lock, threads=1, cpus=())
        try:
            for runtime in RUNTIMES:
                for size in chain.SIZES:
                    model = chain.save(place, size, runtime)
                    bench = Bench(device, lock, place, runtime, model, float(size.split()[0]))
                    with told(f"latency, {runtime} {size}"):
                        rows += _beside_bare_loop(f"{runtime} {size}", bench, quick)
                        rows += _beside_tools(bench, quick)
        finally:
            pool.close()
            lock.close()
    return rows


def _beside_bare_loop(what: str, bench: Bench, quick: bool) -> list[Row]:
    """Bursts of both in turns, edgecheck's by the driver that it times with."""
    pairs: list[tuple[Found, Found]] = []
    deadline = time.perf_counter() + (QUICK_LIMIT_S if quick else PAIRS_LIMIT_S)
    while time.perf_counter() < deadline and not _is_precise(pairs):
        with (
            bench.device.stopwatch(find_target(bench.runtime)) as stopwatch,
            _bare_loop(bench) as burst,
        ):
            for number in range(PROCESS_PAIRS):
                # ABBA: what drifts is shared evenly.
                if number % 2 == 0:
                    own, bare = _found([stopwatch.round(bench.model, duration_s=BURST_S)]), burst()
                else:
                    bare, own = burst(), _found([stopwatch.round(bench.model, duration_s=BURST_S)])
                pairs.append((own, bare))
    ratio = _ratio([(own["p50"], bare["p50"]) for own, bare in pairs])
    return [
        within(f"{what}: p50, edgecheck over a bare loop", ratio.value, LOW, HIGH),
        Row(f"  its interval, from {len(pairs)} pairs", f"{ratio.low:.3f} to {ratio.high:.3f}"),
        *(
            Row(
                f"  {label}, edgecheck; bare",
                f"{statistics.median(own[key] for own, _ in pairs):.4g}; "
                f"{statistics.median(bare[key] for _, bare in pairs):.4g} ms",
            )
            for key, label in (("p50", "p50"), ("load", "load"), ("first", "first inference"))
        ),
    ]


def _is_precise(pairs: Sequence[tuple[Found, Found]]) -> bool:
    if len(pairs) < LEAST_PAIRS:
        return False
    return _ratio([(own["p50"], bare["p50"]) for own, bare in pairs]).width <= PRECISE


def _ratio(pairs: Sequence[tuple[float, float]]) -> Interval:
    """The centre of the ratios of neighbours: what drifts is the same for both."""
    center = center_interval(np.log([own / other for own, other in pairs]), CONFIDENCE)
    return Interval(math.exp(center.value), math.exp(center.low), math.exp(center.high))


def _beside_tools(bench: Bench, quick: bool) -> list[Row]:
    """Whole runs of the other tools, each turn beginning with another."""
    tools: dict[str, Tool] = {"edgecheck": _edgecheck, "pytest-benchmark": _pytest_benchmark}
    if bench.runtime == "tflite":
        tools["litert-benchmark"] = _litert_benchmark
    found: dict[str, list[Found]] = {name: [] for name in tools}
    for turn in range(QUICK_TURNS if quick else TURNS):
        first = turn % len(tools)
        for name in [*tools][first:] + [*tools][:first]:
            found[name].append(tools[name](bench))
    own = found.pop("edgecheck")
    rows = []
    for name, turns in found.items():
        key = "p50" if "p50" in turns[0] else "mean"
        ratio = _ratio([(mine[key], other[key]) for mine, other in zip(own, turns, strict=True)])
        rows.append(
            Row(
                f"  {key}, edgecheck over {name}",
                f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
            )
        )
    return rows


def _edgecheck(bench: Bench) -> Found:
    """One attempt of the latency check, as far as it goes where no limit asks for more."""
    with bench.device.stopwatch(find_target(bench.runtime)) as stopwatch:
        rounds = [stopwatch.round(bench.model, duration_s=SHORT_S) for _ in range(ROUNDS)]
    return _found(rounds)


def _found(rounds: Sequence[dict[str, Any]]) -> Found:
    sides = [item["candidates"][0] for item in rounds]
    times_ms = Samples.of(sides, threads=1).wall_ms
    return {
        "p50": float(np.median(times_ms)),
        "mean": float(np.mean(times_ms)),
        "load": sides[0]["load_ns"] / 1e6,
        "first": sides[0]["first_ns"] / 1e6,
    }


@contextmanager
def _bare_loop(bench: Bench) -> Iterator[Callable[[], Found]]:
    """A process with the bare loop; each call is one burst."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_loop", bench.runtime, bench.model.path, bench.feed],
        cwd=bench.place,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    def ask(line: str) -> str:
        stdin.write(line)
        stdin.flush()
        return answer()

    def answer() -> str:
        line = stdout.readline()
        if not line:
            raise BenchmarkError(f"the bare loop ended with {process.wait()}")
        return line

    with process:
        try:
            answer()
            yield lambda: json.loads(ask(f"{BURST_S}\n"))
        finally:
            stdin.close()


def _pytest_benchmark(bench: Bench) -> Found:
    test = bench.place / f"test_{bench.runtime}.py"
    test.write_text(_TEST[bench.runtime].format(model=str(bench.model.path), feed=bench.feed))
    result = bench.place / "pytest-benchmark.json"
    options = [f"--benchmark-json={result}", f"--benchmark-max-time={_DURATION_S}"]
    with bench.lock.alone():
        pytest(
            ["-q", "-p", "pytest_benchmark.plugin", *options, str(test)],
            cwd=bench.place,
            env=environment(),
        )
    (benchmark,) = json.loads(result.read_text())["benchmarks"]
    return {"p50": 1e3 * benchmark["stats"]["median"], "mean": 1e3 * benchmark["stats"]["mean"]}


def _litert_benchmark(bench: Bench) -> Found:
    """The runtime's own tool; its p50 only where rounding leaves enough of it.

    Its throughput, of input bytes at the mean time, has more digits.
    """
    tool = Path(sys.executable).with_name("litert-benchmark")
    if not tool.is_file():
        raise BenchmarkError(f"there is no {tool}: it comes with ai-edge-litert")
    result = bench.place / "litert-benchmark.json"
    runs = max(_LEAST_RUNS, round(1e3 * _DURATION_S / bench.nominal_ms))
    warm_up = max(_LEAST_RUNS, round(_WARM_UP_MS / bench.nominal_ms))
    with bench.lock.alone():
        python(
            [
                *(str(tool), f"--model={bench.model.path}", "--num_threads=1"),
                *(f"--num_runs={runs}", f"--warmup_runs={warm_up}", f"--result_json={result}"),
            ],
            cwd=bench.place,
            env=environment(),
        )
    found = json.loads(result.read_text())
    input_mib = np.load(bench.feed).nbytes / 2**20
    mean_ms = 1e3 * input_mib / found["throughput_mb_s"]
    if bench.nominal_ms < _ROUNDING_MS / 2 / _ROUNDING_SHARE:
        return {"mean": mean_ms}
    return {"p50": found["latency"]["median_ms"], "mean": mean_ms}
