"""ExecuTorch's recipes, and what is read of the files that they write."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.capture import torch as program
from edgecheck.checks.export import judge_precision
from edgecheck.declare.model import Input
from edgecheck.errors import ArtifactError, ChildError
from edgecheck.mil.evaluator import Evaluator
from edgecheck.mil.reader import read
from edgecheck.process.parent import Child, Service
from edgecheck.targets.executorch import coreml_delegate, file
from edgecheck.targets.executorch.build import ExecutorchBuilder
from edgecheck.targets.executorch.file import FileError
from edgecheck.targets.registry import all_targets
from fixtures import digits
from tests.targets.test_builds import INPUTS, OUTPUTS, Network

TARGET = all_targets()["executorch"]
WEIGHTS = sum(parameter.numel() for parameter in Network().parameters())


class Small(torch.nn.Module):
    """Its one linear layer has no multiple of 32 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(7, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.linear(image)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captured programs and calibration data."""
    path = tmp_path_factory.mktemp("executorch")
    torch.manual_seed(0)
    program.capture(Network().eval(), INPUTS, OUTPUTS, {}, path / "network.pt2")
    images = np.random.default_rng(0).uniform(-1, 1, (16, 3, 8, 8)).astype(np.float32)
    np.save(path / "images.npy", images)
    np.save(path / "one.npy", images[:1])
    return path


def build(
    folder: Path,
    precision: str,
    backend: str = "xnnpack",
    source: str = "network.pt2",
    example: str = "one.npy",
) -> str:
    """The path of a file, built if it is not there yet."""
    output = folder / f"{Path(source).stem}-{backend}-{precision}.pte"
    if not output.exists():
        ExecutorchBuilder().build(
            precision=precision,
            source=str(folder / source),
            output=str(output),
            inputs=["image"],
            outputs=OUTPUTS,
            calibration={"image": str(folder / "images.npy")},
            example={"image": str(folder / example)},
            options={"backend": backend},
        )
    return str(output)


def inspect(path: str | Path) -> dict[str, Any]:
    return ExecutorchBuilder().inspect(path=str(path))


class Timed(torch.nn.Module):
    """Casts whole numbers to float32, as embeddings of time and of positions do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        waves = step[:, None].float() * torch.arange(1, 4, dtype=torch.float32) / 10
        return self.linear(torch.cat([x, waves.sin()], 1)) + torch.zeros(4)


def test_half_precision_of_a_program_that_names_float32(tmp_path: Path) -> None:
    inputs = [Input("x", ("batch", 3)), Input("step", ("batch",), dtype="int64", low=0, high=20)]
    program.capture(Timed().eval(), inputs, ["y"], {}, tmp_path / "m.pt2")
    arrays = {"x": np.ones((1, 3), np.float32), "step": np.array([7])}
    example = {}
    for name, array in arrays.items():
        example[name] = str(tmp_path / f"{name}.npy")
        np.save(example[name], array)
    path = tmp_path / "m.pte"
    ExecutorchBuilder().build(
        source=str(tmp_path / "m.pt2"),
        output=str(path),
        precision="fp16",
        inputs=list(arrays),
        outputs=["y"],
        example=example,
        calibration=None,
        options=dict(TARGET.options.defaults),
    )
    with torch.no_grad():
        expected = Timed().eval()(
            **{name: torch.from_numpy(array) for name, array in arrays.items()}
        )
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    (found,) = method.execute([torch.from_numpy(array) for array in arrays.values()])
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        *(("xnnpack", name) for name in ("fp32", "fp16", "int8-dynamic", "int8", "int4")),
        *(("portable", name) for name in ("fp32", "int8")),
    ],
)
def test_a_build_holds_the_precision_that_was_asked_for(
    folder: Path, backend: str, precision: str
) -> None:
    contents = inspect(build(folder, precision, backend))
    assert contents["failures"] == []
    failures, share = judge_precision(precision, contents)
    assert failures == []
    assert share is None or share > 0.9
    assert sum(contents["weight_elements"].values()) == WEIGHTS


def test_the_backend_decides_where_operators_go(folder: Path) -> None:
    lowered, plain = (inspect(build(folder, "fp32", name)) for name in ("xnnpack", "portable"))
    assert lowered["format"]["delegates"] == {"XnnpackBackend": 1}
    assert set(lowered["operators"]) >= {"XNNConv2d", "XNNFullyConnected"}
    assert plain["format"]["delegates"] == {}
    assert set(plain["operators"]) >= {"aten::convolution.out", "aten::addmm.out"}
    # Without a delegate, all activations lie in the program's own arena.
    assert plain["format"]["planned_memory_bytes"] > lowered["format"]["planned_memory_bytes"]


