"""Profiles summed up, and told in few lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecheck.judge.operator_profile import as_data, summarize, table
from edgecheck.runtime.results import OperatorTime, Profile


def row(operator: str, time_ms: float, name: str = "n", placed: str = "XNNPACK") -> OperatorTime:
    return OperatorTime(operator, name, placed, time_ms, 1.0)


def found(*rows: OperatorTime, note: str = "") -> Profile:
    return Profile(rows, runs=50, preferred="XNNPACK", note=note)


ROWS = st.lists(
    st.builds(
        row,
        st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=90),
        st.floats(0, 1e4),
        st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=90),
        st.sampled_from(["XNNPACK", "built-in kernels", "CUDAExecutionProvider"]),
    ),
    max_size=30,
)


@given(ROWS)
def test_shares_sum_to_one_and_nothing_is_lost(rows: list[OperatorTime]) -> None:
    profile = summarize(found(*rows))
    total_ms = sum(item.time_ms for item in rows)
    for parts in (profile.types, profile.nodes):
        assert sum(part.time_ms for part in parts) == pytest.approx(total_ms)
        assert sum(part.share for part in parts) == pytest.approx(1.0 if total_ms else 0.0)
        assert sum(part.nodes for part in parts) == len(rows)
        times = [part.time_ms for part in parts]
        assert times == sorted(times, reverse=True)


@given(ROWS)
def test_the_text_fits_and_stays_short(rows: list[OperatorTime]) -> None:
    lines = table(summarize(found(*rows))).split("\n")
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 2 + 8 + 1 + 3


@given(ROWS)
def test_fall_backs_are_what_the_preferred_place_does_not_run(rows: list[OperatorTime]) -> None:
    fallbacks = summarize(found(*rows)).fallbacks
    expected = {(item.operator, item.placed) for item in rows if item.placed != "XNNPACK"}
    assert {(item.operator, item.placed) for item in fallbacks} == expected


def test_the_table_names_types_nodes_and_fall_backs() -> None:
    profile = summarize(
        found(
            row("Conv", 3.0, "/a"),
            row("Conv", 3.0, "/b"),
            row("GELU", 2.0, "/g", "built-in kernels"),
            row("Add", 0.0, "/z"),
        )
    )
    assert table(profile).split("\n") == [
        "where the time goes (separate profiled run, 50 inferences; shares count, not times):",
        "  operator                                    placed            share       time",
        "  Conv x2                                     XNNPACK            75 %       6 ms"
        "  ████████████",
        "  GELU                                        built-in kernels   25 %       2 ms  ████",
        "  Add                                         XNNPACK             0 %       0 ns",
        "  slowest: /a Conv 38 %, /b Conv 38 %, /g GELU 25 %",
        "  not on XNNPACK: 25 % of the time: GELU x1",
    ]


def test_the_ninth_type_and_what_follows_are_one_line() -> None:
    rows = [row(f"op{position}", 1.0) for position in range(11)]
    text = table(summarize(found(*rows)))
    assert "3 other types x3" in text
    assert [f"  op{n} " in text for n in (7, 8)] == [False, False]
    assert "  op10 " in text
    assert "not on" not in text


def test_no_operators_and_no_time_are_said() -> None:
    assert table(summarize(found(note="no profiler"))) == (
        "where the time goes: not known: no profiler"
    )
    assert "too short for the profiler's clock" in table(summarize(found(row("Add", 0.0))))


def test_data_for_the_report_holds_the_slowest_types_and_all_fall_backs() -> None:
    rows = [row(f"op{position:02}", 20.0 - position, placed="CPU") for position in range(12)]
    data = as_data(summarize(found(*rows)))
    assert [item["operator"] for item in data["operators"]] == [f"op{n:02}" for n in range(8)]
    assert len(data["fallbacks"]) == 12
