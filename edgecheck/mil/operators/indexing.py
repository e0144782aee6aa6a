"""Operators that read or write elements at positions, and those that make tensors from numbers.

Indices: iOS15's and iOS16's may be negative; from iOS17 on, where ``validate_indices`` is given,
negative ones are out of bounds. What Core ML does out of bounds is undefined, so that the handlers
refuse it.
"""

from __future__ import annotations

import torch

from edgecheck.mil.call import Call, Handler

_REDUCTIONS = {"add": "sum", "sub": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _indices(call: Call, indices: torch.Tensor, size: int) -> torch.Tensor:
    """Indices into an axis of this size, none of them negative."""
    indices = indices.long()
    if not call.has("validate_indices"):
        indices = torch.where(indices < 0, indices + size, indices)
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        raise call.unsupported(f"with an index that is out of bounds of {size} elements")
    return indices


def _at(call: Call, x: torch.Tensor, indices: torch.Tensor, first: int = 0) -> torch.Tensor:
    """x at the vectors along the last axis of indices, which address its axes from `first` on.

    Axes before `first` are batches, shared with those of indices.
    """
    index = [
        torch.arange(x.shape[axis]).reshape(-1, *[1] * (indices.ndim - 2 - axis))
        for axis in range(first)
    ]
    index += [
        _indices(call, part, x.shape[axis]) for axis, part in enumerate(indices.unbind(-1), first)
    ]
    return x[tuple(index)]


def _gather(call: Call) -> torch.Tensor:
    x, axis = call.tensor("x"), call.integer("axis", 0)
    axis %= x.ndim
    indices = _indices(call, call.tensor("indices"), x.shape[axis])
    batches = call.integer("batch_dims", 0)
    return _gathered(x, indices, axis, batches)


def _gathered(x: torch.Tensor, indices: torch.Tensor, axis: int, batches: int) -> torch.Tensor:
    if batches:
        parts = zip(x, indices, strict=True)
        return torch.stack([_gathered(*part, axis - 1, batches - 1) for part in parts])
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, indices.reshape(-1)).reshape(shape)


def _gather_along_axis(call: Call) -> torch.Tensor:
    x, axis = call.tensor("x"), call.integer("axis", 0)
    return torch.take_along_dim(x, _indices(call, call.tensor("indices"), x.shape[axis]), axis)


def _gather_nd(call: Call) -> torch.Tensor:
    return _at(call, call.tensor("x"), call.tensor("indices"), call.integer("batch_dims", 0))


def _positions(data: torch.Tensor) -> torch.Tensor:
    """Of each element its place in the flattened data."""
    return torch.arange(data.numel()).reshape(data.shape)


