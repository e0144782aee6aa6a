"""Quantized and half-precision ONNX files, from a float one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgecheck.targets.common.calibration import calls

if TYPE_CHECKING:
    import numpy as np
    import onnx

CALIBRATION_BATCH = 8


def to_float16(source: str, output: str) -> None:
    """Half-precision weights and arithmetic; inputs and outputs stay float32."""
    import onnx
    from onnxconverter_common import float16

    model = onnx.load(source)
    _part_outputs(model.graph)
    casts = {node.output[0] for node in _casts_to_float(model.graph)}
    model = float16.convert_float_to_float16(model, keep_io_types=True)
    # The converter leaves those of integers to float32 as they are, and their readers do not fit.
    for node in _casts_to_float(model.graph):
        if node.output[0] in casts:
            _type_of_cast(node).i = onnx.TensorProto.FLOAT16
    onnx.save(model, output)


def _part_outputs(graph: onnx.GraphProto) -> None:
    """Give outputs that operators also read, or that are casts, a tensor of their own inside.

    The converter casts outputs back to float32, and would let those operators read them so.
    """
    import onnx

    read = {name for node in graph.node for name in node.input}
    made = {name: node.op_type for node in graph.node for name in node.output}
    parted = {
        item.name
        for item in graph.output
        if item.name in made and (item.name in read or made[item.name] == "Cast")
    }
    for node in graph.node:
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                if name in parted:
                    tensors[position] = f"{name}_inside"
    graph.node.extend(
        onnx.helper.make_node("Identity", [f"{name}_inside"], [name], f"output_{name}")
        for name in sorted(parted)
    )


def _casts_to_float(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    import onnx

    casts = [node for node in graph.node if node.op_type == "Cast"]
    return [node for node in casts if _type_of_cast(node).i == onnx.TensorProto.FLOAT]


def _type_of_cast(node: onnx.NodeProto) -> onnx.AttributeProto:
    (found,) = [item for item in node.attribute if item.name == "to"]
    return found


def prepare(source: str, output: str) -> None:
    """Shape inference and constant folding, which the quantizers rely on."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, output, skip_symbolic_shape=True)


def quantize_static(
    source: str,
    output: str,
    calibration: Mapping[str, str],
    *,
    signed: bool = False,
    excluded: Sequence[str] = (),
) -> None:
    """QDQ, weights per channel.

    Args:
        signed: symmetric, signed activations and float biases, as TensorRT takes them; unsigned
            ones otherwise, since signed ones don't fuse on x86.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

    quantization.quantize_static(
        source,
        output,
        _calibration_reader(source, calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=list(excluded),
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False} if signed else {},
    )


def _calibration_reader(source: str, calibration: Mapping[str, str]) -> Any:
    """Batches of the calibration data, of the file's own size where that is fixed."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    shapes = {
        item.name: [axis.dim_value for axis in item.type.tensor_type.shape.dim]
        for item in onnx.load(source, load_external_data=False).graph.input
    }

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = calls(calibration, shapes, CALIBRATION_BATCH)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    return Reader()
