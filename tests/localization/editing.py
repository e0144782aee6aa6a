"""Single-layer faults planted into .onnx, .tflite and .mlpackage files.

Each function gives a fault's name, the broken layer (its position among those with weights in the
order of execution, or its path) and the edited copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Edit = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def zero_row(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The output channel with the largest weights, zeroed."""
    changed = weight.copy()
    rows = np.abs(weight.astype(np.float64)).reshape(len(weight), -1).sum(axis=1)
    changed[int(rows.argmax())] = 0
    return changed


def transposed(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Inputs and outputs of a square weight exchanged."""
    return np.ascontiguousarray(np.swapaxes(weight, 0, 1))


def _square(weight: np.ndarray[Any, Any], axes: tuple[int, int]) -> bool:
    return weight.shape[axes[0]] == weight.shape[axes[1]]


def onnx_faults(path: Path, folder: Path) -> Iterator[tuple[str, int | str, Path]]:
    """Faults of each layer of an ONNX file: name, the layer's position, the file."""
    import onnx
    from onnx import numpy_helper

    def layers(model: Any) -> list[Any]:
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

    def write(name: str, model: Any) -> Path:
        onnx.save(model, folder / f"{name}.onnx")
        return folder / f"{name}.onnx"

    for position in range(len(layers(onnx.load(path)))):
        for name, edit in (("zeroed channel", zero_row), ("transposed weight", transposed)):
            model = onnx.load(path)
            node, stored = layers(model)[position]
            weight = numpy_helper.to_array(stored)
            rows_last = node.op_type == "MatMul"
            if edit is transposed and not _square(weight, (0, 1)):
                continue
            changed = zero_row(weight.T).T if edit is zero_row and rows_last else edit(weight)
            stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), stored.name))
            yield name, position, write(f"{name}-{position}", model)
        model = onnx.load(path)
        node, _ = layers(model)[position]
        producers = {item.output[0]: item for item in model.graph.node}
        source = producers.get(node.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            continue
        # The grid on which this layer's input is read, as a wrong file would have it.
        for name, index, change in (
            ("wrong scale", 1, lambda value: value * np.float32(1.5)),
            ("wrong zero point", 2, lambda value: (value.astype(int) + 24).astype(value.dtype)),
        ):
            model = onnx.load(path)
            node, _ = layers(model)[position]
            producers = {item.output[0]: item for item in model.graph.node}
            reader = producers[node.input[0]]
            stored = next(i for i in model.graph.initializer if i.name == reader.input[index])
            if name == "wrong zero point" and numpy_helper.to_array(stored) > 220:
                continue
            copied = numpy_helper.from_array(
                np.asarray(change(numpy_helper.to_array(stored))), f"{stored.name}_wrong"
            )
            model.graph.initializer.append(copied)
            fresh = onnx.helper.make_node(
                "DequantizeLinear",
                [
                    reader.input[0],
                    *(copied.name if i == index else reader.input[i] for i in (1, 2)),
                ],
                [f"{reader.output[0]}_wrong"],
            )
            at = list(model.graph.node).index(node)
            node.input[0] = f"{reader.output[0]}_wrong"
            model.graph.node.insert(at, fresh)
            yield name, position, write(f"{name}-{position}", model)
    for position, node in enumerate(onnx.load(path).graph.node):
        if node.op_type not in ("LayerNormalization", "Conv"):
            continue
        model = onnx.load(path)
        changed = model.graph.node[position]
        same = [item for item in model.graph.node[:position] if item.op_type == node.op_type]
        attribute = {item.name: item for item in changed.attribute}
        if node.op_type == "Conv":
            attribute["pads"].ints[:] = [2, 2, 0, 0]
            layer: Any = len(same)
        else:
            attribute["epsilon"].f = 0.1
            layer = f"norm.{len(same)}"
        name = "shifted padding" if node.op_type == "Conv" else "wrong epsilon"
        yield name, layer, write(f"{name}-{position}", model)


def tflite_faults(path: Path, folder: Path) -> Iterator[tuple[str, int | str, Path]]:
    """The same of a .tflite file."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    builtin = schema.BuiltinOperator
    kinds = (builtin.CONV_2D, builtin.FULLY_CONNECTED)
    dtypes = {
        schema.TensorType.FLOAT32: np.float32,
        schema.TensorType.FLOAT16: np.float16,
        schema.TensorType.INT8: np.int8,
    }

    def read() -> tuple[Any, Any, list[Any]]:
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        graph = model.subgraphs[0]
        codes = [item.builtinCode for item in model.operatorCodes]
        return model, graph, [op for op in graph.operators if codes[op.opcodeIndex] in kinds]

    def stored(model: Any, graph: Any, operator: Any) -> Any:
        """The weight as stored, before what unpacks it."""
        codes = [item.builtinCode for item in model.operatorCodes]
        unpacked = {
            op.outputs[0]: op.inputs[0]
            for op in graph.operators
            if codes[op.opcodeIndex] == builtin.DEQUANTIZE
        }
        index = operator.inputs[1]
        return graph.tensors[unpacked.get(index, index)]

    def write(name: str, model: Any) -> Path:
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        written = folder / f"{name}.tflite"
        written.write_bytes(bytes(builder.Output()))
        return written

    for position in range(len(read()[2])):
        model, graph, operators = read()
        tensor = stored(model, graph, operators[position])
        axes = (0, len(tensor.shape) - 1)
        for name in ("zeroed channel", "transposed weight"):
            model, graph, operators = read()
            tensor = stored(model, graph, operators[position])
            buffer = model.buffers[tensor.buffer]
            weight = np.frombuffer(bytes(buffer.data), dtypes[tensor.type]).reshape(tensor.shape)
            if name == "zeroed channel":
                weight = zero_row(weight)
            elif _square(weight, axes):
                weight = np.ascontiguousarray(np.swapaxes(weight, *axes))
            else:
                continue
            buffer.data = np.frombuffer(weight.tobytes(), np.uint8)
            yield name, position, write(f"{name}-{position}", model)
        grid = tensor.quantization
        if grid is not None and grid.scale is not None and len(grid.scale):
            model, graph, operators = read()
            grid = stored(model, graph, operators[position]).quantization
            grid.scale = np.asarray(grid.scale, np.float32) * np.float32(1.7)
            yield "wrong scale", position, write(f"weight-scale-{position}", model)
            for name in ("clipped range", "wrong zero point"):
                model, graph, operators = read()
                grid = graph.tensors[operators[position].outputs[0]].quantization
                if grid is None or grid.scale is None or not len(grid.scale):
                    continue
                if name == "clipped range":
                    grid.scale = np.asarray(grid.scale, np.float32) * np.float32(0.3)
                elif grid.zeroPoint[0] > 40:
                    continue
                else:
                    grid.zeroPoint = np.asarray(grid.zeroPoint) + 80
                yield name, position, write(f"{name}-{position}", model)
        model, graph, operators = read()
        options = operators[position].builtinOptions
        if options.fusedActivationFunction == schema.ActivationFunctionType.RELU:
            options.fusedActivationFunction = schema.ActivationFunctionType.NONE
            yield "lost activation", position, write(f"activation-{position}", model)


def coreml_faults(path: Path, folder: Path) -> Iterator[tuple[str, int | str, Path]]:
    """The same of an ML Program: in its weight file, or in the constants of its protobuf."""
    import shutil

    from tests.mil import packages

    def read() -> tuple[Any, dict[str, Any]]:
        from coremltools.proto import Model_pb2

        model = Model_pb2.Model()
        model.ParseFromString(packages.model_file(path).read_bytes())
        found = packages.operations(model)
        return model, {item.outputs[0].name: item for item in found}

    def write(name: str, model: Any, weights: bytes | None = None) -> Path:
        copied = Path(shutil.copytree(path, folder / f"{path.stem}-{name}.mlpackage"))
        packages.model_file(copied).write_bytes(model.SerializeToString())
        if weights is not None:
            packages.weight_file(copied).write_bytes(weights)
        return copied

    def bound(operation: Any, parameter: str) -> str:
        return str(operation.inputs[parameter].arguments[0].name)

    def value_of(operation: Any) -> Any:
        """The stored value behind a weight: its own, or the data that is unpacked."""
        for name in ("val", "data", "quantized_data"):
            if name in operation.attributes:
                return operation.attributes[name]
        return None

    def blob(value: Any, content: bytes) -> tuple[int, np.ndarray[Any, Any]]:
        """Where a value of the weight file starts, and its elements (MILBlob's StorageFormat)."""
        start = value.blobFileValue.offset
        _, _, size, offset = np.frombuffer(content[start : start + 24], "<u4,<u4,<u8,<u8")[0]
        kind = value.type.tensorType
        dtype = {10: np.float16, 11: np.float32, 21: np.int8}[kind.dataType]
        shape = [item.constant.size for item in kind.dimensions]
        return int(offset), np.frombuffer(content[offset : offset + size], dtype).reshape(shape)

    _, operations = read()
    weighted = [
        name for name, item in operations.items() if item.type in ("conv", "linear", "matmul")
    ]
    content = packages.weight_file(path).read_bytes()
    for position, name in enumerate(weighted):
        operation = operations[name]
        parameter = "y" if operation.type == "matmul" else "weight"
        holder = operations[bound(operation, parameter)]
        for fault, edit in (("zeroed channel", zero_row), ("transposed weight", transposed)):
            value = value_of(holder)
            if value is None or not value.HasField("blobFileValue"):
                continue
            offset, weight = blob(value, content)
            if edit is transposed and not _square(weight, (0, 1)):
                continue
            changed = bytearray(content)
            changed[offset : offset + weight.nbytes] = edit(weight).tobytes()
            model, _ = read()
            yield fault, position, write(f"{fault}-{position}", model, bytes(changed))
    norms = [name for name, item in operations.items() if item.type == "layer_norm"]
    convolutions = [name for name, item in operations.items() if item.type == "conv"]
    for position, name in enumerate(norms):
        model, found = read()
        value = found[bound(found[name], "epsilon")].attributes["val"].immediateValue.tensor
        if value.floats.values:
            value.floats.values[:] = [0.1]
        else:
            value.bytes.values = np.float16(0.1).tobytes()
        yield "wrong epsilon", f"norm.{position}", write(f"epsilon-{position}", model)
    for position, name in enumerate(convolutions):
        model, found = read()
        found[bound(found[name], "pad")].attributes["val"].immediateValue.tensor.ints.values[:] = [
            *(2, 0, 2, 0)
        ]
        found[bound(found[name], "pad_type")].attributes[
            "val"
        ].immediateValue.tensor.strings.values[:] = ["custom"]
        yield "shifted padding", position, write(f"padding-{position}", model)
