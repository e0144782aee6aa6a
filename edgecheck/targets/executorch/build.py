"""Writes .pte files, from the captured program at fixed shapes."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecheck.errors import ArtifactError
from edgecheck.targets.base import Builder, BuildRequest, Inspection
from edgecheck.targets.common.calibration import calls
from edgecheck.targets.common.torch_program import export_fixed
from edgecheck.targets.executorch import BACKENDS

if TYPE_CHECKING:
    import torch

# What XNNPACK's kernels for blocks of 4-bit weights take: multiples of 32.
INT4_GROUP = 32


class ExecutorchBuilder(Builder):
    """Builds and inspects .pte files."""

    def write(self, request: BuildRequest) -> None:
        """Write the file of a precision."""
        backend = request.options["backend"]
        if request.precision not in BACKENDS[backend]:
            raise ArtifactError(
                f"the {backend} backend is built in {', '.join(BACKENDS[backend])} only, "
                f"not in {request.precision}"
            )
        program, sample = export_fixed(request.source, request.outputs, request.example)
        # Core ML's compiler itself makes what is computed in half precision.
        if request.precision != "fp32" and backend != "coreml":
            program = _converted(program, sample, request.precision, request.calibration)
        Path(request.output).write_bytes(_lower(program, _partitioners(backend, request.precision)))

    def inspect_file(self, path: Path) -> Inspection:
        """Parse the file and count what is in it."""
        from edgecheck.targets.executorch import inspection

        return inspection.inspect(path)


def _converted(
    program: Any, sample: dict[str, Any], precision: str, calibration: Mapping[str, str] | None
) -> Any:
    """The program in another precision than it came in."""
    import torch

    module = program.module(check_guards=False)
    if precision == "fp16":
        module = _to_half(module)
    elif precision == "int8":
        assert calibration is not None
        module = _quantize(module, _calibration_feeds(sample, calibration), dynamic=False)
    elif precision == "int8-dynamic":
        module = _quantize(module, [sample], dynamic=True)
    elif precision == "int8-qat":
        _fold_weights(module)
    else:
        _quantize_linear_int4(module)
    return torch.export.export(module, (), sample, strict=False)


def _partitioners(backend: str, precision: str) -> list[Any]:
    if backend == "portable":
        return []
    if backend == "xnnpack":
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        return [XnnpackPartitioner()]
    if importlib.util.find_spec("coremltools") is None:
        raise ArtifactError("the coreml backend needs coremltools: pip install 'edgecheck[coreml]'")
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    precisions = coremltools.precision
    return [
        CoreMLPartitioner(
            compile_specs=CoreMLBackend.generate_compile_specs(
                compute_precision=precisions.FLOAT16 if precision == "fp16" else precisions.FLOAT32,
                minimum_deployment_target=coremltools.target.iOS17,
            )
        )
    ]


def _lower(program: Any, partitioners: list[Any]) -> bytes:
    # Registers the portable kernels of quantized operators, for what no delegate takes.
    import executorch.kernels.quantized  # noqa: F401
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=partitioners)
    return bytes(lowered.to_executorch().buffer)


def _to_half(module: Any) -> Any:
    """Weights and arithmetic in half precision; inputs and outputs stay as declared."""
    import torch

    half = copy.deepcopy(module).half()
    _name_half(half)

    def cast(value: torch.Tensor, to: torch.dtype) -> torch.Tensor:
        return value.to(to) if value.is_floating_point() else value

    class Half(torch.nn.Module):
        """Casts at the borders."""

        def __init__(self) -> None:
            super().__init__()
            self.half_module = half

        def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = {name: cast(value, torch.float16) for name, value in inputs.items()}
            return tuple(cast(value, torch.float32) for value in self.half_module(**given))

    return Half()


def _name_half(module: Any) -> None:
    """Half precision also where the captured program names float32, as in casts of integers."""
    import torch
    from torch.fx.node import map_aggregate

    def renamed(value: Any) -> Any:
        return torch.float16 if value is torch.float32 else value

    for inner in module.modules():
        if isinstance(inner, torch.fx.GraphModule):
            for node in inner.graph.nodes:
                node.args = map_aggregate(node.args, renamed)
                node.kwargs = map_aggregate(node.kwargs, renamed)
            inner.recompile()


def _quantize(module: Any, feeds: Any, *, dynamic: bool) -> Any:
    """PT2E with XNNPACK's quantizer: symmetric weights per channel, activations per tensor."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    prepared = prepare_pt2e(module, XNNPACKQuantizer().set_global(config))
    for feed in feeds:
        prepared(**feed)
    return convert_pt2e(prepared)


def _calibration_feeds(
    sample: Mapping[str, torch.Tensor], calibration: Mapping[str, str]
) -> Iterator[dict[str, torch.Tensor]]:
    """The calibration data cut into calls of the program's fixed batch."""
    import torch

    shapes = {name: tuple(tensor.shape) for name, tensor in sample.items()}
    for call in calls(calibration, shapes):
        yield {name: torch.tensor(array) for name, array in call.items()}


def _fold_weights(module: Any) -> None:
    """Store weights that a QAT program quantizes when it runs as integers.

    XNNPACK takes quantized weights only as constants.
    """
    import torch
    from torchao.quantization.pt2e.constant_fold import constant_fold

    operators = torch.ops.quantized_decomposed
    quantizes = (operators.quantize_per_tensor.default, operators.quantize_per_channel.default)
    constant_fold(module, lambda node: node.op == "call_function" and node.target in quantizes)


def _quantize_linear_int4(module: Any) -> None:
    """Linear layers with 4-bit weights in groups along their inputs, and dynamic int8 activations.

    Layers whose number of inputs is not a multiple of the group stay float: XNNPACK has no kernel.
    """
    import torch
    from torchao.quantization import quantize_
    from torchao.quantization.granularity import PerGroup
    from torchao.quantization.quant_api import Int8DynamicActivationIntxWeightConfig

    _restore_linear_modules(module)
    quantize_(
        module,
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4,  # type: ignore[attr-defined]
            weight_granularity=PerGroup(INT4_GROUP),
        ),
        filter_fn=lambda item, name: (
            isinstance(item, torch.nn.Linear) and item.in_features % INT4_GROUP == 0
        ),
    )


def _restore_linear_modules(module: Any) -> None:
    """Turn calls of aten.linear with constant weights into modules, which torchao looks for."""
    import torch

    for index, node in enumerate(list(module.graph.nodes)):
        constants = node.args[1:]
        if node.target is not torch.ops.aten.linear.default or any(
            item is not None and item.op != "get_attr" for item in constants
        ):
            continue
        values = [_attribute(module, item.target) for item in constants if item is not None]
        outputs, inputs = values[0].shape
        layer = torch.nn.Linear(inputs, outputs, bias=len(values) > 1, device="meta")
        for name, value in zip(("weight", "bias"), values, strict=False):
            setattr(layer, name, torch.nn.Parameter(value.detach(), requires_grad=False))
        name = f"edgecheck_linear_{index}"
        module.add_submodule(name, layer)
        with module.graph.inserting_before(node):
            call = module.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(call)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module
