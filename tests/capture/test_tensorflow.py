"""TensorFlow sources: what is captured, how inputs and outputs are matched, what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf: Any = pytest.importorskip("tensorflow")
keras: Any = pytest.importorskip("keras")

from edgecheck.capture import tensorflow, tensorflow_digest  # noqa: E402
from edgecheck.capture.base import CaptureError  # noqa: E402
from edgecheck.capture.tensorflow import LiveTensorFlow, load, match_names  # noqa: E402
from edgecheck.declare.model import Input  # noqa: E402

X = Input("x", ("batch", 4), low=-1.0, high=1.0)
IMAGE, EXTRA = Input("image", ("batch", 6, 6, 1)), Input("extra", ("batch", 4))
RNG = np.random.default_rng(0)
FEED = {
    "image": RNG.random((3, 6, 6, 1), dtype=np.float32),
    "extra": RNG.random((3, 4), dtype=np.float32),
}

TWO_INPUTS = """
import keras, numpy as np

def two_inputs(seed=0):
    image, extra = keras.Input((6, 6, 1), name="image"), keras.Input((4,), name="extra")
    x = keras.layers.Conv2D(3, 3, activation="relu")(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Concatenate()([keras.layers.Flatten()(x), extra])
    x = keras.layers.Dropout(0.5)(x)
    wide = keras.layers.Dense(5)(x)
    model = keras.Model([image, extra], {"wide": wide, "sum": keras.ops.sum(wide, 1)})
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model
"""
made: dict[str, Any] = {}
exec(TWO_INPUTS, made)
two_inputs: Callable[..., Any] = made["two_inputs"]


def live(model: Any, inputs: list[Input], outputs: list[str]) -> LiveTensorFlow:
    return LiveTensorFlow(model, inputs, outputs, "source s")


def test_a_keras_model_is_captured_with_the_declared_names_and_its_own_numbers(
    tmp_path: Path,
) -> None:
    source = live(two_inputs(), [EXTRA, IMAGE], ["sum", "wide"])
    expected = source.infer(FEED)
    path, _ = source.capture(tmp_path, {})
    assert expected["wide"].shape == (3, 5)
    signature = load(str(path), "program").signatures["serving_default"]
    assert {key: item.shape.as_list() for key, item in signature.structured_outputs.items()} == {
        "sum": [None],
        "wide": [None, 5],
    }
    outputs = signature(**{key: tf.constant(array) for key, array in FEED.items()})
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-5)
    # The converters lose variables: there are none.
    assert signature.variables == ()
    again = live(load(str(path), "program"), [IMAGE, EXTRA], ["wide", "sum"]).infer(FEED)
    np.testing.assert_allclose(again["wide"], expected["wide"], rtol=1e-5)


def test_the_digest_is_that_of_what_is_computed(tmp_path: Path) -> None:
    """Not of names, which count up in a process, nor of the order in which maps are written."""
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        digests.append(live(two_inputs(seed), [IMAGE, EXTRA], ["wide", "sum"]).capture(folder, {}))
    script = TWO_INPUTS + (
        "import sys, pathlib\n"
        "keras.layers.Dense(3); keras.layers.Dense(2)\n"
        "from edgecheck.declare.model import Input\n"
        "from edgecheck.capture.tensorflow import LiveTensorFlow\n"
        "inputs = [Input('image', ('batch', 6, 6, 1)), Input('extra', ('batch', 4))]\n"
        "source = LiveTensorFlow(two_inputs(), inputs, ['wide', 'sum'], 's')\n"
        "print('digest', source.capture(pathlib.Path(sys.argv[1]), {})[1])\n"
    )
    (tmp_path / "other").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "other")],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    first, second, other_weights = (digest for _, digest in digests)
    assert first == second == done.stdout.split("digest ")[1].strip()
    assert first != other_weights


def graph_of(function: Callable[..., Any], *shapes: list[int]) -> str:
    specs = [tf.TensorSpec(shape, name=f"t{i}") for i, shape in enumerate(shapes)]
    concrete = tf.function(function).get_concrete_function(*specs)
    inputs = {tensor.name: f"t{i}" for i, tensor in enumerate(concrete.inputs)}
    return tensorflow_digest.digest(
        concrete.graph.as_graph_def(), inputs, [tensor.name for tensor in concrete.outputs]
    )


def test_a_digest_tells_apart_what_differs_only_in_edges_attributes_or_functions() -> None:
    def halving(x: Any) -> Any:
        return tf.while_loop(lambda y: tf.reduce_sum(y) > 1, lambda y: [y / 2], [x])[0]

    def thirding(x: Any) -> Any:
        return tf.while_loop(lambda y: tf.reduce_sum(y) > 1, lambda y: [y / 3], [x])[0]

    def parts(take: int) -> Callable[[Any], Any]:
        return lambda x: tf.split(x, 12, axis=1)[take]

    functions: list[tuple[Callable[..., Any], ...]] = [
        (lambda a, b: a - b,),
        (lambda a, b: b - a,),
        (lambda a, b: tf.matmul(a, b, transpose_a=True),),
        (lambda a, b: tf.matmul(a, b, transpose_b=True),),
    ]
    shape = [12, 12]
    digests = [graph_of(function, shape, shape) for (function,) in functions]
    digests += [graph_of(item, shape) for item in (halving, thirding, parts(1), parts(10))]
    digests.append(graph_of(halving, [6, 12]))
    assert len(set(digests)) == len(digests)
    assert graph_of(halving, shape) == digests[4]


def _sequential(*first: Any) -> Any:
    return keras.Sequential([*first, keras.layers.Flatten(), keras.layers.Dense(3)])


def _built() -> Any:
    model = _sequential()
    model.build((None, 6, 6, 1))
    return model


def _called() -> Any:
    model = _sequential(keras.Input((6, 6, 1)))
    model(FEED["image"])
    return model


@pytest.mark.parametrize(
    "make",
    [_sequential, lambda: _sequential(keras.Input((6, 6, 1))), _built, _called],
    ids=["unbuilt", "with an input", "built", "called"],
)
@pytest.mark.parametrize("saved", [False, True])
def test_a_sequential_model_is_taken_in_any_state(
    make: Callable[[], Any], saved: bool, tmp_path: Path
) -> None:
    model = make()
    if saved:
        model(FEED["image"])  # what was never built can't be saved whole
        model.save(tmp_path / "m.keras")
        model = load(str(tmp_path / "m.keras"), "source s")
    source = live(model, [IMAGE], ["y"])
    found = source.infer({"image": FEED["image"]})["y"]
    np.testing.assert_allclose(found, model(FEED["image"]).numpy(), rtol=1e-5)
    assert source.capture(tmp_path, {"batch": (1, 8)})[0].is_dir()


def test_inputs_are_matched_by_name_and_else_in_order() -> None:
    by_order = live(
        two_inputs(), [Input("a", ("batch", 6, 6, 1)), Input("b", ("batch", 4))], ["wide", "sum"]
    ).infer({"a": FEED["image"], "b": FEED["extra"]})
    by_name = live(two_inputs(), [EXTRA, IMAGE], ["wide", "sum"]).infer(FEED)
    np.testing.assert_array_equal(by_order["wide"], by_name["wide"])
    assert match_names(["b", "a"], ["a", "b"], "s") == ["a", "b"]


@pytest.mark.parametrize("declared", [["image", "other"], ["image"], ["image", "extra", "more"]])
def test_inputs_that_fit_in_part_are_refused(declared: list[str]) -> None:
    with pytest.raises(CaptureError, match=r"source s takes \['image', 'extra'\]"):
        live(two_inputs(), [Input(name, ("batch", 4)) for name in declared], ["wide", "sum"])


class Plain(tf.Module):
    """A module that returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.eye(4) * 2.0)

    def __call__(self, x: Any, y: Any) -> Any:
        return x @ self.weight, y


