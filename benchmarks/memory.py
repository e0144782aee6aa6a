"""What memory the pytest process itself needs while a large evaluation set goes through."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.common import PLUGIN, BenchmarkError, Row, at_most, environment, pytest, told

IMAGES = 5000
QUICK_IMAGES = 500
LIMIT_MB = 500.0
# One call scores all images; on a busy machine that is longer than the default limit.
_TIMEOUT_S = 1800
_SUITE = """
import numpy as np
import edgecheck
from fixtures import mobilenet

IMAGES = {images}


def images():
    return mobilenet.stream_images(IMAGES)


def labels():
    return np.random.RandomState(0).randint(0, 1000, IMAGES)


class TestMobilenet(edgecheck.Conformance):
    model = edgecheck.Model(
        mobilenet.calibrated_mobilenet,
        inputs=[edgecheck.Input("image", ("batch", 3, 224, 224), low=0.0, high=1.0)],
        outputs=["logits"],
        batch_sizes=(1, 3),
        evaluation=edgecheck.Evaluation(images, labels, metric=edgecheck.metrics.top1),
    )
"""
# Notes at the very end of the process its own high-water mark and that of its largest child.
_CONFTEST = """
import atexit, json, pathlib, resource

@atexit.register
def note():
    status = pathlib.Path("/proc/self/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    child_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    pathlib.Path("peak.json").write_text(json.dumps({"own": peak_kib, "child": child_kib}))
"""


def measure(quick: bool) -> list[Row]:
    """Judge one real-size model on 224x224 images that don't fit in the limit."""
    images = QUICK_IMAGES if quick else IMAGES
    with tempfile.TemporaryDirectory() as directory, told(f"memory with {images} images"):
        place = Path(directory)
        (place / "test_large.py").write_text(_SUITE.format(images=images))
        (place / "conftest.py").write_text(_CONFTEST)
        (place / "scratch").mkdir()
        pytest(
            [
                *PLUGIN,
                *("--edge-targets=ort", "--edge-precisions=fp32", "--edge-json=edge.json"),
                *("--edge-checks=export,parity,accuracy", f"--edge-timeout={_TIMEOUT_S}"),
            ],
            cwd=place,
            # The images on disk go with the directory, whatever becomes of the run.
            env=environment(TMPDIR=str(place / "scratch")),
        )
        peak_kib = json.loads((place / "peak.json").read_text())
        cases = json.loads((place / "edge.json").read_text())["cases"]
    (scored,) = (case for case in cases if case["check"] == "accuracy")
    if scored["measurements"]["samples"] != images:
        raise BenchmarkError(f"{scored['measurements']['samples']} images were scored")
    return [
        at_most(
            f"peak memory of pytest, evaluation of {images:,} images",
            peak_kib["own"] * 1024 / 1e6,
            LIMIT_MB,
            "MB",
        ),
        Row("  images as float32", f"{images * 3 * 224 * 224 * 4 / 1e6:.3g} MB"),
        Row("  largest child process", f"{peak_kib['child'] * 1024 / 1e6:.3g} MB"),
    ]
