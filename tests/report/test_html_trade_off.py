"""The trade-off of accuracy against latency, and trends: what is marked is what the data says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.history.trends import Trend, TrendPoint
from edgecheck.report.page import tracks
from edgecheck.report.page.fronts import Candidate, fronts_of, mark
from tests.report.documents import candidate, record

law = settings(deadline=None, derandomize=True, max_examples=100)

few = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5])


def point(accuracy: float, latency_ms: float) -> Candidate:
    return Candidate("c", "k", "ort", "fp32", accuracy, latency_ms, 1, None, True)


@law
@given(st.lists(st.builds(point, few, few), max_size=12), st.booleans())
def test_on_the_front_is_what_no_other_beats(candidates: list[Candidate], higher: bool) -> None:
    marked = mark(candidates, higher_is_better=higher)
    sign = 1 if higher else -1

    def beats(other: Candidate, item: Candidate) -> bool:
        no_worse = (
            sign * other.accuracy >= sign * item.accuracy and other.latency_ms <= item.latency_ms
        )
        equal = (other.accuracy, other.latency_ms) == (item.accuracy, item.latency_ms)
        return no_worse and not equal

    assert len(marked) == len(candidates)
    for item in marked:
        assert item.on_front == (not any(beats(other, item) for other in marked))


def measured(accuracy: float, latency_ms: str | float, **changes: Any) -> list[dict[str, Any]]:
    cases = candidate(**changes)
    for case in cases:
        case["measurements"] = {
            "accuracy": {"candidate": accuracy, "metric": "top1", "higher_is_better": True},
            "latency": {"latency_p50_ms": latency_ms},
        }.get(case["check"], {})
    return cases


def test_variants_and_targets_of_a_model_share_a_front_and_the_score_is_accuracy_per_ms() -> None:
    cases = measured(0.9, 2.0) + measured(0.8, 0.5, variant="pruned", target="tflite")
    ((front,), without) = fronts_of([*cases, record("export", model="no_data")])
    assert (front.model, front.metric, without) == ("digits", "top1", ["no_data"])
    assert [(item.name, item.score, item.on_front) for item in front.candidates] == [
        ("pruned tflite fp32", 1.6, True),
        ("ort fp32", 0.45, True),
    ]


def test_machines_are_never_mixed_in_a_front_but_runtimes_are() -> None:
    one = {"cpu": "A", "cores": 2, "runtime": {"onnxruntime": "1"}}
    same = {"cpu": "A", "cores": 2, "runtime": {"ai-edge-litert": "2"}}
    other = {"cpu": "B", "cores": 2, "runtime": {"onnxruntime": "1"}}
    cases = measured(0.9, 1.0, device=one) + measured(0.9, 1.0, target="tflite", device=same)
    fronts, _ = fronts_of(cases + measured(0.9, 1.0, precision="int8", device=other))
    assert [(front.machine, len(front.candidates)) for front in fronts] == [
        ("A, cores 2", 2),
        ("B, cores 2", 1),
    ]


def test_lower_metrics_have_a_front_but_no_score() -> None:
    cases = measured(0.1, 1.0) + measured(0.2, 2.0, precision="int8")
    for case in cases:
        if case["check"] == "accuracy":
            case["measurements"]["higher_is_better"] = False
    ((front,), _) = fronts_of(cases)
    assert [item.on_front for item in front.candidates] == [True, False]
    assert {item.score for item in front.candidates} == {None}


def test_a_model_whose_latency_was_not_measured_is_named() -> None:
    assert fronts_of(measured(0.9, "nan")) == ([], ["digits"])


# -- trends


def trend(
    values: list[float], shifts: tuple[int, ...] = (), metric: str = "latency_p50_ms"
) -> Trend:
    points = tuple(
        TrendPoint(f"run{number}", f"2026-11-{number + 1:02}T10:00:00+00:00", f"{number:040x}", v)
        for number, v in enumerate(values)
    )
    return Trend("digits/ort/fp32/latency", metric, "", points, shifts)


@pytest.mark.parametrize("shifts", [(0,), (3,), (2, 1), (1, 1), (-1,)])
def test_a_shift_must_lie_between_two_points(shifts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not ascending positions"):
        trend([1.0, 2.0, 3.0], shifts)


def test_levels_are_medians_between_shifts() -> None:
    assert trend([1.0, 1.0, 9.0, 1.0, 3.0, 3.0], (4,)).levels() == (1.0, 3.0)
    assert trend([]).levels() == ()


@law
@given(st.lists(st.floats(0.1, 1e6), min_size=2, max_size=30), st.data())
def test_the_latest_points_keep_their_shifts(values: list[float], data: st.DataObject) -> None:
    shifts = data.draw(st.sets(st.integers(1, len(values) - 1)).map(sorted))
    whole = trend(values, tuple(shifts))
    count = data.draw(st.integers(1, len(values)))
    part = whole.latest(count)
    assert part.points == whole.points[-count:]
    assert {part.points[item] for item in part.shifts} <= {whole.points[item] for item in shifts}


def test_a_shift_names_the_commits_around_it_and_which_way_it_went() -> None:
    (shift,) = tracks.shifts_of([trend([1.0, 1.0, 1.5, 1.5], (2,))])
    assert shift.commits == "0000000000..0000000000"
    assert (shift.before, shift.after, shift.change) == ("1 ms", "1.5 ms", "+50 %")
    assert (shift.direction, shift.metric) == ("worse", "latency p50")
    (better,) = tracks.shifts_of([trend([1.0, 2.0], (1,), "throughput_per_s")])
    assert better.direction == "better"


def test_series_are_embedded_in_a_readable_unit_with_runs_told_once() -> None:
    found = tracks.embedded([trend([0.0012, 0.0013], (1,)), trend([1.0], (), "sqnr_db")])
    assert len(found["runs"]) == 2
    assert [(item["unit"], item["values"]) for item in found["series"]] == [
        ("us", [1.2, 1.3]),
        ("dB", [1.0]),
    ]


def test_only_the_latest_points_are_embedded_and_it_is_said_how_many_are_not() -> None:
    points = tuple(TrendPoint(f"r{n}", "2026-11-21", "c", 1.0) for n in range(tracks.POINTS + 7))
    (series,) = tracks.embedded([Trend("k", "accuracy", "", points)])["series"]
    assert (len(series["values"]), series["left_out"]) == (tracks.POINTS, 7)
