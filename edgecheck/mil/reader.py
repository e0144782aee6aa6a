"""Reads an ML Program from a .mlpackage folder or .mlmodel file, exactly as it is declared there.

Straight from the protobuf messages, without coremltools' own loader, which infers types anew. The
file is untrusted: paths in it stay inside the package, and sizes are checked before they are used.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import sys
import types
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgecheck.mil import description
from edgecheck.mil.call import TensorType, UnsupportedError
from edgecheck.mil.pickling import NUMPY_DTYPES, PACKED_BITS, stored_bytes
from edgecheck.mil.program import (
    Binding,
    Block,
    DictionaryType,
    Function,
    ListType,
    Operation,
    Program,
    ProgramError,
    StateType,
    Value,
    ValueType,
    Variable,
)
from edgecheck.mil.weights import WeightFile

# MIL.proto, DataType: those that operators handle.
_DTYPES = {
    1: "bool",
    2: "string",
    10: "fp16",
    11: "fp32",
    12: "fp64",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
}


def read(path: Path) -> Program:
    """Read a .mlpackage folder, or an .mlmodel file that holds an ML Program.

    Large constants are memory-mapped: the file must stay in place while the program is used.

    Raises:
        ProgramError: if it is something else, damaged, or refers to what is not in it.
        UnsupportedError: if a value's number of axes is not declared.
    """
    path = Path(path)
    model_file = _root_model(path) if path.is_dir() else path
    if not model_file.is_file():
        raise ProgramError(f"{model_file}: there is no such file")
    try:
        return _program(path, _model(model_file), _Weights(model_file.parent))
    except (ProgramError, UnsupportedError) as error:
        raise type(error)(f"{path}: {error}") from error


def _root_model(package: Path) -> Path:
    """The model file that the manifest names as root."""
    manifest_file = package / "Manifest.json"
    if not manifest_file.is_file():
        raise ProgramError(f"{package} is not an mlpackage: it has no Manifest.json")
    try:
        manifest = json.loads(manifest_file.read_text("utf-8"))
        entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        relative = str(entry["path"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ProgramError(f"{manifest_file} names no root model ({reason})") from error
    model_file = package / "Data" / relative
    if not _inside(model_file, package):
        raise ProgramError(f"{manifest_file}: path {relative!r} leads out of the package")
    return model_file


def _inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a null character
        return False


def _messages() -> Any:
    """coremltools' messages of Model.proto, without the rest of it: that takes seconds to import,
    and imports TensorFlow where it is installed."""
    name = "coremltools"
    if name in sys.modules:
        return importlib.import_module(f"{name}.proto.Model_pb2")
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ProgramError("coremltools is not installed, whose messages describe the file")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = package
    try:
        return importlib.import_module(f"{name}.proto.Model_pb2")
    finally:
        del sys.modules[name]  # who imports coremltools gets all of it


def _model(model_file: Path) -> Any:
    from google.protobuf.message import DecodeError

    model = _messages().Model()
    content = model_file.read_bytes()
    if not content:
        raise ProgramError(f"{model_file.name} is empty")
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ProgramError(f"{model_file.name} is damaged: {error}") from error
    kind = model.WhichOneof("Type")
    if kind is None:
        raise ProgramError(f"{model_file.name} holds no model")
    if kind != "mlProgram":
        raise ProgramError(
            f"holds a {kind} and no ML Program; convert the model with "
            'convert_to="mlprogram" and a deployment target of iOS15 or newer'
        )
    return model


class _Weights:
    """The weight files beside a model file, each opened once."""

    def __init__(self, model_folder: Path) -> None:
        self._folder = model_folder / "weights"
        self._files: dict[str, WeightFile] = {}

    def file(self, reference: str) -> WeightFile:
        """That which a program calls ``@model_path/weights/weight.bin``."""
        parts = PurePosixPath(reference).parts
        if len(parts) != 3 or parts[:2] != ("@model_path", "weights") or parts[2] == "..":
            raise ProgramError(f"weight path {reference!r} is not @model_path/weights/<file>")
        if reference not in self._files:
            file = self._folder / parts[2]
            if not _inside(file, self._folder.parent):
                raise ProgramError(f"weight path {reference!r} leads out of the package")
            self._files[reference] = WeightFile(file)
        return self._files[reference]


def _program(path: Path, model: Any, weights: _Weights) -> Program:
    if not model.mlProgram.functions:
        raise ProgramError("the ML Program has no function")
    functions = {
        name: _function(name, message, weights)
        for name, message in sorted(model.mlProgram.functions.items())
    }
    default_function = model.description.defaultFunctionName or "main"
    if default_function not in functions:
        raise ProgramError(
            f"default function {default_function!r} is missing; there are {sorted(functions)}"
        )
    return Program(
        path=path,
        specification_version=model.specificationVersion,
        functions=functions,
        default_function=default_function,
        interfaces=description.interfaces(model.description, default_function),
        metadata=description.metadata(model.description),
    )


def _function(name: str, message: Any, weights: _Weights) -> Function:
    if message.opset not in message.block_specializations:
        raise ProgramError(f"function {name!r} has no block for its opset {message.opset!r}")
    return Function(
        name=name,
        inputs=_variables(message.inputs),
        block=_block(message.block_specializations[message.opset], weights),
        opset=message.opset,
    )


def _block(message: Any, weights: _Weights) -> Block:
    return Block(
        inputs=_variables(message.inputs),
        operations=tuple(_operation(each, weights) for each in message.operations),
        outputs=tuple(message.outputs),
    )


def _operation(message: Any, weights: _Weights) -> Operation:
    name = message.outputs[0].name if message.outputs else message.type
    if "name" in message.attributes:
        strings = message.attributes["name"].immediateValue.tensor.strings.values
        name = strings[0] if strings else name
    if not message.type.isidentifier():
        raise ProgramError(f"operation {name!r}: its operator {message.type[:40]!r} is not a name")
    try:
        return Operation(
            operator=message.type,
            name=name,
            inputs={
                parameter: tuple(_binding(each, weights) for each in argument.arguments)
                for parameter, argument in sorted(message.inputs.items())
            },
            outputs=_variables(message.outputs),
            attributes={
                parameter: _value(value, weights)
                for parameter, value in sorted(message.attributes.items())
                if parameter != "name"
            },
            blocks=tuple(_block(each, weights) for each in message.blocks),
        )
    except (ProgramError, UnsupportedError) as error:
        raise type(error)(f"operation {name!r} ({message.type}): {error}") from error


def _binding(message: Any, weights: _Weights) -> Binding:
    if message.WhichOneof("binding") == "value":
        return _value(message.value, weights)
    return str(message.name)


def _variables(messages: Any) -> tuple[Variable, ...]:
    return tuple(Variable(each.name, _type(each.type)) for each in messages)


def _type(message: Any) -> ValueType:
    kind = message.WhichOneof("type")
    if kind == "tensorType":
        return _tensor_type(message)
    if kind == "listType":
        length = message.listType.length
        fixed = length.WhichOneof("dimension") == "constant"
        return ListType(
            _tensor_type(message.listType.type), length.constant.size if fixed else None
        )
    if kind == "dictionaryType":
        dictionary = message.dictionaryType
        return DictionaryType(_tensor_type(dictionary.keyType), _tensor_type(dictionary.valueType))
    if kind == "stateType":
        return StateType(_tensor_type(message.stateType.wrappedType))
    raise ProgramError(f"values of {kind or 'no type'} are not known")


def _tensor_type(message: Any) -> TensorType:
    if message.WhichOneof("type") != "tensorType":
        raise ProgramError("a tensor type is missing")
    tensor = message.tensorType
    if tensor.dataType not in _DTYPES:
        raise ProgramError(f"data type {tensor.dataType} of MIL.proto is not known")
    if any(each.unknown.variadic for each in tensor.dimensions):
        raise UnsupportedError("a value with a varying number of axes is not handled")
    return TensorType(
        _DTYPES[tensor.dataType],
        tuple(
            each.constant.size if each.WhichOneof("dimension") == "constant" else None
            for each in tensor.dimensions
        ),
    )


def _value(message: Any, weights: _Weights) -> Value:
    declared = _type(message.type)
    stored = message.WhichOneof("value")
    if isinstance(declared, TensorType):
        shape = _static_shape(declared)
        if stored == "blobFileValue":
            blob = message.blobFileValue
            if declared.dtype not in NUMPY_DTYPES and declared.dtype not in PACKED_BITS:
                raise ProgramError(f"a value of {declared.dtype} can't lie in a weight file")
            file = weights.file(blob.fileName)
            flat = file.read(blob.offset, declared.dtype, math.prod(shape))
            data = flat if declared.dtype in PACKED_BITS else flat.reshape(shape)
            return Value(declared, data, in_file=True)
        if message.immediateValue.WhichOneof("value") == "tensor":
            return Value(declared, _immediate(message.immediateValue.tensor, declared, shape))
    if isinstance(declared, ListType) and message.immediateValue.WhichOneof("value") == "list":
        items = [_value(each, weights).data for each in message.immediateValue.list.values]
        return Value(
            declared,
            tuple(each.item() if isinstance(each, np.ndarray) else each for each in items),
        )
    raise ProgramError(f"a constant of {type(declared).__name__} can't be read")


def _static_shape(declared: TensorType) -> tuple[int, ...]:
    if None in declared.shape:
        raise ProgramError("a constant's shape is not declared")
    return tuple(size for size in declared.shape if size is not None)


def _immediate(message: Any, declared: TensorType, shape: tuple[int, ...]) -> Any:
    """A tensor in the program itself, in whichever field it lies."""
    field = message.WhichOneof("value")
    count = math.prod(shape)
    stored: Any = getattr(message, field).values if field else ()
    if declared.dtype == "string":
        if field != "strings" or len(stored) != count:
            raise ProgramError(f"a constant holds other than the declared {count} strings")
        return tuple(stored) if shape else str(stored[0])
    expected = stored_bytes(declared.dtype, count) if field == "bytes" else count
    if len(stored) != expected or field == "strings":
        raise ProgramError(
            f"a constant of shape {shape} holds {len(stored)} {field or 'values'}, not {expected}"
        )
    if declared.dtype in PACKED_BITS:
        if field != "bytes" and count:
            raise ProgramError(f"a constant of {declared.dtype} holds {field}, not bytes")
        return np.frombuffer(bytearray(stored), np.uint8)
    dtype = NUMPY_DTYPES[declared.dtype]
    if field == "bytes":  # a copy, since torch takes writable arrays only
        return np.frombuffer(bytearray(stored), dtype).reshape(shape)
    try:
        return np.array(stored, dtype=dtype).reshape(shape)
    except OverflowError as error:
        raise ProgramError(f"a constant does not fit {declared.dtype}: {error}") from error
