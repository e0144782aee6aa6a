"""Compressed weights and quantized activations, against coremltools and the documented formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil.ops.defs import iOS18
from coremltools.optimize import _utils as coremltools_formulas
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.mil.call import Call, UnsupportedError
from edgecheck.mil.evaluator import Evaluator
from edgecheck.mil.operators.compression import HANDLERS
from edgecheck.mil.reader import read
from tests.mil import packages
from tests.mil.packages import mb

BRIEF = settings(max_examples=50, deadline=None)


def run(operator: str, **inputs: Any) -> Any:
    """Call a handler with arrays."""
    tensors = {
        name: each if isinstance(each, str) else torch.from_numpy(np.asarray(each))
        for name, each in inputs.items()
        if each is not None
    }
    found = HANDLERS[operator](Call(operator, "weight", tensors))
    if isinstance(found, tuple):
        return tuple(each.numpy() for each in found)
    return found.numpy()


def arrays(data: st.DataObject) -> np.random.Generator:
    return np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))


def shapes(data: st.DataObject, largest: int = 4) -> list[int]:
    return data.draw(st.lists(st.integers(1, largest), min_size=1, max_size=4))


def blocked(data: st.DataObject) -> tuple[list[int], list[int]]:
    """A shape, and that of its blocks' parameters."""
    blocks = shapes(data, 3)
    return [data.draw(st.integers(1, 3)) * each for each in blocks], blocks


# Activations.


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("per_axis", [False, True])
@given(data=st.data())
@BRIEF
def test_quantize_and_dequantize(dtype: str, per_axis: bool, data: st.DataObject) -> None:
    random, shape = arrays(data), shapes(data)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    values = (random.normal(size=shape) * 100).astype(np.float32)
    size = shape[axis] if per_axis else ()
    scale = (random.uniform(0.1, 2, size=size)).astype(np.float32)
    limits = np.iinfo(dtype)
    zero_point = random.integers(limits.min, limits.max + 1, size=size).astype(dtype)
    zero_point = data.draw(st.sampled_from([zero_point, None]))
    common = {"scale": scale, "zero_point": zero_point, "axis": axis if per_axis else None}
    found = run("quantize", input=values, output_dtype=dtype, **common)
    promote = coremltools_formulas.promote_rank_to_same_as_data
    wide_scale = promote(scale, values, axis)
    wide_zero_point = None if zero_point is None else promote(zero_point, values, axis)
    expected = coremltools_formulas.quantize_by_scale_and_zp(
        values, wide_scale, wide_zero_point, dtype
    )
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    back = run("dequantize", input=found, **common)
    np.testing.assert_array_equal(
        back,
        coremltools_formulas.dequantize_by_scale_and_zp(found, wide_scale, wide_zero_point),
    )


def test_quantize_rounds_halves_to_even_and_saturates() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, 1e9, -1e9, np.inf, np.nan], np.float32)
    found = run("quantize", input=values, scale=np.float32(1), output_dtype="int8")
    assert found.tolist() == [0, 2, 2, 0, 127, -128, 127, 0]
    found = run("quantize", input=values, scale=np.float32(1), output_dtype="uint8")
    assert found.tolist() == [0, 2, 2, 0, 255, 0, 255, 0]


def test_quantized_activations_in_a_program(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec((3, 4))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        scale, zero_point = np.array([0.5, 0.25, 2], np.float32), np.array([3, -7, 0], np.int8)
        quantized = mb.quantize(
            input=x, scale=scale, zero_point=zero_point, axis=0, output_dtype="int8", name="q"
        )
        return mb.dequantize(input=quantized, scale=scale, zero_point=zero_point, axis=0, name="y")

    runner = Evaluator(read(packages.converted(program, tmp_path)))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32) * 50
    seen: dict[str, torch.Tensor] = {}
    found = runner.run({"x": x}, seen.__setitem__)["y"]
    assert seen["q"].dtype == torch.int8
    scale = np.array([[0.5], [0.25], [2]], np.float32)
    zero_point = np.array([[3], [-7], [0]], np.float32)
    expected = (np.clip(np.round(x / scale) + zero_point, -128, 127) - zero_point) * scale
    np.testing.assert_array_equal(found, expected)


# iOS16.


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@given(data=st.data())
@BRIEF
def test_affine_dequantize(dtype: str, data: st.DataObject) -> None:
    random, shape = arrays(data), shapes(data)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size: Any = data.draw(st.sampled_from([(), shape[axis]]))
    limits = np.iinfo(dtype)
    quantized = random.integers(limits.min, limits.max + 1, size=shape).astype(dtype)
    zero_point = random.integers(limits.min, limits.max + 1, size=size).astype(dtype)
    scale = random.normal(size=size).astype(np.float32)
    found = run(
        "constexpr_affine_dequantize",
        quantized_data=quantized,
        zero_point=zero_point,
        scale=scale,
        axis=axis,
    )
    expected = np.empty(shape, np.float32)
    for index in np.ndindex(*shape):
        place = index[axis] if size else ()
        expected[index] = scale[place] * np.float32(int(quantized[index]) - int(zero_point[place]))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
