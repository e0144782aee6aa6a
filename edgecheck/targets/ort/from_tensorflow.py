"""ONNX from TensorFlow: what tf2onnx writes of a SavedModel.

Keras' own export to ONNX takes the same route.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecheck.targets.common.tensorflow_files import SIGNATURE

# The newest that tf2onnx 1.17 writes.
OPSET = 18


def convert(source: str, output: str, inputs: list[str]) -> None:
    """Write the fp32 .onnx file of a SavedModel, with its input and output names.

    Args:
        source: a SavedModel directory with one signature and without variables.
        inputs: declared names.

    Raises:
        ModuleNotFoundError: tf2onnx is not installed.
    """
    import tensorflow as tf

    try:
        import tf2onnx
    except ModuleNotFoundError as error:
        if error.name != "tf2onnx":
            raise
        raise ModuleNotFoundError(
            "tf2onnx is not installed: pip install 'edgecheck[tensorflow-onnx]'", name="tf2onnx"
        ) from error

    function = tf.saved_model.load(source).signatures[SIGNATURE]
    specs = function.structured_input_signature[1]

    def serve(*tensors: Any) -> Any:
        return function(**dict(zip(inputs, tensors, strict=True)))

    # An operator that it does not know stays in the file, where the ONNX checker finds it.
    tf2onnx.convert.from_function(
        tf.function(serve),
        input_signature=[specs[name] for name in inputs],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
        output_path=output,
    )


def _erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """TensorFlow's exact GELU has it, ONNX has not: 1 - erf(x), in place.

    Args:
        context: tf2onnx's graph, which `node` is of.
    """
    x, result = node.input[0], node.output[0]
    shape, dtype = context.get_shape(result), context.get_dtype(result)
    context.remove_node(node.name)
    erf = context.make_node("Erf", [x], shapes=[shape], dtypes=[dtype])
    one = context.make_const(f"{name}_one", np.ones((), np.float32))
    context.make_node(
        "Sub", [one.output[0], erf.output[0]], outputs=[result], shapes=[shape], dtypes=[dtype]
    )
