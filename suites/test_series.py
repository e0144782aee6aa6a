"""Synthesised accelerometer series: two inputs (one an integer), two outputs."""

from __future__ import annotations

import edgecheck
from fixtures import series


def activity_labels() -> object:
    """The class of each test series."""
    return series.test_targets()["activity"]


class TestSeries(edgecheck.Conformance):
    """A one-dimensional convolutional network."""

    model = edgecheck.Model(
        series.trained_model,
        inputs=[
            edgecheck.Input("signal", ("batch", 3, 128), low=-2.0, high=2.0),
            edgecheck.Input("sensor", ("batch",), low=0, high=3, dtype="int64"),
        ],
        outputs=["activity", "intensity"],
        calibration=series.calibration,
        evaluation=edgecheck.Evaluation(
            series.test_inputs, activity_labels, metric=edgecheck.metrics.top1, output="activity"
        ),
        # ExecuTorch has int4 of layers whose inputs are a multiple of 32 only: here none.
        targets={
            "ort": ["fp32", "fp16", "int8-dynamic", "int8", "int4"],
            "tflite": ["fp32", "fp16", "int16x8", "int8-dynamic", "int8", "int4"],
            "coreml": ["fp32", "fp16", "int8-weights", "int8", "int4", "palettized"],
            "trt": ["fp32", "fp16", "int8"],
            "executorch": ["fp32", "fp16", "int8-dynamic", "int8"],
            "ort-web": ["fp32", "fp16", "int8-dynamic", "int8", "int4"],
        },
    )
    budget = edgecheck.Budget(
        latency_p95="20 ms",
        peak_memory="64 MB",
        size={"default": "100 kB", "trt": "2 MB"},
        accuracy_floor=0.9,
        # ExecuTorch's XNNPACK stores the weights of fp16 convolutions in float32.
        quantized_weights={"executorch/fp16": 0.4},
    )