class Subclass(keras.Model):
    def call(self, x: Any) -> Any:
        return {"double": x * 2}


class Counting(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = tf.Variable(0.0)

    def __call__(self, x: Any) -> Any:
        self.count.assign_add(1.0)
        return x + self.count


class Reading(tf.Module):
    def __call__(self, x: Any) -> Any:
        return x + tf.strings.to_number(tf.io.read_file("/nowhere"))


class Fixed(tf.Module):
    def __call__(self, x: Any) -> Any:
        return tf.reshape(x, [7, 4])


class Looking(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        values = tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 2.0], tf.int32, tf.float32)
        self.table = tf.lookup.StaticHashTable(values, 0.0)

    def __call__(self, x: Any) -> Any:
        return self.table.lookup(tf.cast(x, tf.int32))


def test_modules_and_subclassed_models_are_called_as_they_are_written(tmp_path: Path) -> None:
    x = np.ones((3, 4), np.float32)
    source = live(Plain(), [X, Input("y", ("batch", 4))], ["scaled", "same"])
    assert source.infer({"x": x, "y": x})["scaled"].tolist() == (x * 2).tolist()
    assert source.capture(tmp_path, {})[0].is_dir()
    assert live(Subclass(), [X], ["double"]).infer({"x": x})["double"].tolist() == (x * 2).tolist()


