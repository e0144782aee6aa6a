"""The targets' own quantizers, called with other options than edgecheck's.

Not for faults that edit a built file: see `quantization`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.capture import data
from tests.faults.bench import Bench


def quantize_onnx(
    bench: Bench, path: Path, model: str, module: Any = None, keep: str = "", **options: Any
) -> None:
    """ONNX Runtime's quantizer with one layer in float, or options other than edgecheck's."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import QuantFormat, QuantType

    from edgecheck.targets.common.onnx import quantization as onnx_quantization

    source, prepared = path.with_suffix(".float.onnx"), path.with_suffix(".prepared.onnx")
    bench.build(module or bench.module(model), model, "ort", "fp32", source)
    onnx_quantization.prepare(str(source), str(prepared))
    nodes = onnx.load(prepared).graph.node
    kept = [node.name for node in nodes if keep and f"{keep}.weight" in node.input]
    samples = bench.samples(model)
    rows = [{name: array[i : i + 8] for name, array in samples.items()} for i in range(0, 256, 8)]

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            return rows.pop(0) if rows else None

    quantization.quantize_static(
        prepared,
        path,
        Reader(),
        **{
            "quant_format": QuantFormat.QDQ,
            "per_channel": True,
            "activation_type": QuantType.QUInt8,
            "weight_type": QuantType.QInt8,
            "nodes_to_exclude": kept,
            **options,
        },
    )


def quantize_tflite(
    bench: Bench,
    path: Path,
    model: str,
    module: Any = None,
    keep: str = "",
    granularity: str = "CHANNELWISE",
) -> None:
    """ai-edge-quantizer with one kind of operator kept in float, or another granularity."""
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    from edgecheck.targets.tflite import build

    source = path.with_suffix(".float.tflite")
    bench.build(module or bench.module(model), model, "tflite", "fp32", source)
    manager = recipe_manager.RecipeManager()
    manager.add_static_config(
        ".*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=getattr(qtyping.QuantGranularity, granularity),
    )
    if keep:
        kind = getattr(qtyping.TFLOperationName, keep)
        manager.add_quantization_config(".*", kind, algorithm_key="no_quantize")
    observer = calibrator.Calibrator(
        str(source), num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    samples = data.save_feed(bench.samples(model), path.with_name("samples"))
    key, feeds = build._calibration_feeds(str(source), samples)
    observer.calibrate({key: feeds}, manager)
    made = quantizer.Quantizer(str(source), manager.get_quantization_recipe()).quantize(
        observer.get_model_qsvs()
    )
    path.write_bytes(bytes(made.quantized_model))


def quantize_package(
    bench: Bench,
    path: Path,
    model: str,
    module: Any = None,
    granularity: str = "per_channel",
    keep: str = "",
) -> None:
    """coremltools' quantization of weights, with one of them kept or another granularity."""
    import coremltools
    from coremltools.optimize import coreml as optimize

    source = path.with_suffix(".half.mlpackage")
    bench.build(module or bench.module(model), model, "coreml", "fp16", source)
    config = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", granularity=granularity, weight_threshold=64
    )
    made = optimize.linear_quantize_weights(
        coremltools.models.MLModel(str(source), skip_model_load=True),
        optimize.OptimizationConfig(config, op_name_configs={keep: None} if keep else None),
    )
    made.save(str(path))
