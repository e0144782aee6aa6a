"""Image operators against torch's, coremltools' documented grids and its tests' figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.mil.call import TensorType, UnsupportedError
from tests.mil.operators.common import close, noise, run

SIZES = st.integers(1, 7)
MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


@settings(max_examples=20, deadline=None)
@given(height=SIZES, width=SIZES, to_height=SIZES, to_width=SIZES, aligned=st.booleans())
def test_bilinear_as_torchs(
    height: int, width: int, to_height: int, to_width: int, aligned: bool
) -> None:
    x = noise(2, 3, height, width)
    expected = functional.interpolate(
        x, (to_height, to_width), mode="bilinear", align_corners=aligned
    )
    mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS"
    found = run(
        "resize_bilinear",
        x=x,
        target_size_height=to_height,
        target_size_width=to_width,
        sampling_mode=mode,
    )
    close(found, expected)
    shape = [1, to_height, to_width]
    close(run("resize", x=x, shape=shape, resized_dims=2, sampling_mode=mode), expected)
    found = run(
        "upsample_bilinear",
        x=x,
        scale_factor_height=(to_height + 1e-4) / height,
        scale_factor_width=(to_width + 1e-4) / width,
        align_corners=aligned,
    )
    close(found, expected)


@pytest.mark.parametrize(
    ("mode", "count", "points"),
    [
        ("UNALIGN_CORNERS", 5, [0, 0.1, 0.5, 0.9, 1]),
        ("STRICT_ALIGN_CORNERS", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("ALIGN_CORNERS", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("DEFAULT", 5, [0, 0.4, 0.8, 1, 1]),
        ("OFFSET_CORNERS", 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("UNALIGN_CORNERS", 6, [0, 0, 1 / 3, 2 / 3, 1, 1]),
        ("DEFAULT", 6, [0, 1 / 3, 2 / 3, 1, 1, 1]),
        ("OFFSET_CORNERS", 6, [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12]),
        ("STRICT_ALIGN_CORNERS", 1, [0]),
        ("ALIGN_CORNERS", 1, [0.5]),
        ("DEFAULT", 1, [0]),
        ("OFFSET_CORNERS", 2, [0.25, 0.75]),
    ],
)
def test_documented_grids(mode: str, count: int, points: list[float]) -> None:
    x = torch.tensor([[[0.0, 1.0]]])
    found = run("resize_bilinear", x=x, target_size_width=count, sampling_mode=mode)
    close(found, torch.tensor([[points]], dtype=torch.float32))


def test_half_pixel_centers() -> None:
    x = torch.tensor([[[0.0, 1.0]]])
    how: dict[str, Any] = {"scale_factor_width": 3, "align_corners": False}
    found = run("upsample_bilinear", x=x, **how, half_pixel_centers=False)
    close(found, torch.tensor([[[0, 1 / 3, 2 / 3, 1, 1, 1]]]))
    close(run("upsample_bilinear", x=x, **how), torch.tensor([[[0, 0, 1 / 3, 2 / 3, 1, 1]]]))
    with pytest.raises(UnsupportedError, match="both align_corners and half_pixel_centers"):
        run("upsample_bilinear", x=x, align_corners=True, half_pixel_centers=True)


@settings(max_examples=15, deadline=None)
@given(height=SIZES, width=SIZES, to_height=SIZES, to_width=SIZES)
def test_nearest_as_torchs(height: int, width: int, to_height: int, to_width: int) -> None:
    x, size = noise(1, 2, height, width), (to_height, to_width)
    found = run(
        "upsample_nearest_neighbor",
        x=x,
        scale_factor_height=(to_height + 1e-4) / height,
        scale_factor_width=(to_width + 1e-4) / width,
    )
    close(found, functional.interpolate(x, size, mode="nearest"))
    expected = functional.interpolate(x, size, mode="nearest-exact")
    found = run(
        "resize_nearest_neighbor",
        x=x,
        target_size_height=to_height,
        target_size_width=to_width,
    )
    close(found, expected)
    how = {"shape": [1, 2, *size], "interpolation_mode": "NEAREST_NEIGHBOR"}
    close(run("resize", x=x, resized_dims=2, **how), expected)


def test_declared_sizes_decide() -> None:
    outputs = (TensorType("fp32", (1, 1, None, 7)),)
    x = noise(1, 1, 2, 3)
    found = run(
        "upsample_nearest_neighbor",
        outputs=outputs,
        x=x,
        scale_factor_height=2,
        scale_factor_width=2.3333,
    )
    assert found.shape == (1, 1, 4, 7)


def test_resize_keeps_a_size_of_zero() -> None:
    x = noise(2, 3, 4)
    assert run("resize", x=x, shape=[9, 6, 0], resized_dims=2).shape == (2, 6, 4)
    with pytest.raises(UnsupportedError, match="NEAREST_NEIGHBOR and sampling_mode 'ALIGN"):
        how = {"interpolation_mode": "NEAREST_NEIGHBOR", "sampling_mode": "ALIGN_CORNERS"}
        run("resize", x=x, shape=[5], resized_dims=1, **how)


def test_crop() -> None:
    x = noise(2, 5, 6)
    close(run("crop", x=x, crop_height=[0, 1], crop_width=[2, 1]), x[:, :4, 2:5])


def test_crop_resize_as_apples_tests() -> None:
    x = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    boxes = torch.tensor([[0.1, 0.3, 1.3, 1.0], [0.5, 1.8, 1.0, 0.3], [0.0, 0.4, 0.6, 0.7]])
    how = {"target_height": 2, "target_width": 2, "sampling_mode": "ALIGN_CORNERS"}
    expected = torch.tensor([3.1, 5.2, 9, 9, 9, 7.9, 9, 13.9, 2.2, 3.1, 9.4, 10.3])
    expected = expected.reshape(3, 1, 2, 2)
    found = run(
        "crop_resize",
        x=x,
        boxes=boxes,
        box_indices=[0, 0, 0],
        normalized_coordinates=True,
        pad_value=9.0,
        **how,
    )
    close(found, expected, 1e-4)
    roi = torch.cat([torch.zeros(3, 1), boxes], 1).reshape(3, 1, 5, 1, 1)
    found = run("crop_resize", x=x, roi=roi, normalized_coordinates=True, pad_value=9.0, **how)
    close(found, expected.unsqueeze(1), 1e-4)
    for inverted, corners in ((False, [6.0, 7, 10, 11]), (True, [11.0, 10, 7, 6])):
        box = [2.0, 2, 1, 1] if inverted else [1.0, 1, 2, 2]
        found = run("crop_resize", x=x, roi=torch.tensor(box).reshape(1, 1, 4, 1, 1), **how)
        close(found, torch.tensor(corners).reshape(1, 1, 1, 2, 2))
    single = {"target_height": 1, "target_width": 1, "sampling_mode": "ALIGN_CORNERS"}
    close(run("crop_resize", x=x, boxes=[[1.0, 1, 2, 2]], **single), [[[[8.5]]]])


@pytest.mark.parametrize("mode", MODES[:4])
def test_crop_of_the_whole_image_is_a_resize(mode: str) -> None:
    x = noise(2, 3, 4, 5)
    expected = run(
        "resize_bilinear",
        x=x,
        target_size_height=6,
        target_size_width=3,
        sampling_mode=mode,
    )
    boxes = {
        "CORNERS_HEIGHT_FIRST": [0.0, 0, 3, 4],
        "CORNERS_WIDTH_FIRST": [0.0, 0, 4, 3],
        "CENTER_SIZE_HEIGHT_FIRST": [1.5, 2, 3, 4],
        "CENTER_SIZE_WIDTH_FIRST": [2, 1.5, 4, 3],
    }
    for kind, box in boxes.items():
        found = run(
            "crop_resize",
            x=x,
            boxes=torch.tensor([box, box]) * 2,
            box_indices=[1, 0],
            spatial_scale=0.5,
            box_coordinate_mode=kind,
            target_height=6,
            target_width=3,
            sampling_mode=mode,
        )
        close(found, expected.flip(0))


def test_affine_as_apples_tests() -> None:
    x = torch.tensor([11.0, 22, 33, 44]).reshape(1, 1, 2, 2)
    how = {
        "x": x,
        "transform_matrix": [[-1.0, -2.0, -3.7, -1.0, 3.5, 1.2]],
        "output_height": 3,
        "output_width": 3,
        "sampling_mode": "bilinear",
        "padding_mode": "constant",
        "padding_value": 0.0,
        "coordinates_mode": "normalized_minus_one_to_one",
    }
    expected = torch.tensor([10.7525, 2.5025, 0, 1.98, 0, 0, 0, 0, 0]).reshape(1, 1, 3, 3)
    close(run("affine", **how, align_corners=True), expected, 1e-4)
    with pytest.raises(UnsupportedError, match="affine without align_corners"):
        run("affine", **how, align_corners=False)


def _sample(row: list[float], at: float, padding: str, value: float) -> float:
    """Linear interpolation on a row that is continued on both sides, element by element."""
    low = int(np.floor(at))
    last = len(row) - 1

    def element(index: int) -> float:
        if padding == "constant":
            return row[index] if 0 <= index <= last else value
        if padding == "border":
            return row[min(max(index, 0), last)]
        there_and_back = row + (row[-2:0:-1] if padding == "reflection" else row[::-1])
        return there_and_back[index % len(there_and_back)]

    return element(low) * (low + 1 - at) + element(low + 1) * (at - low)


@pytest.mark.parametrize("padding", ["constant", "border", "reflection", "symmetric"])
@pytest.mark.parametrize("kind", ["unnormalized", "minus_one_to_one", "zero_to_one"])
@pytest.mark.parametrize("aligned", [False, True])
def test_resample_by_hand(padding: str, kind: str, aligned: bool) -> None:
    row = [1.0, 5.0, 2.0, 7.0]
    points = [-3.25, -1.5, -0.25, 0.0, 0.5, 2.75, 3.0, 3.5, 4.25, 6.5]
    expected = [_sample(row, point, padding, 3.0) for point in points]
    pixels = torch.tensor(points)
    unit = pixels / 3 if aligned else (pixels + 0.5) / 4
    across = {"unnormalized": pixels, "minus_one_to_one": 2 * unit - 1, "zero_to_one": unit}[kind]
    middle = {"unnormalized": 1.0, "minus_one_to_one": 0.0, "zero_to_one": 0.5}[kind]
    coordinates = torch.stack([across, torch.full_like(across, middle)], -1)
    found = run(
        "resample",
        x=torch.tensor(row).expand(1, 1, 3, 4),
        coordinates=coordinates.reshape(1, 1, -1, 2),
        sampling_mode="bilinear",
        padding_mode=padding,
        padding_value=3.0,
        coordinates_mode=kind if kind == "unnormalized" else f"normalized_{kind}",
        align_corners=aligned,
    )
    close(found, torch.tensor(expected).reshape(1, 1, 1, -1))


def test_resample_nearest_at_whole_coordinates() -> None:
    x = noise(1, 2, 3, 4)
    coordinates = torch.tensor([[[[3, 0], [1, 2]]]], dtype=torch.int32)
    found = run(
        "resample",
        x=x,
        coordinates=coordinates,
        sampling_mode="nearest",
        padding_mode="constant",
        padding_value=0.0,
        coordinates_mode="unnormalized",
        align_corners=True,
    )
    close(found, torch.stack([x[..., 0, 3], x[..., 2, 1]], -1).unsqueeze(2))
