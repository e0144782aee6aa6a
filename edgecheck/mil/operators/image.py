"""Resizing, cropping and sampling of images [..., height, width].

The grids are those that coremltools documents at `resize_bilinear`, and Core ML's
NeuralNetwork.proto at SamplingMode.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional

from edgecheck.mil.call import Call, Handler


def _grid(call: Call, mode: str, size: int, count: int) -> torch.Tensor:
    """Where on [0, size - 1] the `count` samples lie, in float64."""
    steps = torch.arange(count, dtype=torch.float64)
    if mode == "ALIGN_CORNERS" and count == 1:
        return (steps + size - 1) / 2
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = steps * (size - 1) / max(1, count - 1)
    elif mode == "DEFAULT":
        points = steps * size / count
    elif mode == "OFFSET_CORNERS":
        points = (steps + 0.5) * max(1, size - 1) / count
    elif mode == "UNALIGN_CORNERS":
        points = (steps + 0.5) * size / count - 0.5
    else:
        raise call.unsupported(f"with sampling_mode {mode!r}")
    return points.clamp(0, size - 1)


def _interpolated(x: torch.Tensor, points: torch.Tensor, axis: int) -> torch.Tensor:
    """Linear interpolation between neighbours along one axis."""
    low = points.floor()
    share = (points - low).to(x.dtype).reshape(-1, *[1] * (-axis - 1))
    below = low.long()
    above = (below + 1).clamp(max=x.shape[axis] - 1)
    return x.index_select(axis, below) * (1 - share) + x.index_select(axis, above) * share


def _bilinear(call: Call, x: torch.Tensor, mode: str, sizes: list[int]) -> torch.Tensor:
    """The last axes of x resized to these sizes; all in one go would be the same."""
    for axis, count in enumerate(sizes, -len(sizes)):
        if x.shape[axis] != count or mode == "OFFSET_CORNERS":
            x = _interpolated(x, _grid(call, mode, x.shape[axis], count), axis)
    return x


def _nearest(x: torch.Tensor, sizes: list[int], *, centred: bool) -> torch.Tensor:
    """The element below a sample; of centred samples the one whose cell holds it."""
    for axis, count in enumerate(sizes, -len(sizes)):
        steps = torch.arange(count)
        if centred:
            index = (2 * steps + 1) * x.shape[axis] // (2 * count)
        else:
            index = steps * x.shape[axis] // count
        x = x.index_select(axis, index)
    return x


def _scaled_sizes(call: Call) -> list[int]:
    """Height and width times their factors, in the factors' own float32."""
    found = []
    for axis, name in ((-2, "height"), (-1, "width")):
        size = call.tensor("x").shape[axis]
        declared = call.outputs[0].shape[axis] if call.outputs else None
        factor = call.optional(f"scale_factor_{name}")
        if declared is None:
            declared = size if factor is None else math.floor(float(factor * size))
        found.append(declared)
    return found


def _target_sizes(call: Call) -> list[int]:
    return [call.integer(f"target_size_{name}", 1) for name in ("height", "width")]


def _upsample_nearest_neighbor(call: Call) -> torch.Tensor:
    return _nearest(call.tensor("x"), _scaled_sizes(call), centred=False)


def _resize_nearest_neighbor(call: Call) -> torch.Tensor:
    """Centred samples: what coremltools converts TensorFlow's half_pixel_centers to."""
    return _nearest(call.tensor("x"), _target_sizes(call), centred=True)


def _upsample_bilinear(call: Call) -> torch.Tensor:
    aligned = call.flag("align_corners", True)
    centred = call.flag("half_pixel_centers", not aligned)
    if aligned and centred:
        raise call.unsupported("with both align_corners and half_pixel_centers")
    unaligned = "UNALIGN_CORNERS" if centred else "DEFAULT"
    mode = "STRICT_ALIGN_CORNERS" if aligned else unaligned
    return _bilinear(call, call.tensor("x"), mode, _scaled_sizes(call))


def _resize_bilinear(call: Call) -> torch.Tensor:
    mode = call.text("sampling_mode", "DEFAULT")
    return _bilinear(call, call.tensor("x"), mode, _target_sizes(call))


def _resize(call: Call) -> torch.Tensor:
    x, count = call.tensor("x"), call.integer("resized_dims")
    asked = call.integers("shape")[-count:] if count else []
    sizes = [size or x.shape[axis] for axis, size in enumerate(asked, -count)]
    kind, mode = call.text("interpolation_mode", "LINEAR"), call.text("sampling_mode", "DEFAULT")
    if kind == "LINEAR":
        if not x.is_floating_point():
            raise call.unsupported("of integers by interpolation")
        return _bilinear(call, x, mode, sizes)
    if kind != "NEAREST_NEIGHBOR" or mode != "DEFAULT":
        raise call.unsupported(f"with {kind} and sampling_mode {mode!r}")
    return _nearest(x, sizes, centred=True)


