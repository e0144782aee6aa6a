"""Capture with TensorFlow: Keras models, tf.Modules and SavedModels become one frozen SavedModel.

Its variables are constants: the converters keep no variables of models whose layers they can't
follow, and lose the weights. Runs in a child (see `edgecheck.capture.worker`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.capture import tensorflow_arithmetic, tensorflow_digest
from edgecheck.capture.base import CaptureError, story
from edgecheck.capture.data import dimension_sizes, example_sizes, random_inputs
from edgecheck.declare.model import Input
from edgecheck.targets.common.tensorflow_files import FIXED, SIGNATURE

_INSTALL = "pip install 'edgecheck[tensorflow]'"
_NAME = re.compile(r"[A-Za-z]\w*")
# Operators that reach files, the network or Python. A model needs none of them to compute, and a
# SavedModel that someone else made is a program ("Using TensorFlow Securely", TensorFlow).
_REACHING = frozenset(
    (
        *("ReadFile", "WriteFile", "MatchingFiles", "WholeFileReader", "WholeFileReaderV2"),
        *("PyFunc", "PyFuncStateless", "EagerPyFunc", "PrintV2", "RpcCall", "RpcServer"),
        *("TFRecordDataset", "TFRecordDatasetV2", "TextLineDataset", "FixedLengthRecordDataset"),
        *("FixedLengthRecordDatasetV2", "SaveDataset", "SaveDatasetV2", "LoadDataset"),
        *("CacheDataset", "CacheDatasetV2", "SummaryWriter", "CreateSummaryFileWriter"),
        *("CreateSummaryDbWriter", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3"),
    )
)
# Those that every SavedModel has for its own checkpoint, and no computation needs.
_CHECKPOINT = frozenset(("SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "Save"))

Call = Callable[[Mapping[str, Any]], Any]


class LiveTensorFlow:
    """A model of Keras or TensorFlow (see `edgecheck.capture.base.Live`).

    Raises:
        CaptureError: it does not take the declared inputs.
    """

    kind = "tensorflow"
    training = False  # inference is the default of Keras' calls

    def __init__(
        self, model: Any, inputs: Sequence[Input], outputs: Sequence[str], what: str
    ) -> None:
        self.model = model
        self._inputs, self._outputs = inputs, list(outputs)
        self._equivalent: Any = None
        for kind, names in (("input", [item.name for item in inputs]), ("output", self._outputs)):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise CaptureError(
                        f"{kind} {name!r} can't be named in a TensorFlow signature: use letters, "
                        "digits and '_' (inputs that none of the model's own names fit are "
                        "matched in order)"
                    )
        self._call = _caller(model, inputs, what)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One eager call on the CPU."""
        import tensorflow as tf

        with tf.device("/CPU:0"):
            tensors = {name: tf.convert_to_tensor(array) for name, array in inputs.items()}
            outputs = select_outputs(self._call(tensors), self._outputs)
        return {
            name: np.asarray(item.numpy(), order="C")
            for name, item in zip(self._outputs, outputs, strict=True)
        }

    def simulator(
        self, arithmetic: Mapping[str, Any], calibration: Sequence[Mapping[str, np.ndarray]]
    ) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """The model's ONNX equivalent in other arithmetic."""
        names = [item.name for item in self._inputs]
        if self._equivalent is None:
            self._equivalent = tensorflow_arithmetic.equivalent(
                lambda path: self._write(path, {}), names
            )
        return tensorflow_arithmetic.simulator(
            self._equivalent, self.infer, names, self._outputs, arithmetic, calibration
        )

    def capture(
        self,
        folder: Path,
        dims: Mapping[str, tuple[int, int]],
        example: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Path, str]:
        """Write the SavedModel ``program``, its variables frozen, its signature as declared.

        Where that has dynamic dimensions, a second one in its folder ``fixed`` has the sizes of
        fixed-shape files: batch one, other dimensions largest. Some layers, as recurrent ones, lay
        the batch down when they are traced.
        """
        if example is None:
            sizes = example_sizes(self._inputs, dims)
            example = random_inputs(self._inputs, sizes, np.random.default_rng(0))
        try:
            self.infer(example)
        except CaptureError:
            raise
        except Exception as error:
            shapes = {name: array.shape for name, array in example.items()}
            raise CaptureError(
                f"the model raised on inputs of shapes {shapes}: {story(error)}"
            ) from error
        path = folder / "program"
        digests = [self._write(path, {})]
        if any(isinstance(size, str) for item in self._inputs for size in item.shape):
            digests.append(self._write(path / FIXED, dimension_sizes(self._inputs, dims, 1, None)))
        return path, hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def _write(self, path: Path, sizes: Mapping[str, int]) -> str:
        """Write a SavedModel with some dimensions fixed; return the digest of its graph."""
        specs = self._specs(sizes)
        try:
            frozen = self._freeze(specs)
        except CaptureError:
            raise
        except Exception as error:
            raise CaptureError(f"TensorFlow can't trace the model: {story(error)}") from error
        self._save(frozen, specs, path)
        inputs = {
            tensor.name: item.name for tensor, item in zip(frozen.inputs, self._inputs, strict=True)
        }
        outputs = [tensor.name for tensor in frozen.outputs]
        return tensorflow_digest.digest(frozen.graph.as_graph_def(), inputs, outputs)

    def _specs(self, sizes: Mapping[str, int]) -> list[Any]:
        import tensorflow as tf

        return [
            tf.TensorSpec(
                [sizes.get(size) if isinstance(size, str) else size for size in item.shape],
                item.dtype,
                name=item.name,
            )
            for item in self._inputs
        ]

    def _freeze(self, specs: Sequence[Any]) -> Any:
        """The function of the declared inputs, in their order, without variables."""
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        names = [item.name for item in self._inputs]

        def serve(*tensors: Any) -> list[Any]:
            returned = self._call(dict(zip(names, tensors, strict=True)))
            # A name of its own for each: one tensor may be returned twice.
            return [tf.identity(item) for item in select_outputs(returned, self._outputs)]

        function = tf.function(serve).get_concrete_function(*specs)
        _check_operators(operators(function.graph.as_graph_def()))
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
        if len(frozen.inputs) != len(names):
            kept = sorted({item.op.type for item in frozen.inputs[len(names) :]})
            raise CaptureError(
                f"the model keeps what can't become a constant ({', '.join(kept)}), as a lookup "
                "table: leave it out of the model that ships"
            )
        return frozen

    def _save(self, frozen: Any, specs: Sequence[Any], path: Path) -> None:
        import tensorflow as tf

        def serve(*tensors: Any) -> dict[str, Any]:
            return dict(zip(self._outputs, frozen(*tensors), strict=True))

        program = tf.Module()
        program.serve = tf.function(serve)
        signature = program.serve.get_concrete_function(*specs)
        try:
            tf.saved_model.save(program, str(path), signatures={SIGNATURE: signature})
        except Exception as error:
            raise CaptureError(f"TensorFlow can't save the model: {story(error)}") from error


