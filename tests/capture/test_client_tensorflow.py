"""Models of Keras and TensorFlow from source to gate, and what has no route, end to end."""

from __future__ import annotations

import pytest

from tests.conftest import Judge, Judged

pytest.importorskip("tensorflow")

SUITE = '''
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).parent
IMAGE = Input("image", ("batch", 8, 8, 1), low=-1.0, high=1.0)
EXTRA = Input("extra", ("batch", 4), low=0.0, high=2.0)
NHWC = {"inputs": [EXTRA, IMAGE], "outputs": ["logits", "embedding"]}


def data(count=40):
    rng = np.random.default_rng(5)
    return {"image": rng.uniform(-1, 1, (count, 8, 8, 1)).astype(np.float32),
            "extra": rng.uniform(0, 2, (count, 4)).astype(np.float32)}


def keras_model():
    """Weights are drawn: seeded by edgecheck, or the processes would see different models."""
    import keras
    image, extra = keras.Input((8, 8, 1), name="image"), keras.Input((4,), name="extra")
    x = keras.layers.Conv2D(16, 3, activation="relu")(image)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    x = keras.layers.Concatenate()([keras.layers.Flatten()(x), extra])
    return keras.Model([image, extra], {
        "embedding": keras.layers.Dense(64)(x), "logits": keras.layers.Dense(32)(x)})


def predicted():
    return np.zeros(40)


# A command-line pytest process and its workers import this: written once.
def made(name, write):
    path = HERE / name
    if not path.exists():
        write(path)
    return path


def write_saved_model(path):
    import tensorflow as tf
    class Scaled(tf.Module):
        def __init__(self):
            self.weight = tf.Variable(tf.random.stateless_normal((16, 64), [1, 2]))
        @tf.function(input_signature=[tf.TensorSpec([None, 16], name="x")])
        def serve(self, x):
            return {"logits": tf.nn.relu(x @ self.weight)}
    module = Scaled()
    tf.saved_model.save(module, str(path), signatures=module.serve)


def write_lambda(path):
    import keras
    x = keras.Input((16,), name="x")
    keras.Model(x, keras.layers.Lambda(lambda y: y * 2)(x)).save(path)


SAVED_MODEL = made("saved_model", write_saved_model)
LAMBDA = made("lambda.keras", write_lambda)
EVERY = ["fp32", "fp16", "int8-dynamic", "int8", "int16x8", "int4"]


class TestKeras(Conformance):
    model = Model(keras_model, **NHWC, calibration=data, targets={
        "tflite": EVERY, "ort": ["fp32", "int8"], "executorch": ["fp32"]})


class TestUnsigned(Conformance):
    model = Model(keras_model, **NHWC, calibration=data, targets={"tflite": ["int8"]},
                  target_options={"tflite": {"io": "uint8"}})


class TestSavedModel(Conformance):
    model = model(SAVED_MODEL, targets={
        "tflite": ["fp32", "int16x8"], "ort": ["fp32", "fp16"], "executorch": ["fp32"]})


class TestLambda(Conformance):
    model = model(LAMBDA, targets={"tflite": ["fp32"]})


class TestRaising(Conformance):
    def source():
        import tensorflow
        raise OSError("no weights here")
    model = model(source, targets={"tflite": ["fp32"]})


class TestNames(Conformance):
    model = Model(keras_model, inputs=[IMAGE, Input("other", ("batch", 4))],
                  outputs=["logits", "embedding"], targets={"tflite": ["fp32"]})


class TestShape(Conformance):
    model = Model(keras_model, inputs=[Input("image", ("batch", 1, 8, 8)), EXTRA],
                  outputs=["logits", "embedding"], targets={"tflite": ["fp32"]})
'''


@pytest.fixture(scope="module")
def judged(judge: Judge) -> Judged:
    return judge(
        SUITE,
        "--edge-targets=ort,tflite,executorch",
        "--edge-checks=export,parity",
        "--edge-missing=skip",
        timeout_s=600,
    )


PASS = [
    *(f"keras/tflite/{item}" for item in ("fp32", "fp16", "int8-dynamic", "int8", "int16x8")),
    *("keras/tflite/int4", "keras/ort/fp32", "keras/ort/int8", "unsigned/tflite/int8"),
    *("saved_model/tflite/fp32", "saved_model/ort/fp32", "saved_model/ort/fp16"),
]


@pytest.mark.parametrize("candidate", PASS)
def test_passes(judged: Judged, candidate: str) -> None:
    cases = {key: case for key, case in judged.cases.items() if key.startswith(f"{candidate}/")}
    assert len(cases) == 2
    assert {key: case["reason"] for key, case in cases.items() if case["verdict"] != "passed"} == {}


def tensors(judged: Judged, candidate: str) -> dict[str, str]:
    measured = judged.cases[f"{candidate}/export"]["measurements"]
    return {item["name"]: item["dtype"] for item in [*measured["inputs"], *measured["outputs"]]}


def test_files_keep_the_declared_names_and_take_the_stated_types(judged: Judged) -> None:
    names = ("extra", "image", "embedding", "logits")
    assert tensors(judged, "keras/tflite/int8") == dict.fromkeys(names, "float32")
    assert tensors(judged, "unsigned/tflite/int8") == dict.fromkeys(names, "uint8")


EXPECTED = {
    "keras/executorch/fp32/export": "no route from a TensorFlow model to ExecuTorch: bring",
    "lambda/tflite/fp32/export": "lambda.keras holds code (a Lambda layer or the like)",
    "raising/tflite/fp32/export": "raised OSError: no weights here",
    "names/tflite/fp32/export": "inputs ['image', 'other'] are declared, but",
    "shape/tflite/fp32/export": "the model raised on inputs of shapes",
}


@pytest.mark.parametrize("key", EXPECTED)
def test_fails_with_one_line_that_says_why(judged: Judged, key: str) -> None:
    case = judged.cases[key]
    assert case["verdict"] == "failed"
    assert EXPECTED[key] in case["reason"]
    assert "\n" not in case["reason"]


def test_what_has_no_route_from_a_file_is_listed_and_not_tried(judged: Judged) -> None:
    assert judged.report is not None
    reasons = {
        f"{item['subject']}/{item['what']}": item["reason"] for item in judged.report["absences"]
    }
    assert (
        "no route from a TensorFlow model to ExecuTorch" in reasons["saved_model/executorch/fp32"]
    )
    assert "no calibration data" in reasons["saved_model/tflite/int16x8"]
