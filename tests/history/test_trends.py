"""Trends out of a history: which series they are of, and where they shifted."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecheck.history.database import History
from edgecheck.history.results import results_of
from edgecheck.history.trends import LEAST_POINTS, shifts_in, trends_in, trends_of
from tests.history.test_merge import record, shard

DEVICE, OTHER = {"cpu": "A", "threads": 1}, {"cpu": "B", "threads": 1}
SIZES = [1000] * 10 + [1500] * 10
# A level with the noise of a real machine, twice as slow from the eleventh run on.
TIMES = [
    *(1.00, 1.03, 0.98, 1.01, 0.99, 1.02, 0.97, 1.00, 1.01, 0.99),
    *(2.00, 2.05, 1.97, 2.02, 1.99, 2.03, 1.96, 2.01, 2.00, 1.98),
]


def report(
    position: int, device: dict[str, Any] | None = DEVICE, size: int = 1000, latency: float = 1.0
) -> dict[str, Any]:
    """The report of one run, a minute after the one before."""
    document = copy.deepcopy(
        shard(
            "a",
            record(
                check="export",
                device=device,
                measurements={"size_bytes": size, "weights_bytes": size},
            ),
            record(check="latency", device=device, measurements={"latency_p50_ms": latency}),
        )
    )
    document["run"] |= {
        "id": f"{position:032}",
        "started": f"2026-11-01T10:{position:02}:00+00:00",
        "git": {"commit": f"{position:040}", "branch": "main", "dirty": False},
    }
    return document


@pytest.fixture(scope="module")
def series() -> list[dict[str, Any]]:
    return [
        report(position, size=size, latency=latency)
        for position, (size, latency) in enumerate(zip(SIZES, TIMES, strict=True))
    ]


@pytest.fixture(scope="module")
def history(
    tmp_path_factory: pytest.TempPathFactory, series: list[dict[str, Any]]
) -> Iterator[History]:
    with History(str(tmp_path_factory.mktemp("history") / "history.db")) as opened:
        for item in series:
            opened.add(item)
        # Ten times as fast, and a device of which nothing is known.
        opened.add(report(30, OTHER, latency=0.1))
        opened.add(report(31, None, latency=50.0))
        yield opened


def test_a_trend_has_the_runs_in_order_and_the_shift(
    history: History, series: list[dict[str, Any]]
) -> None:
    found = {item.metric: item for item in trends_of(history, results_of(series[-1]))}
    assert set(found) == {"size_bytes", "latency_p50_ms"}  # weights are not followed here
    times = found["latency_p50_ms"]
    assert [point.value for point in times.points] == TIMES
    assert times.shifts == (10,)
    assert times.points[10].commit == f"{10:040}"
    assert times.levels() == pytest.approx((1.0, 2.0), rel=0.01)
    # Sizes do not depend on the device.
    assert [point.value for point in found["size_bytes"].points] == [*SIZES, 1000, 1000]


def test_only_the_newest_points_are_shown(history: History, series: list[dict[str, Any]]) -> None:
    found = trends_of(history, results_of(series[-1]), limit=6)
    times = next(item for item in found if item.metric == "latency_p50_ms")
    assert [point.value for point in times.points] == TIMES[-6:]
    assert times.shifts == ()


@pytest.mark.parametrize("device", [OTHER, None])
def test_numbers_of_another_or_an_unknown_device_are_no_trend_of_this_one(
    history: History, device: dict[str, Any] | None
) -> None:
    found = trends_of(history, results_of(report(40, device)))
    assert [item.metric for item in found] == ["size_bytes"]


def test_few_points_are_no_trend(tmp_path: Path, series: list[dict[str, Any]]) -> None:
    with History(str(tmp_path / "history.db")) as opened:
        for position, item in enumerate(series[: LEAST_POINTS + 1]):
            found = list(trends_of(opened, results_of(item)))
            assert len(found) == (2 if position >= LEAST_POINTS else 0)
            opened.add(item)


def test_where_there_is_no_history_there_are_no_trends(
    tmp_path: Path, series: list[dict[str, Any]]
) -> None:
    path = tmp_path / "history.db"
    assert trends_in(str(path), results_of(series[-1])) == []
    assert not path.exists()
    path.write_text("no database " * 100)
    assert trends_in(str(path), results_of(series[-1])) == []


def test_shifts_name_the_commits_and_do_not_mix_devices(history: History) -> None:
    found = list(shifts_in(history, history.case_keys(), metric="latency_*", branch="", limit=100))
    (shift,) = found
    assert (shift.key, shift.metric, shift.worse) == (
        "digits/ort/fp32/latency",
        "latency_p50_ms",
        True,
    )
    low, high = shift.as_data()["commits"]
    assert int(low) < 10 <= int(high)
    assert int(low) == 9
    assert shift.lines()[0].split()[:3] == ["worse", shift.key, "latency_p50_ms:"]


def test_an_improvement_is_no_worse(tmp_path: Path, series: list[dict[str, Any]]) -> None:
    with History(str(tmp_path / "history.db")) as opened:
        for position, latency in enumerate(reversed(TIMES)):
            opened.add(report(position, latency=latency))
        (shift,) = shifts_in(opened, opened.case_keys(), metric="latency*", branch="main", limit=50)
        assert not shift.worse
        assert (
            list(shifts_in(opened, opened.case_keys(), metric="*", branch="other", limit=50)) == []
        )
