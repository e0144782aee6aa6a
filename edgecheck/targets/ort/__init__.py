"""ONNX Runtime: how to build and inspect .onnx files.

Every precision but fp32 and int8-qat is made from the fp32 file by ONNX Runtime's own quantizers or
onnxconverter-common. Not for running files: see `edgecheck.targets.ort.run`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.targets import BuildRequest, Target, Tools
from edgecheck.targets.common import keep_float
from edgecheck.targets.onnx import inspection
from edgecheck.targets.ort import from_tensorflow, layers

if TYPE_CHECKING:
    import numpy as np

# The newest opset at which float, QDQ and PT2E-converted programs were all seen to load.
OPSET = 20
INT4_BLOCK = 32
CALIBRATION_BATCH = 8

KEEPS_FLOAT = ("int8", "int8-dynamic", "int4")


def _check_options(options: Mapping[str, Any]) -> str:
    providers = options["providers"]
    if not isinstance(providers, list | tuple) or not providers:
        return f"providers is {providers!r}, no list of names"
    if unfit := [item for item in providers if not isinstance(item, str)]:
        return f"providers has {unfit[0]!r}, which is no name"
    return keep_float.option_problem(options, KEEPS_FLOAT)


TARGETS = (
    Target(
        name="ort",
        title="ONNX Runtime",
        aliases=("onnx", "onnxruntime"),
        suffix=".onnx",
        precisions={
            "fp32": "torch",
            "fp16": "float",
            "int8-dynamic": "float",
            "int8": "float",
            "int8-qat": "torch",
            "int4": "float",
        },
        packages={
            "onnx": "onnx",
            "onnxruntime": "onnxruntime",
            "onnxscript": "onnxscript",
            "onnxconverter_common": "onnxconverter-common",
        },
        distributions=(
            *("torch", "torchao", "onnx", "onnxruntime", "onnxscript"),
            *("onnxconverter-common", "tf2onnx", "tensorflow", "tensorflow-cpu"),
        ),
        runtime="onnxruntime",
        tools="edgecheck.targets.ort:OrtTools",
        weights="edgecheck.targets.onnx.weights",
        drivers=(
            "edgecheck.runtime.memory",
            "edgecheck.runtime.timing",
            "edgecheck.runtime.runner",
            "edgecheck.targets.ort.run",
        ),
        driver="edgecheck.targets.ort.run:OnnxRuntimeDriver",
        reads=("torch", "onnx", "tensorflow"),
        from_tensorflow={"int8-qat": ""},
        options={"providers": ["CPUExecutionProvider"], keep_float.OPTION: {}},
        check_options=_check_options,
    ),
)


class OrtTools(Tools):
    """Builds and inspects .onnx files; see `edgecheck.targets.Tools`."""

    def write(self, request: BuildRequest) -> None:
        """Write the file of a precision."""
        if request.precision == "fp32" and Path(request.source).is_dir():
            from_tensorflow.convert(request.source, request.output, request.inputs)
        elif request.precision == "fp32":
            _export(request.source, request.output, request.inputs, request.outputs)
        elif request.precision == "fp16":
            to_float16(request.source, request.output)
        else:
            with tempfile.TemporaryDirectory() as directory:
                if request.precision == "int8-qat":
                    # Preparing folds the quantization of weights, so that they are stored as int8.
                    first = str(Path(directory) / "first.onnx")
                    _export(request.source, first, request.inputs, request.outputs)
                    prepare(first, request.output)
                else:
                    _quantize(request, _made_ready(request, directory))

    def find_layers(self, request: BuildRequest) -> list[str]:
        """The layers of the float file that the precision quantizes."""
        with tempfile.TemporaryDirectory() as directory:
            path = _made_ready(request, directory)
            return layers.layers(path, request.precision, request.program)

    def inspect(self, *, path: str) -> dict[str, Any]:
        """Check the file and count what is in it."""
        return inspection.inspect(path)


def _made_ready(request: BuildRequest, directory: str) -> str:
    """The float file in the form that the precision's quantizer takes."""
    first = str(Path(directory) / "first.onnx")
    second = str(Path(directory) / "second.onnx")
    if request.precision == "int8":
        prepare(request.source, first)
        return first
    # quantize_dynamic's own rewrite of Gemm leaves stale shapes.
    _save_matmul_form(request.source, first)
    if request.precision == "int4":
        return first
    prepare(first, second)
    return second


