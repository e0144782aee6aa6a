"""TFLite (LiteRT): how to build and inspect .tflite files.

Files have a fixed batch of one: LiteRT's converter does not keep a dynamic batch reliably. All
precisions but fp32 and int8-qat are made from the fp32 file by ai-edge-quantizer; of a TensorFlow
source all but int4 by its own converter (`edgecheck.targets.tflite.from_tensorflow`). Not for
running
files: see `edgecheck.targets.tflite.run`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.targets import BuildRequest, Target, Tools, unreadable
from edgecheck.targets.common import keep_float
from edgecheck.targets.common.torch_program import export_fixed
from edgecheck.targets.tflite import from_tensorflow, layers, memory

if TYPE_CHECKING:
    import torch

# Types of an "int8" file's input and output tensors; the default is int8 from PyTorch and float32
# from TensorFlow, as their converters have it.
IO_TYPES = ("default", "float32", "int8", "uint8")

KEEPS_FLOAT = ("int8", "int8-dynamic", "int16x8", "int4")


def _check_options(options: Mapping[str, Any]) -> str:
    io = options["io"]
    if io not in IO_TYPES:
        return f"io is {io!r}; use one of {', '.join(IO_TYPES)}"
    return keep_float.option_problem(options, KEEPS_FLOAT)


TARGETS = (
    Target(
        name="tflite",
        title="LiteRT (TFLite)",
        aliases=("litert", "lite", "tf-lite"),
        suffix=".tflite",
        precisions={
            "fp32": "torch",
            "fp16": "float",
            "int8-dynamic": "float",
            "int8": "float",
            "int8-qat": "torch",
            "int16x8": "float",
            "int4": "float",
        },
        from_tensorflow=dict.fromkeys(
            ("fp16", "int8-dynamic", "int8", "int8-qat", "int16x8"), "tensorflow"
        ),
        packages={
            "ai_edge_litert": "ai-edge-litert",
            "ai_edge_quantizer": "ai-edge-quantizer",
            "litert_torch": "litert-torch",
            "torchao": "torchao",
        },
        distributions=(
            *("torch", "torchao", "litert-torch", "litert-converter", "ai-edge-quantizer"),
            *("tensorflow", "tensorflow-cpu"),
        ),
        runtime="ai-edge-litert",
        tools="edgecheck.targets.tflite:TfliteTools",
        weights="edgecheck.targets.tflite.weights",
        drivers=(
            "edgecheck.runtime.memory",
            "edgecheck.runtime.timing",
            "edgecheck.runtime.runner",
            "edgecheck.targets.tflite.profiler",
            "edgecheck.targets.tflite.run",
        ),
        driver="edgecheck.targets.tflite.run:LiteRTDriver",
        reads=("torch", "tensorflow"),
        keeps_dynamic_batch=False,
        options={"io": "default", keep_float.OPTION: {}},
        check_options=_check_options,
    ),
)

_OWN_CONVERTER = (
    f"{keep_float.OPTION}: TensorFlow's own converter quantizes this file, "
    "and keeps no layer by name"
)
# Tensor types that, with a scale, hold quantized values.
_INTEGER_TYPES = ("INT8", "UINT8", "INT16", "INT4")
_STORAGE = {"UINT8": "int8", "UINT4": "int4"}
_BITS = {"INT4": 4, "UINT4": 4, "BOOL": 8}
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class TfliteTools(Tools):
    """Builds and inspects .tflite files; see `edgecheck.targets.Tools`."""

    def write(self, request: BuildRequest) -> None:
        """Write the file of a precision."""
        if Path(request.source).is_dir():
            if keep_float.chosen(request.options, request.precision):
                raise keep_float.KeepFloatError(_OWN_CONVERTER)
            from_tensorflow.convert(
                request.source,
                request.output,
                request.precision,
                example=request.example,
                calibration=request.calibration,
                io=request.options["io"],
            )
        elif request.precision == "fp32":
            _convert(
                *_fixed_module(request.source, request.outputs, request.example), request.output
            )
        elif request.precision == "int8-qat":
            _convert(
                *_fixed_module(request.source, request.outputs, request.example),
                request.output,
                quantized=True,
            )
        elif request.precision in ("int8", "int16x8"):
            assert request.calibration is not None
            _quantize_static(request, request.calibration)
        else:
            _quantize_weights(request)

    def find_layers(self, request: BuildRequest) -> list[str]:
        """The layers of the float file."""
        if Path(request.source).is_dir():
            raise keep_float.KeepFloatError(_OWN_CONVERTER)
        return layers.layers(request.source, request.program)

    def inspect(self, *, path: str) -> dict[str, Any]:
        """Parse the file and count what is in it."""
        from ai_edge_litert import schema_py_generated as schema

        data = Path(path).read_bytes()
        if data[4:8] != b"TFL3":
            return unreadable("the file is no TFLite flatbuffer (identifier TFL3)")
        try:
            model = schema.ModelT.InitFromPackedBuf(data, 0)
            counts = _count(model, schema)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            return unreadable(
                f"the file is cut off or damaged: its flatbuffer can't be parsed ({text})"
            )
        return {
            "failures": _cut_off(model, len(data)),
            "warnings": [],
            "format": {"schema_version": model.version},
            **counts,
            "activation_memory": memory.plan_memory(model, schema),
        }


def _cut_off(model: Any, size_bytes: int) -> list[str]:
    """Weights outside the flatbuffer, as in large files, that end after the file does."""
    ends = [item.offset + item.size for item in model.buffers if item.offset > 1]
    needed = max(ends, default=0)
    if needed <= size_bytes:
        return []
    return [f"the file is cut off: its weights end at byte {needed}, it has {size_bytes}"]


def _fixed_module(
    source: str, outputs: list[str], example: Mapping[str, str]
) -> tuple[Any, dict[str, torch.Tensor]]:
    program, sample = export_fixed(source, outputs, example)
    return program.module(check_guards=False), sample


def _convert(module: Any, sample: dict[str, Any], output: str, *, quantized: bool = False) -> None:
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import (
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import QuantConfig

    config = None
    if quantized:
        # The converter reads from it only that quantization is static; scales are in the program.
        static = get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
        config = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(static))
    litert_torch.convert(module, sample_kwargs=sample, quant_config=config).export(output)


def _quantize_static(request: BuildRequest, calibration: Mapping[str, str]) -> None:
    """Weights in int8 and activations in int8 or int16, ranges from the calibration data.

    ai-edge-quantizer's default calibration, a moving average, saturates: on three networks it cost
    about 20 dB of SQNR against the true minimum and maximum.
    """
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.utils import qsv_utils

    source, precision, io = request.source, request.precision, request.options["io"]
    manager = recipe_manager.RecipeManager()
    manager.add_static_config(
        ".*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=16 if precision == "int16x8" else 8,
        weight_num_bits=8,
    )
    if io == "uint8":
        raise ValueError("io='uint8': ai-edge-quantizer writes float32 and int8 tensors only")
    if io == "float32" and precision == "int8":
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            manager.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    _keep_float(manager, request)
    if io == "int8":
        # Also where only float layers touch them. The last scope decides, and this is a new one.
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            manager.add_static_config("^.*$", end, activation_num_bits=8, weight_num_bits=8)
    observer = calibrator.Calibrator(
        source, num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    key, feeds = _calibration_feeds(source, calibration)
    observer.calibrate({key: feeds}, manager)
    if not observer.get_model_qsvs():  # all of it is kept in float
        shutil.copyfile(source, request.output)
        return
    result = quantizer.Quantizer(source, manager.get_quantization_recipe()).quantize(
        observer.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False
    )
    Path(request.output).write_bytes(bytes(result.quantized_model))


def _keep_float(manager: Any, request: BuildRequest) -> None:
    keep = keep_float.chosen(request.options, request.precision)
    layers.keep(manager, request.source, request.program, keep)


def _calibration_feeds(
    source: str, calibration: Mapping[str, str]
) -> tuple[str, list[dict[str, Any]]]:
    """The file's signature, and the calibration data cut into its fixed batches."""
    import numpy as np
    from ai_edge_litert import interpreter as litert

    interpreter = litert.Interpreter(model_path=source)
    key = next(iter(interpreter.get_signature_list()))
    details = interpreter.get_signature_runner(key).get_input_details()
    arrays = {
        name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in calibration.items()
    }
    step = int(next(iter(details.values()))["shape"][0])
    count = len(next(iter(arrays.values())))
    return key, [
        {
            name: np.ascontiguousarray(arrays[name][start : start + step], item["dtype"])
            for name, item in details.items()
        }
        for start in range(0, count - step + 1, step)
    ]


