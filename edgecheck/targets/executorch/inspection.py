"""What is in a .pte file: operators, and weights by storage type, also within delegates.

Not for building: see `edgecheck.targets.executorch`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from edgecheck.targets import unreadable
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


class _Counts:
    """Tallies of a file."""

    def __init__(self) -> None:
        self.operators: Counter[str] = Counter()
        self.quantized: Counter[str] = Counter()
        self.elements: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.warnings: list[str] = []

    def weight(self, storage: str, elements: int) -> None:
        """A constant; one of a single element is no weight."""
        if elements > 1:
            self.elements[storage] += elements
            self.bytes[storage] += (elements * _BITS.get(storage, 8) + 7) // 8


def inspect(path: str) -> dict[str, Any]:
    """Parse the file and count what is in it (see `edgecheck.targets.Tools.inspect`)."""
    counts = _Counts()
    try:
        with mapped(path) as data:
            program = read_program(data)
            _count_kernels(program, counts)
            _count_xnnpack(program, data, counts)
        _count_coreml(path, program, counts)
    except (FileError, OSError) as error:
        return unreadable(str(error))
    delegates = sum((method.backends for method in program.methods), Counter[str]())
    for backend in sorted(set(delegates) - {xnnpack_graph.BACKEND, coreml_delegate.BACKEND}):
        counts.warnings.append(
            f"what {delegates[backend]} delegates of {backend} hold is not counted: their format "
            "is not known"
        )
    planned = sum(sum(method.planned_bytes) for method in program.methods)
    return {
        "failures": [],
        "warnings": counts.warnings,
        "format": {
            "schema_version": program.version,
            "delegates": dict(sorted(delegates.items())),
            "planned_memory_bytes": planned,
        },
        "operators": dict(sorted(counts.operators.items())),
        "quantized_operators": dict(sorted(counts.quantized.items())),
        "weight_elements": dict(sorted(counts.elements.items())),
        "weight_bytes": dict(sorted(counts.bytes.items())),
        "activation_memory": {
            "unplanned": f"ExecuTorch planned {format_bytes(planned)} of arenas, but what its "
            "delegates take besides is not in the file"
            if delegates
            else f"ExecuTorch made its own plan, of {format_bytes(planned)}"
        },
    }


def _count_kernels(program: Program, counts: _Counts) -> None:
    """Calls of portable kernels, and the constants that they and delegates are given.

    A weight is a constant other than integers that no kernel dequantizes (shapes, axes, indices).
    """
    for method in program.methods:
        counts.operators.update(method.kernels)
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
                counts.quantized[call.kernel] += 1
        for storage, elements in constants.values():
            counts.weight(storage, elements)


def _count_xnnpack(program: Program, data: Any, counts: _Counts) -> None:
    seen: set[object] = set()
    for index, delegate in enumerate(_delegates(program, xnnpack_graph.BACKEND)):
        try:
            graph = xnnpack_graph.read_graph(data, delegate.start, delegate.end)
        except ValueError as error:
            raise FileError(f"XNNPACK delegate {index} can't be parsed: {error}") from error
        counts.operators.update(node.type for node in graph.nodes)
        counts.quantized.update(node.type for node in graph.nodes if node.quantized)
        for constant in graph.constants:
            key = constant.key if isinstance(constant.key, str) else (index, constant.key)
            if key not in seen:
                seen.add(key)
                counts.weight(constant.storage, constant.elements)


def _count_coreml(path: str, program: Program, counts: _Counts) -> None:
    if not any(_delegates(program, coreml_delegate.BACKEND)):
        return
    with tempfile.TemporaryDirectory() as directory:
        for package in coreml_delegate.extract_packages(path, Path(directory)):
            found = inspection.inspect(package)
            if found["failures"]:
                raise FileError(f"{package.parent.name} (Core ML): {found['failures'][0]}")
            # No one looks at the metadata of a model that is part of another file.
            counts.warnings += [
                f"Core ML: {line}"
                for line in found["warnings"]
                if not line.startswith("the metadata lacks")
            ]
            for name, tally in (
                ("operators", counts.operators),
                ("quantized_operators", counts.quantized),
            ):
                tally.update({f"Core ML {kind}": count for kind, count in found[name].items()})
            counts.elements.update(found["weight_elements"])
            counts.bytes.update(found["weight_bytes"])


def _delegates(program: Program, backend: str) -> list[Any]:
    return [
        item for method in program.methods for item in method.delegates if item.backend == backend
    ]
