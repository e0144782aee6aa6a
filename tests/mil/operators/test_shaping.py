"""Operators that move elements, against NumPy and figures from coremltools' documentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecheck.mil.call import UnsupportedError
from tests.mil.operators.common import close, noise, run


@pytest.mark.parametrize(
    ("shape", "asked", "expected"),
    [
        ((2, 3, 4), [6, 4], (6, 4)),
        ((2, 3, 4), [2, -1], (2, 12)),
        ((2, 3, 4), [0, -1, 2], (2, 6, 2)),
        ((2, 3, 4), [0, 0, 0], (2, 3, 4)),
        ((2, 50), [1, 0, -1, 0], (1, 1, 2, 50)),
        ((2, 3, 4), [-1, 0], (6, 4)),
    ],
)
def test_reshape(shape: tuple[int, ...], asked: list[int], expected: tuple[int, ...]) -> None:
    x = noise(*shape)
    close(run("reshape", x=x, shape=asked), x.numpy().reshape(expected))


def test_reshape_like() -> None:
    x = noise(60, 3)
    found = run(
        "reshape_like",
        x=x,
        ref_tensors=[noise(2, 3, 4), noise(1, 5, 6)],
        begins=[torch.tensor(0), torch.tensor(1)],
        ends=[torch.tensor(2), torch.tensor(0)],
        end_masks=[torch.tensor(False), torch.tensor(True)],
    )
    close(found, x.numpy().reshape(2, 3, 5, 6))


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(4)), axes=st.sets(st.integers(0, 3)), negative=st.booleans())
def test_axes(order: list[int], axes: set[int], negative: bool) -> None:
    x = noise(2, 1, 3, 1)
    given_ = [axis - 4 if negative else axis for axis in order]
    close(run("transpose", x=x, perm=given_), np.transpose(x.numpy(), order))
    flipped = np.flip(x.numpy(), tuple(axes)).copy()
    if axes:
        close(run("reverse", x=x, axes=[axis - 4 if negative else axis for axis in axes]), flipped)
    rank = 4 + len(axes)
    if axes:
        given_ = [axis - rank if negative else axis for axis in axes]
        close(run("expand_dims", x=x, axes=given_), np.expand_dims(x.numpy(), tuple(axes)))
    away = tuple(axis for axis in axes if x.shape[axis] == 1)
    if axes:
        found = run("squeeze", x=x, axes=list(axes))
        close(found, np.squeeze(x.numpy(), away) if away else x)
    close(run("squeeze", x=x), np.squeeze(x.numpy()))
    close(run("reverse", x=x), np.flip(x.numpy()).copy())


@pytest.mark.parametrize(("axis", "shape"), [(0, (1, 24)), (1, (2, 12)), (2, (6, 4)), (-1, (6, 4))])
def test_flatten2d(axis: int, shape: tuple[int, int]) -> None:
    x = noise(2, 3, 4)
    close(run("flatten2d", x=x, axis=axis), x.numpy().reshape(shape))
    close(run("flatten2d", x=x), x.numpy().reshape(2, 12))


def test_shape() -> None:
    close(run("shape", x=noise(2, 3)), np.array([2, 3], dtype=np.int32))


@settings(max_examples=10, deadline=None)
@given(axis=st.integers(-3, 2), count=st.integers(1, 3))
def test_joining_and_splitting(axis: int, count: int) -> None:
    values = [noise(2, 3, 4, seed=seed) for seed in range(count)]
    arrays = [value.numpy() for value in values]
    joined = np.concatenate(arrays, axis)
    close(run("concat", values=values, axis=axis), joined)
    close(run("stack", values=values, axis=axis), np.stack(arrays, axis))
    for found, part in zip(
        run("split", x=torch.from_numpy(joined), num_splits=count, axis=axis), arrays, strict=True
    ):
        close(found, part)
    mixed = run("concat", values=values, axis=axis, interleave=True)
    for at in range(joined.shape[axis]):
        part = np.take(arrays[at % count], at // count, axis)
        close(mixed.select(axis, at), part)


def test_interleave_as_documented() -> None:
    values = [torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.tensor([[7, 8], [9, 10], [11, 12]])]
    expected = torch.tensor([[1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]])
    close(run("concat", values=values, axis=0, interleave=True), expected)


def test_concat_of_scalars_and_vectors() -> None:
    values = [torch.tensor(3), torch.tensor([4, 5])]
    close(run("concat", values=values, axis=0), torch.tensor([3, 4, 5]))


def test_uneven_split() -> None:
    x = noise(2, 7)
    sizes = [1, 4, 2]
    found = run("split", x=x, split_sizes=sizes, num_splits=3, axis=-1)
    for part, expected in zip(found, np.split(x.numpy(), [1, 5], -1), strict=True):
        close(part, expected)
    with pytest.raises(ValueError, match="7 elements do not split into 2 parts"):
        run("split", x=x, num_splits=2, axis=1)


@settings(max_examples=25, deadline=None)
@given(
    amounts=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=3),
    mode=st.sampled_from(["constant", "reflect", "replicate"]),
)
def test_pad(amounts: list[tuple[int, int]], mode: str) -> None:
    x = noise(3, 4, 5)
    flat = [amount for pair in amounts for amount in pair]
    pairs = [(0, 0)] * (3 - len(amounts)) + amounts
    how = {"constant_values": 7} if mode == "constant" else {}
    numpys = "edge" if mode == "replicate" else mode
    expected = np.pad(x.numpy(), pairs, numpys, **how)  # type: ignore[call-overload]
    close(run("pad", x=x, pad=flat, mode=mode, constant_val=7.0), expected)


def test_pad_defaults_and_limits() -> None:
    x = noise(2, 3)
    close(run("pad", x=x, pad=[1, 0]), np.pad(x.numpy(), [(0, 0), (1, 0)]))
    with pytest.raises(UnsupportedError, match="reflects more than there is"):
        run("pad", x=x, pad=[3, 0], mode="reflect")


@settings(max_examples=10, deadline=None)
@given(lengths=st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)))
def test_reverse_sequence(lengths: tuple[int, int, int]) -> None:
    x = noise(4, 3, 2)
    expected = x.clone()
    for batch, length in enumerate(lengths):
        for step in range(length):
            expected[step, batch] = x[length - 1 - step, batch]
    close(run("reverse_sequence", x=x, lengths=list(lengths), batch_axis=1), expected)
    found = run("reverse_sequence", x=x.mT, lengths=list(lengths), batch_axis=-1, seq_axis=0)
    close(found, expected.mT)


@settings(max_examples=10, deadline=None)
@given(block=st.integers(2, 3), channels=st.integers(1, 3))
def test_blocks_by_hand(block: int, channels: int) -> None:
    x = noise(2, channels, 2 * block, 3 * block)
    deep = run("space_to_depth", x=x, block_size=block)
    spread = run("space_to_batch", x=x, block_shape=[block] * 2, paddings=[[0, 0], [0, 0]])
    for row, column in np.ndindex(block, block):
        part = x[:, :, row::block, column::block]
        at = row * block + column
        close(deep[:, at * channels : (at + 1) * channels], part)
        close(spread[at * 2 : at * 2 + 2], part)
    close(run("depth_to_space", x=deep, block_size=block), x)
    found = run("batch_to_space", x=spread, block_shape=[block] * 2, crops=[[0, 1], [1, 0]])
    close(found, x[:, :, :-1, 1:])


def test_space_to_batch_as_apples_tests() -> None:
    x = torch.arange(1.0, 17).reshape(2, 1, 2, 4)
    rows = [[0, 1, 3], [0, 9, 11], [0, 2, 4], [0, 10, 12], [0, 5, 7], [0, 13, 15], [0, 6, 8]]
    expected = torch.tensor([*rows, [0, 14, 16]], dtype=torch.float32).reshape(8, 1, 1, 3)
    found = run("space_to_batch", x=x, block_shape=[2, 2], paddings=[[0, 0], [2, 0]])
    close(found, expected)


def test_pixel_shuffle() -> None:
    x = noise(2, 12, 3, 4)
    shuffled = nn.PixelShuffle(2)(x)
    close(run("pixel_shuffle", x=x, upscale_factor=2), shuffled)
    close(run("pixel_unshuffle", x=shuffled, downscale_factor=2), x)


@settings(max_examples=15, deadline=None)
@given(axis=st.integers(-3, 2), size=st.integers(1, 3), stride=st.integers(1, 3))
def test_sliding_windows(axis: int, size: int, stride: int) -> None:
    x = noise(4, 5, 3)
    count = (x.shape[axis] - size) // stride + 1
    at = axis % 3
    starts = range(0, count * stride, stride)
    expected = torch.stack([x.narrow(axis, start, size) for start in starts], at)
    close(run("sliding_windows", x=x, axis=axis, size=size, stride=stride), expected)


def test_tile() -> None:
    x = noise(2, 3)
    close(run("tile", x=x, reps=[2, 3]), np.tile(x.numpy(), (2, 3)))
