"""Model files opened to change them: .onnx, .tflite and .mlpackage, their layers with weights.

Each class has ``weights``, as stored, output channels first, in the file's order; ``put`` to
replace one, and ``save``. Not for what is broken: see `editing` and tests/faults.
"""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def onnx_layers(model: Any) -> list[tuple[Any, Any]]:
    """Nodes with a constant weight, and that weight, as stored."""
    constants = {item.name: item for item in model.graph.initializer}
    unpacked = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    found = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            name = unpacked.get(node.input[1], node.input[1])
            if name in constants:
                found.append((node, constants[name]))
    return found


class OnnxFile:
    """Layers are nodes with a constant weight, and that weight as stored."""

    def __init__(self, path: Path) -> None:
        import onnx

        self.model = onnx.load(path)

    @cached_property
    def constants(self) -> dict[str, Any]:
        return {item.name: item for item in self.model.graph.initializer}

    @cached_property
    def layers(self) -> list[tuple[Any, Any]]:
        return onnx_layers(self.model)

    @property
    def weights(self) -> list[Array]:
        from onnx import numpy_helper

        return [self._turned(node, numpy_helper.to_array(item)) for node, item in self.layers]

    def put(self, position: int, weight: Array) -> None:
        node, stored = self.layers[position]
        self.set(stored, self._turned(node, weight))

    def set(self, stored: Any, value: Any) -> None:
        """Replace a constant's value."""
        from onnx import numpy_helper

        stored.CopyFrom(numpy_helper.from_array(np.asarray(value, order="C"), stored.name))

    def save(self, path: Path) -> Path:
        import onnx

        onnx.save(self.model, path)
        return path

    def _turned(self, node: Any, weight: Array) -> Array:
        # Only MatMul, and Gemm unless told, have output channels last.
        turned = any(item.name == "transB" and item.i for item in node.attribute)
        return weight if node.op_type == "Conv" or turned else weight.T


class TFLiteFile:
    """Layers are the operators CONV_2D and FULLY_CONNECTED."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        self.graph = self.model.subgraphs[0]
        self._codes = [item.builtinCode for item in self.model.operatorCodes]

    def operators(self, *kinds: str) -> list[Any]:
        codes = [getattr(self.schema.BuiltinOperator, kind) for kind in kinds]
        return [op for op in self.graph.operators if self._codes[op.opcodeIndex] in codes]

    @property
    def layers(self) -> list[Any]:
        return self.operators("CONV_2D", "FULLY_CONNECTED")

    def stored(self, operator: Any, position: int = 1) -> Any:
        """The tensor of an operand as stored, before what unpacks it."""
        unpacked = {op.outputs[0]: op.inputs[0] for op in self.operators("DEQUANTIZE")}
        index = operator.inputs[position]
        return self.graph.tensors[unpacked.get(index, index)]

    def value(self, tensor: Any) -> Array:
        names = {code: name for name, code in vars(self.schema.TensorType).items()}
        data = bytes(self.model.buffers[tensor.buffer].data)
        return np.frombuffer(data, names[tensor.type].lower()).reshape(tensor.shape)

    def set(self, tensor: Any, value: Array) -> None:
        data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.model.buffers[tensor.buffer].data = data

    @property
    def weights(self) -> list[Array]:
        return [self.value(self.stored(operator)) for operator in self.layers]

    def put(self, position: int, weight: Array) -> None:
        self.set(self.stored(self.layers[position]), weight)

    def save(self, path: Path) -> Path:
        import flatbuffers

        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


class PackageFile:
    """Layers are the operations conv, linear and matmul with a weight in the weight file."""

    def __init__(self, path: Path) -> None:
        from coremltools.proto import Model_pb2

        from tests.mil import packages

        self._path, self._packages = path, packages
        self.model = Model_pb2.Model()
        self.model.ParseFromString(packages.model_file(path).read_bytes())
        self.operations = {item.outputs[0].name: item for item in packages.operations(self.model)}
        self._content = bytearray(packages.weight_file(path).read_bytes())

    def bound(self, operation: Any, parameter: str) -> Any:
        """The operation that gives a parameter."""
        return self.operations[operation.inputs[parameter].arguments[0].name]

    def constant(self, operation: Any, parameter: str) -> Any:
        """The value of a parameter that lies in the program itself."""
        return self.bound(operation, parameter).attributes["val"].immediateValue.tensor

    @property
    def layers(self) -> list[tuple[Any, Any]]:
        """Operations, and where the weight of each is stored."""
        found = []
        for item in self.operations.values():
            if item.type in ("conv", "linear", "matmul"):
                holder = self.bound(item, "y" if item.type == "matmul" else "weight")
                # Its own, or the data that is unpacked.
                stored = {"val", "data", "quantized_data"}.intersection(holder.attributes)
                value = holder.attributes[stored.pop()] if stored else None
                if value is not None and value.HasField("blobFileValue"):
                    found.append((item, value))
        return found

    @property
    def weights(self) -> list[Array]:
        return [self._blob(value)[1].copy() for _, value in self.layers]

    def put(self, position: int, weight: Array) -> None:
        offset, _ = self._blob(self.layers[position][1])
        content = np.ascontiguousarray(weight).tobytes()
        self._content[offset : offset + len(content)] = content

    def save(self, path: Path) -> Path:
        shutil.copytree(self._path, path)
        self._packages.model_file(path).write_bytes(self.model.SerializeToString())
        self._packages.weight_file(path).write_bytes(self._content)
        return path

    def _blob(self, value: Any) -> tuple[int, Array]:
        """Where a value of the weight file starts, and its elements (MILBlob's StorageFormat)."""
        start, content = value.blobFileValue.offset, bytes(self._content)
        _, _, size, offset = np.frombuffer(content[start : start + 24], "<u4,<u4,<u8,<u8")[0]
        kind = value.type.tensorType
        dtype = {10: np.float16, 11: np.float32, 21: np.int8}[kind.dataType]
        shape = [item.constant.size for item in kind.dimensions]
        return int(offset), np.frombuffer(content[offset : offset + size], dtype).reshape(shape)


FILES = {".onnx": OnnxFile, ".tflite": TFLiteFile, ".mlpackage": PackageFile}


def opened(path: Path) -> Any:
    """A file to be changed."""
    return FILES[path.suffix](path)
