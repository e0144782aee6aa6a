"""Image inputs: the pixels that stand for a model's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# How far a value may be from that of its pixel, in steps between pixels.
_OFF_GRID = 0.01


def to_pixels(array: np.ndarray, image: Mapping[str, Any], name: str) -> np.ndarray:
    """The pixels, 0 to 255 in float32, of values that Core ML makes of them.

    Core ML computes ``scale * pixel + bias`` of each channel (coremltools, ImageType).

    Args:
        array: (1, channels, height, width).
        image: ``scale`` and ``bias`` (a number, or one a channel).

    Raises:
        ValueError: the values are not those of pixels.
    """
    scale = float(image.get("scale", 1.0))
    bias = np.asarray(image.get("bias", 0.0), np.float64)
    bias = bias.reshape(1, -1, 1, 1) if bias.ndim else bias
    exact = (np.asarray(array, np.float64) - bias) / scale
    pixels = np.rint(exact)
    off = float(np.abs(exact - pixels).max(initial=0.0))
    low, high = float(pixels.min(initial=0.0)), float(pixels.max(initial=0.0))
    if off > _OFF_GRID or low < 0 or high > 255:
        raise ValueError(
            f"input {name!r} is an image, but its values are not {scale:g} * pixel + bias for "
            f"pixels 0 to 255 (found {low:g} to {high:g}, off by up to {off:.2g} of a step): "
            f"declare Input({name!r}, ..., step={scale:g}), and give samples that are pixels"
        )
    return pixels.astype(np.float32)
