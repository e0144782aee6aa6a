"""Writes .onnx files.

Every precision but fp32 and int8-qat is made from the fp32 file, by ONNX Runtime's own quantizers
or onnxconverter-common.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.targets.base import Builder, BuildRequest, Inspection
from edgecheck.targets.common import keep_float
from edgecheck.targets.common.onnx import inspection, quantization
from edgecheck.targets.ort import from_tensorflow, layers

if TYPE_CHECKING:
    pass

# The newest opset at which float, QDQ and PT2E-converted programs were all seen to load.
OPSET = 20
INT4_BLOCK = 32


class OrtBuilder(Builder):
    """Builds and inspects .onnx files."""

    def write(self, request: BuildRequest) -> None:
        """Write the file of a precision."""
        if request.precision == "fp32" and Path(request.source).is_dir():
            from_tensorflow.convert(request.source, request.output, request.inputs)
        elif request.precision == "fp32":
            _export(request.source, request.output, request.inputs, request.outputs)
        elif request.precision == "fp16":
            quantization.to_float16(request.source, request.output)
        else:
            with tempfile.TemporaryDirectory() as directory:
                if request.precision == "int8-qat":
                    # Preparing folds the quantization of weights, so that they are stored as int8.
                    first = str(Path(directory) / "first.onnx")
                    _export(request.source, first, request.inputs, request.outputs)
                    quantization.prepare(first, request.output)
                    _unshare_parameters(request.output)
                else:
                    _quantize(request, _made_ready(request, directory))

    def find_layers(self, request: BuildRequest) -> list[str]:
        """The layers of the float file that the precision quantizes."""
        with tempfile.TemporaryDirectory() as directory:
            path = _made_ready(request, directory)
            return layers.layers(path, request.precision, request.program)

    def inspect_file(self, path: Path) -> Inspection:
        """Check the file and count what is in it."""
        return inspection.inspect(path)


def _made_ready(request: BuildRequest, directory: str) -> str:
    """The float file in the form that the precision's quantizer takes."""
    first = str(Path(directory) / "first.onnx")
    second = str(Path(directory) / "second.onnx")
    if request.precision == "int8":
        quantization.prepare(request.source, first)
        return first
    # quantize_dynamic's own rewrite of Gemm leaves stale shapes.
    _save_matmul_form(request.source, first)
    if request.precision == "int4":
        return first
    quantization.prepare(first, second)
    return second


def _quantize(request: BuildRequest, path: str) -> None:
    keep = keep_float.chosen(request.options, request.precision)
    excluded = layers.excluded(path, request.precision, request.program, keep)
    if request.precision == "int8":
        assert request.calibration is not None
        quantization.quantize_static(path, request.output, request.calibration, excluded=excluded)
    elif request.precision == "int8-dynamic":
        # The quantizer rewrites each Gemm, and calls it so.
        renamed = [f"{name}_MatMul" for name in excluded]
        _quantize_dynamic(path, request.output, [*excluded, *renamed])
    else:
        _quantize_weights_int4(path, request.output, excluded)


def _export(source: str, output: str, inputs: list[str], outputs: list[str]) -> None:
    import onnx
    import torch

    from edgecheck.runtime.torch_program import load_program

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


def _unshare_parameters(path: str) -> None:
    """Give each quantization operator scales and zero points of its own.

    ONNX Runtime can't load a file with shared ones if it is to avoid saturation (see `run`).
    """
    import onnx

    model = onnx.load(path)
    constants = {item.name: item for item in model.graph.initializer}
    used: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for position, name in enumerate(node.input):
            if name in used:
                copied = model.graph.initializer.add()
                copied.CopyFrom(constants[name])
                copied.name = node.input[position] = f"{name}_of_{node.output[0]}"
            elif name in constants:
                used.add(name)
    onnx.save(model, path)


def _remove_stack_traces(model: Any) -> None:
    """Drop the exporter's notes of files and lines: nothing that ships, and not the same twice."""
    graphs = [*inspection.graphs(model.graph), *model.functions]
    for node in [node for graph in graphs for node in graph.node]:
        kept = [item for item in node.metadata_props if not item.key.endswith("stack_trace")]
        if len(kept) < len(node.metadata_props):
            del node.metadata_props[:]
            node.metadata_props.extend(kept)


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
