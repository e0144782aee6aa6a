"""What is built from a captured TensorFlow program: its precisions, names and numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf: Any = pytest.importorskip("tensorflow")
keras: Any = pytest.importorskip("keras")

from edgecheck.capture.tensorflow import LiveTensorFlow  # noqa: E402
from edgecheck.checks.export import judge_precision  # noqa: E402
from edgecheck.declare.model import Artifact, Input  # noqa: E402
from edgecheck.devices.binding import bind  # noqa: E402
from edgecheck.targets.coreml import from_tensorflow  # noqa: E402
from edgecheck.targets.ort.build import OrtBuilder  # noqa: E402
from edgecheck.targets.ort.run import OrtRunner  # noqa: E402
from edgecheck.targets.registry import all_targets  # noqa: E402
from edgecheck.targets.tflite.build import TfliteBuilder  # noqa: E402
from edgecheck.targets.tflite.run import TfliteRunner  # noqa: E402

TOOLS = {"tflite": (TfliteBuilder, TfliteRunner), "ort": (OrtBuilder, OrtRunner)}


def captured(model: Any, inputs: list[Input], outputs: list[str], folder: Path) -> dict[str, Any]:
    """The program, ten calls' inputs, and what the live model makes of them."""
    live = LiveTensorFlow(model, inputs, outputs, "source s")
    rng = np.random.default_rng(0)
    feed = {}
    for item in inputs:
        shape = (10, *(int(size) for size in item.shape[1:]))
        feed[item.name] = rng.uniform(item.low, item.high, shape).astype(item.dtype)
    for name, array in feed.items():
        np.save(folder / f"{name}.npy", array)
        np.save(folder / f"{name}-one.npy", array[:1])
    return {
        "folder": folder,
        "program": str(live.capture(folder, {})[0]),
        "inputs": inputs,
        "outputs": outputs,
        "expected": live.infer(feed),
    }


def build(made: dict[str, Any], target: str, precision: str, **options: str) -> Path:
    folder, names = made["folder"], [item.name for item in made["inputs"]]
    output: Path = (
        folder / f"{precision}{'-'.join(options.values())}{all_targets()[target].files.suffix}"
    )
    TOOLS[target][0]().build(
        precision=precision,
        source=made["program"],
        output=str(output),
        inputs=names,
        outputs=made["outputs"],
        calibration={name: str(folder / f"{name}.npy") for name in names}
        if precision in ("int8", "int16x8")
        else None,
        example={name: str(folder / f"{name}-one.npy") for name in names},
        options={**all_targets()[target].options.defaults, **options},
    )
    return output


def sqnr_db(made: dict[str, Any], target: str, path: Path) -> dict[str, float]:
    """How far the file's outputs are from the live model's."""
    driver = TOOLS[target][1]()
    loaded = driver.load(str(path), {"threads": 1, "optimize": True})
    binding = bind(
        made["inputs"], made["outputs"], loaded["inputs"], loaded["outputs"], Artifact(path)
    )
    driver.bind(binding.for_runner())
    names = [item.name for item in made["inputs"]]
    feed = {name: str(made["folder"] / f"{name}.npy") for name in names}
    (found,) = driver.run([{"inputs": feed, "directory": str(made["folder"])}])
    errors = {}
    for name, expected in made["expected"].items():
        noise = np.sum((np.load(found[name]) - expected) ** 2)
        errors[name] = 10 * np.log10(np.sum(expected**2) / max(noise, 1e-30))
    return errors


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recurrent layer, which must be traced with a fixed batch for LiteRT, and an exact GELU."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8), name="x")
    hidden = keras.layers.Dense(48, activation="gelu")(x)
    z, a = keras.layers.LSTM(8)(hidden), keras.layers.Dense(4)(hidden)
    folder = tmp_path_factory.mktemp("recurrent")
    inputs = [Input("x", ("batch", 6, 8), low=-2.0, high=2.0)]
    return captured(keras.Model(x, [z, a]), inputs, ["z", "a"], folder)


