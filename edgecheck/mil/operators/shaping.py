"""Operators that move elements and change none of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional

from edgecheck.mil.call import Call, Handler


def _reshape(call: Call) -> torch.Tensor:
    """A 0 keeps the axis of x that lies as far from the right; 1 where there is none (iOS17)."""
    x, shape = call.tensor("x"), call.integers("shape")
    for index, size in enumerate(shape):
        if size == 0:
            at = index - len(shape) + x.ndim
            shape[index] = x.shape[at] if at >= 0 else 1
    return x.reshape(shape)


def _reshape_like(call: Call) -> torch.Tensor:
    shape: list[int] = []
    for reference, begin, end, to_the_end in zip(
        call.tensors("ref_tensors"),
        call.tensors("begins"),
        call.tensors("ends"),
        call.tensors("end_masks"),
        strict=True,
    ):
        stop = None if bool(to_the_end) else int(end)
        shape += reference.shape[int(begin) : stop]
    return call.tensor("x").reshape(shape)


def _transpose(call: Call) -> torch.Tensor:
    return call.tensor("x").permute(call.integers("perm"))


def _expand_dims(call: Call) -> torch.Tensor:
    x, axes = call.tensor("x"), call.integers("axes")
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return x.squeeze(call.integers("axes")) if call.has("axes") else x.squeeze()


def _flatten2d(call: Call) -> torch.Tensor:
    x, axis = call.tensor("x"), call.integer("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _shape(call: Call) -> torch.Tensor:
    return torch.tensor(call.tensor("x").shape, dtype=torch.int32)


def _concat(call: Call) -> torch.Tensor:
    values, axis = call.tensors("values"), call.integer("axis")
    if not call.flag("interleave", False):
        return torch.cat([value.reshape(1) if value.ndim == 0 else value for value in values], axis)
    axis %= values[0].ndim
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def _stack(call: Call) -> torch.Tensor:
    return torch.stack(call.tensors("values"), call.integer("axis"))


def _split(call: Call) -> tuple[torch.Tensor, ...]:
    x, axis = call.tensor("x"), call.integer("axis")
    if call.has("split_sizes"):
        return torch.split(x, call.integers("split_sizes"), axis)
    count = call.integer("num_splits")
    size, rest = divmod(x.shape[axis], count)
    if rest:
        raise ValueError(
            f"operation {call.name!r}: {x.shape[axis]} elements do not split into {count} parts"
        )
    return torch.split(x, size, axis)


def _pad(call: Call) -> torch.Tensor:
    x, amounts = call.tensor("x"), call.integers("pad")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    mode = call.text("mode", "constant")
    if mode == "constant":
        flat = [amount for pair in reversed(pairs) for amount in pair]
        return functional.pad(x, flat, value=call.number("constant_val", 0.0))
    if mode not in ("reflect", "replicate"):
        raise call.unsupported(f"with mode {mode!r}")
    for axis, (before, after) in enumerate(pairs, x.ndim - len(pairs)):
        if not before and not after:
            continue
        last = x.shape[axis] - 1
        if mode == "reflect" and max(before, after) > last:
            raise call.unsupported("that reflects more than there is")
        index = torch.arange(-before, last + 1 + after)
        index = last - (last - index.abs()).abs() if mode == "reflect" else index.clamp(0, last)
        x = x.index_select(axis, index)
    return x


def _reverse(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    return x.flip(call.integers("axes", range(x.ndim)))


def _reverse_sequence(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    along, batch = call.integer("seq_axis", 0) % x.ndim, call.integer("batch_axis", 0) % x.ndim
    parts = []
    for part, length in zip(torch.split(x, 1, batch), call.integers("lengths"), strict=True):
        head, tail = torch.split(part, [length, part.shape[along] - length], along)
        parts.append(torch.cat([head.flip(along), tail], along))
    return torch.cat(parts, batch)


def _depth_to_space(call: Call) -> torch.Tensor:
    """The channel is made of (row in block, column in block, new channel), as in TensorFlow."""
    x, block = call.tensor("x"), call.integer("block_size")
    count, channels, height, width = x.shape
    y = x.reshape(count, block, block, channels // block**2, height, width)
    y = y.permute(0, 3, 4, 1, 5, 2)
    return y.reshape(count, channels // block**2, height * block, width * block)


def _space_to_depth(call: Call) -> torch.Tensor:
    x, block = call.tensor("x"), call.integer("block_size")
    count, channels, height, width = x.shape
    y = x.reshape(count, channels, height // block, block, width // block, block)
    y = y.permute(0, 3, 5, 1, 2, 4)
    return y.reshape(count, channels * block**2, height // block, width // block)


def _space_to_batch(call: Call) -> torch.Tensor:
    """The batch is made of (row in block, column in block, old batch), as in TensorFlow."""
    (top, bottom, left, right), (rows, columns) = (
        call.integers("paddings"),
        call.integers("block_shape"),
    )
    x = functional.pad(call.tensor("x"), [left, right, top, bottom])
    count, channels, height, width = x.shape
    y = x.reshape(count, channels, height // rows, rows, width // columns, columns)
    y = y.permute(3, 5, 0, 1, 2, 4)
    return y.reshape(count * rows * columns, channels, height // rows, width // columns)


def _batch_to_space(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    (top, bottom, left, right), (rows, columns) = (
        call.integers("crops"),
        call.integers("block_shape"),
    )
    count, channels, height, width = x.shape
    y = x.reshape(rows, columns, count // (rows * columns), channels, height, width)
    y = y.permute(2, 3, 4, 0, 5, 1)
    y = y.reshape(count // (rows * columns), channels, height * rows, width * columns)
    return y[:, :, top : height * rows - bottom, left : width * columns - right]


def _sliding_windows(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    axis = call.integer("axis") % x.ndim
    windows = x.unfold(axis, call.integer("size"), call.integer("stride", 1))
    return windows.movedim(-1, axis + 1)


def _tile(call: Call) -> torch.Tensor:
    return call.tensor("x").repeat(call.integers("reps"))


HANDLERS: dict[str, Handler] = {
    "batch_to_space": _batch_to_space,
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "flatten2d": _flatten2d,
    "pad": _pad,
    "pixel_shuffle": lambda call: functional.pixel_shuffle(
        call.tensor("x"), call.integer("upscale_factor")
    ),
    "pixel_unshuffle": lambda call: functional.pixel_unshuffle(
        call.tensor("x"), call.integer("downscale_factor")
    ),
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "reverse": _reverse,
    "reverse_sequence": _reverse_sequence,
    "shape": _shape,
    "sliding_windows": _sliding_windows,
    "space_to_batch": _space_to_batch,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