def test_a_float_file_is_not_taken_for_another_precision(folder: Path) -> None:
    contents = inspect(build(folder, "fp32"))
    for precision in ("fp16", "int8-dynamic", "int8", "int8-qat", "int4"):
        failures, share = judge_precision(precision, contents)
        assert failures
        assert share == 0.0


def test_int4_without_a_layer_for_it_does_not_pass_for_int4(folder: Path) -> None:
    inputs = [Input("image", ("batch", 7))]
    program.capture(Small().eval(), inputs, OUTPUTS, {}, folder / "small.pt2")
    np.save(folder / "row.npy", np.zeros((1, 7), np.float32))
    contents = inspect(build(folder, "int4", source="small.pt2", example="row.npy"))
    failures, share = judge_precision("int4", contents)
    assert failures == ["nothing in the file is int4: its weights are 40 float32"]
    assert share == 0.0


@pytest.mark.long
def test_a_program_trained_for_int8_keeps_its_weights_as_int8(folder: Path) -> None:
    inputs = [Input("image", ("batch", 1, 8, 8), low=0.0, high=1.0)]
    program.capture(digits.qat_cnn(), inputs, OUTPUTS, {}, folder / "qat.pt2")
    np.save(folder / "digit.npy", digits.test_images()[:1])
    contents = inspect(build(folder, "int8-qat", source="qat.pt2", example="digit.npy"))
    failures, share = judge_precision("int8-qat", contents)
    assert failures == []
    assert share is not None
    assert share > 0.99


