"""The Core ML driver off macOS: arrays, images, classifiers, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("coremltools")

from edgecheck.capture import torch as program
from edgecheck.declare.model import Input
from edgecheck.targets.coreml.build import CoremlBuilder
from edgecheck.targets.coreml.images import to_pixels
from edgecheck.targets.coreml.run import CoremlRunner
from edgecheck.targets.registry import all_targets

TARGET = all_targets()["coreml"]
pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself runs on macOS")
IMAGE = {"scale": 1 / 255, "bias": [0.0, -0.5, 0.0]}


class Colours(torch.nn.Module):
    """Means of the three channels, and their softmax."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.softmax(image.mean((2, 3)), -1)


def package(folder: Path, **options: Any) -> Path:
    inputs = [Input("image", ("batch", 3, 4, 4), low=0.0, high=1.0)]
    program.capture(Colours().eval(), inputs, ["shares"], {}, folder / "m.pt2")
    np.save(folder / "one.npy", np.zeros((1, 3, 4, 4), np.float32))
    CoremlBuilder().build(
        precision="fp32",
        source=str(folder / "m.pt2"),
        output=str(folder / "m.mlpackage"),
        inputs=["image"],
        outputs=["shares"],
        calibration=None,
        example={"image": str(folder / "one.npy")},
        options={**TARGET.options.defaults, **options},
    )
    return folder / "m.mlpackage"


def opened(path: Path, **options: Any) -> tuple[CoremlRunner, dict[str, Any]]:
    driver = CoremlRunner()
    return driver, driver.load(str(path), {"threads": 1, "target": options})


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 3, 4, 4)).astype(np.float32)


def expected(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = Colours()(torch.from_numpy(values)).numpy()
    return found


def test_an_array_goes_in_as_it_is_and_the_executor_is_named(tmp_path: Path) -> None:
    driver, info = opened(package(tmp_path))
    assert info["inputs"] == [{"name": "image", "shape": [1, 3, 4, 4], "dtype": "float32"}]
    values = pixels() / 255
    np.testing.assert_allclose(
        driver.infer({"image": values})["shares"], expected(values), rtol=1e-6
    )
    assert driver.placement({}).as_record() == {"executor": "mil-reference"}


def test_an_image_is_given_as_the_pixels_that_its_values_stand_for(tmp_path: Path) -> None:
    path = package(tmp_path, images={"image": IMAGE})
    driver, info = opened(path, images={"image": IMAGE})
    assert info["inputs"][0]["shape"] == [1, 3, 4, 4]
    bias = np.asarray(IMAGE["bias"], np.float32).reshape(1, 3, 1, 1)
    values = (pixels() / 255 + bias).astype(np.float32)
    np.testing.assert_allclose(
        driver.infer({"image": values})["shares"], expected(values), rtol=1e-5
    )


def test_an_image_whose_pixels_have_no_stated_meaning_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, images={"image": IMAGE})
    with pytest.raises(ValueError, match=r"inputs \['image'\] are images: say what a pixel means"):
        opened(path)


@pytest.mark.parametrize("values", [0.3 / 255, -0.1, 1.5])
def test_values_that_no_pixel_stands_for_are_refused(values: float) -> None:
    array = np.full((1, 1, 2, 2), values, np.float32)
    with pytest.raises(ValueError, match=r"declare Input\('x', ..., step="):
        to_pixels(array, {"scale": 1 / 255}, "x")


def test_a_classifier_gives_its_probabilities_in_the_order_of_the_labels(tmp_path: Path) -> None:
    driver, info = opened(package(tmp_path, labels=["red", "green", "blue"]))
    assert [item["shape"] for item in info["outputs"]] == [[1, 3]]
    values = pixels(1) / 255
    (shares,) = driver.infer({"image": values}).values()
    np.testing.assert_allclose(shares, expected(values), rtol=1e-6)


def test_a_package_for_a_newer_system_than_stated_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, deployment_target="iOS18")
    opened(path, deployment_target="iOS18")
    with pytest.raises(ValueError, match=r"needs iOS18, but the deployment target is iOS16"):
        opened(path, deployment_target="iOS16")


def test_a_wrong_shape_is_told_with_the_right_one(tmp_path: Path) -> None:
    driver, _ = opened(package(tmp_path))
    with pytest.raises(ValueError, match=r"(1, 3, 5, 4).*(1, 3, 4, 4)"):
        driver.infer({"image": np.zeros((1, 3, 5, 4), np.float32)})


class Gate(torch.nn.Module):
    """Booleans in and out, and a number of 0 and 1 that is none."""

    def forward(
        self, x: torch.Tensor, keep: torch.Tensor, share: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kept = x.masked_fill(~keep, 3.0) * share
        return kept > 0.5, kept


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_booleans_are_numbers_in_the_file_and_booleans_outside(
    precision: str, tmp_path: Path
) -> None:
    inputs = [
        Input("x", ("batch", 4)),
        Input("keep", ("batch", 4), dtype="bool"),
        Input("share", ("batch", 4), low=0.0, high=1.0),
    ]
    program.capture(Gate().eval(), inputs, ["alarm", "kept"], {}, tmp_path / "m.pt2")
    feed = {
        "x": np.array([[0.25, 0.75, -1.0, 1.0]], np.float32),
        "keep": np.array([[True, True, False, True]]),
        "share": np.array([[1.0, 1.0, 1.0, 0.0]], np.float32),
    }
    for name, array in feed.items():
        np.save(tmp_path / f"{name}.npy", array)
    CoremlBuilder().build(
        precision=precision,
        source=str(tmp_path / "m.pt2"),
        output=str(tmp_path / "m.mlpackage"),
        inputs=list(feed),
        outputs=["alarm", "kept"],
        calibration=None,
        example={name: str(tmp_path / f"{name}.npy") for name in feed},
        options=TARGET.options.defaults,
    )
    driver, tensors = opened(tmp_path / "m.mlpackage")
    dtypes = {item["name"]: item["dtype"] for item in tensors["inputs"] + tensors["outputs"]}
    assert {name for name, dtype in dtypes.items() if dtype == "bool"} == {"keep", "alarm"}
    outputs = driver.infer({name: feed[name].astype(dtypes[name]) for name in feed})
    assert outputs["alarm"].dtype == bool
    assert outputs["alarm"].tolist() == [[False, True, True, False]]
    assert outputs["kept"].tolist() == [[0.25, 0.75, 3.0, 0.0]]
