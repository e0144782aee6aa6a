"""Compressed weights and quantized activations: constexpr operators, quantize, dequantize.

The formulas are those of coremltools' definitions (converters/mil/mil/ops/defs, iOS16
constexpr_ops, iOS17 quantization_ops, iOS18 compression), computed in float32. Operators that
iOS18 defines anew under the same name are told apart by their parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from edgecheck.mil.call import Call
from edgecheck.mil.pickling import PACKED_BITS, unpack


def _affine_dequantize(call: Call) -> torch.Tensor:
    """scale * (data - zero point), both scalars or one each along an axis."""
    data = call.tensor("quantized_data")
    axis = call.integer("axis")
    zero_point = _along(call.tensor("zero_point"), data.dim(), axis)
    return (data.float() - zero_point) * _along(call.tensor("scale"), data.dim(), axis)


def _blockwise_shift_scale(call: Call) -> torch.Tensor:
    """scale * (data - offset), one each for a block; the shapes imply the block's."""
    data = call.tensor("data")
    return _shift_scale(data, call.tensor("scale"), call.optional("offset"))


def _sparse_blockwise_shift_scale(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask as it is, and those elements that it marks shifted and scaled."""
    mask = call.tensor("data_mask")
    data = _scatter(call.tensor("nonzero_data"), mask)
    dense = _shift_scale(data, call.tensor("scale"), call.optional("offset"))
    return mask, dense[mask != 0]


def _lut_to_dense(call: Call) -> torch.Tensor:
    """Entries of a look-up table; iOS16: packed indices and one table, iOS18: by blocks."""
    indices, lut = call.tensor("indices"), call.tensor("lut")
    if not call.has("shape"):
        return _look_up(indices, lut, call)
    shape = call.integers("shape")
    bits = int(lut.numel()).bit_length() - 1
    if 2**bits != lut.numel():
        raise call.unsupported(f"with a table of {lut.numel()} entries")
    return lut[_unpacked(indices, bits, shape).long()]


def _lut_to_sparse(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask, repeated for vectors, and those table entries that it marks."""
    mask = call.tensor("indices_mask")
    indices = _scatter(call.tensor("indices_nonzero_data"), mask)
    lut = call.tensor("lut")
    dense = _look_up(indices, lut, call)
    if lut.shape[-1] > 1:
        mask = mask.repeat_interleave(lut.shape[-1], dim=call.integer("vector_axis"))
    return mask, dense[mask != 0]


def _sparse_to_dense(call: Call) -> torch.Tensor:
    """Zeros, and the given elements where the mask is set; iOS16: the mask is packed."""
    mask = call.tensor("mask")
    if call.has("shape"):
        mask = _unpacked(mask, 1, call.integers("shape"))
    return _scatter(call.tensor("nonzero_data"), mask)


def _constexpr_cast(call: Call) -> torch.Tensor:
    return call.tensor("source_val")


def _quantize(call: Call) -> torch.Tensor:
    """clip(round(input / scale) + zero point), halves to even; NaN becomes 0."""
    values = call.tensor("input")
    axis = call.integer("axis", 0)
    quantized = torch.round(values / _along(call.tensor("scale"), values.dim(), axis))
    if call.has("zero_point"):
        quantized = quantized + _along(call.tensor("zero_point"), values.dim(), axis)
    dtype = torch.uint8 if call.text("output_dtype") == "uint8" else torch.int8
    limits = torch.iinfo(dtype)
    return torch.nan_to_num(quantized).clamp(limits.min, limits.max).to(dtype)


def _dequantize(call: Call) -> torch.Tensor:
    """scale * (input - zero point)."""
    values = call.tensor("input").float()
    axis = call.integer("axis", 0)
    if call.has("zero_point"):
        values = values - _along(call.tensor("zero_point"), values.dim(), axis)
    return values * _along(call.tensor("scale"), values.dim(), axis)


def _along(parameter: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    """A scalar, or a vector laid along an axis, in float32."""
    if parameter.dim() == 0:
        return parameter.float()
    shape = [1] * rank
    shape[axis] = -1
    return parameter.float().reshape(shape)


def _shift_scale(
    data: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None
) -> torch.Tensor:
    values = data.float()
    if offset is not None:
        values = values - _by_blocks(offset, data.shape).float()
    return values * _by_blocks(scale, data.shape).float()


def _by_blocks(parameter: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A parameter of one element a block, repeated to a shape where broadcasting would not do."""
    for axis, (size, blocks) in enumerate(zip(shape, parameter.shape, strict=True)):
        if size % blocks:
            raise ValueError(f"{blocks} blocks along an axis of {size}")
        if blocks not in (1, size):
            parameter = parameter.repeat_interleave(size // blocks, dim=axis)
    return parameter


def _look_up(indices: torch.Tensor, lut: torch.Tensor, call: Call) -> torch.Tensor:
    """Entries of tables by blocks.

    `lut` has the shape of the blocks, then entries, then the size of a vector; a vector fills the
    axis `vector_axis` of the result.
    """
    *blocks, entries, vector_size = lut.shape
    numbers = torch.arange(int(np.prod(blocks))).reshape(blocks)
    table = _by_blocks(numbers, indices.shape).expand(indices.shape)
    found = lut.reshape(-1, entries, vector_size)[table, indices.long()]
    if vector_size == 1:
        return found.squeeze(-1)
    axis = call.integer("vector_axis") % indices.dim()
    return found.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _scatter(elements: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zeros in the shape of a mask, with the elements in row-major order where it is set."""
    chosen = mask != 0
    if int(chosen.sum()) != elements.numel():
        raise ValueError(f"{elements.numel()} elements for {int(chosen.sum())} places")
    dense = torch.zeros(mask.shape, dtype=elements.dtype)
    dense[chosen] = elements
    return dense


def _unpacked(packed: torch.Tensor, bits: int, shape: Sequence[int]) -> torch.Tensor:
    if bits == 8:
        return packed.reshape(list(shape))
    count = int(np.prod(shape))
    if f"uint{bits}" not in PACKED_BITS or packed.numel() * 8 < count * bits:
        raise ValueError(f"{packed.numel()} bytes for {count} elements of {bits} bits")
    elements: Any = unpack(packed.numpy(), f"uint{bits}", count)
    return torch.from_numpy(elements.reshape(shape))


HANDLERS: dict[str, Callable[[Call], Any]] = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_cast": _constexpr_cast,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_lut_to_sparse": _lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": _sparse_to_dense,
    "dequantize": _dequantize,
    "quantize": _quantize,
}