@given(data=st.data())
@BRIEF
def test_packed_look_up_table(bits: int, data: st.DataObject) -> None:
    random, shape = arrays(data), shapes(data)
    table = random.normal(size=2**bits).astype(np.float32)
    indices = random.integers(0, 2**bits, size=math.prod(shape))
    stream = sum(int(each) << (bits * place) for place, each in enumerate(indices))
    packed = stream.to_bytes((bits * indices.size + 7) // 8, "little")
    found = run(
        "constexpr_lut_to_dense",
        indices=np.frombuffer(bytearray(packed), np.uint8),
        lut=table,
        shape=np.array(shape, np.int64),
    )
    np.testing.assert_array_equal(found, table[indices].reshape(shape))


@given(data=st.data())
@BRIEF
def test_packed_sparse(data: st.DataObject) -> None:
    random, shape = arrays(data), shapes(data)
    dense = random.integers(0, 3, size=shape).astype(np.float32)
    found = run(
        "constexpr_sparse_to_dense",
        nonzero_data=dense[dense != 0],
        mask=np.packbits((dense != 0).reshape(-1), bitorder="little"),
        shape=np.array(shape, np.int64),
    )
    np.testing.assert_array_equal(found, dense)


def test_data_that_does_not_fit_its_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 bytes for 9 elements of 1 bits"):
        run(
            "constexpr_sparse_to_dense",
            nonzero_data=np.ones(1),
            mask=np.array([1], np.uint8),
            shape=np.array([9], np.int64),
        )
    with pytest.raises(ValueError, match="1 elements for 2 places"):
        run(
            "constexpr_sparse_to_dense", nonzero_data=np.ones(1), mask=np.array([1, 0, 1], np.uint8)
        )
    with pytest.raises(ValueError, match="2 blocks along an axis of 3"):
        run("constexpr_blockwise_shift_scale", data=np.ones(3), scale=np.ones(2))
    with pytest.raises(UnsupportedError, match="table of 3 entries"):
        run(
            "constexpr_lut_to_dense",
            indices=np.array([0], np.uint8),
            lut=np.ones(3, np.float32),
            shape=np.array([1], np.int64),
        )


# iOS18.


@given(data=st.data())
@BRIEF
def test_blockwise_shift_scale(data: st.DataObject) -> None:
    random, (shape, blocks) = arrays(data), blocked(data)
    quantized = random.integers(-8, 8, size=shape).astype(np.int8)
    scale = random.normal(size=blocks).astype(np.float32)
    offset = random.integers(-8, 8, size=blocks).astype(np.int8)
    offset = data.draw(st.sampled_from([offset, None]))
    found = run("constexpr_blockwise_shift_scale", data=quantized, scale=scale, offset=offset)
    expected = np.empty(shape, np.float32)
    for index in np.ndindex(*shape):
        block = tuple(np.array(index) // (np.array(shape) // np.array(blocks)))
        shift = 0 if offset is None else int(offset[block])
        expected[index] = scale[block] * np.float32(int(quantized[index]) - shift)
    np.testing.assert_array_equal(found, expected)


@given(data=st.data())
@BRIEF
def test_look_up_tables_by_blocks(data: st.DataObject) -> None:
    random, (shape, blocks) = arrays(data), blocked(data)
    bits, vector = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    table = random.normal(size=(*blocks, 2**bits, vector)).astype(np.float32)
    indices = random.integers(0, 2**bits, size=shape).astype(np.uint8)
    found = run(
        "constexpr_lut_to_dense",
        indices=indices,
        lut=table,
        vector_axis=None if vector == 1 else axis,
    )
    expected = np.empty([*shape, vector], np.float32)
    for index in np.ndindex(*shape):
        block = tuple(np.array(index) // (np.array(shape) // np.array(blocks)))
        expected[index] = table[block][indices[index]]
    axis %= len(shape)
    full = list(shape)
    full[axis] *= vector
    expected = np.moveaxis(expected, -1, axis + 1).reshape(full)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, coremltools_formulas.lut_to_dense(indices, table, axis))


@given(data=st.data())
@BRIEF
def test_sparse_look_up_and_shift_scale(data: st.DataObject) -> None:
    random, (shape, blocks) = arrays(data), blocked(data)
    mask = random.integers(0, 2, size=shape).astype(np.uint8)
    count = int(mask.sum())
    vector = data.draw(st.integers(1, 2))
    table = random.normal(size=(*blocks, 4, vector)).astype(np.float32)
    indices = random.integers(0, 4, size=count).astype(np.uint8)
    axis = None if vector == 1 else data.draw(st.integers(0, len(shape) - 1))
    found = run(
        "constexpr_lut_to_sparse",
        indices_mask=mask,
        indices_nonzero_data=indices,
        lut=table,
        vector_axis=axis,
    )
    expected = iOS18.constexpr_lut_to_sparse.decompress(mask, indices, table, axis)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])

    quantized = random.integers(-8, 8, size=count).astype(np.int8)
    scale = random.normal(size=blocks).astype(np.float32)
    offset = random.integers(-8, 8, size=blocks).astype(np.int8)
    found = run(
        "constexpr_sparse_blockwise_shift_scale",
        data_mask=mask,
        nonzero_data=quantized,
        scale=scale,
        offset=offset,
    )
    dense = run("constexpr_sparse_to_dense", nonzero_data=quantized, mask=mask)
    assert dense.dtype == np.int8
    whole = run("constexpr_blockwise_shift_scale", data=dense, scale=scale, offset=offset)
    np.testing.assert_array_equal(found[0], mask)
    np.testing.assert_array_equal(found[1], whole[mask != 0])
