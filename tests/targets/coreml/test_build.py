"""Core ML packages: built at every precision, looked into, and run by the reference executor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("coremltools")

from edgecheck.capture import torch as program
from edgecheck.checks.export import judge_precision
from edgecheck.declare.model import Input
from edgecheck.digests import file_sha256
from edgecheck.mil.evaluator import Evaluator
from edgecheck.mil.reader import read
from edgecheck.runtime.torch_program import load_program
from edgecheck.targets.coreml.build import CoremlBuilder
from edgecheck.targets.registry import all_targets
from tests.mil import packages
from tests.targets.test_builds import Network

TARGET = all_targets()["coreml"]
# The least that an honest file of 4 or 8 bits reaches here is 20 dB; a broken one has none.
LEAST_DB = {"fp32": 100, "fp16": 50, "int8-weights": 30, "int8": 25, "int4": 15, "palettized": 15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captured program with calibration data, and a package of each precision."""
    folder = tmp_path_factory.mktemp("coreml")
    torch.manual_seed(0)
    inputs = [Input("image", ("batch", 3, 8, 8), low=-1.0, high=1.0)]
    program.capture(Network().eval(), inputs, ["scores"], {}, folder / "m.pt2")
    images = np.random.default_rng(0).uniform(-1, 1, (16, 3, 8, 8)).astype(np.float32)
    np.save(folder / "images.npy", images)
    np.save(folder / "one.npy", images[:1])
    for precision in TARGET.build.precisions:
        build(folder, precision, folder / f"{precision}.mlpackage")
    return folder


def build(folder: Path, precision: str, output: Path, **options: Any) -> Path:
    CoremlBuilder().build(
        precision=precision,
        source=str(folder / "m.pt2"),
        output=str(output),
        inputs=["image"],
        outputs=["scores"],
        calibration={"image": str(folder / "images.npy")},
        example={"image": str(folder / "one.npy")},
        options={**TARGET.options.defaults, **options},
    )
    return output


def inspect(path: Path) -> dict[str, Any]:
    return CoremlBuilder().inspect(path=str(path))


@pytest.mark.parametrize("precision", TARGET.build.precisions)
def test_a_package_holds_and_computes_what_was_asked_for(folder: Path, precision: str) -> None:
    package = folder / f"{precision}.mlpackage"
    contents = inspect(package)
    assert contents["failures"] == []
    failures, share = judge_precision(precision, contents)
    assert failures == []
    assert share is None or share > 0.9
    image = np.load(folder / "one.npy")
    expected = load_program(str(folder / "m.pt2")).module()(image=torch.from_numpy(image))
    expected = expected.detach().numpy()
    found = Evaluator(read(package)).run({"image": image})["scores"]
    assert found.dtype == np.float32
    error = np.sum((found - expected) ** 2)
    assert 10 * np.log10(np.sum(expected**2) / max(error, 1e-30)) > LEAST_DB[precision]


def test_a_float_package_is_not_taken_for_another_precision(folder: Path) -> None:
    contents = inspect(folder / "fp32.mlpackage")
    for precision in set(TARGET.build.precisions) - {"fp32"}:
        failures, _ = judge_precision(precision, contents)
        assert failures


def test_weights_of_four_bits_are_counted_in_elements_and_bytes(folder: Path) -> None:
    elements = 3 * 8 * 9 + 512 * 32 + 32 * 5
    for precision, storage in (("int4", "int4"), ("palettized", "palettized")):
        contents = inspect(folder / f"{precision}.mlpackage")
        assert contents["weight_elements"][storage] == elements
        assert contents["weight_bytes"][storage] == elements // 2


def test_activations_get_the_range_of_all_calibration_samples(folder: Path, tmp_path: Path) -> None:
    """coremltools' own calibration keeps the last sample's."""
    images = np.load(folder / "images.npy")
    for name, order in (("first", [0, *range(1, 16)]), ("last", [*range(1, 16), 0])):
        images[0] = 1.0  # the widest sample
        place = tmp_path / name
        place.mkdir()
        np.save(place / "images.npy", images[order])
        (place / "one.npy").write_bytes((folder / "one.npy").read_bytes())
        (place / "m.pt2").write_bytes((folder / "m.pt2").read_bytes())
        build(place, "int8", place / "m.mlpackage")
    scales = [_activation_scales(tmp_path / name / "m.mlpackage") for name in ("first", "last")]
    assert scales[0] == scales[1] != []


def test_inputs_that_are_named_like_words_of_mil_are_calibrated(tmp_path: Path) -> None:
    """coremltools calls an input state_workaround that the model calls state."""

    class Cell(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.cell = torch.nn.Linear(16, 8)

        def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.cell(torch.cat([x, state], 1)))

    inputs = [Input("x", ("batch", 8)), Input("state", ("batch", 8))]
    program.capture(Cell().eval(), inputs, ["y"], {}, tmp_path / "m.pt2")
    given = {}
    for name in ("x", "state"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(1, 8)).astype("f"))
        given[name] = str(tmp_path / f"{name}.npy")
    CoremlBuilder().build(
        source=str(tmp_path / "m.pt2"),
        output=str(tmp_path / "m.mlpackage"),
        precision="int8",
        inputs=["x", "state"],
        outputs=["y"],
        calibration=given,
        example=given,
        options=dict(TARGET.options.defaults),
    )
    assert _activation_scales(tmp_path / "m.mlpackage") != []


