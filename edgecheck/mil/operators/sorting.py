"""Sorting and the choice of the best. Of equal values the first comes first.

Core ML leaves the order of equal values open.
"""

from __future__ import annotations

import torch

from edgecheck.mil.call import Call, Handler


def _argsort(call: Call) -> torch.Tensor:
    return (
        call.tensor("x")
        .argsort(
            dim=call.integer("axis", -1), descending=not call.flag("ascending", False), stable=True
        )
        .to(torch.int32)
    )


def _topk(call: Call) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Sorted even where ``sort`` is false, which leaves the order open."""
    x, axis, count = call.tensor("x"), call.integer("axis", -1), call.integer("k", 1)
    count = x.shape[axis] if count == -1 else count
    values, indices = x.sort(dim=axis, descending=not call.flag("ascending", False), stable=True)
    values = values.narrow(axis, 0, count)
    if not call.flag("return_indices", True):
        return values
    return values, indices.narrow(axis, 0, count).to(torch.int32)


def _non_maximum_suppression(call: Call) -> tuple[torch.Tensor, ...]:
    """Boxes (x, y, width, height) by their centres, best first, none over `iou_threshold`.

    iOS15 has boxes on the second axis, a `score_threshold` below which a box is out unless all are
    (then the best stays), and a fourth result: the number of boxes. iOS17 has boxes on the last
    axis. Both fill up with zeros, the indices with -1. After coremltools' test reference.
    """
    newer = not call.has("score_threshold")
    boxes, scores = call.tensor("boxes"), call.tensor("scores")
    if newer:
        boxes, scores = boxes.mT, scores.mT
    room = call.integer("max_boxes")
    kept = [
        _kept(call, one_boxes, one_scores)[:room]
        for one_boxes, one_scores in zip(boxes, scores, strict=True)
    ]
    chosen_boxes = boxes.new_zeros(len(kept), room, 4)
    chosen_scores = scores.new_zeros(len(kept), room, scores.shape[-1])
    indices = torch.full((len(kept), room), -1, dtype=torch.int32)
    for batch, found in enumerate(kept):
        chosen_boxes[batch, : len(found)] = boxes[batch, found]
        chosen_scores[batch, : len(found)] = scores[batch, found]
        indices[batch, : len(found)] = torch.tensor(found, dtype=torch.int32)
    if newer:
        return chosen_boxes.mT, chosen_scores.mT, indices
    counts = torch.tensor([len(found) for found in kept], dtype=torch.int32)
    return chosen_boxes, chosen_scores, indices, counts


def _kept(call: Call, boxes: torch.Tensor, scores: torch.Tensor) -> list[int]:
    """The boxes [B, 4] that survive, by their best score [B, K] downward."""
    best, classes = scores.max(-1)
    order = best.argsort(descending=True, stable=True)
    able = best[order] >= call.number("score_threshold", float("-inf"))
    candidates: list[int] = order[able].tolist()
    if not candidates:
        return [int(order[0])]
    overlap = _intersection_over_union(boxes) > call.number("iou_threshold")
    if call.flag("per_class_suppression", False):
        overlap &= classes[:, None] == classes[None, :]
    alive = torch.ones(len(boxes), dtype=torch.bool)
    kept = []
    for candidate in candidates:
        if alive[candidate]:
            kept.append(candidate)
            alive &= ~overlap[candidate]
    return kept


def _intersection_over_union(boxes: torch.Tensor) -> torch.Tensor:
    centres, sizes = boxes[:, :2], boxes[:, 2:]
    low, high = centres - sizes / 2, centres + sizes / 2
    shared = torch.minimum(high[:, None], high[None]) - torch.maximum(low[:, None], low[None])
    intersection = shared.clamp(min=0).prod(-1)
    areas = sizes.prod(-1)
    return intersection / (areas[:, None] + areas[None] - intersection)


HANDLERS: dict[str, Handler] = {
    "argsort": _argsort,
    "non_maximum_suppression": _non_maximum_suppression,
    "topk": _topk,
}
