"""Sorting against NumPy, suppression of boxes against a loop and figures from Apple's tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.operators.common import close, noise, run


@settings(max_examples=15, deadline=None)
@given(axis=st.integers(-3, 2), ascending=st.booleans(), count=st.integers(1, 2))
def test_order(axis: int, ascending: bool, count: int) -> None:
    # Whole numbers, so that some are equal.
    x = (noise(2, 3, 4) * 2).round()
    key = x.numpy() if ascending else -x.numpy()
    order = np.argsort(key, axis, kind="stable").astype(np.int32)
    close(run("argsort", x=x, axis=axis, ascending=ascending), order)
    values = np.take_along_axis(x.numpy(), order, axis)
    found = run("topk", x=x, axis=axis, ascending=ascending, k=count)
    close(found[0], np.take(values, range(count), axis))
    close(found[1], np.take(order, range(count), axis))
    alone = run("topk", x=x, axis=axis, k=-1, ascending=ascending, return_indices=False)
    close(alone, values)


def test_defaults() -> None:
    x = torch.tensor([[1, 3, 2]], dtype=torch.int32)
    close(run("argsort", x=x), np.array([[1, 2, 0]], dtype=np.int32))
    values, indices = run("topk", x=x, sort=False)
    assert (values.tolist(), indices.tolist()) == ([[3]], [[1]])


def _overlap(one: list[float], other: list[float]) -> float:
    shared = 1.0
    for centre, size in ((0, 2), (1, 3)):
        low = max(one[centre] - one[size] / 2, other[centre] - other[size] / 2)
        high = min(one[centre] + one[size] / 2, other[centre] + other[size] / 2)
        shared *= max(0.0, high - low)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    per_class=st.booleans(),
    iou_threshold=st.sampled_from([0.1, 0.4]),
    score_threshold=st.sampled_from([-9.0, 0.5, 9.0]),
)
def test_suppression_by_hand(
    seed: int, per_class: bool, iou_threshold: float, score_threshold: float
) -> None:
    boxes = noise(1, 8, 4, seed=seed)
    boxes[..., 2:] = boxes[..., 2:].abs() + 0.5
    scores, room = noise(1, 8, 3, seed=seed + 1), 5
    best, classes = scores[0].max(-1).values.tolist(), scores[0].argmax(-1).tolist()
    kept: list[int] = []
    ranked = sorted(range(8), key=lambda box: -best[box])
    for box in ranked:
        rivals = [other for other in kept if not per_class or classes[other] == classes[box]]
        if best[box] >= score_threshold and all(
            _overlap(boxes[0, box].tolist(), boxes[0, other].tolist()) <= iou_threshold
            for other in rivals
        ):
            kept.append(box)
    kept = (kept or ranked[:1])[:room]
    how = {
        "iou_threshold": iou_threshold,
        "max_boxes": room,
        "per_class_suppression": per_class,
    }
    found = run(
        "non_maximum_suppression",
        boxes=boxes,
        scores=scores,
        score_threshold=score_threshold,
        **how,
    )
    fill = room - len(kept)
    assert found[2].tolist() == [kept + [-1] * fill]
    assert found[3].tolist() == [len(kept)]
    close(found[0], torch.cat([boxes[:, kept], torch.zeros(1, fill, 4)], 1))
    close(found[1], torch.cat([scores[:, kept], torch.zeros(1, fill, 3)], 1))
    if score_threshold == -9:
        newer = run("non_maximum_suppression", boxes=boxes.mT, scores=scores.mT, **how)
        assert len(newer) == 3
        close(newer[0], found[0].mT)
        close(newer[1], found[1].mT)
        close(newer[2], found[2])


def test_suppression_as_apples_tests() -> None:
    boxes = torch.arange(4.0).reshape(1, 4, 1).expand(1, 4, 4)
    found = run(
        "non_maximum_suppression",
        boxes=boxes,
        scores=[[[-3.5], [9.4], [2.3], [0.7]]],
        iou_threshold=0.2,
        score_threshold=0.4,
        max_boxes=2,
        per_class_suppression=True,
    )
    close(found[0], boxes[:, 1:3])
    close(found[1], torch.tensor([[[9.4], [2.3]]]))
    assert found[2].tolist() == [[1, 2]]
    assert found[3].tolist() == [2]


@pytest.mark.parametrize("operator", ["argsort", "topk"])
def test_indices_are_int32(operator: str) -> None:
    found = run(operator, x=noise(3))
    assert (found if operator == "argsort" else found[1]).dtype == torch.int32
