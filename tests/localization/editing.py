"""Single-layer faults planted into .onnx, .tflite and .mlpackage files.

Each function gives a fault's name, the broken layer (its position among those with weights in the
order of execution, or its path) and the edited copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.localization.files import PackageFile, TFLiteFile, onnx_layers

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

    def write(name: str, model: Any) -> Path:
        onnx.save(model, folder / f"{name}.onnx")
        return folder / f"{name}.onnx"

    for position in range(len(onnx_layers(onnx.load(path)))):
        for name, edit in (("zeroed channel", zero_row), ("transposed weight", transposed)):
            model = onnx.load(path)
            node, stored = onnx_layers(model)[position]
            weight = numpy_helper.to_array(stored)
            rows_last = node.op_type == "MatMul"
            if edit is transposed and not _square(weight, (0, 1)):
                continue
            changed = zero_row(weight.T).T if edit is zero_row and rows_last else edit(weight)
            stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), stored.name))
            yield name, position, write(f"{name}-{position}", model)
        model = onnx.load(path)
        node, _ = onnx_layers(model)[position]
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
            node, _ = onnx_layers(model)[position]
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
    from ai_edge_litert import schema_py_generated as schema

    def read() -> tuple[TFLiteFile, list[Any]]:
        file = TFLiteFile(path)
        return file, file.layers

    for position in range(len(read()[1])):
        file, layers = read()
        tensor = file.stored(layers[position])
        axes = (0, len(tensor.shape) - 1)
        for name in ("zeroed channel", "transposed weight"):
            file, _ = read()
            weight = file.weights[position]
            if name == "zeroed channel":
                weight = zero_row(weight)
            elif _square(weight, axes):
                weight = np.swapaxes(weight, *axes)
            else:
                continue
            file.put(position, weight)
            yield name, position, file.save(folder / f"{name}-{position}.tflite")
        grid = tensor.quantization
        if grid is not None and grid.scale is not None and len(grid.scale):
            file, layers = read()
            grid = file.stored(layers[position]).quantization
            grid.scale = np.asarray(grid.scale, np.float32) * np.float32(1.7)
            yield "wrong scale", position, file.save(folder / f"weight-scale-{position}.tflite")
            for name in ("clipped range", "wrong zero point"):
                file, layers = read()
                grid = file.graph.tensors[layers[position].outputs[0]].quantization
                if grid is None or grid.scale is None or not len(grid.scale):
                    continue
                if name == "clipped range":
                    grid.scale = np.asarray(grid.scale, np.float32) * np.float32(0.3)
                elif grid.zeroPoint[0] > 40:
                    continue
                else:
                    grid.zeroPoint = np.asarray(grid.zeroPoint) + 80
                yield name, position, file.save(folder / f"{name}-{position}.tflite")
        file, layers = read()
        options = layers[position].builtinOptions
        if options.fusedActivationFunction == schema.ActivationFunctionType.RELU:
            options.fusedActivationFunction = schema.ActivationFunctionType.NONE
            yield "lost activation", position, file.save(folder / f"activation-{position}.tflite")


def coreml_faults(path: Path, folder: Path) -> Iterator[tuple[str, int | str, Path]]:
    """The same of an ML Program: in its weight file, or in the constants of its protobuf."""
    for position, weight in enumerate(PackageFile(path).weights):
        for fault, edit in (("zeroed channel", zero_row), ("transposed weight", transposed)):
            if edit is transposed and not _square(weight, (0, 1)):
                continue
            file = PackageFile(path)
            file.put(position, edit(weight))
            yield fault, position, file.save(folder / f"{fault}-{position}.mlpackage")
    operations = PackageFile(path).operations
    norms = [name for name, item in operations.items() if item.type == "layer_norm"]
    convolutions = [name for name, item in operations.items() if item.type == "conv"]
    for position, name in enumerate(norms):
        file = PackageFile(path)
        value = file.constant(file.operations[name], "epsilon")
        if value.floats.values:
            value.floats.values[:] = [0.1]
        else:
            value.bytes.values = np.float16(0.1).tobytes()
        yield (
            "wrong epsilon",
            f"norm.{position}",
            file.save(folder / f"epsilon-{position}.mlpackage"),
        )
    for position, name in enumerate(convolutions):
        file = PackageFile(path)
        file.constant(file.operations[name], "pad").ints.values[:] = [2, 0, 2, 0]
        file.constant(file.operations[name], "pad_type").strings.values[:] = ["custom"]
        yield "shifted padding", position, file.save(folder / f"padding-{position}.mlpackage")
