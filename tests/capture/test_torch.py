"""What PyTorch modules return: dataclasses and mappings are outputs by their names."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgecheck.capture.torch import LiveTorch
from edgecheck.declare.model import Input
from edgecheck.runtime.torch_program import load_program, select_outputs

X = Input("x", ("batch", 4), low=-1.0, high=1.0)


@dataclasses.dataclass
class Fields:
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


@dataclasses.dataclass
class Both(OrderedDict[str, Any]):
    """As the outputs of transformers are: a dataclass whose fields are its items, too."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            if (value := getattr(self, item.name)) is not None:
                self[item.name] = value


class Network(torch.nn.Module):
    def __init__(self, kind: type[Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.kind = torch.nn.Linear(4, 3), kind

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.body(x)
        return self.kind(logits=hidden.relu(), hidden=hidden)


@pytest.mark.parametrize("kind", [Fields, Both, dict])
def test_outputs_are_found_by_the_names_of_fields(kind: type[Any], tmp_path: Path) -> None:
    module = Network(kind).eval()
    source = LiveTorch(module, [X], ["hidden", "logits"])
    feed = {"x": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    expected = source.infer(feed)
    assert (expected["logits"] >= 0).all() and (expected["hidden"] < 0).any()
    path, _ = source.capture(tmp_path, {"batch": (1, 8)})
    program = load_program(str(path))
    assert "body.weight" in program.state_dict
    returned = program.module()(x=torch.from_numpy(feed["x"]))
    found = select_outputs(returned, ["hidden", "logits"])
    for name, tensor in zip(("hidden", "logits"), found, strict=True):
        np.testing.assert_allclose(tensor.detach().numpy(), expected[name], rtol=1e-6)


def test_names_that_no_field_has_take_the_fields_in_order_or_say_which_there_are() -> None:
    returned = Fields(logits=torch.ones(2), hidden=torch.zeros(2))
    first, second = select_outputs(returned, ["a", "b"])
    assert (first.sum().item(), second.sum().item()) == (2.0, 0.0)
    with pytest.raises(ValueError, match=r"2 tensors with keys \['hidden', 'logits'\]"):
        select_outputs(returned, ["a"])
