"""TensorFlow models in other arithmetic, by their ONNX equivalents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")

from edgecheck.capture.base import SimulationError  # noqa: E402
from edgecheck.capture.tensorflow import LiveTensorFlow  # noqa: E402
from edgecheck.declare.model import Input  # noqa: E402

STATIC = {"kind": "quantized", "weight_bits": 8, "activation_bits": 8, "activations": "static"}


def sqnr_db(found: Any, exact: Any) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(found - exact).sum()))


@pytest.fixture(scope="module")
def images() -> LiveTensorFlow:
    keras.utils.set_random_seed(3)
    image = keras.Input((12, 12, 3), name="image")
    after = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    after = keras.layers.BatchNormalization()(after)
    after = keras.layers.DepthwiseConv2D(3, padding="same")(after)
    after = keras.layers.AveragePooling2D(2)(after)
    scores = keras.layers.Dense(5)(keras.layers.Flatten()(after))
    inputs = [Input("image", ("batch", 12, 12, 3))]
    return LiveTensorFlow(keras.Model(image, scores), inputs, ["scores"], "source s")


def test_float64_is_nearer_than_half_precision_and_that_than_bytes(images: LiveTensorFlow) -> None:
    feed = {"image": np.random.default_rng(0).uniform(0, 1, (6, 12, 12, 3)).astype("float32")}
    live = images.infer(feed)["scores"]
    exact = images.simulator({"kind": "float64"}, [])(feed)["scores"]
    assert exact.dtype == np.float64
    assert sqnr_db(live, exact) > 110
    half = images.simulator({"kind": "float16"}, [])(feed)["scores"]
    assert 45 < sqnr_db(half, exact) < 90
    quantized = images.simulator(STATIC, [feed])(feed)["scores"]
    assert 25 < sqnr_db(quantized, exact) < 45
    wrong = {"image": feed["image"] * 16}
    assert sqnr_db(images.simulator(STATIC, [wrong])(feed)["scores"], exact) < 20


def test_what_tf2onnx_does_not_convert_is_the_reason() -> None:
    class Sorted(tf.Module):  # type: ignore[name-defined]
        @tf.function
        def __call__(self, x: Any) -> Any:
            return tf.linalg.eigvalsh(tf.einsum("bi,bj->bij", x, x))

    source = LiveTensorFlow(Sorted(), [Input("x", ("batch", 4))], ["y"], "source s")
    with pytest.raises(SimulationError, match=r"eigvalsh|SelfAdjointEig"):
        source.simulator({"kind": "float64"}, [])({"x": np.ones((2, 4), np.float32)})
