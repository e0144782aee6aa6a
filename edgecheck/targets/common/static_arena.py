"""A static memory plan: where the tensors of a graph lie in one arena, and when it is fullest.

Pure: from sizes and lifetimes to offsets. The plan is TensorFlow Lite Micro's, since that is what a
microcontroller will take; how well any other planner could do is told besides.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecheck.units import format_bytes

# MicroArenaBufferAlignment of TensorFlow Lite Micro.
ALIGNMENT_BYTES = 16
# What the search for a better plan may cost: about a second.
_SEARCH_STEPS = 1_000_000
_SEARCH_TRIES = 2_000
_LISTED = 10
_WIDTH = 100


@dataclass(frozen=True)
class Buffer:
    """A tensor that needs memory.

    Attributes:
        first, last: the positions between which it must be kept, both included.
        shape, dtype: for people.
    """

    name: str
    size_bytes: int
    first: int
    last: int
    shape: tuple[int, ...] = ()
    dtype: str = ""


@dataclass(frozen=True)
class Operator:
    """What runs at a position.

    Attributes:
        index: in the file's own list; -1 for what is not an operator.
        name: that of its first output.
    """

    index: int
    type: str
    name: str


@dataclass(frozen=True)
class Plan:
    """Buffers laid out in one arena.

    Attributes:
        arena_bytes: what TensorFlow Lite Micro's greedy planner takes.
        best_bytes: the least found by a search: what a better planner could take.
        lower_bound_bytes: the largest sum of aligned sizes that are live at once; no planner that
            moves nothing can take less.
        no_reuse_bytes: the sum of all aligned sizes.
        offsets: of each buffer, in the greedy plan.
        peak: the first position at which the lower bound is reached.
        live: the buffers that are live there, the largest first.
    """

    alignment_bytes: int
    arena_bytes: int
    best_bytes: int
    lower_bound_bytes: int
    no_reuse_bytes: int
    offsets: tuple[int, ...]
    peak: int
    live: tuple[Buffer, ...]


def plan(buffers: Sequence[Buffer], alignment_bytes: int = ALIGNMENT_BYTES) -> Plan:
    """Lay buffers out as TensorFlow Lite Micro's ``GreedyMemoryPlanner`` does.

    Largest first, and of equal sizes the last first; each goes into the lowest gap that it fits
    into among those already placed that are live at the same time.

    Raises:
        ValueError: a negative size, a lifetime that ends before it begins, or an alignment below 1.
    """
    if alignment_bytes < 1:
        raise ValueError(f"an alignment of {alignment_bytes} bytes is below 1")
    for item in buffers:
        if item.size_bytes < 0:
            raise ValueError(f"buffer {item.name!r} has a size of {item.size_bytes} bytes")
        if item.first > item.last:
            raise ValueError(f"buffer {item.name!r} lives from {item.first} to {item.last}")
    sizes = [-(-item.size_bytes // alignment_bytes) * alignment_bytes for item in buffers]
    bound, peak = _fullest(buffers, sizes)
    neighbours = _neighbours(buffers, sizes)
    order = sorted(range(len(buffers)), key=lambda index: (-sizes[index], -index))
    offsets = _place(order, sizes, neighbours)
    arena = _extent(offsets, sizes)
    return Plan(
        alignment_bytes=alignment_bytes,
        arena_bytes=arena,
        best_bytes=_search(buffers, order, sizes, neighbours, arena, bound),
        lower_bound_bytes=bound,
        no_reuse_bytes=sum(sizes),
        offsets=tuple(offsets),
        peak=peak,
        live=tuple(
            sorted(
                (item for item in buffers if item.size_bytes and item.first <= peak <= item.last),
                key=lambda item: -item.size_bytes,
            )
        ),
    )


def _fullest(buffers: Sequence[Buffer], sizes: Sequence[int]) -> tuple[int, int]:
    """The most bytes live at once, and the first position where they are."""
    changes: dict[int, int] = {}
    for item, size in zip(buffers, sizes, strict=True):
        changes[item.first] = changes.get(item.first, 0) + size
        changes[item.last + 1] = changes.get(item.last + 1, 0) - size
    most, peak, live = 0, 0, 0
    for position in sorted(changes):
        live += changes[position]
        if live > most:
            most, peak = live, position
    return most, peak


def _neighbours(buffers: Sequence[Buffer], sizes: Sequence[int]) -> list[list[int]]:
    """For each buffer, those that are live at some time that it is."""
    found: list[list[int]] = [[] for _ in buffers]
    live: list[int] = []
    for index in sorted(range(len(buffers)), key=lambda index: buffers[index].first):
        if not sizes[index]:
            continue
        live = [other for other in live if buffers[other].last >= buffers[index].first]
        for other in live:
            found[index].append(other)
            found[other].append(index)
        live.append(index)
    return found


def _place(
    order: Iterable[int], sizes: Sequence[int], neighbours: Sequence[Sequence[int]]
) -> list[int]:
    """Offsets, each the lowest that is free when its turn comes."""
    offsets = [-1] * len(sizes)
    for index in order:
        offset = 0
        for start, other in sorted(
            (offsets[other], other) for other in neighbours[index] if offsets[other] >= 0
        ):
            if start - offset >= sizes[index]:
                break
            offset = max(offset, start + sizes[other])
        offsets[index] = offset
    return offsets


def _extent(offsets: Sequence[int], sizes: Sequence[int]) -> int:
    return max((offset + size for offset, size in zip(offsets, sizes, strict=True)), default=0)


def _search(
    buffers: Sequence[Buffer],
    order: Sequence[int],
    sizes: Sequence[int],
    neighbours: Sequence[Sequence[int]],
    arena: int,
    bound: int,
) -> int:
    """The least arena that other orders give, at most that of `order`.

    Some order reaches the optimum: that of the optimum's own offsets. So the search walks through
    orders, from the best of four usual ones: what sticks out at the top goes before one of those
    that it had to make room for. Seeded, so that it finds the same each time.
    """
    if arena <= bound:
        return arena

    def spans(index: int) -> int:
        return buffers[index].last - buffers[index].first + 1

    starts = [
        list(order),
        sorted(order, key=lambda index: -sizes[index] * spans(index)),
        sorted(order, key=lambda index: -spans(index)),
        sorted(order, key=lambda index: buffers[index].first),
    ]
    best = arena
    tried = []
    for start in starts:
        offsets = _place(start, sizes, neighbours)
        tried.append((_extent(offsets, sizes), start, offsets))
        best = min(best, tried[-1][0])
    extent, current, offsets = min(tried, key=lambda item: item[0])
    cost = sum(map(len, neighbours)) + len(sizes)
    rng = random.Random(0)
    for _ in range(min(_SEARCH_TRIES, _SEARCH_STEPS // cost)):
        if best <= bound:
            break
        top = rng.choice([i for i in current if sizes[i] and offsets[i] + sizes[i] == extent])
        place = current.index(top)
        before = [at for at, index in enumerate(current[:place]) if index in neighbours[top]]
        candidate = list(current)
        if before and rng.random() < 0.7:
            candidate.insert(rng.choice(before), candidate.pop(place))
        else:
            one, other = rng.choices(range(len(candidate)), k=2)
            candidate[one], candidate[other] = candidate[other], candidate[one]
        moved = _place(candidate, sizes, neighbours)
        reached = _extent(moved, sizes)
        # A step sideways or a little up now and then leaves a dead end.
        if reached <= extent or rng.random() < 0.05:
            extent, current, offsets = reached, candidate, moved
            best = min(best, reached)
    return best


def describe(
    found: Plan, operators: Mapping[int, Operator], variables_bytes: int = 0
) -> dict[str, Any]:
    """A plan as plain JSON data, the ``activation_memory`` of `edgecheck.targets.Tools.inspect`.

    Args:
        operators: what runs at each position.
        variables_bytes: of state that is kept between inferences, beside the arena.
    """
    at_peak = operators.get(found.peak, Operator(-1, "no operator", ""))
    return {
        "alignment_bytes": found.alignment_bytes,
        "arena_bytes": found.arena_bytes,
        "best_bytes": found.best_bytes,
        "lower_bound_bytes": found.lower_bound_bytes,
        "no_reuse_bytes": found.no_reuse_bytes,
        "variables_bytes": variables_bytes,
        "operators": sum(item.index >= 0 for item in operators.values()),
        "tensors": sum(offset >= 0 for offset in found.offsets),
        "peak_operator": {"index": at_peak.index, "type": at_peak.type, "name": at_peak.name},
        "live_tensors": len(found.live),
        "live_bytes": sum(item.size_bytes for item in found.live),
        "live": [
            {
                "name": item.name,
                "shape": list(item.shape),
                "dtype": item.dtype,
                "size_bytes": item.size_bytes,
            }
            for item in found.live[:_LISTED]
        ],
    }


def chart(memory: Mapping[str, Any]) -> str:
    """What fills the arena when it is fullest, as text of at most 100 columns.

    Args:
        memory: as `describe` returns it.
    """
    operator = memory["peak_operator"]
    kind = _cut(operator["type"], 28)
    where = f"{kind}, operator {operator['index']} of 0 to {memory['operators'] - 1}"
    lines = [
        f"activation arena {format_bytes(memory['arena_bytes'])}; most is live at "
        + (where if operator["index"] >= 0 else kind),
        *([f"  that writes {_cut(operator['name'], _WIDTH - 14)}"] if operator["name"] else []),
    ]
    largest = memory["live"][0]["size_bytes"] if memory["live"] else 0
    for item in memory["live"]:
        shaped = f"{'x'.join(map(str, item['shape'])) or 'scalar'} {item['dtype']}"
        bar = "#" * max(1, round(24 * item["size_bytes"] / largest))
        size = format_bytes(item["size_bytes"])
        lines.append(f"{size:>9}  {bar:<24}  {_cut(shaped, 24):<24}  {_cut(item['name'], 37)}")
    rest = memory["live_tensors"] - len(memory["live"])
    if rest:
        rest_bytes = memory["live_bytes"] - sum(item["size_bytes"] for item in memory["live"])
        lines.append(f"{format_bytes(rest_bytes):>9}  in {rest} more tensors")
    gaps = memory["arena_bytes"] - memory["lower_bound_bytes"]
    if gaps:
        better = memory["best_bytes"] < memory["arena_bytes"]
        lines.append(
            f"{format_bytes(gaps):>9}  lost in gaps between tensors"
            + (f"; a better plan takes {format_bytes(memory['best_bytes'])} in all" * better)
        )
    if memory["variables_bytes"]:
        lines.append(f"{format_bytes(memory['variables_bytes']):>9}  of variables besides")
    return "\n".join(line.rstrip() for line in lines)


def _cut(text: str, width: int) -> str:
    """The end of a text, which is what tells names of tensors apart."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= width else f"...{printable[3 - width :]}"
