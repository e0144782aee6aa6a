"""A MobileNet-class network at 224x224 with random, calibrated weights.

It is here for size, time and memory; it has learned nothing, so there is no accuracy to score.
"""

from __future__ import annotations

import edgecheck
from fixtures import mobilenet


class TestMobilenet(edgecheck.Conformance):
    """3.5 million parameters, as many as MobileNetV2."""

    model = edgecheck.Model(
        mobilenet.calibrated_mobilenet,
        inputs=[edgecheck.Input("image", ("batch", 3, 224, 224), low=0.0, high=1.0)],
        outputs=["logits"],
        calibration=mobilenet.calibration_images,
        batch_sizes=(1, 3),
        # Random weights keep nothing of themselves in the 4 bits per channel that LiteRT gives
        # convolutions; ONNX Runtime leaves convolutions as they are.
        targets={
            "ort": ["fp32", "fp16", "int8-dynamic", "int8", "int4"],
            "tflite": ["fp32", "fp16", "int8-dynamic", "int8"],
            "coreml": ["fp32", "fp16", "int8"],
            "trt": ["fp32", "fp16", "int8"],
            "executorch": ["fp32", "int8"],
            "ort-web": ["fp32", "int8"],
        },
    )
    budget = edgecheck.Budget(latency_p95="500 ms", peak_memory="150 MB", size="15 MB")
