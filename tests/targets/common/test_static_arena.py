"""The static memory plan: sound on any lifetimes, the device's own, and near the exact packing."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecheck.targets.common.static_arena import Buffer, Operator, Plan, chart, describe, plan

law = settings(
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is not a failure
)


def aligned(size_bytes: int, alignment_bytes: int) -> int:
    return (size_bytes + alignment_bytes - 1) // alignment_bytes * alignment_bytes


def meet(one: Buffer, other: Buffer) -> bool:
    return one.first <= other.last and other.first <= one.last


@st.composite
def intervals(draw: st.DrawFn, most: int = 30, largest: int = 5000) -> list[Buffer]:
    """Any sizes and lifetimes."""
    found = []
    for index in range(draw(st.integers(0, most))):
        first, last = sorted((draw(st.integers(0, 12)), draw(st.integers(0, 12))))
        found.append(Buffer(f"b{index}", draw(st.integers(0, largest)), first, last))
    return found


@st.composite
def networks(draw: st.DrawFn, most: int = 9) -> list[Buffer]:
    """A chain of operators, some of whose outputs are read again further on."""
    count = draw(st.integers(1, most))
    last = [min(index + 1, count - 1) for index in range(count)]
    for index in range(count):
        if draw(st.booleans()):
            last[index] = max(last[index], draw(st.integers(0, count - 1)))
    size = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 80])
    return [Buffer(f"t{index}", draw(size), index, last[index]) for index in range(count)]


# -- any plan


@law
@given(intervals(), st.sampled_from([1, 4, 16, 64]))
def test_buffers_that_live_at_once_never_share_a_byte(
    buffers: list[Buffer], alignment_bytes: int
) -> None:
    found = plan(buffers, alignment_bytes)
    placed = [item for item in zip(buffers, found.offsets, strict=True) if item[0].size_bytes]
    for index, (one, start) in enumerate(placed):
        assert start % alignment_bytes == 0
        assert 0 <= start <= found.arena_bytes - aligned(one.size_bytes, alignment_bytes)
        for other, other_start in placed[index + 1 :]:
            if meet(one, other):
                before = start + one.size_bytes <= other_start
                assert before or other_start + other.size_bytes <= start


@law
@given(intervals(), st.sampled_from([1, 16]))
def test_the_figures_bound_each_other(buffers: list[Buffer], alignment_bytes: int) -> None:
    found = plan(buffers, alignment_bytes)
    live = [
        sum(
            aligned(item.size_bytes, alignment_bytes)
            for item in buffers
            if item.first <= position <= item.last
        )
        for position in range(13)
    ]
    assert found.lower_bound_bytes == max(live)
    assert live[found.peak] == max(live)
    assert live.index(max(live)) == found.peak or max(live) == 0
    assert found.lower_bound_bytes <= found.best_bytes <= found.arena_bytes <= found.no_reuse_bytes
    sizes = [item.size_bytes for item in found.live]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(aligned(size, alignment_bytes) for size in sizes) == max(live)


@law
@given(intervals(most=15))
def test_a_plan_is_the_same_each_time(buffers: list[Buffer]) -> None:
    assert plan(buffers) == plan(buffers)


def greedy_bytes(buffers: list[Buffer], alignment_bytes: int) -> int:
    """TensorFlow Lite Micro's greedy planner in other words: the lowest place that is free.

    Sorted by size, equal sizes from the last to the first; a buffer starts at zero or where one
    that lives at the same time ends.
    """
    placed: list[tuple[int, int, Buffer]] = []
    ordered = list(reversed(buffers))
    ordered.sort(key=lambda item: aligned(item.size_bytes, alignment_bytes), reverse=True)
    for item in ordered:
        size = aligned(item.size_bytes, alignment_bytes)
        others = [(start, end) for start, end, other in placed if meet(item, other)]
        offset = min(
            start
            for start in {0, *(end for _, end in others)}
            if all(start + size <= other or start >= end for other, end in others)
        )
        placed.append((offset, offset + size, item))
    return max((end for _, end, _ in placed), default=0)


@law
@given(intervals() | intervals(largest=60), st.sampled_from([1, 16]))  # small: many equal sizes
def test_the_arena_is_what_the_greedy_planner_takes(
    buffers: list[Buffer], alignment_bytes: int
) -> None:
    assert plan(buffers, alignment_bytes).arena_bytes == greedy_bytes(buffers, alignment_bytes)


# -- against the exact packing


def exact_bytes(buffers: list[Buffer], enough_bytes: int) -> int:
    """The least arena of all, or the first at most `enough_bytes`.

    Some optimum puts each buffer at zero or on top of one that lives at the same time; so all
    orders of stacking, lowest offset first, are tried.
    """
    best = sum(item.size_bytes for item in buffers)
    offsets: dict[int, int] = {}

    def stack(extent: int, lowest: int) -> None:
        nonlocal best
        if len(offsets) == len(buffers):
            best = extent
        for index, item in enumerate(buffers):
            if index in offsets or best <= enough_bytes:
                continue
            offset = max(
                (
                    start + buffers[other].size_bytes
                    for other, start in offsets.items()
                    if meet(item, buffers[other])
                ),
                default=0,
            )
            if offset >= lowest and max(extent, offset + item.size_bytes) < best:
                offsets[index] = offset
                stack(max(extent, offset + item.size_bytes), offset)
                del offsets[index]

    stack(0, 0)
    return best


@law
@given(networks() | intervals(most=8, largest=40))
def test_no_packing_beats_the_best_plan_by_more_than_a_tenth(buffers: list[Buffer]) -> None:
    found = plan(buffers, 1)
    exact = exact_bytes(buffers, found.lower_bound_bytes)
    assert found.lower_bound_bytes <= exact <= found.best_bytes
    assert found.best_bytes <= 1.1 * exact


def test_where_the_greedy_plan_leaves_gaps_a_better_one_is_found() -> None:
    buffers = [
        Buffer("late", 96, 3, 3),
        Buffer("short", 48, 0, 1),
        Buffer("middle", 64, 0, 2),
        Buffer("whole", 64, 0, 4),
    ]
    found = plan(buffers)
    # The whole lies over the late one, the middle under it; 32 bytes between are too few.
    assert found.offsets == (0, 160, 0, 96)
    assert found.arena_bytes == 208
    assert found.best_bytes == found.lower_bound_bytes == 64 + 64 + 48
    assert [item.name for item in found.live] == ["middle", "whole", "short"]


# -- input


def test_nothing_takes_nothing() -> None:
    assert plan([]) == Plan(16, 0, 0, 0, 0, (), 0, ())
    assert plan([Buffer("empty", 0, 0, 5)]).arena_bytes == 0


@pytest.mark.parametrize(
    ("buffer", "alignment_bytes", "message"),
    [
        (Buffer("x", -1, 0, 0), 16, "buffer 'x' has a size of -1 bytes"),
        (Buffer("x", 1, 3, 2), 16, "buffer 'x' lives from 3 to 2"),
        (Buffer("x", 1, 0, 0), 0, "an alignment of 0 bytes is below 1"),
    ],
)
def test_impossible_input_is_an_error(buffer: Buffer, alignment_bytes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan([buffer], alignment_bytes)


def test_a_plan_of_a_large_graph_takes_no_exponential_time() -> None:
    buffers = [
        Buffer(f"t{index}", 1 + index * 7919 % 5000, index, min(index + 1 + index % 40, 1999))
        for index in range(2000)
    ]
    found = plan(buffers)
    assert found.lower_bound_bytes <= found.best_bytes <= found.arena_bytes


# -- as data and as text

OPERATORS = {
    0: Operator(-1, "the start of the graph", ""),
    **{position: Operator(position - 1, f"OP_{position}", f"t{position}") for position in (1, 2)},
}


def test_a_plan_as_data_names_the_peak_and_what_lives_there() -> None:
    buffers = [
        Buffer("image", 100, 0, 1, (1, 10, 10), "int8"),
        Buffer("wide", 1000, 1, 2, (1, 1000), "int8"),
        Buffer("scores", 40, 2, 2, (10,), "float32"),
    ]
    found = describe(plan(buffers), OPERATORS, variables_bytes=32)
    assert found["arena_bytes"] == 1008 + 112
    assert found["peak_operator"] == {"index": 0, "type": "OP_1", "name": "t1"}
    assert (found["operators"], found["tensors"], found["variables_bytes"]) == (2, 3, 32)
    assert found["live"][0] == {
        "name": "wide",
        "shape": [1, 1000],
        "dtype": "int8",
        "size_bytes": 1000,
    }
    assert chart(found).splitlines() == [
        "activation arena 1.12 kB; most is live at OP_1, operator 0 of 0 to 1",
        "  that writes t1",
        "     1 kB  ########################  1x1000 int8               wide",
        "    100 B  ##                        1x10x10 int8              image",
        "     32 B  of variables besides",
    ]


def test_what_the_chart_leaves_out_is_summed() -> None:
    buffers = [Buffer(f"t{index}", 16 * (index + 1), 0, 1) for index in range(14)]
    lines = chart(describe(plan(buffers), OPERATORS)).splitlines()
    assert len(lines) == 12
    assert lines[1].endswith("t13")
    assert lines[-1] == f"{16 * (1 + 2 + 3 + 4)} B".rjust(9) + "  in 4 more tensors"


def test_the_chart_says_what_a_better_plan_would_take() -> None:
    buffers = [Buffer("a", 96, 3, 3), Buffer("b", 48, 0, 1), Buffer("c", 64, 0, 2)]
    lines = chart(describe(plan([*buffers, Buffer("d", 64, 0, 4)]), OPERATORS)).splitlines()
    assert lines[-1] == "     32 B  lost in gaps between tensors; a better plan takes 176 B in all"


@law
@given(intervals(largest=10**12), st.text(max_size=300))
def test_the_chart_is_at_most_100_columns_of_printable_text(
    buffers: list[Buffer], name: str
) -> None:
    named = [
        Buffer(name, item.size_bytes, item.first, item.last, (123456,) * 9, "float32")
        for item in buffers
    ]
    operators = {position: Operator(position, name, name) for position in range(13)}
    for line in chart(describe(plan(named), operators)).split("\n"):
        assert len(line) <= 100
        assert line.isprintable()
