"""What is in an .onnx file, without running it: validity, versions, operators, weights.

For every target whose files are ONNX. Heavy imports are inside the functions, which run in a child
process.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from edgecheck.targets.base import Inspection
from edgecheck.targets.common.contents import Contents
from edgecheck.targets.common.onnx import memory

# Operators that compute on, or unpack, quantized weights by themselves (ONNX and com.microsoft).
_QUANTIZED_OPERATORS = frozenset(
    {
        *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QLinearAdd"),
        *("QLinearMul", "QLinearGlobalAveragePool", "QGemm", "DynamicQuantizeMatMul"),
        *("MatMulIntegerToFloat", "MatMulNBits", "GatherBlockQuantized", "QAttention"),
        "DynamicQuantizeLSTM",
    }
)
# Layers: those that are float unless their data is dequantized, those that quantize it as they run,
# and those on integers.
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_AT_RUN_TIME = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits"})
_ON_INTEGERS = frozenset({"QLinearConv", "QLinearMatMul", "QGemm"})


def inspect(path: Path) -> Inspection:
    """Check the file, and count what is in it."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        external = _external_files(model)
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        return Inspection.unreadable(f"the file can't be read as an ONNX model: {text}")
    contents = Contents()
    for graph in graphs(model.graph):
        _count(graph, contents)
    inspection = Inspection(
        failures=(*_check(str(path)), *_training_mode(model)),
        external_files=tuple(sorted(external)),
        format={
            "ir_version": model.ir_version,
            "opset": {item.domain or "ai.onnx": item.version for item in model.opset_import},
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
        },
        half_operators=_half_operators(model),
        layers=contents.layers,
        activation_memory=memory.plan_memory(model),
    )
    return contents.added_to(inspection)


def _external_files(model: Any) -> set[str]:
    """The files beside it that hold its weights; the checker refuses any outside its folder."""
    return {
        entry.value
        for graph in graphs(model.graph)
        for tensor in _constants(graph).values()
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _half_operators(model: Any) -> int | None:
    """How many operators give results in float16; None if their types can't be inferred."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # a file that the checks above refuse, or one of over 2 GB
        return None
    half = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    }
    return sum(not half.isdisjoint(node.output) for node in graph.node)


def _check(path: str) -> list[str]:
    """The full checker with shape inference, external data, and the runtime's opset range."""
    import onnx

    failures: list[str] = []
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        return [f"the ONNX checker rejects the file: {' '.join(str(error).split())[:300]}"]
    model = onnx.load(path, load_external_data=False)
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        failures.append(f"strict shape inference fails: {' '.join(str(error).split())[:300]}")
    return failures + _check_opset(model)


def _check_opset(model: Any) -> list[str]:
    """Whether the installed runtime loads the file's opset and IR version, tried on an Identity."""
    import onnxruntime
    from onnx import TensorProto, helper

    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:]
    )
    probe = helper.make_model(
        graph, ir_version=model.ir_version, opset_imports=[helper.make_opsetid("", opset)]
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        return [
            f"opset {opset} with IR version {model.ir_version} is out of the range of ONNX Runtime "
            f"{onnxruntime.__version__}: {_reason(str(error))}"
        ]
    return []


def _training_mode(model: Any) -> list[str]:
    """Operators in training mode (ONNX, since Dropout-12 and BatchNormalization-14).

    ONNX Runtime removes such a Dropout when it optimises, so that no output shows it; a runtime
    that does as the file says draws random masks.
    """
    found: Counter[str] = Counter()
    for graph in graphs(model.graph):
        constants = _constants(graph)
        for node in graph.node:
            if node.op_type == "BatchNormalization":
                found[node.op_type] += any(
                    item.name == "training_mode" and item.i for item in node.attribute
                )
            elif node.op_type == "Dropout" and len(node.input) > 2:
                found[node.op_type] += _is_true(constants.get(node.input[2]))
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()) if count)
    if not told:
        return []
    return [
        f"operators are in training mode ({told}): call eval() on the model before it is exported"
    ]


