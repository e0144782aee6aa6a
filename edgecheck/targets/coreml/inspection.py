"""What is in a .mlpackage, without running it: counts, and a lint for what ships badly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edgecheck.mil import deviations
from edgecheck.mil.call import TensorType, UnsupportedError
from edgecheck.mil.program import (
    DEPLOYMENT_TARGETS,
    Block,
    Function,
    Operation,
    Program,
    ProgramError,
    Value,
)
from edgecheck.mil.reader import read
from edgecheck.targets.base import Inspection

# Storage types as reports call them.
_STORAGE = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}
_STORAGE |= {"uint8": "int8", "uint4": "int4"}
_BITS = {"fp16": 16, "fp32": 32, "fp64": 64, "bool": 8}
# The parameters that hold a compressed weight's elements; what else there is are scales, offsets
# and tables (coremltools, the constexpr operators of iOS16 and iOS18).
_PAYLOADS = ("quantized_data", "data", "indices", "nonzero_data", "source_val")
_CONTROL_FLOW = ("cond", "while_loop")
# Of the Neural Engine, as practitioners found them; Apple documents no limits.
_MOST_CHANNELS = 8192
_MOST_AXES = 5
_MATRIX_OPERATORS = ("conv", "conv_transpose", "linear", "matmul", "einsum")
_PROBABILITY_OPERATORS = ("softmax", "sigmoid")
_NEUTRAL = ("cast", "reshape", "squeeze", "expand_dims", "identity", "dequantize", "quantize")


def inspect(package: Path) -> Inspection:
    """What is in the package; its lint findings are warnings, too."""
    try:
        program = read(package)
    except (ProgramError, UnsupportedError, OSError) as error:
        return Inspection.unreadable(str(error))
    function = program.functions[program.default_function]
    operations = [item for item in function.block.walk() if item.operator != "const"]
    compute = [item for item in operations if not item.operator.startswith("constexpr_")]
    elements, sizes = _count_weights(function.block)
    findings = tuple(lint(program))
    return Inspection(
        failures=tuple(_versions(program, function)),
        warnings=(*findings, *deviations.warnings(function)),
        lint=findings,
        format={
            "specification_version": program.specification_version,
            "deployment_target": program.deployment_target or "unknown",
            "opset": function.opset,
        },
        operators=dict(sorted(Counter(item.operator for item in compute).items())),
        quantized_operators=dict(sorted(_quantized(function.block).items())),
        weight_elements=dict(sorted(elements.items())),
        weight_bytes=dict(sorted(sizes.items())),
        half_operators=sum("fp16" in _dtypes(item) for item in compute),
        layers=_layers(function.block),
    )


def _count_weights(block: Block) -> tuple[Counter[str], Counter[str]]:
    """Elements and bytes by storage type of constants of two elements or more.

    Integers that no constexpr operator unpacks are shapes, axes and indices, not weights.
    """
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    constants = _constants(block)
    dequantized = _dequantized(block)
    counted: set[str] = set()
    for operation in block.walk():
        if not operation.operator.startswith("constexpr_"):
            continue
        for name, values in _bindings(operation):
            for binding in values:
                if isinstance(binding, str):
                    counted.add(binding)
                    value = constants.get(binding)
                else:
                    value = binding
                if value is not None and name in _PAYLOADS:
                    _add(value, operation, elements, sizes)
    for name, value in constants.items():
        declared = value.type
        floating = isinstance(declared, TensorType) and declared.dtype in _BITS
        if name not in counted and (floating or name in dequantized):
            _add(value, None, elements, sizes)
    return elements, sizes


def _add(
    value: Value, unpacker: Operation | None, elements: Counter[str], sizes: Counter[str]
) -> None:
    """Count a stored tensor; what an operator unpacks has the elements that come out."""
    if not isinstance(value.type, TensorType):
        return
    stored = count = _product(value.type.shape)
    if unpacker is not None and isinstance(unpacker.outputs[0].type, TensorType):
        count = _product(unpacker.outputs[0].type.shape)
    if stored < 2:
        return
    dtype = value.type.dtype
    bits = _BITS.get(dtype) or int("".join(filter(str.isdigit, dtype)) or 8)
    palettized = unpacker is not None and "lut_to" in unpacker.operator
    storage = "palettized" if palettized else _STORAGE.get(dtype, dtype)
    elements[storage] += count
    sizes[storage] += (stored * bits + 7) // 8


def _constants(block: Block) -> dict[str, Value]:
    """Stored values by the name of the variable that they are."""
    return {
        operation.outputs[0].name: operation.attributes["val"]
        for operation in block.walk()
        if operation.operator == "const" and operation.outputs and "val" in operation.attributes
    }


def _bindings(operation: Operation) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield from operation.inputs.items()
    for name, value in operation.attributes.items():
        yield name, (value,)


def _dequantized(block: Block) -> set[str]:
    """Constants that ``dequantize`` reads: weights in the older form."""
    return {
        name
        for operation in block.walk()
        if operation.operator == "dequantize"
        for name in operation.used()
    }


def _quantized(block: Block) -> Counter[str]:
    """Operators that read what is unpacked or dequantized, by type."""
    makers = {
        output.name: operation.operator
        for operation in block.walk()
        for output in operation.outputs
    }
    sources = {
        name
        for name, operator in makers.items()
        if operator == "dequantize" or operator.startswith("constexpr_")
    }
    return Counter(
        operation.operator
        for operation in block.walk()
        if operation.operator not in _NEUTRAL
        and not operation.operator.startswith("constexpr_")
        and sources.intersection(operation.used())
    )


def _layers(block: Block) -> dict[str, list[str]]:
    """Layers with constant weights by what their data is: ``integer`` where it is dequantized."""
    makers = {output.name: item for item in block.walk() for output in item.outputs}
    found: dict[str, list[str]] = {"integer": [], "float": []}
    for item in block.walk():
        if item.operator not in _MATRIX_OPERATORS or "x" not in item.inputs:
            continue
        weight, data = (item.inputs.get(name, ("",))[0] for name in ("weight", "x"))
        if item.operator == "matmul":
            weight = item.inputs["y"][0]
        maker = makers.get(weight) if isinstance(weight, str) else None
        if maker is None or not (
            maker.operator in ("const", "dequantize") or maker.operator.startswith("constexpr_")
        ):
            continue
        source = makers.get(data) if isinstance(data, str) else None
        static = source is not None and source.operator == "dequantize"
        found["integer" if static else "float"].append(f"{item.operator} {item.name}")
    return found


def _versions(program: Program, function: Function) -> list[str]:
    """Why no system loads the file as it says: its version is unknown, or older than its operators.

    The opset CoreML5 came with specification version 6, and each later one with the next
    (coremltools, ``_OPSET``).
    """
    version = program.specification_version
    newest = max(DEPLOYMENT_TARGETS)
    if version > newest:
        return [
            f"specification version {version} is newer than any known; the newest is {newest} "
            f"({DEPLOYMENT_TARGETS[newest]})"
        ]
    opset = function.opset.removeprefix("CoreML")
    needed = int(opset) + 1 if opset.isdecimal() else 0
    if needed <= version:
        return []
    system = DEPLOYMENT_TARGETS.get(needed, "a newer system")
    return [
        f"its operators are of opset {function.opset}, which {system} brought (specification "
        f"version {needed}), but the file is for {program.deployment_target or version}, which "
        "refuses it"
    ]


def lint(program: Program) -> list[str]:
    """What will ship badly, a line each: operators beyond the file's own deployment target, what
    keeps work off the Neural Engine, raw logits that are called probabilities, missing metadata."""
    function = program.functions[program.default_function]
    findings = [
        *_too_new(program, function),
        *_off_neural_engine(program, function),
        *_raw_logits(program, function),
    ]
    absent = [
        name
        for name in ("author", "short_description", "licence", "version")
        if not getattr(program.metadata, name)
    ]
    if absent:
        findings.append(f"the metadata lacks {', '.join(absent)}")
    return findings


def _too_new(program: Program, function: Function) -> list[str]:
    """Operators that the system of the file's specification does not have."""
    first = _first_versions()
    found: dict[str, int] = {}
    for operation in function.block.walk():
        since = first.get(operation.operator, 0)
        if since > program.specification_version:
            found[operation.operator] = since
    return [
        f"{name} exists since {DEPLOYMENT_TARGETS.get(since, since)}, but the file is for "
        f"{program.deployment_target}"
        for name, since in sorted(found.items())
    ]


