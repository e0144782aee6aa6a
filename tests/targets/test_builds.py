"""The recipes of both targets, on a captured program: what they write is what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgecheck.capture import torch as program
from edgecheck.checks.export import judge_precision
from edgecheck.declare.model import Input
from edgecheck.targets.ort.build import OrtBuilder
from edgecheck.targets.registry import all_targets
from edgecheck.targets.tflite.build import TfliteBuilder
from edgecheck.targets.tflite.run import TfliteRunner

INPUTS = [Input("image", ("batch", 3, 8, 8), low=-1.0, high=1.0)]
OUTPUTS = ["scores"]
TOOLS = {"ort": OrtBuilder, "tflite": TfliteBuilder}


class Network(torch.nn.Module):
    """A convolution and two linear layers, the latter with most of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.hidden = torch.nn.Linear(8 * 64, 32)
        self.output = torch.nn.Linear(32, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.conv(image)).flatten(1)
        return self.output(torch.relu(self.hidden(hidden)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The captured program, the fp32 files made of it, and calibration data."""
    folder = tmp_path_factory.mktemp("program")
    torch.manual_seed(0)
    program.capture(Network().eval(), INPUTS, OUTPUTS, {}, folder / "m.pt2")
    images = np.random.default_rng(0).uniform(-1, 1, (16, 3, 8, 8)).astype(np.float32)
    np.save(folder / "images.npy", images)
    np.save(folder / "one.npy", images[:1])
    found: dict[str, Any] = {"folder": folder, "program": str(folder / "m.pt2")}
    for name in TOOLS:
        found[name] = build(name, "fp32", found["program"], folder)
    return found


def build(target: str, precision: str, source: str, folder: Path) -> str:
    output = folder / f"{precision}{all_targets()[target].files.suffix}"
    TOOLS[target]().build(
        precision=precision,
        source=source,
        output=str(output),
        inputs=["image"],
        outputs=OUTPUTS,
        calibration={"image": str(folder / "images.npy")},
        example={"image": str(folder / "one.npy")},
        options=dict(all_targets()[target].options.defaults),
    )
    return str(output)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-dynamic", "int8", "int4"])
@pytest.mark.parametrize("target", TOOLS)
def test_a_build_holds_the_precision_that_was_asked_for(
    files: dict[str, Any], target: str, precision: str
) -> None:
    made_from = all_targets()[target].build.precisions[precision]
    source = files["program"] if made_from == "torch" else files[target]
    contents = TOOLS[target]().inspect(path=build(target, precision, source, files["folder"]))
    assert contents["failures"] == []
    failures, share = judge_precision(precision, contents)
    assert failures == []
    assert share is None or share > 0.9


@pytest.mark.parametrize(
    ("precision", "io", "dtype"),
    [
        ("int8", "default", "int8"),
        ("int8", "float32", "float32"),
        ("int16x8", "default", "int16"),
    ],
)
def test_static_tflite_files_take_the_types_that_are_asked_for(
    files: dict[str, Any], precision: str, io: str, dtype: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "m.tflite")
    TfliteBuilder().build(
        precision=precision,
        source=files["tflite"],
        output=path,
        inputs=["image"],
        outputs=OUTPUTS,
        calibration={"image": str(files["folder"] / "images.npy")},
        example={"image": str(files["folder"] / "one.npy")},
        options={"io": io},
    )
    loaded = TfliteRunner().load(path, {"threads": 1})
    assert {item["dtype"] for item in [*loaded["inputs"], *loaded["outputs"]]} == {dtype}
    failures, share = judge_precision(precision, TfliteBuilder().inspect(path=path))
    assert failures == []
    assert share is not None
    assert share > 0.9


@pytest.mark.parametrize("target", TOOLS)
def test_a_float_file_is_not_taken_for_another_precision(
    files: dict[str, Any], target: str
) -> None:
    contents = TOOLS[target]().inspect(path=files[target])
    for precision in ("fp16", "int8-dynamic", "int8", "int8-qat", "int4"):
        failures, share = judge_precision(precision, contents)
        assert failures
        assert share == 0.0


def test_a_build_is_the_same_bytes_twice(files: dict[str, Any], tmp_path: Path) -> None:
    for name in ("images.npy", "one.npy"):
        (tmp_path / name).write_bytes((files["folder"] / name).read_bytes())
    for target in TOOLS:
        again = build(target, "fp32", files["program"], tmp_path)
        assert Path(again).read_bytes() == Path(files[target]).read_bytes()


def test_a_file_that_ships_names_no_source_file(files: dict[str, Any]) -> None:
    for target in TOOLS:
        assert str(Path(__file__).parent).encode() not in Path(files[target]).read_bytes()


DIGEST = """
import sys
from pathlib import Path
from edgecheck.capture import torch as program
from edgecheck.declare.model import Input
from fixtures import digits
inputs = [Input("image", ("batch", 1, 8, 8))]
print("digest", program.capture(digits.qat_cnn(), inputs, ["logits"], {}, Path(sys.argv[1])))
"""


@pytest.mark.long
def test_the_digest_of_a_quantized_program_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Its graph remembers the objects that it was made of, by their addresses."""
    lines = [
        subprocess.run(
            [sys.executable, "-c", DIGEST, str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]
        for name in ("a.pt2", "b.pt2")
    ]
    assert lines[0].startswith("digest ")
    assert lines[0] == lines[1]


def test_the_digest_of_a_program_is_that_of_its_graph_and_weights(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a.pt2", 0), ("b.pt2", 0), ("c.pt2", 1)):
        torch.manual_seed(seed)
        module = Network().eval()
        digests.append(program.capture(module, INPUTS, OUTPUTS, {}, tmp_path / name))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
