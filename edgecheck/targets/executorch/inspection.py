"""What is in a .pte file: operators, and weights by storage type, also within delegates."""

from __future__ import annotations

import tempfile
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from edgecheck.targets.base import Inspection
from edgecheck.targets.common.contents import Contents
from edgecheck.targets.coreml import inspection
from edgecheck.targets.executorch import coreml_delegate, xnnpack_graph
from edgecheck.targets.executorch.file import FileError, Program, mapped, read_program
from edgecheck.units import format_bytes

_BITS = {
    **{"float32": 32, "float16": 16, "bfloat16": 16, "float64": 64},
    **{"int64": 64, "int32": 32, "int16": 16, "int8": 8, "uint8": 8, "int4": 4, "bool": 8},
    **{"uint64": 64, "uint32": 32, "uint16": 16},
}
# Kernels that convert between real and quantized values: what they read beside their first
# argument are scales and zero points.
_CONVERTS = ("::quantize_", "::dequantize_", "::choose_qparams")
_QUANTIZED = ("quantized_decomposed::", "torchao::", "quantized::")


def inspect(path: Path) -> Inspection:
    """Parse the file and count what is in it."""
    contents = Contents()
    warnings: list[str] = []
    try:
        with mapped(str(path)) as data:
            program = read_program(data)
            _count_kernels(program, contents)
            _count_xnnpack(program, data, contents)
        warnings += _count_coreml(str(path), program, contents)
    except (FileError, OSError) as error:
        return Inspection.unreadable(str(error))
    delegates = sum((method.backends for method in program.methods), Counter[str]())
    for backend in sorted(set(delegates) - {xnnpack_graph.BACKEND, coreml_delegate.BACKEND}):
        warnings.append(
            f"what {delegates[backend]} delegates of {backend} hold is not counted: their format "
            "is not known"
        )
    planned = sum(sum(method.planned_bytes) for method in program.methods)
    inspection = Inspection(
        warnings=tuple(warnings),
        format={
            "schema_version": program.version,
            "delegates": dict(sorted(delegates.items())),
            "planned_memory_bytes": planned,
        },
        activation_memory={
            "unplanned": f"ExecuTorch planned {format_bytes(planned)} of arenas, but what its "
            "delegates take besides is not in the file"
            if delegates
            else f"ExecuTorch made its own plan, of {format_bytes(planned)}"
        },
    )
    return contents.added_to(inspection)


def _add_weight(contents: Contents, storage: str, elements: int) -> None:
    """Count a constant; one of a single element is not a weight."""
    if elements > 1:
        size_bytes = (elements * _BITS.get(storage, 8) + 7) // 8
        contents.add_weight(storage, elements, size_bytes)


def _count_kernels(program: Program, contents: Contents) -> None:
    """Calls of portable kernels, and the constants that they and delegates are given.

    A weight is a constant other than integers that no kernel dequantizes (shapes, axes, indices).
    """
    for method in program.methods:
        for kernel, count in method.kernels.items():
            contents.add_operator(kernel, count)
        constants: dict[int, tuple[str, int]] = {}
        dequantized: set[int] = set()
        for call in method.calls:
            converts = any(part in call.kernel for part in _CONVERTS)
            reads = call.arguments[:1] if converts else call.arguments
            for position in reads:
                value = method.values[position] if 0 <= position < len(method.values) else None
                if value is None or not value.buffer or not value.constant:
                    continue
                plain = value.dtype in ("int32", "int64", "bool") and not converts
                if not plain:
                    storage = "int8" if value.dtype == "uint8" else value.dtype
                    constants[value.buffer] = (storage, prod(value.shape))
            if "::dequantize_" in call.kernel:
                dequantized.add(call.arguments[-1])
            elif not converts and (
                call.kernel.startswith(_QUANTIZED)
                or (call.kernel and dequantized.intersection(reads))
            ):
                contents.add_quantized_operator(call.kernel)
        for storage, elements in constants.values():
            _add_weight(contents, storage, elements)


def _count_xnnpack(program: Program, data: Any, contents: Contents) -> None:
    seen: set[object] = set()
    for index, delegate in enumerate(_delegates(program, xnnpack_graph.BACKEND)):
        try:
            graph = xnnpack_graph.read_graph(data, delegate.start, delegate.end)
        except ValueError as error:
            raise FileError(f"XNNPACK delegate {index} can't be parsed: {error}") from error
        for node in graph.nodes:
            contents.add_operator(node.type)
            if node.quantized:
                contents.add_quantized_operator(node.type)
        for constant in graph.constants:
            key = constant.key if isinstance(constant.key, str) else (index, constant.key)
            if key not in seen:
                seen.add(key)
                _add_weight(contents, constant.storage, constant.elements)


def _count_coreml(path: str, program: Program, contents: Contents) -> list[str]:
    """Count what is in the Core ML packages inside a file; return the warnings of their lint."""
    if not any(_delegates(program, coreml_delegate.BACKEND)):
        return []
    warnings: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        for package in coreml_delegate.extract_packages(path, Path(directory)):
            inner = inspection.inspect(package)
            if inner.failures:
                raise FileError(f"{package.parent.name} (Core ML): {inner.failures[0]}")
            # No one looks at the metadata of a model that is part of another file.
            warnings += [
                f"Core ML: {line}"
                for line in inner.warnings
                if not line.startswith("the metadata lacks")
            ]
            for kind, count in inner.operators.items():
                contents.add_operator(f"Core ML {kind}", count)
            for kind, count in inner.quantized_operators.items():
                contents.add_quantized_operator(f"Core ML {kind}", count)
            for storage, elements in inner.weight_elements.items():
                contents.add_weight(storage, elements, inner.weight_bytes[storage])
    return warnings


def _delegates(program: Program, backend: str) -> list[Any]:
    return [
        item for method in program.methods for item in method.delegates if item.backend == backend
    ]
