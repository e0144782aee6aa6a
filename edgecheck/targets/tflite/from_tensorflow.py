"""TFLite from TensorFlow: what TensorFlow's own converter writes of a SavedModel.

Files have a fixed batch of one, as those from PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.targets.common.calibration import calls
from edgecheck.targets.common.tensorflow_files import fixed


def convert(
    source: str,
    output: str,
    precision: str,
    *,
    example: Mapping[str, str],
    calibration: Mapping[str, str] | None,
    io: str,
) -> None:
    """Write the .tflite file of a precision.

    Args:
        source: a SavedModel directory with one signature and without variables.
        example: .npy path by input: one call, of the shapes that the file has.
        calibration: .npy path by input, samples on axis 0.
        io: type of an int8 file's input and output tensors, or "default" (float32).
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(fixed(source))
    _configure(converter, precision, io)
    if precision in ("int8", "int16x8"):
        assert calibration is not None
        converter.representative_dataset = _samples(calibration, example)
    Path(output).write_bytes(converter.convert())


def _configure(converter: Any, precision: str, io: str) -> None:
    """What TensorFlow's guide to post-training quantization says of each precision."""
    import tensorflow as tf

    if precision == "fp32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int16x8":
        kernels = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
        converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, kernels)]
    elif precision == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if io != "default":
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)


def _samples(
    calibration: Mapping[str, str], example: Mapping[str, str]
) -> Callable[[], Iterator[dict[str, Any]]]:
    """The calibration data in calls of the fixed batch, by input."""
    shapes = {
        name: np.load(path, mmap_mode="r", allow_pickle=False).shape
        for name, path in example.items()
    }
    return lambda: calls(calibration, shapes)