def load(path: str, what: str) -> Any:
    """The model in a .keras file or a SavedModel directory, without running code that it holds.

    Raises:
        CaptureError: it does not load, or would have to run code.
    """
    require(what)
    if not Path(path).is_dir():
        return _load_keras(path, what)
    import tensorflow as tf

    _check_saved_model(Path(path) / "saved_model.pb", what)
    try:
        with tf.device("/CPU:0"):
            return tf.saved_model.load(path)
    except Exception as error:
        raise CaptureError(f"{what} does not load as a SavedModel: {story(error)}") from error


def is_model(value: Any) -> bool:
    """Whether something is a model of Keras or TensorFlow, which must be imported already."""
    import keras
    import tensorflow as tf

    return isinstance(value, keras.Model | tf.Module) or hasattr(value, "signatures")


def require(what: str) -> None:
    """Import TensorFlow and Keras.

    Raises:
        CaptureError: they are not installed, or Keras runs on something else.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
        import tensorflow  # noqa: F401
    except ModuleNotFoundError as error:
        raise CaptureError(f"{what} needs {error.name}, not installed: {_INSTALL}") from error
    if keras.backend.backend() != "tensorflow":
        raise CaptureError(
            f"{what}: Keras runs on {keras.backend.backend()} here: set KERAS_BACKEND=tensorflow"
        )


def _load_keras(path: str, what: str) -> Any:
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        if "safe_mode" in str(error) or "unsafe" in str(error):
            raise CaptureError(
                f"{what} holds code (a Lambda layer or the like), which is not run: a model file "
                "is untrusted. Replace the layer by a registered one, or pass a callable that "
                "builds the model and loads its weights"
            ) from error
        raise CaptureError(
            f"{what} does not load: {story(error)}. Layers of your own: pass a callable that "
            "imports them and loads the file"
        ) from error


def _check_saved_model(path: Path, what: str) -> None:
    """Refuse a SavedModel that reaches beyond itself, before anything of it runs."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(path.read_bytes())
    except Exception as error:
        raise CaptureError(f"{what} does not load: saved_model.pb can't be parsed") from error
    for graph in saved.meta_graphs:
        if reaching := sorted(operators(graph.graph_def) & _REACHING):
            raise CaptureError(
                f"{what} holds operators that reach files, the network or Python "
                f"({', '.join(reaching)}), which are not run: a model file is untrusted"
            )


