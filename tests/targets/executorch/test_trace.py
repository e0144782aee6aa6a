"""What is seen of a .pte program's insides, and that looking changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("executorch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.targets.executorch import file, xnnpack_exposing
from edgecheck.targets.executorch.run import ExecutorchRunner
from edgecheck.targets.executorch.trace import ExecutorchTracer


class Network(torch.nn.Module):
    """Layers for XNNPACK, an embedding, a view and an unusual function, and a state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.embedding = torch.nn.Embedding(9, 16)
        self.output = torch.nn.Linear(16, 5)
        self.state = torch.nn.Buffer(torch.zeros(1, 16))

    def parts(self, image: torch.Tensor, word: torch.Tensor) -> list[torch.Tensor]:
        x = torch.nn.functional.max_pool2d(torch.relu(self.conv(image)), 2)
        flat = x.reshape(1, 16)
        summed = torch.cumsum(flat + self.embedding(word), 1)
        self.state.add_(summed)
        return [x, flat, summed, self.state.clone(), self.output(torch.sigmoid(self.state))]

    def forward(self, image: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
        return self.parts(image, word)[-1]


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))


def lowered(module: torch.nn.Module, arguments: tuple[Any, ...], path: Path, backend: str) -> str:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    partitioner: list[Any] = [XnnpackPartitioner()] if backend == "xnnpack" else []
    exported = torch.export.export(module, arguments)
    program = to_edge_transform_and_lower(exported, partitioner=partitioner).to_executorch()
    path.write_bytes(bytes(program.buffer))
    return str(path)


def opened(driver: Any, path: str, backend: str) -> Any:
    driver.load(path, {"threads": 1, "target": {"backend": backend}})
    return driver


def network() -> Network:
    torch.manual_seed(0)
    return Network().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("executorch") / "m.pte"
    sample = (torch.zeros(1, 3, 6, 6), torch.zeros(1, dtype=torch.int64))
    return lowered(network(), sample, path, "xnnpack")


@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
def test_all_tensors_are_seen_and_outputs_stay_the_same(
    program: str, tmp_path: Path, backend: str
) -> None:
    if backend == "portable":
        sample = (torch.zeros(1, 3, 6, 6), torch.zeros(1, dtype=torch.int64))
        program = lowered(network(), sample, tmp_path / "m.pte", backend)
    plain = opened(ExecutorchRunner(), program, backend)
    tracer = opened(ExecutorchTracer(), program, backend)
    module = network()
    for call in range(3):  # the state goes on
        image = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(call))
        inputs = {"input_0": image.numpy(), "input_1": np.array([call])}
        seen, outputs = tracer.observe(inputs)
        np.testing.assert_array_equal(outputs["output_0"], plain.infer(inputs)["output_0"])
        found = [np.sort(item.values, axis=None) for item in seen]
        with torch.no_grad():
            for part in module.parts(image, torch.tensor([call])):
                expected = np.sort(part.numpy(), axis=None)
                assert any(
                    item.shape == expected.shape and np.allclose(item, expected, atol=1e-5)
                    for item in found
                ), part.shape
    assert {item.operator for item in seen} >= (
        {"XNNConv2d", "XNNMaxPooling2d", "aten::cumsum.out"}
        if backend == "xnnpack"
        else {"aten::convolution.out", "aten::cumsum.out"}
    )


def test_a_program_with_branches_says_that_it_is_not_looked_into(tmp_path: Path) -> None:
    path = lowered(Branches(), (torch.ones(4),), tmp_path / "m.pte", "portable")
    with pytest.raises(file.FileError, match="branches or loops"):
        opened(ExecutorchTracer(), path, "portable")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_delegates_are_refused_or_read(program: str, data: st.DataObject) -> None:
    content = Path(program).read_bytes()
    (first, *_) = file.read_program(content).method().delegates
    blob = bytearray(content[first.start : first.end])
    for _ in range(data.draw(st.integers(0, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)) | st.just(len(blob)))
    try:
        found = xnnpack_exposing.expose(bytes(blob[:cut]), 2)
    except ValueError:
        return
    assert len(found.data) >= cut or not found.values
