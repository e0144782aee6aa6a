"""Reading and writing at positions, against NumPy and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.mil.call import UnsupportedError
from tests.mil.operators.common import close, noise, run

SHAPE = (3, 4, 5)
SEEDS = st.integers(0, 99)
MODES = ["update", "add", "sub", "mul", "div", "max", "min"]


def _whole(seed: int, low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape, np.int32))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, axis=st.integers(-3, 2), rank=st.integers(0, 3))
def test_gather(seed: int, axis: int, rank: int) -> None:
    x, size = noise(*SHAPE), SHAPE[axis]
    indices = _whole(seed, -size, size, *[2] * rank)
    close(run("gather", x=x, indices=indices, axis=axis), np.take(x.numpy(), indices, axis))
    along = _whole(seed, 0, size, *(2 if a == axis % 3 else n for a, n in enumerate(SHAPE)))
    found = run("gather_along_axis", x=x, indices=along, axis=axis, validate_indices=True)
    close(found, np.take_along_axis(x.numpy(), along.long().numpy(), axis))


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, batches=st.integers(1, 2), further=st.integers(0, 2))
def test_gather_with_batches(seed: int, batches: int, further: int) -> None:
    x, axis = noise(*SHAPE, 6), batches + 1
    indices = _whole(seed, 0, (*SHAPE, 6)[axis], *SHAPE[:batches], *[2] * further)
    found = run("gather", x=x, indices=indices, axis=axis, batch_dims=batches)
    for at in np.ndindex(*SHAPE[:batches]):
        close(found[at], np.take(x[at].numpy(), indices[at], axis - batches))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, depth=st.integers(1, 2), batches=st.integers(0, 2), further=st.integers(0, 2))
def test_gather_nd(seed: int, depth: int, batches: int, further: int) -> None:
    x = noise(*SHAPE, 6)
    outer = (*SHAPE[:batches], *[2] * further)
    columns = [_whole(seed + d, 0, x.shape[batches + d], *outer) for d in range(depth)]
    indices = torch.stack(columns, -1)
    found = run("gather_nd", x=x, indices=indices, batch_dims=batches)
    expected = np.empty((*outer, *x.shape[batches + depth :]), np.float32)
    for at in np.ndindex(*outer):
        expected[at] = x.numpy()[(*at[:batches], *indices[at].tolist())]
    close(found, expected)


@pytest.mark.parametrize("operator", ["gather", "gather_along_axis", "gather_nd"])
def test_gather_out_of_bounds(operator: str) -> None:
    x = noise(3)
    for index, how in ((3, {}), (-4, {}), (-1, {"validate_indices": False})):
        with pytest.raises(UnsupportedError, match="an index that is out of bounds of 3"):
            run(operator, x=x, indices=[index], **how)
    close(run(operator, x=x, indices=[-1]), x[2:] if operator != "gather_nd" else x[2])


def _apply(mode: str, old: Any, new: Any) -> Any:
    return {
        "update": lambda: new,
        "add": lambda: old + new,
        "sub": lambda: old - new,
        "mul": lambda: old * new,
        "div": lambda: old / new,
        "max": lambda: np.maximum(old, new),
        "min": lambda: np.minimum(old, new),
    }[mode]()


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, axis=st.integers(-3, 2))
def test_scatter(mode: str, seed: int, axis: int) -> None:
    data, size = noise(*SHAPE), SHAPE[axis]
    random = np.random.default_rng(seed)
    # With update, an index twice has no defined result.
    indices = random.choice(size, 3, replace=mode != "update")
    shape = [3 if a == axis % 3 else n for a, n in enumerate(SHAPE)]
    updates = noise(*shape, seed=seed)
    expected = np.moveaxis(data.numpy().copy(), axis, 0)
    for index, part in zip(indices, np.moveaxis(updates.numpy(), axis, 0), strict=True):
        expected[index] = _apply(mode, expected[index], part)
    found = run(
        "scatter", data=data, indices=indices.tolist(), updates=updates, axis=axis, mode=mode
    )
    close(found, np.moveaxis(expected, 0, axis).copy(), 1e-4)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, axis=st.integers(-2, 1))
def test_scatter_along_axis(mode: str, seed: int, axis: int) -> None:
    data, random = noise(4, 5), np.random.default_rng(seed)
    shape = [2 if a == axis % 2 else n for a, n in enumerate(data.shape)]
    indices = np.argsort(random.random(data.shape), axis).take(range(2), axis)
    updates = noise(*shape, seed=seed)
    expected = data.numpy().copy()
    for at in np.ndindex(*shape):
        to = (int(indices[at]), at[1]) if axis % 2 == 0 else (at[0], int(indices[at]))
        expected[to] = _apply(mode, expected[to], updates.numpy()[at])
    found = run(
        "scatter_along_axis",
        data=data,
        indices=torch.from_numpy(indices),
        updates=updates,
        axis=axis,
        mode=mode,
    )
    close(found, expected, 1e-4)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, depth=st.integers(1, 3))
def test_scatter_nd(mode: str, seed: int, depth: int) -> None:
    data, random = noise(*SHAPE), np.random.default_rng(seed)
    places = random.choice(int(np.prod(SHAPE[:depth])), 3, replace=mode != "update")
    indices = np.stack(np.unravel_index(places, SHAPE[:depth]), -1)
    updates = noise(3, *SHAPE[depth:], seed=seed)
    expected = data.numpy().copy()
    for index, part in zip(indices, updates.numpy(), strict=True):
        expected[tuple(index)] = _apply(mode, expected[tuple(index)], part)
    found = run("scatter_nd", data=data, indices=indices.tolist(), updates=updates, mode=mode)
    close(found, expected, 1e-4)


def test_scatter_defaults_and_limits() -> None:
    data = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int32)
    updates = torch.tensor([[5, 6, 7], [8, 9, 10]], dtype=torch.int32)
    found = run("scatter", data=data, indices=[1, 0], updates=updates)
    assert found.tolist() == [[9, 11, 13], [9, 11, 13]]
    with pytest.raises(UnsupportedError, match="writes two values to one place"):
        run("scatter", data=data, indices=[0, 0], updates=updates, mode="update")
    same = updates[:1].expand(2, 3)
    found = run("scatter", data=data, indices=[0, 0], updates=same, mode="update")
    assert found.tolist() == [[5, 6, 7], [4, 5, 6]]
    with pytest.raises(UnsupportedError, match=r"with mode 'div' of torch\.int32"):
        run("scatter", data=data, indices=[0, 1], updates=updates, mode="div")
    with pytest.raises(UnsupportedError, match="out of bounds of 2 elements"):
        run("scatter", data=data, indices=[0, 2], updates=updates, validate_indices=False)
    assert data.tolist() == [[1, 2, 3], [4, 5, 6]]


BOUND = st.integers(-7, 7)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.tuples(*[st.tuples(BOUND, BOUND, st.sampled_from([1, 2, 3, -1, -2]))] * 3),
    masks=st.tuples(*[st.tuples(st.booleans(), st.booleans())] * 3),
)
def test_slices_as_numpys(
    cuts: tuple[tuple[int, int, int], ...], masks: tuple[tuple[bool, bool], ...]
) -> None:
    x = noise(*SHAPE)
    slices = tuple(
        slice(None if no_begin else begin, None if no_end else end, step)
        for (begin, end, step), (no_begin, no_end) in zip(cuts, masks, strict=True)
    )
    begin, end, stride = (list(each) for each in zip(*cuts, strict=True))
    how = {
        "begin": begin,
        "end": end,
        "stride": stride,
        "begin_mask": [pair[0] for pair in masks],
        "end_mask": [pair[1] for pair in masks],
    }
    expected = x.numpy()[slices]
    close(run("slice_by_index", x=x, **how), expected.copy())
    changed, update = x.numpy().copy(), noise(*expected.shape, seed=1)
    changed[slices] = update.numpy()
    close(run("slice_update", x=x, update=update, **how), changed)
    turned = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    close(run("slice_update", x=turned, update=update, **how), changed)
    close(x, noise(*SHAPE))


def test_squeezing_slices() -> None:
    x = noise(*SHAPE)
    how = {"begin": [-1, 1, 0], "end": [0, 3, 0], "squeeze_mask": [True, False, True]}
    close(run("slice_by_index", x=x, **how), x[-1, 1:3, 0])
    update = torch.tensor([7.0, 8.0])
    found = run("slice_update", x=x, update=update, **how)
    expected = x.clone()
    expected[-1, 1:3, 0] = update
    close(found, expected)
    with pytest.raises(UnsupportedError, match="out of bounds of 3 elements"):
        run("slice_by_index", x=x, begin=[3, 0, 0], end=[0, 0, 0], squeeze_mask=[True] * 3)
    with pytest.raises(ValueError, match="an update of shape"):
        run("slice_update", x=x, update=noise(3), **how)


def test_slice_by_size() -> None:
    x = noise(*SHAPE)
    close(run("slice_by_size", x=x, begin=[1, -2, 0], size=[-1, 1, 4]), x[1:, 2:3, :4])


def test_non_zero() -> None:
    x = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    assert run("non_zero", x=x).tolist() == [[0, 1], [1, 0]]
    assert run("non_zero", x=x).dtype == torch.int32


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, axis=st.integers(-3, 2))
def test_one_hot(seed: int, axis: int) -> None:
    indices = _whole(seed, 0, 5, 2, 3)
    expected = np.moveaxis(np.eye(5, dtype=np.int32)[indices], -1, axis)
    close(run("one_hot", indices=indices, one_hot_vector_size=5, axis=axis), expected)
    how = {"on_value": 0.5, "off_value": -1.0, "axis": axis}
    found = run("one_hot", indices=indices, one_hot_vector_size=5, **how)
    close(found, np.where(expected, 0.5, -1).astype(np.float32))
    with pytest.raises(UnsupportedError, match="out of bounds of 5"):
        run("one_hot", indices=[-1], one_hot_vector_size=5)


@settings(max_examples=15, deadline=None)
@given(lower=st.integers(-1, 4), upper=st.integers(-1, 4), whole=st.booleans())
def test_band_part(lower: int, upper: int, whole: bool) -> None:
    x = torch.ones(2, 4, 5, dtype=torch.bool) if whole else noise(2, 4, 5)
    row, column = np.mgrid[:4, :5]
    inside = ((lower < 0) | (row - column <= lower)) & ((upper < 0) | (column - row <= upper))
    expected = (x.numpy() * inside).astype(x.numpy().dtype)
    close(run("band_part", x=x, lower=lower, upper=upper), expected)


@settings(max_examples=15, deadline=None)
@given(axis=st.integers(-2, 1), exclusive=st.booleans(), reverse=st.booleans())
def test_cumsum(axis: int, exclusive: bool, reverse: bool) -> None:
    x = _whole(1, -9, 9, 3, 4)
    array = np.flip(x.numpy(), axis) if reverse else x.numpy()
    expected = np.cumsum(array, axis) - (array if exclusive else 0)
    expected = (np.flip(expected, axis) if reverse else expected).astype(np.int32)
    close(run("cumsum", x=x, axis=axis, exclusive=exclusive, reverse=reverse), expected)
    close(run("cumsum", x=x), np.cumsum(x.numpy(), 0).astype(np.int32))


@pytest.mark.parametrize(("value", "dtype"), [(2, "int32"), (0.5, "float32"), (True, "bool")])
def test_fill(value: Any, dtype: str) -> None:
    expected = np.full((2, 3), value, dtype)
    close(run("fill", shape=[2, 3], value=value), expected)
    close(run("fill_like", ref_tensor=noise(2, 3), value=value), expected)
    close(run("fill", shape=[2]), np.zeros(2, np.float32))


@pytest.mark.parametrize("limits", [(0, 5, 1), (5, 0, -2), (1, 8, 3), (0.0, 1.0, 0.25), (3, 3, 1)])
def test_range_1d(limits: tuple[float, float, float]) -> None:
    start, end, step = limits
    dtype = "float32" if isinstance(start, float) else "int32"
    found = run("range_1d", start=start, end=end, step=step)
    close(found, np.arange(start, end, step).astype(dtype))


@pytest.mark.parametrize("kind", ["bernoulli", "categorical", "normal", "uniform"])
def test_random_numbers_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedError, match="it draws random numbers"):
        run(f"random_{kind}", shape=[2])
