"""The ExecuTorch driver on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executorch.extension.pybindings import _C

from edgecheck.capture import torch as program
from edgecheck.declare.model import Artifact, Input
from edgecheck.devices.binding import bind
from edgecheck.judge.operator_profile import summarize
from edgecheck.targets.executorch.build import ExecutorchBuilder
from edgecheck.targets.executorch.file import FileError
from edgecheck.targets.executorch.run import PORTABLE, ExecutorchError, ExecutorchRunner

INPUTS = [
    Input("image", ("batch", 3, 6, 8), low=-1.0, high=1.0),
    Input("index", ("batch",), dtype="int64", low=0, high=4),
]
OUTPUTS = ["total", "scores"]


class Network(torch.nn.Module):
    """Two inputs, two outputs in a dict, and an embedding, which XNNPACK leaves to a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 64, 3, padding=1)
        self.output = torch.nn.Linear(64 * 48, 256)
        self.embedding = torch.nn.Embedding(5, 256)

    def forward(self, image: torch.Tensor, index: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.output(torch.relu(self.conv(image)).flatten(1)) + self.embedding(index)
        return {"scores": scores, "total": scores.sum(1)}


class ChannelsLast(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image)


def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The network for both backends, and its inputs."""
    folder = tmp_path_factory.mktemp("executorch")
    program.capture(network(), INPUTS, OUTPUTS, {}, folder / "m.pt2")
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (5, 3, 6, 8)).astype(np.float32)
    arrays: dict[str, np.ndarray] = {"image": image, "index": np.arange(5) % 5}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        np.save(folder / f"{name}1.npy", array[:1])
    found: dict[str, Any] = {
        "feed": {name: str(folder / f"{name}.npy") for name in arrays},
        "single": {name: str(folder / f"{name}1.npy") for name in arrays},
        "arrays": arrays,
    }
    for backend in ("xnnpack", "portable"):
        found[backend] = str(folder / f"{backend}.pte")
        ExecutorchBuilder().build(
            precision="fp32",
            source=str(folder / "m.pt2"),
            output=found[backend],
            inputs=[item.name for item in INPUTS],
            outputs=OUTPUTS,
            calibration=None,
            example=found["single"],
            options={"backend": backend},
        )
    return found


def opened(path: str, backend: str = "xnnpack", threads: int = 1) -> ExecutorchRunner:
    driver = ExecutorchRunner()
    info = driver.load(path, {"threads": threads, "target": {"backend": backend}})
    if len(info["inputs"]) == len(INPUTS):
        found = bind(INPUTS, OUTPUTS, info["inputs"], info["outputs"], Artifact(path))
        driver.bind(found.for_runner())
    return driver


@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
def test_numbered_tensors_are_those_declared_in_order(
    files: dict[str, Any], tmp_path: Path, backend: str
) -> None:
    driver = opened(files[backend], backend)
    (paths,) = driver.run([{"inputs": files["feed"], "directory": str(tmp_path)}])
    with torch.no_grad():
        expected = network()(**{n: torch.from_numpy(a) for n, a in files["arrays"].items()})
    for name in OUTPUTS:
        np.testing.assert_allclose(np.load(paths[name]), expected[name].numpy(), atol=1e-5)


def test_strides_and_byte_orders_are_read_right(files: dict[str, Any], tmp_path: Path) -> None:
    driver = opened(files["xnnpack"])
    image = files["arrays"]["image"][:1]
    turned = np.ascontiguousarray(image.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not turned.flags.c_contiguous
    results = [
        driver.infer(driver._file_inputs({"image": array, "index": np.array([2], dtype)}))
        for array, dtype in ((image, "<i8"), (turned, ">i8"), (image.astype(">f4"), "<i4"))
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0]["output_1"], other["output_1"])


def test_a_program_for_channels_last_gets_its_bytes_in_that_order(tmp_path: Path) -> None:
    """The runtime would read any other order without a word."""
    from executorch.exir import to_edge_transform_and_lower

    torch.manual_seed(0)
    module = ChannelsLast().eval()
    image = torch.randn(1, 3, 6, 8).to(memory_format=torch.channels_last)
    lowered = to_edge_transform_and_lower(torch.export.export(module, (image,)), partitioner=[])
    path = tmp_path / "m.pte"
    path.write_bytes(bytes(lowered.to_executorch().buffer))
    driver = opened(str(path), "portable")
    assert driver._inputs["input_0"]["channels_last"]
    result = driver.infer({"input_0": np.ascontiguousarray(image.numpy())})["output_0"]
    with torch.no_grad():
        np.testing.assert_allclose(result, module(image).numpy(), atol=1e-6)


def test_inputs_of_other_shapes_and_kinds_are_named(files: dict[str, Any]) -> None:
    driver = opened(files["xnnpack"])
    image, index = np.zeros((1, 3, 6, 8), np.float32), np.zeros(1, np.int64)
    for wrong in (np.zeros((2, 3, 6, 8)), np.zeros((1, 3, 8, 6)), np.zeros((3, 6, 8))):
        given = {"input_0": wrong.astype(np.float32), "input_1": index}
        with pytest.raises(ValueError, match=r"input_0 has shape .*, but the file takes \(1, 3, "):
            driver.infer(given)
    with pytest.raises(ValueError, match="'image' is int64, but the file takes float32"):
        driver._file_inputs({"image": np.zeros((1, 3, 6, 8), np.int64), "index": index})
    assert np.isfinite(driver.infer({"input_0": image, "input_1": index})["output_0"]).all()


def test_files_that_are_none_are_refused_before_the_runtime_sees_them(
    files: dict[str, Any], tmp_path: Path
) -> None:
    whole = Path(files["xnnpack"]).read_bytes()
    for content, line in (
        (b"", "the file is empty"),
        (b"this is not a model", r"not an ExecuTorch program \(identifier ET12\)"),
        (whole[: len(whole) // 2], "the file is cut off"),
        (whole[:1000] + bytes(200) + whole[1200:], r".+"),
    ):
        (tmp_path / "m.pte").write_bytes(content)
        with pytest.raises((FileError, ExecutorchError), match=line) as caught:
            opened(str(tmp_path / "m.pte"))
        assert "\n" not in str(caught.value)


def test_a_delegate_that_the_runtime_lacks_is_named(files: dict[str, Any], tmp_path: Path) -> None:
    content = Path(files["xnnpack"]).read_bytes().replace(b"XnnpackBackend", b"NowhereBackend")
    (tmp_path / "m.pte").write_bytes(content)
    with pytest.raises(ExecutorchError, match=r"lowered to NowhereBackend, which this machine's"):
        opened(str(tmp_path / "m.pte"))


def test_a_kernel_that_the_runtime_lacks_is_named(files: dict[str, Any], tmp_path: Path) -> None:
    content = Path(files["portable"]).read_bytes().replace(b"aten::embedding", b"aten::embiddeng")
    (tmp_path / "m.pte").write_bytes(content)
    with pytest.raises(ExecutorchError, match=r"has no kernel for aten::embiddeng\.out$"):
        opened(str(tmp_path / "m.pte"))


def test_errors_of_the_runtime_are_words(files: dict[str, Any]) -> None:
    """A value that no kernel can take: the embedding has five rows."""
    driver = opened(files["xnnpack"])
    image = np.zeros((1, 3, 6, 8), np.float32)
    with pytest.raises(ExecutorchError, match=r"^inference failed: invalid argument \(Exec"):
        driver.infer({"input_0": image, "input_1": np.array([99])})


def test_files_can_be_loaded_beside_each_other_and_again(files: dict[str, Any]) -> None:
    array = {"input_0": files["arrays"]["image"][:1], "input_1": np.array([1])}
    drivers = [opened(files[name], name) for name in ("xnnpack", "portable", "xnnpack")]
    first = [driver.infer(array)["output_1"] for driver in drivers]
    drivers[1].load(files["xnnpack"], {"threads": 1})
    again = [driver.infer(array)["output_1"] for driver in drivers]
    np.testing.assert_array_equal(again[0], first[0])
    np.testing.assert_array_equal(again[1], first[0])
    np.testing.assert_array_equal(again[2], first[2])
    np.testing.assert_allclose(first[0], first[1], atol=1e-5)


def test_a_timed_inference_gives_the_same_each_time(files: dict[str, Any]) -> None:
    """Planned inputs are overwritten by the inference that reads them."""
    driver = opened(files["xnnpack"])
    array = {"input_0": files["arrays"]["image"][:1], "input_1": np.array([1])}
    expected = driver.infer(array)["output_1"]
    infer: Any = driver.prepare_inference(array)
    for _ in range(3):
        np.testing.assert_array_equal(infer()[1].numpy(), expected)


def test_threads_are_as_many_as_asked_for(files: dict[str, Any]) -> None:
    for threads in (2, 1):
        opened(files["xnnpack"], threads=threads)
        assert _C._threadpool_get_thread_count() == threads


def test_what_no_delegate_takes_is_a_finding_unless_none_was_wanted(
    files: dict[str, Any],
) -> None:
    mixed = opened(files["xnnpack"]).placement(files["single"]).as_record()
    assert mixed["delegates"] == {"XnnpackBackend": 1}
    assert "aten::embedding.out" in mixed["undelegated_operators_by_type"]
    assert mixed["undelegated_operators"] == sum(mixed["undelegated_operators_by_type"].values())
    assert mixed["operators"] == mixed["delegated_operators"] + mixed["undelegated_operators"]
    plain = opened(files["portable"], "portable").placement(files["single"]).as_record()
    assert plain["delegates"] == {}
    assert plain["operators"] == plain["portable_operators"] > 0
    assert "undelegated_operators" not in plain
    unlowered = opened(files["portable"]).placement(files["single"]).as_record()
    assert unlowered["undelegated_operators"] == plain["operators"]


def test_a_profile_shows_operators_within_delegates_and_beside_them(files: dict[str, Any]) -> None:
    driver = opened(files["xnnpack"])
    found = driver.profile(files["single"])
    assert found.note == ""
    assert 3 <= found.runs <= 50
    profile = summarize(found)
    assert profile.preferred == "XnnpackBackend"
    inside = [item.operator for item in profile.types if item.placed == "XnnpackBackend"]
    assert any(name.startswith("Convolution") for name in inside)
    assert any(name.startswith("Fully Connected") for name in inside)
    assert "aten::embedding.out" in {item.operator for item in profile.fallbacks}
    assert {item.placed for item in profile.fallbacks} == {PORTABLE}
    assert sum(node.share for node in profile.nodes) == pytest.approx(1)
    plain = summarize(opened(files["portable"], "portable").profile(files["single"]))
    assert {item.operator for item in plain.types} >= {"aten::convolution.out", "aten::addmm.out"}
    assert plain.fallbacks == ()


def test_the_planned_arena_is_reported(files: dict[str, Any]) -> None:
    reported = [
        opened(files[name], name).reported_memory(files["single"])["planned_arena_bytes"]
        for name in ("xnnpack", "portable")
    ]
    # At least the inputs; without a delegate all activations, of which the convolution's is one.
    assert reported[0] >= 4 * 3 * 6 * 8 + 8
    assert reported[1] >= 4 * 64 * 6 * 8