def test_a_build_is_the_same_bytes_twice_and_names_no_source_file(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("network.pt2", "one.npy"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    first = Path(build(folder, "fp32")).read_bytes()
    assert Path(build(tmp_path, "fp32")).read_bytes() == first
    assert str(Path(__file__).parent).encode() not in first


@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
def test_what_is_read_is_what_executorch_reads(folder: Path, backend: str) -> None:
    from executorch.exir._serialize._program import deserialize_pte_binary

    path = build(folder, "int8", backend)
    (plan,) = deserialize_pte_binary(Path(path).read_bytes()).program.execution_plan
    with file.mapped(path) as data:
        method = file.read_program(data).method()
    calls = [item.instr_args for chain in plan.chains for item in chain.instructions]
    kernels = [plan.operators[item.op_index] for item in calls if hasattr(item, "op_index")]
    assert method.kernels == Counter(f"{item.name}.{item.overload}" for item in kernels)
    assert [item.backend for item in method.delegates] == [item.id for item in plan.delegates]
    assert list(method.planned_bytes) == plan.non_const_buffer_sizes[1:]
    assert list(method.inputs) == plan.inputs
    assert list(method.outputs) == plan.outputs
    for value, expected in zip(method.values, plan.values, strict=True):
        sizes = getattr(expected.val, "sizes", None)
        assert (None if value is None else list(value.shape)) == sizes


def test_files_that_are_none_get_one_line(folder: Path, tmp_path: Path) -> None:
    whole = Path(build(folder, "fp32")).read_bytes()
    empty = bytearray(whole)
    empty[4:8] = b"TFL3"
    for name, content, line in (
        ("empty", b"", "the file is empty"),
        ("text", b"this is not a model", "the file is not an ExecuTorch program (identifier ET12)"),
        ("other", bytes(empty), "the file is not an ExecuTorch program (identifier ET12)"),
        ("cut", whole[:-1], f"the file is cut off: it has {len(whole) - 1} of {len(whole)} bytes"),
        ("head", whole[:80], f"the file is cut off: it has 80 of {len(whole)} bytes"),
    ):
        (tmp_path / name).write_bytes(content)
        contents = inspect(tmp_path / name)
        assert contents["failures"] == [line]
        assert contents["weight_elements"] == {}
    assert "No such file" in inspect(tmp_path / "nowhere")["failures"][0]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(folder: Path, data: st.DataObject) -> None:
    content = bytearray(Path(build(folder, "int8")).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        # The tables are at the front; the weights behind them are any bytes.
        place = data.draw(st.integers(0, min(len(content), 12_000) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = folder / "damaged.pte"
    path.write_bytes(content)
    contents = inspect(path)
    assert len(contents["failures"]) <= 1
    assert all("\n" not in line for line in contents["failures"])


def test_tables_without_end_are_refused() -> None:
    """Every plan of a list is the same one, and the list fills the file."""
    content = bytearray(4096)
    content[0:8] = (64).to_bytes(4, "little") + b"ET12"
    # The root's fields: none, and a list that starts at 128. The plan has no fields.
    content[32:40] = b"".join(size.to_bytes(2, "little") for size in (8, 8, 0, 4))
    content[48:52] = b"".join(size.to_bytes(2, "little") for size in (4, 4))
    content[64:72] = (64 - 32).to_bytes(4, "little") + (128 - 68).to_bytes(4, "little")
    plan = 4092
    content[plan:] = (plan - 48).to_bytes(4, "little")
    places = range(132, plan, 4)
    content[128:132] = len(places).to_bytes(4, "little")
    for place in places:
        content[place : place + 4] = (plan - place).to_bytes(4, "little")
    with pytest.raises(FileError, match="refer to each other without end"):
        file.read_program(bytes(content))


def test_options_are_checked_before_a_build(folder: Path) -> None:
    assert TARGET.options.problem({"backend": "portable"}) == ""
    assert "'vulkan', not one of xnnpack" in TARGET.options.problem({"backend": "vulkan"})
    assert "Apple" in TARGET.host.gaps({"backend": "coreml"})["run"]
    assert TARGET.host.gaps({"backend": "portable"}) == {}
    with pytest.raises(ArtifactError, match="coreml backend is built in fp32, fp16 only"):
        build(folder, "int8", "coreml")


def test_a_missing_package_is_named() -> None:
    host = dataclasses.replace(TARGET.host, packages={"no_such_module": "no-such-package"})
    lacking = dataclasses.replace(TARGET, host=host)
    assert lacking.missing() == "no-such-package not installed: pip install 'edgecheck[executorch]'"


def test_a_build_that_hangs_is_ended(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.pt2")
    with Child(Service(TARGET.build.builder), tmp_path) as child:
        child.ready()
        with pytest.raises(ChildError, match=r"took longer than the limit of 2 s") as caught:
            child.call(
                "build",
                timeout_s=2,
                precision="fp32",
                source=str(tmp_path / "never.pt2"),
                output=str(tmp_path / "out.pte"),
                inputs=["image"],
                outputs=OUTPUTS,
                calibration=None,
                example={"image": str(folder / "one.npy")},
                options={"backend": "xnnpack"},
            )
    assert caught.value.kind == "timeout"
    assert not (tmp_path / "out.pte").exists()


def test_what_is_lowered_to_core_ml_can_be_taken_out_and_judged(
    folder: Path, tmp_path: Path
) -> None:
    path = build(folder, "fp16", "coreml")
    contents = inspect(path)
    assert judge_precision("fp16", contents) == ([], 1.0)
    assert sum(contents["weight_elements"].values()) == WEIGHTS
    assert contents["operators"]["Core ML conv"] == 1
    (package,) = coreml_delegate.extract_packages(path, tmp_path)
    names = json.loads((package.parent / "metadata.json").read_text())
    image = np.load(folder / "one.npy")
    results = Evaluator(read(package)).run({names["inputNames"][0]: image})
    torch.manual_seed(0)
    with torch.no_grad():
        expected = Network().eval()(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(results[names["outputNames"][0]], expected, atol=5e-3)


def index_of(nodes: list[dict[str, Any]]) -> bytes:
    return json.dumps({"nodes": nodes}).encode()[::-1]


@pytest.mark.parametrize("name", ["../outside", "/outside", "..", "a\\b", "c:x", ""])
def test_an_index_that_names_a_path_is_refused(tmp_path: Path, name: str) -> None:
    nodes = [
        {"kind": 0, "dataRegion": {"offset": 0, "size": 4}},
        {"kind": 1, "children": {name: 0}},
    ]
    with pytest.raises(FileError, match="has a file named"):
        coreml_delegate._unpack(b"data" + index_of(nodes), tmp_path / "in" / "side")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [{"kind": 1, "children": {"a": 0}}],
        [{"kind": 1, "children": {"a": 7}}],
        [{"kind": 0, "dataRegion": {"offset": 2, "size": 40_000}}],
        [{"kind": 0}],
        ["text"],
    ],
)
def test_an_index_that_makes_no_sense_is_refused(tmp_path: Path, nodes: list[Any]) -> None:
    with pytest.raises(FileError):
        coreml_delegate._unpack(b"data" + index_of(nodes), tmp_path / "out")
    with pytest.raises(FileError):
        coreml_delegate._unpack(b"data", tmp_path / "out")