def operators(graph: Any) -> set[str]:
    """The types of all operators of a GraphDef and of its functions."""
    nodes = [*graph.node, *(node for item in graph.library.function for node in item.node_def)]
    return {node.op for node in nodes}


def _check_operators(found: set[str]) -> None:
    """A captured graph computes from its inputs alone."""
    if reaching := sorted(found & (_REACHING | _CHECKPOINT)):
        raise CaptureError(
            f"the model reaches files, the network or Python ({', '.join(reaching)}), which no "
            "device can do"
        )
    if writes := sorted(item for item in found if item.startswith("Assign")):
        raise CaptureError(
            f"the model has a variable that inference changes ({', '.join(writes)}): pass its "
            "state as an input and an output"
        )


def select_outputs(returned: Any, names: list[str]) -> list[Any]:
    """The tensors that a model returned, as declared: by key if it is a dict, else in order.

    Raises:
        CaptureError: their number or their keys are not the declared ones.
    """
    import tensorflow as tf

    keyed = isinstance(returned, Mapping)
    if keyed and set(names) <= set(returned):
        flat = [returned[name] for name in names]
    else:
        flat = tf.nest.flatten(returned)
    if len(flat) != len(names) or not all(tf.is_tensor(item) for item in flat):
        keys = f" with keys {sorted(map(str, returned))}" if keyed else ""
        raise CaptureError(
            f"the model returns {len(flat)} tensors{keys}, but outputs declares {len(names)}: "
            f"{names}"
        )
    return flat


def _caller(model: Any, inputs: Sequence[Input], what: str) -> Call:
    """How the model is called with tensors by declared name."""
    import keras

    declared = [item.name for item in inputs]
    if not isinstance(model, keras.Model) and hasattr(model, "signatures"):
        return _signature_caller(model, declared, what)
    if getattr(model, "inputs", None):  # a functional or built sequential Keras model
        return _functional_caller(model, declared, what)
    if len(declared) == 1:
        return lambda tensors: model(tensors[declared[0]])
    if hasattr(model, "layers"):  # a subclass of keras.Model: as its author wrote it
        return lambda tensors: model(dict(tensors))
    return lambda tensors: model(**tensors)


def _functional_caller(model: Any, declared: list[str], what: str) -> Call:
    import keras

    own = [item.name.split(":")[0] for item in model.inputs]
    order = match_names(declared, own, what)
    if isinstance(model, keras.Sequential):  # it knows its inputs, but not their structure
        return lambda tensors: model(tensors[order[0]])
    return lambda tensors: model(
        keras.tree.pack_sequence_as(model.input, [tensors[name] for name in order])
    )


def _signature_caller(model: Any, declared: list[str], what: str) -> Call:
    signatures = dict(model.signatures)
    if not signatures:
        raise CaptureError(
            f"{what} has no signature: save it with signatures={{'{SIGNATURE}': ...}}"
        )
    if SIGNATURE not in signatures and len(signatures) > 1:
        raise CaptureError(f"{what} has the signatures {sorted(signatures)}, but no {SIGNATURE}")
    function = signatures.get(SIGNATURE) or next(iter(signatures.values()))
    own = list(function.structured_input_signature[1])
    if len(own) > 1 and set(own) != set(declared):
        # A signature has names and no order.
        raise CaptureError(f"inputs {declared} are declared, but the signature takes {sorted(own)}")
    order = match_names(declared, own, what)
    return lambda tensors: function(
        **{own_name: tensors[name] for own_name, name in zip(own, order, strict=True)}
    )


def match_names(declared: list[str], own: list[str], what: str) -> list[str]:
    """The declared name for each of the model's own: by name, or all in order if none fits.

    Raises:
        CaptureError: their numbers differ, or only some names fit.
    """
    if len(declared) == len(own):
        if set(declared) == set(own):
            return list(own)
        if not set(declared) & set(own):
            return list(declared)
    raise CaptureError(f"inputs {declared} are declared, but {what} takes {own}")
