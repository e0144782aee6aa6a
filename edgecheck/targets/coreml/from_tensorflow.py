"""Core ML from TensorFlow: what coremltools' own TensorFlow front end makes of a SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecheck.targets.common.tensorflow_files import fixed


def convert(
    source: str,
    *,
    example: Mapping[str, str],
    outputs: list[str],
    **options: Any,
) -> Any:
    """The ML Program of a SavedModel, as a ``coremltools.models.MLModel``.

    Args:
        source: a SavedModel directory with one signature and without variables.
        example: .npy path by declared input: one call, of the program's shapes and dtypes.
        outputs: declared names.
        options: of ``coremltools.convert``: compute_precision, minimum_deployment_target, and
            ``inputs`` to replace those made here (images).

    Raises:
        ValueError: coremltools can't convert it.
    """
    import coremltools as ct

    _register_operators()
    given = {"inputs": [_tensor(ct, name, path) for name, path in example.items()], **options}
    try:
        model = ct.convert(
            fixed(source),
            source="tensorflow",
            convert_to="mlprogram",
            skip_model_load=True,
            **given,
        )
    except Exception as error:  # it raises IndexError on the loops of recurrent layers
        text = " ".join(str(error).split())[:200]
        raise ValueError(
            f"coremltools can't convert it from TensorFlow: {type(error).__name__}: {text}"
        ) from error
    return _name_outputs(ct, model, outputs)


def _register_operators() -> None:
    """Teach the front end what TensorFlow's exact GELU is made of and it does not know."""
    from coremltools.converters.mil import Builder, register_tf_op
    from coremltools.converters.mil.frontend.tensorflow.tf_op_registry import _TF_OPS_REGISTRY

    if "Erfc" in _TF_OPS_REGISTRY:
        return

    def Erfc(context: Any, node: Any) -> None:  # noqa: N802  # its name is the operator's
        x = context[node.inputs[0]]
        context.add(node.name, Builder.sub(x=np.float32(1), y=Builder.erf(x=x), name=node.name))

    register_tf_op(Erfc)


def _tensor(ct: Any, name: str, path: str) -> Any:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    # Core ML's tensors are float32, float16 or int32 (`coremltools.TensorType`).
    dtype = np.int32 if array.dtype.kind in "iub" else np.float32
    return ct.TensorType(name=name, shape=array.shape, dtype=dtype)


def _name_outputs(ct: Any, model: Any, outputs: list[str]) -> Any:
    """The same with declared names: TensorFlow has signatures' outputs in the order of names."""
    spec = model.get_spec()
    found = [item.name for item in spec.description.output]
    # All to names that no other has first: they may be permuted.
    for index, name in enumerate(found):
        ct.utils.rename_feature(spec, name, f"edgecheck_output_{index}", rename_inputs=False)
    for index, name in enumerate(sorted(outputs)):
        ct.utils.rename_feature(spec, f"edgecheck_output_{index}", name, rename_inputs=False)
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