def _quantize_weights(request: BuildRequest) -> None:
    from ai_edge_quantizer import qtyping, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    manager = recipe_manager.RecipeManager()
    if request.precision == "fp16":
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        manager.add_quantization_config(
            ".*",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            qtyping.OpQuantizationConfig(
                weight_tensor_config=half,
                explicit_dequantize=True,
                compute_precision=qtyping.ComputePrecision.FLOAT,
            ),
            algorithm_key=AlgorithmName.FLOAT_CASTING,
        )
    elif request.precision == "int8-dynamic":
        manager.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    else:
        manager.load_quantization_recipe(recipe.weight_only_wi4_afp32())
    _keep_float(manager, request)
    result = quantizer.Quantizer(request.source, manager.get_quantization_recipe()).quantize(
        enable_progress_bar=False, enable_progress_report=False
    )
    Path(request.output).write_bytes(bytes(result.quantized_model))


def _count(model: Any, schema: Any) -> dict[str, Any]:
    """Operators, quantized operators, and weights by storage type.

    A weight is a constant of two elements or more that an operator reads, other than unquantized
    int32 and int64 (shapes, axes, indices). An operator is quantized if a weight of it is an
    integer or comes from DEQUANTIZE, or its data is quantized.
    """
    types, codes = _names(schema.TensorType), _names(schema.BuiltinOperator)
    operators: Counter[str] = Counter()
    quantized: Counter[str] = Counter()
    layers: dict[str, list[str]] = {"integer": [], "float": []}
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for graph in model.subgraphs:
        tensors = graph.tensors
        seen: set[int] = set()
        unpacked: set[int] = set()
        for operator in graph.operators or []:
            name = _operator_name(model.operatorCodes[operator.opcodeIndex], codes)
            operators[name] += 1
            reads = [int(index) for index in _list(operator.inputs) if index >= 0]
            writes = [int(index) for index in _list(operator.outputs)]
            if name in _LAYERS:
                static = types[tensors[reads[0]].type] in _INTEGER_TYPES
                shape = "x".join(map(str, _list(tensors[reads[1]].shape)))
                layers["integer" if static else "float"].append(f"{name} {shape}")
            for index in reads:
                tensor = tensors[index]
                if not _is_constant(model, tensor) or index in seen:
                    continue
                seen.add(index)
                kind = types[tensor.type]
                count = _product(tensor.shape)
                if count < 2 or (kind in ("INT32", "INT64") and not _has_scale(tensor)):
                    continue
                bits = _BITS.get(kind) or int("".join(filter(str.isdigit, kind)) or 8)
                storage = _STORAGE.get(kind, kind.lower())
                elements[storage] += count
                sizes[storage] += (count * bits + 7) // 8
            if name == "DEQUANTIZE" and _is_constant(model, tensors[reads[0]]):
                unpacked.update(writes)
            elif name not in ("QUANTIZE", "DEQUANTIZE") and (
                unpacked.intersection(reads)
                or any(
                    types[tensors[index].type] in _INTEGER_TYPES and _has_scale(tensors[index])
                    for index in reads
                )
            ):
                quantized[name] += 1
    return {
        "operators": dict(sorted(operators.items())),
        "quantized_operators": dict(sorted(quantized.items())),
        "weight_elements": dict(sorted(elements.items())),
        "weight_bytes": dict(sorted(sizes.items())),
        "layers": layers,
    }


def _names(enumeration: Any) -> dict[int, str]:
    return {
        value: name
        for name, value in vars(enumeration).items()
        if isinstance(value, int) and not name.startswith("_")
    }


def _operator_name(code: Any, codes: Mapping[int, str]) -> str:
    # Old files have the operator in the deprecated field only, which ends at 127.
    name = codes.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
    return f"CUSTOM {code.customCode.decode()}" if name == "CUSTOM" and code.customCode else name


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)


def _product(shape: Any) -> int:
    total = 1
    for size in _list(shape):
        total *= int(size)
    return total


def _is_constant(model: Any, tensor: Any) -> bool:
    buffer = model.buffers[tensor.buffer]
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.offset > 1


def _has_scale(tensor: Any) -> bool:
    quantization = tensor.quantization
    return quantization is not None and len(_list(quantization.scale)) > 0
