"""Reading ML Programs: what is declared comes out, and a damaged file is one clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import types
from coremltools.proto import Model_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.mil.call import TensorType, UnsupportedError
from edgecheck.mil.evaluator import Evaluator, InputError
from edgecheck.mil.program import ListType, ProgramError, StateType, Value
from edgecheck.mil.reader import read
from edgecheck.mil.values import ExecutionError
from tests.mil import packages
from tests.mil.packages import WEIGHT, mb


def test_declared_types_and_weights_come_out(linear: Path) -> None:
    program = read(linear)
    function = program.functions[program.default_function]
    assert [(each.name, each.type) for each in function.inputs] == [
        ("image", TensorType("fp32", (2, 256)))
    ]
    operation = function.block.operations[-1]
    assert (operation.operator, operation.name) == ("linear", "logits")
    assert operation.outputs[0].type == TensorType("fp32", (2, 8))
    values = {
        each.outputs[0].name: each.attributes["val"] for each in function.block.operations[:-1]
    }
    (name,) = operation.inputs["weight"]
    assert isinstance(name, str)
    weight = values[name]
    assert weight.in_file
    assert isinstance(weight.data.base, np.ndarray)  # a view of the mapped file, no copy
    np.testing.assert_array_equal(weight.data, WEIGHT)


def test_writing_to_a_weight_leaves_the_file_alone(package: Path) -> None:
    before = packages.weight_file(package).read_bytes()
    for operation in read(package).functions["main"].block.operations:
        for value in operation.attributes.values():
            if value.in_file:
                value.data[:] = 0
    assert packages.weight_file(package).read_bytes() == before


@pytest.mark.parametrize(
    ("target", "version", "name"),
    [
        (ct.target.iOS15, 6, "iOS15"),
        (ct.target.iOS16, 7, "iOS16"),
        (ct.target.iOS18, 9, "iOS18"),
        (ct.target.iOS26, 10, "iOS26"),
    ],
)
def test_specification_versions_are_deployment_targets(
    tmp_path: Path, target: Any, version: int, name: str
) -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1,))], opset_version=target)
    def program(x: Any) -> Any:
        return mb.relu(x=x)

    found = read(packages.converted(program, tmp_path, minimum_deployment_target=target))
    assert (found.specification_version, found.deployment_target) == (version, name)


class _Pooled(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.softmax(image.mean((2, 3)), 1)


@pytest.fixture(scope="module")
def pooled() -> Any:
    example = (torch.rand(1, 3, 8, 8),)
    return torch.export.export(_Pooled().eval(), example).run_decompositions({})


def test_image_classifier_and_metadata(pooled: Any, tmp_path: Path) -> None:
    image = ct.ImageType(
        name="image", shape=(1, 3, 8, 8), scale=1 / 255, color_layout=ct.colorlayout.BGR
    )
    labels = ct.ClassifierConfig(["cat", "dog", "hen"], predicted_feature_name="animal")
    path = packages.converted(pooled, tmp_path, inputs=[image], classifier_config=labels)

    def describe(model: Any) -> None:
        metadata = model.description.metadata
        metadata.author, metadata.license, metadata.versionString = "me", "MIT", "1.2"
        metadata.shortDescription, metadata.userDefined["git"] = "animals", "abc"
        model.description.input[0].shortDescription = "a photo"

    packages.change(path, describe)
    program = read(path)
    (taken,) = program.interfaces["main"].inputs
    assert (taken.kind, taken.shape, taken.colour_layout) == ("image", (1, 3, 8, 8), "BGR")
    assert (taken.dtype, taken.flexible, taken.short_description) == ("uint8", False, "a photo")
    interface = program.interfaces["main"]
    assert [each.kind for each in interface.outputs] == ["string", "dictionary"]
    assert interface.predicted_feature_name == "animal"
    assert interface.predicted_probabilities_name == "animal_probs"
    assert program.class_labels == ("cat", "dog", "hen")
    metadata = program.metadata
    assert (metadata.author, metadata.licence, metadata.version) == ("me", "MIT", "1.2")
    assert (metadata.short_description, metadata.user_defined["git"]) == ("animals", "abc")


def test_range_and_enumerated_shapes(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 4))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        return mb.relu(x=x)

    path = packages.converted(program, tmp_path)

    def flexible(model: Any) -> None:
        sizes = model.description.input[0].type.multiArrayType.shapeRange.sizeRanges
        for least, greatest in ((1, -1), (4, 4)):
            size = sizes.add()
            size.lowerBound, size.upperBound = least, greatest

    packages.change(path, flexible)
    (taken,) = read(path).interfaces["main"].inputs
    assert taken.ranges == ((1, None), (4, 4))
    assert taken.flexible
    assert taken.accepts((1000, 4))
    assert not taken.accepts((0, 4))
    assert not taken.accepts((1, 5))
    assert not taken.accepts((1,))

    def enumerated(model: Any) -> None:
        array = model.description.input[0].type.multiArrayType
        for rows in (2, 1):
            array.enumeratedShapes.shapes.add().shape.extend((rows, 4))

    packages.change(path, enumerated)
    (taken,) = read(path).interfaces["main"].inputs
    assert taken.enumerated_shapes == ((2, 4), (1, 4))
    assert taken.flexible
    assert taken.accepts((2, 4))
    assert not taken.accepts((3, 4))


def test_flexible_shapes_of_a_converted_model(tmp_path: Path) -> None:
    exported = torch.export.export(
        torch.nn.ReLU(), (torch.rand(4, 3),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    ).run_decompositions({})
    rows = ct.RangeDim(2, 9, default=4)
    inputs = [ct.TensorType(name="x", shape=(rows, 3))]
    program = read(packages.converted(exported, tmp_path, inputs=inputs))
    (taken,) = program.interfaces["main"].inputs
    assert (taken.shape, taken.ranges) == ((4, 3), ((2, 9), (3, 3)))
    assert program.functions["main"].inputs[0].type == TensorType("fp32", (None, 3))


def test_states_and_several_functions(tmp_path: Path) -> None:
    @mb.program(
        input_specs=[
            mb.TensorSpec((2,), dtype=types.fp16),
            mb.StateTensorSpec((2,), dtype=types.fp16),
        ],
        opset_version=ct.target.iOS18,
    )
    def program(x: Any, memory: Any) -> Any:
        return mb.add(x=x, y=mb.read_state(input=memory))

    path = packages.converted(program, tmp_path, minimum_deployment_target=ct.target.iOS18)
    found = read(path)
    (state,) = found.interfaces["main"].states
    assert (state.name, state.kind, state.dtype, state.shape) == ("memory", "state", "fp16", (2,))
    assert found.functions["main"].inputs[1].type == StateType(TensorType("fp16", (2,)))

    combined = tmp_path / "both.mlpackage"
    description = ct.utils.MultiFunctionDescriptor()
    description.add_function(str(path), "main", "first")
    description.add_function(str(path), "main", "second")
    description.default_function_name = "second"
    ct.utils.save_multifunction(description, str(combined))
    both = read(combined)
    assert sorted(both.functions) == sorted(both.interfaces) == ["first", "second"]
    assert both.default_function == "second"
    assert both.interfaces["first"].states[0].name == "memory"


# The package.


def test_what_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="no such file"):
        read(tmp_path / "absent.mlpackage")
    with pytest.raises(ProgramError, match=r"is not an mlpackage: it has no Manifest\.json"):
        read(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"rootModelIdentifier": "a"}', "[" * 9999]
)
def test_corrupt_manifest(package: Path, text: str) -> None:
    (package / "Manifest.json").write_text(text)
    with pytest.raises(ProgramError, match="names no root model"):
        read(package)


@pytest.mark.parametrize("path", ["../../other.mlmodel", "/etc/passwd", "a\0b"])
def test_manifest_paths_stay_in_the_package(package: Path, tmp_path: Path, path: str) -> None:
    shutil.copy(packages.model_file(package), tmp_path / "other.mlmodel")
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ProgramError, match="leads out of the package"):
        read(package)


def test_corrupt_protobuf(package: Path) -> None:
    file = packages.model_file(package)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ProgramError, match=r"model\.mlmodel is damaged"):
        read(package)
    file.write_bytes(b"")
    with pytest.raises(ProgramError, match=r"model\.mlmodel is empty"):
        read(package)


@pytest.mark.parametrize("kind", ["neuralNetwork", "pipeline", "treeEnsembleClassifier"])
def test_other_models_are_refused(tmp_path: Path, kind: str) -> None:
    model = Model_pb2.Model(specificationVersion=4)
    getattr(model, kind).SetInParent()
    file = tmp_path / "old.mlmodel"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ProgramError, match=f'holds a {kind} and no ML Program; .*"mlprogram"'):
        read(file)


def test_a_bare_model_file_is_read_too(package: Path) -> None:
    assert read(packages.model_file(package)).functions.keys() == {"main"}


def _wrong_dtype(model: Any) -> None:
    packages.operations(model)[-1].outputs[0].type.tensorType.dataType = 99


def _variadic(model: Any) -> None:
    dimensions = packages.operations(model)[-1].outputs[0].type.tensorType.dimensions
    dimensions[0].unknown.variadic = True


def _short_constant(model: Any) -> None:
    for operation in packages.operations(model):
        if operation.type == "const" and not operation.attributes["val"].blobFileValue.fileName:
            del operation.attributes["val"].immediateValue.tensor.floats.values[1:]


def _nameless_operator(model: Any) -> None:
    packages.operations(model)[-1].type = "linear\n"


def _no_block(model: Any) -> None:
    model.mlProgram.functions["main"].opset = "CoreML99"


def _no_function(model: Any) -> None:
    model.mlProgram.functions.clear()


def _other_default(model: Any) -> None:
    model.description.defaultFunctionName = "absent"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_wrong_dtype, r"operation 'logits' \(linear\): data type 99 of MIL\.proto is not known"),
        (_short_constant, r"\(const\): a constant of shape \(8,\) holds 1 floats, not 8"),
        (_nameless_operator, r"operation 'logits': its operator 'linear\\n' is not a name"),
        (_no_block, "function 'main' has no block for its opset 'CoreML99'"),
        (_no_function, "has no function"),
        (_other_default, r"default function 'absent' is missing; there are \['main'\]"),
    ],
)
def test_damaged_programs(package: Path, edit: Any, message: str) -> None:
    packages.change(package, edit)
    with pytest.raises(ProgramError, match=message) as caught:
        read(package)
    assert str(caught.value).startswith(str(package))


def test_varying_rank_is_unsupported(package: Path) -> None:
    packages.change(package, _variadic)
    with pytest.raises(UnsupportedError, match=r"'logits'.*varying number of axes"):
        read(package)


def test_constants_of_strings_and_lists(pooled: Any, tmp_path: Path) -> None:
    path = packages.converted(pooled, tmp_path, classifier_config=ct.ClassifierConfig([7, 5, 9]))
    program = read(path)
    assert program.class_labels == (7, 5, 9)
    (classify,) = [
        each for each in program.functions["main"].block.walk() if each.operator == "classify"
    ]
    (classes,) = classify.inputs["classes"]
    assert isinstance(classes, Value)
    assert classes.type == ListType(TensorType("int64", ()), 3)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_byte_is_harmless_or_refused(linear: Path, data: st.DataObject) -> None:
    content = bytearray(packages.model_file(linear).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = packages.model_file(linear).with_name("changed.mlmodel")
    file.write_bytes(content)
    try:
        evaluator = Evaluator(read(file))
        evaluator.run({"image": np.zeros((2, 256), np.float32)})
    except (ProgramError, UnsupportedError, InputError, ExecutionError) as error:
        assert "\n" not in str(error)