def _activation_scales(package: Path) -> list[float]:
    parsed = read(package)
    constants = {
        operation.outputs[0].name: operation.attributes["val"].data
        for operation in parsed.functions["main"].block.walk()
        if operation.operator == "const"
    }
    return [
        float(constants[name])
        for operation in parsed.functions["main"].block.walk()
        if operation.operator == "quantize"
        for name in operation.inputs["scale"]
        if isinstance(name, str)
    ]


def test_a_package_is_the_same_bytes_twice(folder: Path, tmp_path: Path) -> None:
    again = build(folder, "fp16", tmp_path / "again.mlpackage")
    assert file_sha256(again) == file_sha256(folder / "fp16.mlpackage")


def test_the_lint_names_what_ships_badly(folder: Path, tmp_path: Path) -> None:
    plain = inspect(folder / "fp32.mlpackage")
    assert "3 of 3 matrix operators are fp32" in plain["lint"][0]
    assert plain["lint"][1] == "the metadata lacks author, short_description, licence, version"
    metadata = {
        "author": "us",
        "short_description": "a test",
        "license": "Apache-2.0",
        "version": "1",
    }
    labels = ["a", "b", "c", "d", "e"]
    path = build(folder, "fp16", tmp_path / "m.mlpackage", labels=labels, metadata=metadata)
    (finding,) = inspect(path)["lint"]
    assert finding == "the classifier calls its scores probabilities, but they come from linear"


@pytest.mark.parametrize(("given", "format_says"), [("iOS15", "iOS15"), ("iOS18", "iOS18")])
def test_the_deployment_target_is_kept(
    folder: Path, tmp_path: Path, given: str, format_says: str
) -> None:
    path = build(folder, "fp32", tmp_path / "m.mlpackage", deployment_target=given)
    assert inspect(path)["format"]["deployment_target"] == format_says


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (6, "its operators are of opset CoreML7, which iOS17 brought (specification version 8)"),
        (8, ""),
        (10, ""),
        (99, "specification version 99 is newer than any known; the newest is 10 (iOS26)"),
    ],
)
def test_a_version_must_be_known_and_have_the_operators(
    folder: Path, tmp_path: Path, version: int, says: str
) -> None:
    path = Path(shutil.copytree(folder / "fp32.mlpackage", tmp_path / "m.mlpackage"))
    packages.change(path, lambda model: setattr(model, "specificationVersion", version))
    failures = inspect(path)["failures"]
    assert len(failures) == bool(says)
    assert all(says in line for line in failures)


@pytest.mark.parametrize("damage", ["manifest", "model", "weights", "empty"])
def test_a_damaged_package_is_a_failure_in_one_line(
    folder: Path, tmp_path: Path, damage: str
) -> None:
    path = build(folder, "fp16", tmp_path / "m.mlpackage")
    if damage == "empty":
        for item in sorted(path.rglob("*"), reverse=True):
            item.unlink() if item.is_file() else item.rmdir()
    else:
        names = {"manifest": "Manifest.json", "model": "model.mlmodel", "weights": "weight.bin"}
        (file,) = path.rglob(names[damage])
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (failure,) = inspect(path)["failures"]
    assert "\n" not in failure
    assert str(path) in failure


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"deployment_target": "iOS12"}, "deployment_target 'iOS12' is none of iOS15"),
        ({"compute_units": "gpu"}, "compute_units 'gpu' is none of all"),
        ({"images": {"image": {"mean": 3}}}, "images['image'] has ['mean']"),
        ({"images": {"image": {"scale": 0}}}, "scale 0 is not a positive number"),
        ({"images": ["image"]}, "images is a list"),
        ({"labels": ["a", "a"]}, "labels repeat"),
        ({"metadata": {"colour": "red"}}, "metadata has ['colour']"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], problem: str) -> None:
    assert problem in TARGET.options.problem({**TARGET.options.defaults, **options})


def test_the_default_options_fit() -> None:
    assert TARGET.options.problem(TARGET.options.defaults) == ""


class Pooled(torch.nn.Module):
    """Pools of all dimensions without a stride, which is then the kernel's size."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        flat = torch.nn.functional.max_pool1d(image.flatten(2), 2)
        plane = torch.nn.functional.max_pool2d(image, (2, 4))
        volume = torch.nn.functional.max_pool3d(image.unsqueeze(1), (3, 2, 2))
        return torch.cat([item.flatten(1) for item in (flat, plane, volume)], dim=1)


def test_a_pool_without_a_stride_converts(tmp_path: Path) -> None:
    inputs = [Input("image", ("batch", 3, 8, 8), low=-1.0, high=1.0)]
    program.capture(Pooled().eval(), inputs, ["scores"], {}, tmp_path / "m.pt2")
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "one.npy", image)
    np.save(tmp_path / "images.npy", image)
    package = build(tmp_path, "fp32", tmp_path / "m.mlpackage")
    found = Evaluator(read(package)).run({"image": image})["scores"]
    np.testing.assert_array_equal(found, Pooled()(torch.from_numpy(image)).numpy())
