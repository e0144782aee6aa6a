"""A small Keras network of 8 x 8 digits, and its .tflite files, sound or not."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fixtures import digits

CALIBRATION_COUNT = 64


def images() -> np.ndarray[Any, Any]:
    """Calibration images, (64, 8, 8, 1), as Keras has them."""
    return np.moveaxis(digits.calibration_images()[:CALIBRATION_COUNT], 1, -1)


def network(drift: float = 0.0) -> Any:
    """The network with weights of its own seed.

    Args:
        drift: how far another training state is from it, in standard deviations of each weight.
    """
    import keras

    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(x))
    model = keras.Model(image, keras.layers.Dense(10, name="scores")(x))
    rng, moved = np.random.default_rng(5), np.random.default_rng(6)
    weights = []
    for value in model.get_weights():
        fan_in = max(1, int(np.prod(value.shape[:-1])))
        drawn = rng.normal(0.0, (2.0 / fan_in) ** 0.5 if value.ndim > 1 else 0.1, value.shape)
        weights.append(drawn + drift * drawn.std() * moved.standard_normal(value.shape))
    model.set_weights(weights)
    return model


def convert(
    path: Path,
    *,
    precision: str,
    drift: float = 0.0,
    factor: float = 1.0,
    zeroed: int | None = None,
) -> None:
    """Write the network's file.

    Args:
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``.
        drift: see `network`.
        factor: of the calibration images.
        zeroed: a channel of the second convolution that is lost.
    """
    import tensorflow as tf

    model = network(drift)
    if zeroed is not None:
        layer = model.layers[3]
        kernel, bias = layer.get_weights()
        kernel[..., zeroed] = 0.0
        layer.set_weights([kernel, bias])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":

        def calls() -> Iterator[list[np.ndarray[Any, Any]]]:
            for image in images():
                yield [image[None] * np.float32(factor)]

        converter.representative_dataset = calls
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with contextlib.redirect_stdout(io.StringIO()):
        path.write_bytes(converter.convert())