@cache
def _first_versions() -> Mapping[str, int]:
    """The specification version that each operator appears in, from coremltools' registry."""
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    return {
        name: min(target.value for target in definitions)
        for name, definitions in SSAOpRegistry.core_ops.items()
    }


def _off_neural_engine(program: Program, function: Function) -> list[str]:
    interface = program.interfaces[program.default_function]
    flexible = [item.name for item in interface.inputs if item.flexible]
    findings = []
    if flexible:
        findings.append(f"the Neural Engine wants fixed shapes: {_few(flexible)} vary")
    operations = list(function.block.walk())
    matrices = [item for item in operations if item.operator in _MATRIX_OPERATORS]
    wide = [item.name for item in matrices if "fp32" in _dtypes(item)]
    if wide:
        findings.append(
            f"the Neural Engine computes in fp16: {len(wide)} of {len(matrices)} matrix operators "
            "are fp32"
        )
    deep = [item.name for item in operations if any(len(s) > _MOST_AXES for s in _shapes(item))]
    if deep:
        findings.append(f"tensors of more than {_MOST_AXES} axes keep off it: {_few(deep)}")
    broad = [
        item.name
        for item in operations
        if any(len(shape) >= 3 and (shape[1] or 0) > _MOST_CHANNELS for shape in _shapes(item))
    ]
    if broad:
        findings.append(f"more than {_MOST_CHANNELS} channels keep off it: {_few(broad)}")
    flow = [item.name for item in operations if item.operator in _CONTROL_FLOW]
    if flow:
        findings.append(f"control flow keeps off it: {_few(flow)}")
    constants = _constants(function.block)
    gathers = [
        item.name
        for item in operations
        if item.operator.startswith("gather")
        and any(isinstance(name, str) and name not in constants for name in _indices(item))
    ]
    if gathers:
        findings.append(f"gathers at indices that are computed keep off it: {_few(gathers)}")
    return findings


