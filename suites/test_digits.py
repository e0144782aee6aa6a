"""Handwritten digits: a CNN with its pruned and distilled variants, and a transformer."""

from __future__ import annotations

from typing import Any

import edgecheck
from fixtures import digits

EVALUATION: dict[str, Any] = {"labels": digits.test_labels, "metric": edgecheck.metrics.top1}


class TestDigits(edgecheck.Conformance):
    """A CNN on 8x8 images, with a QAT-converted twin."""

    model = edgecheck.Model(
        digits.trained_cnn,
        inputs=[edgecheck.Input("image", ("batch", 1, 8, 8), low=0.0, high=1.0)],
        outputs=["logits"],
        qat=digits.qat_cnn,
        variants={"pruned": digits.pruned_cnn, "student": digits.student_cnn},
        calibration=digits.calibration_images,
        evaluation=edgecheck.Evaluation(digits.test_images, **EVALUATION),
    )
    budget = edgecheck.Budget(
        latency_p95="20 ms",
        peak_memory="64 MB",
        size={"default": "250 kB", "trt": "1 MB"},  # an engine holds its kernels
        accuracy_floor=0.95,
    )


class TestDigitsTransformer(edgecheck.Conformance):
    """A transformer encoder that reads an image as eight rows."""

    model = edgecheck.Model(
        digits.trained_transformer,
        inputs=[edgecheck.Input("rows", ("batch", 8, 8), low=0.0, high=1.0)],
        outputs=["logits"],
        calibration=digits.calibration_rows,
        evaluation=edgecheck.Evaluation(digits.test_rows, **EVALUATION),
    )
    budget = edgecheck.Budget(
        latency_p95="20 ms",
        peak_memory="64 MB",
        size={"default": "400 kB", "trt": "4 MB"},
        accuracy_floor=0.95,
    )