@pytest.mark.parametrize("target", TOOLS)
def test_recurrent_layers_and_an_exact_gelu_keep_their_numbers(
    recurrent: dict[str, Any], target: str
) -> None:
    path = build(recurrent, target, "fp32")
    assert TOOLS[target][0]().inspect(path=str(path))["failures"] == []
    assert min(sqnr_db(recurrent, target, path).values()) > 110


class FakeQuantized(tf.Module):
    """As quantization-aware training leaves it."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.first = tf.Variable(rng.normal(size=(16, 32)).astype(np.float32))
        self.second = tf.Variable(rng.normal(size=(32, 4)).astype(np.float32))

    def __call__(self, x: Any) -> Any:
        fake = tf.quantization.fake_quant_with_min_max_vars
        hidden = tf.nn.relu(fake(x, 0.0, 1.0) @ fake(self.first, -4.0, 4.0, narrow_range=True))
        weights = fake(self.second, -4.0, 4.0, narrow_range=True)
        return fake(fake(hidden, 0.0, 8.0) @ weights, -40.0, 40.0)


@pytest.fixture(scope="module")
def fake_quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("qat")
    return captured(FakeQuantized(), [Input("x", ("batch", 16))], ["y"], folder)


def test_the_ranges_that_training_learnt_are_kept(fake_quantized: dict[str, Any]) -> None:
    path = build(fake_quantized, "tflite", "int8-qat")
    failures, share = judge_precision("int8-qat", TfliteBuilder().inspect(path=str(path)))
    assert failures == []
    assert share == 1.0
    assert sqnr_db(fake_quantized, "tflite", path)["y"] > 40


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
def test_integer_inputs_and_outputs_are_converted_by_the_files_own_scale(
    fake_quantized: dict[str, Any], io: str
) -> None:
    path = build(fake_quantized, "tflite", "int8", io=io)
    loaded = TfliteRunner().load(str(path), {"threads": 1})
    assert {item["dtype"] for item in [*loaded["inputs"], *loaded["outputs"]]} == {io}
    assert sqnr_db(fake_quantized, "tflite", path)["y"] > 30


def test_core_ml_gets_the_declared_names_in_whatever_order(recurrent: dict[str, Any]) -> None:
    ct = pytest.importorskip("coremltools")
    image, extra = keras.Input((4, 4, 1), name="image"), keras.Input((3,), name="extra")
    wide = keras.layers.Dense(5, activation="gelu")(keras.layers.Flatten()(image))
    model = keras.Model([image, extra], [wide, extra * 2])
    folder = recurrent["folder"] / "coreml"
    folder.mkdir()
    inputs = [Input("image", ("batch", 4, 4, 1)), Input("extra", ("batch", 3))]
    made = captured(model, inputs, ["z", "a"], folder)
    converted = from_tensorflow.convert(
        made["program"],
        example={name: str(folder / f"{name}-one.npy") for name in ("image", "extra")},
        outputs=made["outputs"],
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS17,
    )
    described = converted.get_spec().description
    shapes = {
        item.name: list(item.type.multiArrayType.shape)
        for item in [*described.input, *described.output]
    }
    assert shapes == {"image": [1, 4, 4, 1], "extra": [1, 3], "z": [1, 5], "a": [1, 3]}
    with pytest.raises(ValueError, match="coremltools can't convert it"):
        from_tensorflow.convert(
            recurrent["program"],
            example={"x": str(recurrent["folder"] / "x-one.npy")},
            outputs=["z", "a"],
        )


@pytest.mark.parametrize("target", ["ort", "ort-web", "trt", "tflite"])
def test_every_precision_has_a_route_or_says_that_it_has_none(target: str) -> None:
    known = all_targets()[target]
    for precision in known.build.precisions:
        made_from = known.made_from(precision, "tensorflow")
        assert made_from in ("torch", "tensorflow", "float", "ort", "")
        assert known.made_from(precision, "torch") == known.build.precisions[precision]
    assert all_targets()["executorch"].made_from("fp32", "tensorflow") == ""