def _raw_logits(program: Program, function: Function) -> list[str]:
    """A classifier whose probabilities come from no softmax or sigmoid."""
    makers = {
        output.name: operation
        for operation in function.block.operations
        for output in operation.outputs
    }
    for operation in function.block.operations:
        if operation.operator != "classify":
            continue
        name: Any = operation.inputs["probabilities"][0]
        maker = makers.get(name)
        while maker is not None and maker.operator in _NEUTRAL:
            data: Any = maker.inputs.get("x") or maker.inputs.get("input") or ("",)
            maker = makers.get(data[0])
        if maker is None or maker.operator not in _PROBABILITY_OPERATORS:
            made = f"come from {maker.operator}" if maker is not None else "are an input"
            return [f"the classifier calls its scores probabilities, but they {made}"]
    return []


def _indices(operation: Operation) -> tuple[Any, ...]:
    return operation.inputs.get("indices", ())


def _dtypes(operation: Operation) -> set[str]:
    return {item.type.dtype for item in operation.outputs if isinstance(item.type, TensorType)}


def _shapes(operation: Operation) -> Iterable[tuple[int | None, ...]]:
    if operation.operator == "const" or operation.operator.startswith("constexpr_"):
        return ()
    return [item.type.shape for item in operation.outputs if isinstance(item.type, TensorType)]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _product(shape: Iterable[int | None]) -> int:
    total = 1
    for size in shape:
        total *= size or 0
    return total
