"""Writes .mlpackage folders of ML Programs; coremltools converts on any system."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgecheck.targets.base import Builder, BuildRequest, Inspection
from edgecheck.targets.common import keep_float
from edgecheck.targets.common.torch_program import export_fixed
from edgecheck.targets.coreml import METADATA, layers

# int4 in blocks needs newer operators (coremltools' documentation).
_DEFAULT_TARGETS = {"int4": "iOS18"}
_BLOCK = 32
# coremltools leaves weights of fewer elements as they are (its own default is 2048).
_LEAST_WEIGHTS = 64


class CoremlBuilder(Builder):
    """Builds and inspects .mlpackage folders."""

    def write(self, request: BuildRequest) -> None:
        """Write the package of a precision; quantized ones compute in fp16 otherwise."""
        model = _converted(request)
        keep = keep_float.chosen(request.options, request.precision)
        excluded = layers.excluded(model, request.program, keep)
        if request.precision == "int8":
            assert request.calibration is not None
            model = _quantize_activations(model, request.calibration, request.options, excluded)
        if request.precision == "palettized":
            model = _palettize(model)
        elif request.precision not in ("fp32", "fp16"):
            dtype = "int4" if request.precision == "int4" else "int8"
            model = _quantize_weights(model, dtype, excluded)
        _save(model, Path(request.output), request.options)

    def find_layers(self, request: BuildRequest) -> list[str]:
        """The layers of the converted program."""
        return layers.layers(_converted(request), request.program)

    def inspect_file(self, path: Path) -> Inspection:
        """Read the package, count what is in it, and lint it."""
        from edgecheck.targets.coreml import inspection

        return inspection.inspect(path)


def _converted(request: BuildRequest) -> Any:
    return _convert(
        request.source, request.outputs, request.example, request.precision, request.options
    )


def _convert(
    source: str,
    outputs: list[str],
    example: Mapping[str, str],
    precision: str,
    options: Mapping[str, Any],
) -> Any:
    target = options["deployment_target"] or _DEFAULT_TARGETS.get(precision, "iOS17")
    half = precision != "fp32"
    if (Path(source) / "saved_model.pb").is_file():
        return _from_tensorflow(source, outputs, example, target, half, options)
    import coremltools

    program, sample = export_fixed(source, outputs, example)
    given: dict[str, Any] = {}
    if options["images"]:
        given["inputs"] = _input_types(sample, options["images"])
    if options["labels"]:
        given["classifier_config"] = coremltools.ClassifierConfig(list(options["labels"]))
    precisions = coremltools.precision
    return convert_program(
        program,
        outputs=_output_types(program, outputs),
        minimum_deployment_target=getattr(coremltools.target, target),
        compute_precision=precisions.FLOAT16 if half else precisions.FLOAT32,
        **given,
    )


def convert_program(program: Any, **options: Any) -> Any:
    """The ML Program of a ``torch.export`` program.

    Without decompositions, composite operators stay whole that Core ML has as well (gelu); where
    coremltools does not know one (recurrent layers), the usual decompositions are made.

    Args:
        options: of ``coremltools.convert``.
    """
    import coremltools

    options = {"skip_model_load": True, **options}
    try:
        return coremltools.convert(_convertible(program.run_decompositions({})), **options)
    except NotImplementedError:
        return coremltools.convert(_convertible(program.run_decompositions()), **options)


def _convertible(program: Any) -> Any:
    """The program without what coremltools 9 does not know.

    That is `alias`, which gives its argument, and max pools without a stride, which is that of the
    kernel's size (``torch.nn.functional.max_pool2d``).
    """
    import torch

    aten = torch.ops.aten
    pools = (aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
    for node in list(program.graph.nodes):
        if node.target in pools and len(node.args) == 2:
            node.args = (*node.args, node.args[1])
        users = [user.op for user in node.users]
        if node.target is aten.alias.default and "output" not in users:
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _from_tensorflow(
    source: str,
    outputs: list[str],
    example: Mapping[str, str],
    target: str,
    half: bool,
    options: Mapping[str, Any],
) -> Any:
    import coremltools

    from edgecheck.targets.coreml import from_tensorflow

    if options["images"] or options["labels"]:
        raise ValueError("images and labels of target_options are for PyTorch sources only")
    precisions = coremltools.precision
    return from_tensorflow.convert(
        source,
        example=example,
        outputs=outputs,
        compute_precision=precisions.FLOAT16 if half else precisions.FLOAT32,
        minimum_deployment_target=getattr(coremltools.target, target),
    )


def _output_types(program: Any, names: list[str]) -> list[Any]:
    """The outputs by name; float ones in float32, or a fp16 program would have fp16 outputs."""
    import coremltools
    import numpy as np

    values = [node.meta["val"] for node in program.graph.output_node().args[0]]
    return [
        coremltools.TensorType(name=name, dtype=np.float32)
        if value.dtype.is_floating_point
        else coremltools.TensorType(name=name)
        for name, value in zip(names, values, strict=True)
    ]


def _input_types(sample: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    import coremltools

    if unknown := sorted(set(images) - set(sample)):
        raise ValueError(f"target_options images names {unknown}, which are not inputs")
    types = []
    for name, value in sample.items():
        shape = tuple(value.shape)
        if name not in images:
            types.append(coremltools.TensorType(name=name, shape=shape))
            continue
        image = images[name]
        layout = image.get("color_layout", "RGB" if shape[1] == 3 else "GRAYSCALE")
        types.append(
            coremltools.ImageType(
                name=name,
                shape=shape,
                scale=image.get("scale", 1.0),
                bias=image.get("bias", [0.0, 0.0, 0.0] if layout != "GRAYSCALE" else 0.0),
                color_layout=getattr(coremltools.colorlayout, layout),
            )
        )
    return types


def _quantize_weights(model: Any, dtype: str, excluded: Mapping[str, None]) -> Any:
    """Symmetric weights per output channel; int4 in blocks where a whole number of them fits."""
    from coremltools.optimize import coreml as optimize

    steps: list[dict[str, Any]] = [{"granularity": "per_channel"}]
    if dtype == "int4":
        # The first step leaves what it can't cut into blocks to the second.
        steps.insert(0, {"granularity": "per_block", "block_size": _BLOCK})
    for step in steps:
        config = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype=dtype, weight_threshold=_LEAST_WEIGHTS, **step
        )
        model = optimize.linear_quantize_weights(
            model, optimize.OptimizationConfig(config, op_name_configs=dict(excluded))
        )
    return model


def _palettize(model: Any) -> Any:
    """Sixteen values a tensor, by k-means."""
    from coremltools.optimize import coreml as optimize

    config = optimize.OpPalettizerConfig(
        mode="kmeans", nbits=4, weight_threshold=_LEAST_WEIGHTS, num_kmeans_workers=1
    )
    return optimize.palettize_weights(model, optimize.OptimizationConfig(config))


def _quantize_activations(
    model: Any,
    calibration: Mapping[str, str],
    options: Mapping[str, Any],
    excluded: Mapping[str, None],
) -> Any:
    """Activations in int8, with their true range over the calibration data.

    coremltools runs the model by macOS's own predict, and keeps the range of the last sample only
    (9.0, `record_intermediate_output`); so the reference executor observes them, on any system.
    """
    from coremltools.optimize import coreml as optimize
    from coremltools.optimize.coreml import _post_training_quantization as quantization

    from edgecheck.targets.coreml import calibration as coreml_calibration

    with tempfile.TemporaryDirectory() as directory:
        package = Path(directory) / "float.mlpackage"
        model.save(str(package))
        ranges = coreml_calibration.observe(package, calibration, options["images"])
        # coremltools would quantize the arithmetic of indices as well.
        integers = dict.fromkeys(coreml_calibration.integer_operations(package))
    config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric")
    with _replaced(
        quantization,
        "_get_activation_calibration_stats",
        lambda model, data, group_size: coreml_calibration.share_at_concat(model, ranges),
    ):
        return optimize.linear_quantize_activations(
            model,
            optimize.OptimizationConfig(config, op_name_configs={**integers, **excluded}),
            [],
        )


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _save(model: Any, path: Path, options: Mapping[str, Any]) -> None:
    """Write the package, the same bytes for the same model."""
    given = options["metadata"]
    for name in METADATA:
        if name in given:
            setattr(model, name, given[name])
    # When it was made is no part of what it is.
    model.user_defined_metadata.pop("com.github.apple.coremltools.conversion_date", None)
    model.save(str(path))
    _fix_identifiers(path / "Manifest.json")
    _fix_order(path / "Data/com.apple.CoreML/model.mlmodel")


def _fix_order(specification: Path) -> None:
    """Write the specification's maps in a fixed order: protobuf's own differs between processes."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString(specification.read_bytes())
    specification.write_bytes(model.SerializeToString(deterministic=True))


def _fix_identifiers(manifest: Path) -> None:
    """Replace the package's random identifiers by some that follow from its files' paths."""
    found = json.loads(manifest.read_text())
    names = {
        identifier: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])).upper()
        for identifier, item in found["itemInfoEntries"].items()
    }
    found["itemInfoEntries"] = {
        names[identifier]: item
        for identifier, item in sorted(
            found["itemInfoEntries"].items(), key=lambda entry: names[entry[0]]
        )
    }
    found["rootModelIdentifier"] = names[found["rootModelIdentifier"]]
    manifest.write_text(json.dumps(found, indent=4))
