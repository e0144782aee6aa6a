"""A latency script as one writes it by hand: load, warm up, time inferences, take the median.

Run by `benchmarks.latency`, which asks it for bursts. It has nothing of edgecheck in it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

Infer = Callable[[], object]
Load = Callable[[str, npt.NDArray[np.float32]], Infer]

WARM_UP_S = 0.03
_LEAST_RUNS = 2


def main() -> None:
    """``bare_loop RUNTIME MODEL INPUT``: for each line of seconds, a burst's figures as JSON."""
    runtime, model, feed = sys.argv[1:]
    x = np.load(feed)
    load = {"ort": _onnxruntime, "tflite": _litert}[runtime]()
    print("ready", flush=True)
    for seconds in sys.stdin:
        print(json.dumps(_burst(load, model, x, float(seconds))), flush=True)


def _burst(
    load: Load, model: str, x: npt.NDArray[np.float32], duration_s: float
) -> dict[str, float]:
    """Load anew and time inferences: load, first, p50 and mean in ms."""
    clock = time.perf_counter
    start = clock()
    infer = load(model, x)
    load_s = clock() - start
    start = clock()
    infer()
    first_s = clock() - start

    _repeat(infer, WARM_UP_S)
    times_s = _repeat(infer, duration_s)
    found = {
        "load": load_s,
        "first": first_s,
        "p50": statistics.median(times_s),
        "mean": statistics.mean(times_s),
    }
    return {name: 1e3 * value for name, value in found.items()}


def _repeat(infer: Infer, duration_s: float) -> list[float]:
    clock = time.perf_counter
    times_s: list[float] = []
    deadline = end = clock() + duration_s
    while end <= deadline or len(times_s) < _LEAST_RUNS:
        start = clock()
        infer()
        end = clock()
        times_s.append(end - start)
    return times_s


def _onnxruntime() -> Load:
    import onnxruntime

    def load(model: str, x: npt.NDArray[np.float32]) -> Infer:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return partial(session.run, None, {session.get_inputs()[0].name: x})

    return load


def _litert() -> Load:
    from ai_edge_litert.interpreter import Interpreter

    def load(model: str, x: npt.NDArray[np.float32]) -> Infer:
        interpreter = Interpreter(model, num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        invoke: Infer = interpreter.invoke
        return invoke

    return load


if __name__ == "__main__":
    main()
