"""Timing on the device: what a round holds, how it warms up, and that candidates take turns."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck.devices.local import runner_service
from edgecheck.process.parent import Child
from edgecheck.runtime import timing
from edgecheck.runtime.runner import Runner
from edgecheck.targets.ort.run import OrtRunner
from edgecheck.targets.registry import find_target
from edgecheck.targets.tflite.run import TfliteRunner
from tests.targets.tflite.graphs import Graph, model, pack

DRIVERS: dict[str, type[Runner]] = {"ort": OrtRunner, "tflite": TfliteRunner}
RUNTIMES = list(DRIVERS)


def candidate(
    directory: Path, target: str, layers: int = 1, width: int = 1 << 14, **options: Any
) -> dict[str, Any]:
    """A chain of sigmoids as a file, with its input: more layers are more work."""
    path = directory / f"{layers}x{width}{find_target(target).files.suffix}"
    if target == "ort":
        path.write_bytes(_onnx_chain(layers, width).SerializeToString())
        names = ("x0", f"x{layers}")
    else:
        graph = Graph()
        tensors = [graph.input([1, width]), *(graph.tensor([1, width]) for _ in range(layers))]
        for read, write in itertools.pairwise(tensors):
            graph.operator("LOGISTIC", [read], [write])
        graph.outputs = [tensors[-1]]
        path.write_bytes(pack(model(graph)))
        names = ("t0", f"t{layers}")
    np.save(directory / "x.npy", np.zeros((1, width), np.float32))
    sides = [{"name": name, "transpose": None} for name in names]
    return {
        "path": str(path),
        "options": {"threads": 1, **options},
        "binding": {
            "inputs": {"x": sides[0]},
            "outputs": {"y": sides[1]},
            "batched": ["x"],
            "batch": 1,
        },
        "feed": {"x": str(directory / "x.npy")},
    }


def _onnx_chain(layers: int, width: int) -> Any:
    names = [f"x{place}" for place in range(layers + 1)]
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", [a], [b]) for a, b in itertools.pairwise(names)],
        "g",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [1, width])],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(made)
    return made


def median_ms(found: dict[str, Any]) -> float:
    wall_ns = [item for block in found["blocks"] for item in block["wall_ns"]]
    return float(np.median(wall_ns)) / found["calls_per_sample"] / 1e6


# -- with the runtimes


@pytest.mark.parametrize("target", RUNTIMES)
def test_a_round_holds_raw_samples_and_how_they_came_about(tmp_path: Path, target: str) -> None:
    found = DRIVERS[target]().time_round([candidate(tmp_path, target)], duration_s=0.04, blocks=2)
    (one,) = found["candidates"]
    assert one["load_ns"] > 0
    assert one["first_ns"] > 0 and one["first_cpu_ns"] > 0
    assert one["warmup_runs"] >= 3
    assert one["calls_per_sample"] >= 1
    assert len(one["blocks"]) == 2
    for block in one["blocks"]:
        assert len(block["wall_ns"]) == len(block["cpu_ns"]) >= 2
        assert min(block["wall_ns"]) > 0 and min(block["cpu_ns"]) > 0
        assert {type(item) for item in block["wall_ns"] + block["cpu_ns"]} == {int}
        assert len(block["wall_ns"]) <= 1000
    assert found["frequency_mhz"] is None or found["frequency_mhz"] > 0
    if hasattr(os, "sched_getaffinity"):
        assert found["cpus"] == sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize("target", RUNTIMES)
def test_more_work_takes_more_time(tmp_path: Path, target: str) -> None:
    pair = [candidate(tmp_path, target, layers) for layers in (1, 40)]
    found = DRIVERS[target]().time_round(pair, duration_s=0.1, blocks=4)
    light, heavy = map(median_ms, found["candidates"])
    assert 4 < heavy / light < 400


@pytest.mark.parametrize("target", RUNTIMES)
def test_every_load_is_a_fresh_one(tmp_path: Path, target: str) -> None:
    """A file that is changed between rounds is timed as it is then."""
    one = candidate(tmp_path, target, 1)
    driver = DRIVERS[target]()
    before = driver.time_round([one], duration_s=0.02, blocks=1)
    Path(candidate(tmp_path, target, 40)["path"]).replace(one["path"])
    one["binding"]["outputs"]["y"]["name"] = "x40" if target == "ort" else "t40"
    after = driver.time_round([one], duration_s=0.02, blocks=1)
    assert median_ms(after["candidates"][0]) > 4 * median_ms(before["candidates"][0])


@pytest.mark.parametrize("target", RUNTIMES)
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's affinity")
def test_a_device_process_keeps_to_the_cores_it_is_given(tmp_path: Path, target: str) -> None:
    core = max(os.sched_getaffinity(0))
    kind = find_target(target)
    with Child(runner_service(kind), tmp_path) as child:
        found = child.call(
            "time_round",
            timeout_s=60,
            candidates=[candidate(tmp_path, target, cpus=[core])],
            duration_s=0.01,
            blocks=1,
        )
    assert found["cpus"] == [core]


@pytest.mark.parametrize("target", RUNTIMES)
def test_two_threads_are_taken_where_asked_for(tmp_path: Path, target: str) -> None:
    pair = [candidate(tmp_path, target, 4, 1 << 16, threads=threads) for threads in (1, 2)]
    found = DRIVERS[target]().time_round(pair, duration_s=0.02, blocks=1)
    assert [len(item["blocks"]) for item in found["candidates"]] == [1, 1]


def test_a_file_that_does_not_load_is_an_error_and_collection_goes_on(tmp_path: Path) -> None:
    broken = candidate(tmp_path, "ort")
    Path(broken["path"]).write_text("no model")
    with pytest.raises(Exception, match="rotobuf"):
        OrtRunner().time_round([broken], duration_s=0.01, blocks=1)
    assert gc.isenabled()


# -- without one


def spin(duration_s: float) -> None:
    """Work for so long by the clock: a sleep would be no work."""
    end = time.perf_counter_ns() + int(duration_s * 1e9)
    while time.perf_counter_ns() < end:
        pass


def loads(infer: Callable[[], object]) -> Callable[[], Callable[[], object]]:
    return lambda: infer


def timed(*infers: Callable[[], object], duration_s: float = 0.01, blocks: int = 1) -> Any:
    return timing.time_round(
        [loads(infer) for infer in infers], duration_s=duration_s, blocks=blocks
    )


def test_candidates_take_turns_and_change_who_begins() -> None:
    calls: list[str] = []

    def named(name: str) -> Callable[[], object]:
        def infer() -> None:
            calls.append(name)
            spin(0.0005)

        return infer

    found = timed(named("a"), named("b"), duration_s=0.008, blocks=4)["candidates"]
    turns = "".join(name for name, _ in itertools.groupby(calls))
    # Both warm up, and then a b, b a, a b, b a: neighbours that are alike read as one.
    assert turns == "ab" + "ab" + "a" + "b" + "a"
    for name, one in zip("ab", found, strict=True):
        samples = sum(len(block["wall_ns"]) for block in one["blocks"])
        assert calls.count(name) == 1 + one["warmup_runs"] + samples * one["calls_per_sample"]


def test_time_is_shared_and_not_samples() -> None:
    found = timed(lambda: spin(0.001), lambda: spin(0.01), duration_s=0.4, blocks=4)
    light, heavy = (
        sum(len(block["wall_ns"]) for block in one["blocks"]) for one in found["candidates"]
    )
    assert light > heavy >= 8


def test_what_the_clock_can_not_see_is_timed_several_calls_at_once() -> None:
    (found,) = timed(lambda: None, duration_s=0.005)["candidates"]
    assert found["calls_per_sample"] > 1
    (block,) = found["blocks"]
    clock_ns = min(timing._clock_cost_ns() for _ in range(5))
    assert np.median(block["wall_ns"]) > 10 * clock_ns
    # An empty call takes nanoseconds, however it is counted.
    assert median_ms(found) < 0.001


def test_candidates_are_timed_with_as_many_calls() -> None:
    """Reading the clocks is part of each sample: it must not tell two alike apart."""
    found = timed(lambda: None, lambda: spin(1e-6), duration_s=0.002)["candidates"]
    assert found[0]["calls_per_sample"] == found[1]["calls_per_sample"] > 1


def test_what_the_clock_sees_is_timed_one_by_one() -> None:
    (found,) = timed(lambda: spin(0.002))["candidates"]
    assert found["calls_per_sample"] == 1
    assert min(found["blocks"][0]["wall_ns"]) >= 2_000_000


def test_a_slow_inference_gets_two_samples_a_block() -> None:
    (found,) = timed(lambda: spin(0.02), duration_s=0.0001, blocks=2)["candidates"]
    assert [len(block["wall_ns"]) for block in found["blocks"]] == [2, 2]
    assert found["warmup_runs"] >= 3


def test_the_first_inference_is_told_apart() -> None:
    waits = iter([0.05])
    (found,) = timed(lambda: spin(next(waits, 0.001)))["candidates"]
    assert found["first_ns"] >= 50_000_000
    assert found["first_cpu_ns"] > 0
    assert median_ms(found) < 25


def test_loading_is_told_apart() -> None:
    def load() -> Callable[[], object]:
        spin(0.03)
        return lambda: spin(0.001)

    found = timing.time_round([load], duration_s=0.01, blocks=1)["candidates"][0]
    assert found["load_ns"] >= 30_000_000
    assert found["first_ns"] < 30_000_000


def test_warm_up_goes_on_while_runs_get_faster_and_then_ends() -> None:
    waits = iter([0.032, 0.016, 0.008, 0.004, 0.002])
    (found,) = timed(lambda: spin(next(waits, 0.001)))["candidates"]
    assert found["steady"] is True
    # Four that fall, and two windows that do not.
    assert found["warmup_runs"] >= 6
    assert min(found["blocks"][0]["wall_ns"]) < 8_000_000


def test_what_keeps_getting_faster_is_not_called_steady() -> None:
    """Warm-up ends after a second all the same."""
    durations_s = (0.25 * 0.9**place for place in itertools.count())
    start = time.perf_counter()
    (found,) = timed(lambda: spin(next(durations_s)))["candidates"]
    assert found["steady"] is False
    assert time.perf_counter() - start < 20
    assert len(found["blocks"][0]["wall_ns"]) >= 2


def test_garbage_is_not_collected_from_the_warm_up_on() -> None:
    states: list[bool] = []

    def infer() -> None:
        states.append(gc.isenabled())
        spin(0.0005)

    timed(infer)
    assert not any(states)
    assert gc.isenabled()


def test_the_warm_up_is_long_enough_for_the_clock_to_climb() -> None:
    (found,) = timed(lambda: spin(0.001))["candidates"]
    assert found["warmup_runs"] >= 5


# -- what other work does


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_contention_is_counted_from_one_moment_to_the_next() -> None:
    found = timed(lambda: spin(0.02), duration_s=0.1)["contention"]
    assert set(found) >= {"involuntary_switches", "steal_ticks"}
    assert all(type(value) is int and value >= 0 for value in found.values())
    if found.get("run_ns"):
        assert 10e6 < found["run_ns"] < 60e9


def test_counters_only_one_of_two_readings_has_are_left_out() -> None:
    assert timing._difference({"a": 1, "b": 5}, {"a": 4, "c": 9}) == {"a": 3}
