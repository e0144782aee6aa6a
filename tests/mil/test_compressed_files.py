"""Files that coremltools.optimize compressed, against what it decompresses them to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
from coremltools.converters.mil.mil import types

from edgecheck.mil.call import TensorType
from edgecheck.mil.evaluator import Evaluator
from edgecheck.mil.reader import read
from edgecheck.mil.values import ExecutionError
from tests.mil import packages
from tests.mil.packages import mb


def _linear(folder: Path, target: Any, dtype: Any = types.fp32) -> Any:
    weight = np.random.default_rng(5).normal(size=(64, 96)).astype(types.nptype_from_builtin(dtype))
    weight[np.abs(weight) < 0.2] = 0

    @mb.program(input_specs=[mb.TensorSpec((1, 96), dtype=dtype)], opset_version=target)
    def program(x: Any) -> Any:
        return mb.linear(x=x, weight=weight, name="y")

    path = packages.converted(program, folder, minimum_deployment_target=target)
    return ct.models.MLModel(str(path), skip_model_load=True)


def _quantized(**options: Any) -> Any:
    configuration = cto.OptimizationConfig(
        global_config=cto.OpLinearQuantizerConfig(weight_threshold=0, **options)
    )
    return lambda model: cto.linear_quantize_weights(model, configuration)


def _palettized(**options: Any) -> Any:
    configuration = cto.OptimizationConfig(
        global_config=cto.OpPalettizerConfig(weight_threshold=0, **options)
    )
    return lambda model: cto.palettize_weights(model, configuration)


def _pruned(model: Any) -> Any:
    configuration = cto.OptimizationConfig(
        global_config=cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)
    )
    return cto.prune_weights(model, configuration)


def _joint(first: Any, second: Any) -> Any:
    """Compress what is compressed already."""
    configuration = cto.OptimizationConfig(
        global_config=cto.OpLinearQuantizerConfig(
            mode="linear_symmetric", granularity="per_tensor", weight_threshold=0
        )
    )
    palettes = cto.OptimizationConfig(
        global_config=cto.OpPalettizerConfig(nbits=4, weight_threshold=0)
    )
    if second == "quantize":
        return lambda model: cto.linear_quantize_weights(
            first(model), configuration, joint_compression=True
        )
    return lambda model: cto.palettize_weights(first(model), palettes, joint_compression=True)


KMEANS = {"mode": "kmeans", "granularity": "per_grouped_channel", "group_size": 16}


@pytest.mark.parametrize("dtype", [types.fp32, types.fp16])
@pytest.mark.parametrize(
    ("target", "compress", "operators"),
    [
        (ct.target.iOS16, _quantized(mode="linear"), {"constexpr_affine_dequantize"}),
        (ct.target.iOS16, _palettized(mode="uniform", nbits=6), {"constexpr_lut_to_dense"}),
        (ct.target.iOS16, _pruned, {"constexpr_sparse_to_dense"}),
        (
            ct.target.iOS18,
            _quantized(mode="linear", dtype="uint4", granularity="per_block", block_size=32),
            {"constexpr_blockwise_shift_scale"},
        ),
        (ct.target.iOS18, _palettized(nbits=3, **KMEANS), {"constexpr_lut_to_dense"}),
        (
            ct.target.iOS18,
            _joint(_pruned, "quantize"),
            {"constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense"},
        ),
        (
            ct.target.iOS18,
            _joint(_pruned, "palettize"),
            {"constexpr_lut_to_sparse", "constexpr_sparse_to_dense"},
        ),
        (
            ct.target.iOS18,
            _joint(_palettized(nbits=2, **KMEANS), "quantize"),
            {"constexpr_lut_to_dense", "constexpr_blockwise_shift_scale"},
        ),
    ],
)
def test_compressed_files(
    tmp_path: Path, dtype: Any, target: Any, compress: Any, operators: set[str]
) -> None:
    model = compress(_linear(tmp_path, target, dtype))
    program = read(packages.save(model, tmp_path / "compressed"))
    steps = program.functions["main"].block.operations
    assert {each.operator for each in steps if each.operator.startswith("constexpr_")} == operators
    runner = Evaluator(program)
    # An input that is 1 in one place gives a column of the weights. No order of sums rounds that:
    # kernels may choose it by how a weight lies in memory.
    columns = np.eye(96, dtype=types.nptype_from_builtin(dtype))[:, None]

    def weight(evaluator: Evaluator) -> Any:
        return np.concatenate([evaluator.run({"x": x})["y"] for x in columns])

    found = weight(runner)
    np.testing.assert_array_equal(found, weight(runner))  # the cached weight

    plain = packages.save(cto.decompress_weights(model), tmp_path / "decompressed")
    expected = weight(Evaluator(read(plain)))
    assert found.dtype == expected.dtype == columns.dtype
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 2


def test_a_damaged_compressed_weight_names_its_operation(tmp_path: Path) -> None:
    model = _pruned(_linear(tmp_path, ct.target.iOS16))
    path = packages.save(model, tmp_path / "compressed")

    def shorten(found: Any) -> None:
        for operation in packages.operations(found):
            if operation.type == "constexpr_sparse_to_dense":
                shape = operation.attributes["shape"]
                shape.immediateValue.tensor.bytes.values = np.array([64, 97], np.uint32).tobytes()

    packages.change(path, shorten)
    runner = Evaluator(read(path))
    with pytest.raises(
        ExecutionError, match=r"\(constexpr_sparse_to_dense\): ValueError: 768 bytes"
    ):
        runner.run({"x": np.zeros((1, 96))})


def test_declared_types_of_parameters_reach_the_handler(tmp_path: Path) -> None:
    model = _linear(tmp_path, ct.target.iOS16)
    program = read(packages.save(_quantized(mode="linear")(model), tmp_path / "compressed"))
    (operation,) = [
        each for each in program.functions["main"].block.walk() if "constexpr_" in each.operator
    ]
    assert operation.inputs == {}
    assert operation.attributes["quantized_data"].type == TensorType("int8", (64, 96))
    assert operation.attributes["axis"].type == TensorType("int32", ())
