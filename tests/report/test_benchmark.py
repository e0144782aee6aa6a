"""Latency cases as records of pytest-benchmark, in real runs of both plugins."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgecheck.report import benchmark
from tests.conftest import Judge, Judged

pytest.importorskip("pytest_benchmark")

SUITE = """
class TestTiny(Conformance):
    model = file_model(calibration=inputs)
"""
USERS_OWN = """

def test_own(benchmark):
    benchmark(sum, [1, 2, 3])
"""
LATENCY = (
    "--edge-targets=ort",
    "--edge-precisions=fp32",
    "--edge-checks=latency",
    "--edge-timing-limit=1",
)
KEY = "tiny/ort/fp32/latency"


def saved(judged: Judged, name: str = "b.json") -> dict[str, dict[str, Any]]:
    """What pytest-benchmark wrote, by test."""
    path = judged.directory / name
    assert path.is_file(), judged.output
    found = json.loads(path.read_text())["benchmarks"]
    assert len({item["fullname"] for item in found}) == len(found)
    return {item["fullname"]: item for item in found}


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n2",), marks=pytest.mark.long)], ids=["alone", "xdist"]
)
def test_each_latency_case_is_a_record_with_the_samples_of_the_report(
    judge: Judge, workers: tuple[str, ...]
) -> None:
    precisions = "--edge-precisions=fp32,int8"
    judged = judge(SUITE + USERS_OWN, *LATENCY, precisions, "--benchmark-json=b.json", *workers)
    assert judged.status == 0, judged.output
    found = saved(judged)
    for key in (KEY, "tiny/ort/int8/latency"):
        case = judged.cases[key]
        record = found[case["nodeid"]]
        measured = case["measurements"]
        seconds = [sample / 1e9 for sample in measured["samples_ns"]]
        assert record["stats"]["median"] == pytest.approx(statistics.median(seconds))
        # The samples are rounded to nanoseconds.
        assert record["stats"]["min"] == pytest.approx(measured["latency_min_ms"] / 1e3, abs=1e-9)
        assert record["stats"]["rounds"] == len(seconds)
        assert record["stats"]["iterations"] == measured["calls_per_sample"]
        assert record["stats"]["data"] == pytest.approx(seconds)
        assert record["group"] == "edgecheck latency of tiny"
        assert record["params"]["precision"] == case["precision"]
        assert record["extra_info"]["sha256"] == case["artifact"]["sha256"]
    # The user's own benchmarks stay as pytest-benchmark decides: off under xdist.
    own = {name for name in found if name.endswith("test_own")}
    assert len(own) == (0 if workers else 1)
    assert "edgecheck latency of tiny" in judged.output
    assert "no pytest-benchmark records" not in judged.output


@pytest.mark.long
def test_a_saved_run_is_compared_with_and_a_regression_fails(judge: Judge, tmp_path: Path) -> None:
    storage = f"--benchmark-storage=file://{tmp_path}"
    first = judge(SUITE, *LATENCY, storage, "--benchmark-save=first")
    assert first.status == 0, first.output
    (path,) = tmp_path.rglob("0001_first.json")
    document = json.loads(path.read_text())
    for item in document["benchmarks"]:
        item["stats"]["median"] /= 1e6
    path.write_text(json.dumps(document))
    worse = judge(
        SUITE, *LATENCY, storage, "--benchmark-compare=0001", "--benchmark-compare-fail=median:50%"
    )
    assert worse.status != 0, worse.output
    assert "Performance has regressed" in worse.output
    assert "(0001_first)" in worse.output
    assert "(NOW)" in worse.output
    assert "gate passed" in worse.output  # edgecheck's verdict is its own


@pytest.mark.parametrize(
    "arguments",
    [
        ("--benchmark-disable", "--benchmark-json=b.json"),
        ("-pno:benchmark",),
    ],
    ids=["disabled", "absent"],
)
@pytest.mark.long
def test_without_pytest_benchmark_latency_is_judged_alike(
    judge: Judge, arguments: tuple[str, ...]
) -> None:
    judged = judge(SUITE, *LATENCY, *arguments)
    assert judged.status == 0, judged.output
    assert judged.cases[KEY]["measurements"]["samples_ns"]
    path = judged.directory / "b.json"
    assert not path.exists() or not path.read_text()
    assert "edgecheck latency" not in judged.output


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, 1),
        ({"benchmark_disable": True}, 0),
        ({"benchmark_disable": True, "benchmark_enable": True}, 1),
        ({"benchmark_skip": True}, 0),
        ({"benchmark_json": None}, 0),
        ({"benchmark_json": None, "benchmark_compare": "0001"}, 1),
    ],
)
def test_records_follow_the_switches_of_pytest_benchmark(given: dict[str, Any], count: int) -> None:
    options = {"benchmark_json": "b.json", **given}
    session = SimpleNamespace(skip=options.get("benchmark_skip", False), benchmarks=[])
    config: Any = SimpleNamespace(
        _benchmarksession=session, getoption=lambda *asked: options.get(asked[0])
    )
    identity = {"model": "m", "variant": "v", "target": "ort", "precision": "fp32"}
    case = {
        **identity,
        "key": "m:v/ort/fp32/latency",
        "nodeid": "test_m.py::TestM::test_latency[v-ort-fp32]",
        "check": "latency",
        "verdict": "failed",
        "artifact": None,
        "measurements": {"samples_ns": [3000, 1000, 2000]},
    }
    crashed = {**case, "nodeid": "test_m.py::TestM::test_latency[x]", "measurements": {}}
    parity = {**case, "check": "parity"}
    benchmark.add(config, [crashed, parity, case])
    assert len(session.benchmarks) == count
    for made in session.benchmarks:
        data = made.as_dict()
        assert (data["name"], data["group"]) == (
            "test_latency[v-ort-fp32]",
            "edgecheck latency of m v",
        )
        assert data["stats"]["median"] == pytest.approx(2e-6)