@pytest.mark.parametrize(
    ("model", "outputs", "says"),
    [
        (Subclass, ["double", "triple"], "returns 1 tensors with keys"),
        (Counting, ["y"], "a variable that inference changes"),
        (Looking, ["y"], "as a lookup table"),
        (Reading, ["y"], "/nowhere; No such file"),
        (Fixed, ["y"], "raised on inputs of shapes {'x': (3, 4)}"),
        (Subclass, ["a/b"], "output 'a/b' can't be named"),
    ],
)
def test_what_can_not_be_captured_says_why(
    model: Callable[[], Any], outputs: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(CaptureError) as caught:
        live(model(), [X], outputs).capture(tmp_path, {})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# -- files


def test_a_keras_file_with_code_in_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lambda.keras"
    image = keras.Input((4,))
    code = keras.layers.Lambda(lambda x: (os.environ.update(EDGECHECK_RAN="1"), x)[1])
    keras.Model(image, code(image)).save(path)
    monkeypatch.delenv("EDGECHECK_RAN")
    with pytest.raises(CaptureError, match=r"holds code .* which is not run"):
        load(str(path), "source lambda.keras")
    assert "EDGECHECK_RAN" not in os.environ


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_keras_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.keras").write_bytes(content)
    with pytest.raises(CaptureError, match=r"^source m does not load: "):
        load(str(tmp_path / "m.keras"), "source m")


def test_a_saved_model_that_reaches_files_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    class Writing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4])])
        def __call__(self, x: Any) -> Any:
            tf.io.write_file(str(tmp_path / "written"), "x")
            return x

    tf.saved_model.save(Writing(), str(tmp_path / "m"))
    with pytest.raises(CaptureError, match="reach files, the network or Python \\(WriteFile\\)"):
        load(str(tmp_path / "m"), "source m")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff"])
def test_what_is_no_saved_model_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(CaptureError, match=r"^source m does not load"):
        load(str(tmp_path), "source m")


def test_a_signature_is_taken_by_its_names(tmp_path: Path) -> None:
    module = Plain()
    spec = tf.TensorSpec([None, 4])
    function = tf.function(module.__call__).get_concrete_function(spec, spec)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"other": function})
    loaded = load(str(tmp_path / "m"), "source m")
    y = Input("y", ("batch", 4))
    feed = {"x": np.ones((2, 4), np.float32), "y": np.zeros((2, 4), np.float32)}
    assert live(loaded, [y, X], ["first", "second"]).infer(feed)["first"][0, 0] == 2
    with pytest.raises(CaptureError, match=r"the signature takes \['x', 'y'\]"):
        live(loaded, [X, Input("z", ("batch", 4))], ["first", "second"])
    tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
    with pytest.raises(CaptureError, match="has no signature"):
        live(load(str(tmp_path / "none"), "source none"), [X], ["y"])


def test_without_tensorflow_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as Python has it: not importable
    with pytest.raises(CaptureError) as caught:
        tensorflow.require("source m.keras")
    assert str(caught.value) == (
        "source m.keras needs tensorflow, not installed: pip install 'edgecheck[tensorflow]'"
    )
