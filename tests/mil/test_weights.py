"""The weight file: what Apple's writer wrote comes out, and a damaged one is one clear error."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.libmilstoragepython import _BlobStorageWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.mil.pickling import PACKED_BITS, unpack
from edgecheck.mil.program import ProgramError
from edgecheck.mil.reader import read
from edgecheck.mil.weights import WeightFile
from tests.mil import packages

WRITERS = {"fp32": "float"}


@pytest.mark.parametrize(
    "dtype",
    ["fp16", "fp32", "int8", "int16", "int32", "uint8", "uint16", "uint32", *sorted(PACKED_BITS)],
)
def test_weight_file_holds_what_apples_writer_wrote(tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(3)
    writer = _BlobStorageWriter(str(tmp_path / "w.bin"))
    written, offsets = [], []
    for count in (1, 7, 64, 1001):
        if dtype in PACKED_BITS:
            bits, signed = PACKED_BITS[dtype], dtype.startswith("int")
            least = -(2 ** (bits - 1)) if signed else 0
            array = random.integers(least, least + 2**bits, count)
            array = array.astype(np.int8 if signed else np.uint8)
        elif dtype.startswith("fp"):
            array = random.normal(size=count).astype(np.float16 if dtype == "fp16" else np.float32)
        else:
            array = random.integers(0, 100, count).astype(dtype)
        stored = array.view(np.uint16) if dtype == "fp16" else array
        offsets.append(getattr(writer, f"write_{WRITERS.get(dtype, dtype)}_data")(stored))
        written.append(array)
    del writer  # closes the file
    weights = WeightFile(tmp_path / "w.bin")
    for offset, array in zip(offsets, written, strict=True):
        found: Any = weights.read(offset, dtype, array.size)
        if dtype in PACKED_BITS:
            found = unpack(found, dtype, array.size)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        with pytest.raises(ProgramError, match="bytes"):
            weights.read(offset, dtype, array.size + 8)


@given(st.sampled_from(sorted(PACKED_BITS)), st.data())
@settings(max_examples=60, deadline=None)
def test_unpacking_is_a_stream_of_bits(dtype: str, data: st.DataObject) -> None:
    bits, signed = PACKED_BITS[dtype], dtype.startswith("int")
    least = -(2 ** (bits - 1)) if signed else 0
    elements = data.draw(st.lists(st.integers(least, least + 2**bits - 1), max_size=40))
    stream = sum((each % 2**bits) << (bits * place) for place, each in enumerate(elements))
    size = (bits * len(elements) + 7) // 8
    packed = np.frombuffer(stream.to_bytes(size, "little"), np.uint8)
    assert unpack(packed, dtype, len(elements)).tolist() == elements


def test_truncated_weights(package: Path) -> None:
    file = packages.weight_file(package)
    content = file.read_bytes()
    for size in (len(content) - 1, 100, 64, 10, 0):
        file.write_bytes(content[:size])
        with pytest.raises(ProgramError, match=r"truncated|no metadata") as caught:
            read(package)
        assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(ProgramError, match=r"weight\.bin is missing"):
        read(package)


@pytest.mark.parametrize(
    ("place", "format_", "value", "message"),
    [
        (4, "<I", 1, "format version 1, not 2"),
        (64, "<I", 7, "sentinel"),
        (68, "<I", 1, "holds fp16 where fp32 is declared"),
        (68, "<I", 5, "holds unknown type 5"),
        (72, "<Q", 8, "holds 8 bytes; 2048 elements of fp32 take 8192"),
        (80, "<Q", 2**63, "truncated"),
        (80, "<Q", 65, "truncated"),
    ],
)
def test_damaged_weight_metadata(
    package: Path, place: int, format_: str, value: int, message: str
) -> None:
    file = packages.weight_file(package)
    content = bytearray(file.read_bytes())
    struct.pack_into(format_, content, place, value)
    file.write_bytes(content)
    with pytest.raises(ProgramError, match=message):
        read(package)


def _set_weight(**fields: Any) -> Any:
    def edit(model: Any) -> None:
        for operation in packages.operations(model):
            value = operation.attributes.get("val")
            if value is not None and value.WhichOneof("value") == "blobFileValue":
                for name, content in fields.items():
                    setattr(value.blobFileValue, name, content)

    return edit


@pytest.mark.parametrize(
    "name",
    [
        "@model_path/../weights/weight.bin",
        "@model_path/weights",
        "@model_path/weights/../../../secret",
        "@model_path/weights/..",
        "@model_path/weights/sub/weight.bin",
        "/etc/passwd",
        "weight.bin",
        "",
    ],
)
def test_weight_paths_stay_in_the_package(package: Path, name: str) -> None:
    packages.change(package, _set_weight(fileName=name))
    with pytest.raises(ProgramError, match=r"weight path .* is not @model_path/weights"):
        read(package)


def test_a_linked_weight_file_stays_in_the_package(package: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.bin"
    packages.weight_file(package).rename(outside)
    packages.weight_file(package).symlink_to(outside)
    with pytest.raises(ProgramError, match="leads out of the package"):
        read(package)


@pytest.mark.parametrize("offset", [0, 1, 65, 2**40])
def test_weight_offsets_are_checked(package: Path, offset: int) -> None:
    packages.change(package, _set_weight(offset=offset))
    with pytest.raises(ProgramError, match=f"at offset {offset}"):
        read(package)