def _scattered(call: Call, data: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The updates written to these places of the flattened data."""
    mode, updates = call.text("mode", "add"), call.tensor("updates")
    flat, values, places = data.flatten(), updates.to(data.dtype).flatten(), places.flatten()
    if mode == "update":
        flat = flat.index_put((places,), values)
        written = flat[places]
        if not bool(((written == values) | (values != values)).all()):
            raise call.unsupported("that writes two values to one place")
        return flat.reshape(data.shape)
    if mode == "div" and data.is_floating_point():
        divisors = torch.ones_like(flat).scatter_reduce(0, places, values, "prod")
        return (flat / divisors).reshape(data.shape)
    if mode not in _REDUCTIONS:
        raise call.unsupported(f"with mode {mode!r} of {data.dtype}")
    values = -values if mode == "sub" else values
    return flat.scatter_reduce(0, places, values, _REDUCTIONS[mode]).reshape(data.shape)


def _scatter(call: Call) -> torch.Tensor:
    data, axis = call.tensor("data"), call.integer("axis", 0)
    indices = _indices(call, call.tensor("indices"), data.shape[axis])
    return _scattered(call, data, _positions(data).index_select(axis, indices))


def _scatter_along_axis(call: Call) -> torch.Tensor:
    data, axis = call.tensor("data"), call.integer("axis", 0)
    indices = _indices(call, call.tensor("indices"), data.shape[axis])
    return _scattered(call, data, torch.gather(_positions(data), axis, indices))


def _scatter_nd(call: Call) -> torch.Tensor:
    data = call.tensor("data")
    return _scattered(call, data, _at(call, _positions(data), call.tensor("indices")))


def _sliced(call: Call, x: torch.Tensor) -> torch.Tensor:
    """x at begin:end:stride, as Python slices; a masked begin or end is left out."""
    begin, end = call.integers("begin"), call.integers("end")
    strides = call.integers("stride", [1] * x.ndim)
    no = [0] * x.ndim
    from_start, to_end = call.integers("begin_mask", no), call.integers("end_mask", no)
    squeezed = call.integers("squeeze_mask", no)
    for axis, size in enumerate(x.shape):
        if squeezed[axis]:
            start = 0 if from_start[axis] else begin[axis]
            if not -size <= start < size:
                raise call.unsupported(f"with an index that is out of bounds of {size} elements")
            x = x.narrow(axis, start % size, 1)
            continue
        taken = range(
            *slice(
                None if from_start[axis] else begin[axis],
                None if to_end[axis] else end[axis],
                strides[axis],
            ).indices(size)
        )
        if strides[axis] == 1:
            x = x.narrow(axis, taken.start, len(taken))
        else:
            x = x.index_select(axis, torch.tensor(taken, dtype=torch.int64))
    return x.squeeze([axis for axis, away in enumerate(squeezed) if away])


def _slice_by_size(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    for axis, (begin, size) in enumerate(
        zip(call.integers("begin"), call.integers("size"), strict=True)
    ):
        start = begin + x.shape[axis] if begin < 0 else begin
        x = x.narrow(axis, start, x.shape[axis] - start if size == -1 else size)
    return x


def _slice_update(call: Call) -> torch.Tensor:
    x = call.tensor("x").clone(memory_format=torch.contiguous_format)
    places, update = _sliced(call, _positions(x)), call.tensor("update")
    if places.shape != update.shape:
        raise ValueError(
            f"operation {call.name!r}: an update of shape {tuple(update.shape)} for a slice of "
            f"shape {tuple(places.shape)}"
        )
    x.view(-1)[places.flatten()] = update.flatten()
    return x


def _non_zero(call: Call) -> torch.Tensor:
    return torch.nonzero(call.tensor("x")).to(torch.int32)


def _one_hot(call: Call) -> torch.Tensor:
    indices, size = call.tensor("indices").long(), call.integer("one_hot_vector_size")
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        raise call.unsupported(f"with an index that is out of bounds of {size} elements")
    on, off = (
        value if value is not None else torch.tensor(default, dtype=torch.int32)
        for value, default in ((call.optional("on_value"), 1), (call.optional("off_value"), 0))
    )
    axis = call.integer("axis", -1) % (indices.ndim + 1)
    steps = torch.arange(size).reshape(-1, *[1] * (indices.ndim - axis))
    return torch.where(indices.unsqueeze(axis) == steps, on, off)


def _band_part(call: Call) -> torch.Tensor:
    x, lower, upper = call.tensor("x"), call.integer("lower", -1), call.integer("upper", -1)
    if lower >= 0:
        x = x.triu(-lower)
    return x.tril(upper) if upper >= 0 else x


def _cumsum(call: Call) -> torch.Tensor:
    x, axis = call.tensor("x"), call.integer("axis", 0)
    backwards = call.flag("reverse", False)
    ordered = x.flip(axis) if backwards else x
    total = ordered.cumsum(axis, dtype=x.dtype)
    if call.flag("exclusive", False):
        head = torch.zeros_like(total.narrow(axis, 0, 1))
        total = torch.cat([head, total.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return total.flip(axis) if backwards else total


def _filled(call: Call, shape: list[int]) -> torch.Tensor:
    value = call.optional("value")
    return torch.zeros(shape) if value is None else value.reshape([1] * len(shape)).expand(shape)


def _range_1d(call: Call) -> torch.Tensor:
    start, end, step = (call.tensor(name).reshape(()) for name in ("start", "end", "step"))
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _random(call: Call) -> torch.Tensor:
    raise call.unsupported("(it draws random numbers, as dropout left in training mode does)")


HANDLERS: dict[str, Handler] = {
    "band_part": _band_part,
    "cumsum": _cumsum,
    "fill": lambda call: _filled(call, call.integers("shape")),
    "fill_like": lambda call: _filled(call, list(call.tensor("ref_tensor").shape)),
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "non_zero": _non_zero,
    "one_hot": _one_hot,
    "random_bernoulli": _random,
    "random_categorical": _random,
    "random_normal": _random,
    "random_uniform": _random,
    "range_1d": _range_1d,
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
    "slice_by_index": lambda call: _sliced(call, call.tensor("x")),
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
}