def _quantize(request: BuildRequest, path: str) -> None:
    keep = keep_float.chosen(request.options, request.precision)
    excluded = layers.excluded(path, request.precision, request.program, keep)
    if request.precision == "int8":
        assert request.calibration is not None
        quantize_static(path, request.output, request.calibration, excluded=excluded)
    elif request.precision == "int8-dynamic":
        # The quantizer rewrites each Gemm, and calls it so.
        renamed = [f"{name}_MatMul" for name in excluded]
        _quantize_dynamic(path, request.output, [*excluded, *renamed])
    else:
        _quantize_weights_int4(path, request.output, excluded)


def _export(source: str, output: str, inputs: list[str], outputs: list[str]) -> None:
    import onnx
    import torch

    from edgecheck.runtime.torch import load_program

    exported = torch.onnx.export(
        load_program(source),
        dynamo=True,
        input_names=inputs,
        output_names=outputs,
        opset_version=OPSET,
        external_data=False,
        verbose=False,
        optimize=True,
    )
    assert exported is not None
    model = exported.model_proto
    _remove_stack_traces(model)
    onnx.save(model, output)


def _remove_stack_traces(model: Any) -> None:
    """Drop the exporter's notes of files and lines: nothing that ships, and not the same twice."""
    graphs = [*inspection.graphs(model.graph), *model.functions]
    for node in [node for graph in graphs for node in graph.node]:
        kept = [item for item in node.metadata_props if not item.key.endswith("stack_trace")]
        if len(kept) < len(node.metadata_props):
            del node.metadata_props[:]
            node.metadata_props.extend(kept)


def to_float16(source: str, output: str) -> None:
    """Half-precision weights and arithmetic; inputs and outputs stay float32."""
    import onnx
    from onnxconverter_common import float16

    model = float16.convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(model, output)


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
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    arrays = {
        name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in calibration.items()
    }
    first = onnx.load(source, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    fixed = first[0].dim_value if first else 0
    step = fixed or CALIBRATION_BATCH
    count = len(next(iter(arrays.values())))

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, count - step + 1 if fixed else count, step):
            rows = slice(start, start + step)
            yield {name: np.ascontiguousarray(array[rows]) for name, array in arrays.items()}

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = batches()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    return Reader()


def _quantize_dynamic(source: str, output: str, excluded: Sequence[str]) -> None:
    """Weights of matrix products. ConvInteger exists, but ran 19 times slower than float Conv."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        output,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=list(excluded),
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


def _quantize_weights_int4(source: str, output: str, excluded: Sequence[str]) -> None:
    """Blocks of 4-bit weights in constant matrix products; convolutions stay float."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(source),
        bits=4,
        block_size=INT4_BLOCK,
        is_symmetric=True,
        nodes_to_exclude=list(excluded),
    )
    quantizer.process()
    quantizer.model.save_model_to_file(output, use_external_data_format=False)


def _save_matmul_form(source: str, output: str) -> None:
    import onnx

    model = onnx.load(source)
    _gemm_to_matmul(model)
    onnx.save(model, output)


def _gemm_to_matmul(model: Any) -> None:
    """Rewrite each Gemm with a constant weight as MatMul and Add, which the quantizers handle."""
    import numpy as np
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    nodes, transposed = [], {}
    for node in graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        weight = constants.get(node.input[1]) if node.op_type == "Gemm" else None
        plain = attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0
        if weight is None or attributes.get("transA", 0) or not plain:
            nodes.append(node)
            continue
        name = weight.name
        if attributes.get("transB", 0):
            name = f"{weight.name}_transposed"
            values = np.ascontiguousarray(numpy_helper.to_array(weight).T)
            transposed[name] = numpy_helper.from_array(values, name)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if has_bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], name=product))
        if has_bias:
            nodes.append(
                helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=node.name)
            )
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(transposed.values())
    used = {name for node in graph.node for name in node.input}
    used |= {item.name for item in graph.output}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)