def _is_true(tensor: Any) -> bool:
    from onnx import numpy_helper

    return tensor is not None and bool(numpy_helper.to_array(tensor).any())


def _reason(text: str) -> str:
    """The end of the runtime's message: before it are places in its sources."""
    words = " ".join(text.split())
    stated = re.search(r"Unsupported model IR version.*|Current official support.*", words)
    return stated[0] if stated else words[-200:]


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and the graphs inside its control-flow nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(
                attribute.graphs
            ):
                yield from graphs(inner)


def _count(graph: Any, contents: Contents) -> None:
    """Count a graph's operators, quantized operators, layers, and weights by storage type.

    A weight is a constant of two elements or more that is neither an index (int64) nor a scale or
    zero point. An operator is quantized if it is one of `_QUANTIZED_OPERATORS`, or its data or its
    weight comes from DequantizeLinear. Layers are told from products of activations by their
    constant weight.
    """
    constants = _constants(graph)
    dequantizing = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    dequantized = {output for node in dequantizing for output in node.output}
    unpacked = {node.output[0] for node in dequantizing if node.input[0] in constants}
    for node in graph.node:
        contents.add_operator(node.op_type)
        if node.op_type in _QUANTIZED_OPERATORS or (
            node.op_type not in ("QuantizeLinear", "DequantizeLinear")
            and dequantized.intersection(node.input)
        ):
            contents.add_quantized_operator(node.op_type)
        if node.op_type in _ON_INTEGERS | _AT_RUN_TIME or (
            node.op_type in _LAYERS and (node.input[1] in constants or node.input[1] in unpacked)
        ):
            # A float weight beside dequantized data is multiplied in float.
            integer = node.op_type in _ON_INTEGERS or (
                node.input[0] in dequantized - unpacked and node.input[1] in unpacked
            )
            name = " ".join(filter(None, (node.op_type, node.name)))
            contents.add_layer(name, integer=integer)
    _count_weights(graph, constants, contents)


def _count_weights(graph: Any, constants: dict[str, Any], contents: Contents) -> None:
    parameters: set[str] = set()
    packed: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        parameters |= _quantization_parameters(node)
        if node.op_type == "MatMulNBits":
            values = {item.name: item.i for item in node.attribute}
            packed[node.input[1]] = (f"int{values.get('bits', 4)}", values["K"] * values["N"])
    for name, tensor in constants.items():
        kind, count, size_bytes = _storage(tensor)
        if name in packed:
            kind, count = packed[name]
        elif name in parameters or count < 2 or kind == "int64":
            continue
        contents.add_weight(kind, count, size_bytes)


def _constants(graph: Any) -> dict[str, Any]:
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                constants[node.output[0]] = attribute.t
    return constants


def _quantization_parameters(node: Any) -> set[str]:
    """Inputs that are scales and zero points."""
    first = {
        "QuantizeLinear": 1,
        "DequantizeLinear": 1,
        "ConvInteger": 2,
        "MatMulInteger": 2,
        "DynamicQuantizeMatMul": 2,
        "MatMulIntegerToFloat": 2,
        "MatMulNBits": 2,
        "GatherBlockQuantized": 2,
    }.get(node.op_type)
    return set() if first is None else set(node.input[first:])


def _storage(tensor: Any) -> tuple[str, int, int]:
    """Storage type, number of elements, and bytes of a constant."""
    from onnx import TensorProto, helper

    name = TensorProto.DataType.Name(tensor.data_type).lower()
    kind = {"float": "float32", "double": "float64", "uint4": "int4", "uint8": "int8"}.get(
        name, name
    )
    count = prod(tensor.dims)
    bits = 4 if kind == "int4" else 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return kind, count, (count * bits + 7) // 8