def _crop(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    (top, bottom), (left, right) = call.integers("crop_height"), call.integers("crop_width")
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _crop_resize(call: Call) -> torch.Tensor:
    """Boxes of images resized. iOS17 takes [N, 4] and indices, before it [N, 1, 4 or 5, 1, 1].

    A sample outside of the image takes the pad value, as in TensorFlow's crop_and_resize.
    """
    x = call.tensor("x")
    if call.has("boxes"):
        boxes = call.tensor("boxes").to(torch.float64)
        which = call.integers("box_indices", range(len(boxes)))
        return torch.cat(
            [_crops(call, x[i : i + 1], box) for i, box in zip(which, boxes, strict=True)]
        )
    rows = call.tensor("roi").to(torch.float64).flatten(1)
    if rows.shape[1] == 4:
        return torch.stack([_crops(call, x, box) for box in rows])
    images = [x[int(row[0])].unsqueeze(0) for row in rows]
    return torch.stack(
        [_crops(call, image, row[1:]) for image, row in zip(images, rows, strict=True)]
    )


def _crops(call: Call, x: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """One box of all images x [B, C, H, W]."""
    kind = call.text("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")
    first, second, third, fourth = box.tolist()
    if kind.startswith("CENTER_SIZE"):
        first, third = first - third / 2, first + third / 2
        second, fourth = second - fourth / 2, second + fourth / 2
    if kind.endswith("WIDTH_FIRST"):
        first, second, third, fourth = second, first, fourth, third
    mode = call.text("sampling_mode", "DEFAULT")
    scale, pad = call.number("spatial_scale", 1.0), call.number("pad_value", 0.0)
    outside = []
    for axis, name, start, end in ((-2, "height", first, third), (-1, "width", second, fourth)):
        size = x.shape[axis]
        unit = scale * (size - 1) if call.flag("normalized_coordinates", False) else scale
        points = _crop_grid(call, mode, start * unit, end * unit, call.integer(f"target_{name}", 1))
        beyond = (points < 0) | (points > size - 1)
        x = _interpolated(x, points.clamp(0, size - 1), axis)
        outside.append(beyond.reshape(-1, *[1] * (-axis - 1)))
    return x.masked_fill(outside[0] | outside[1], pad)


def _crop_grid(call: Call, mode: str, start: float, end: float, count: int) -> torch.Tensor:
    """The samples of an interval, whose ends are elements' centres."""
    steps = torch.arange(count, dtype=torch.float64)
    if mode == "ALIGN_CORNERS" and count == 1:
        return steps + (start + end) / 2
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        return start + steps * (end - start) / max(1, count - 1)
    if mode == "UNALIGN_CORNERS" or end < start:
        raise call.unsupported(f"with sampling_mode {mode!r} of this box")
    if mode == "DEFAULT":
        return (start + steps * (end - start + 1) / count).clamp(max=end)
    if mode == "OFFSET_CORNERS":
        return (start + (steps + 0.5) * max(1.0, end - start) / count).clamp(max=end)
    raise call.unsupported(f"with sampling_mode {mode!r}")


def _affine(call: Call) -> torch.Tensor:
    x, matrix = call.tensor("x"), call.tensor("transform_matrix")
    if not call.flag("align_corners"):
        raise call.unsupported("without align_corners")
    kinds = tuple(call.text(name) for name in ("sampling_mode", "padding_mode", "coordinates_mode"))
    if kinds != ("bilinear", "constant", "normalized_minus_one_to_one"):
        raise call.unsupported(f"with {', '.join(kinds)}")
    if call.number("padding_value", 0.0) != 0:
        raise call.unsupported("with a padding_value other than 0")
    size = [len(x), x.shape[1], call.integer("output_height"), call.integer("output_width")]
    theta = matrix.reshape(-1, 2, 3).expand(len(x), 2, 3)
    grid = functional.affine_grid(theta, size, align_corners=True)
    return functional.grid_sample(x, grid, "bilinear", "zeros", align_corners=True)


def _resample(call: Call) -> torch.Tensor:
    x = call.tensor("x")
    pixels = _pixels(call, call.tensor("coordinates").to(x.dtype))
    sampling, padding = call.text("sampling_mode"), call.text("padding_mode")
    if sampling not in ("bilinear", "nearest"):
        raise call.unsupported(f"with sampling_mode {sampling!r}")
    sizes = torch.tensor([x.shape[-1], x.shape[-2]], dtype=x.dtype)
    if padding == "reflection":
        # Torch reflects about the outer elements' centres with aligned corners only.
        grid = 2 * pixels / (sizes - 1).clamp(min=1) - 1
        return functional.grid_sample(x, grid, sampling, "reflection", align_corners=True)
    grid = (2 * pixels + 1) / sizes - 1
    if padding in ("border", "symmetric"):
        kind = {"border": "border", "symmetric": "reflection"}[padding]
        return functional.grid_sample(x, grid, sampling, kind, align_corners=False)
    if padding != "constant":
        raise call.unsupported(f"with padding_mode {padding!r}")
    value = call.number("padding_value")
    return value + functional.grid_sample(x - value, grid, sampling, "zeros", align_corners=False)


def _pixels(call: Call, coordinates: torch.Tensor) -> torch.Tensor:
    """Coordinates (x, y) in elements, 0 the centre of the first."""
    kind = call.text("coordinates_mode")
    if kind == "unnormalized":
        return coordinates
    if kind == "normalized_minus_one_to_one":
        unit = (coordinates + 1) / 2
    elif kind == "normalized_zero_to_one":
        unit = coordinates
    else:
        raise call.unsupported(f"with coordinates_mode {kind!r}")
    image = call.tensor("x")
    sizes = torch.tensor([image.shape[-1], image.shape[-2]], dtype=coordinates.dtype)
    return unit * (sizes - 1) if call.flag("align_corners") else unit * sizes - 0.5


HANDLERS: dict[str, Handler] = {
    "affine": _affine,
    "crop": _crop,
    "crop_resize": _crop_resize,
    "resample": _resample,
    "resize": _resize,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest_neighbor,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest_neighbor,
}
