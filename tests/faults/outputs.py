"""Faults that one figure for a whole output hides: a part of it is lost, or labels are mixed up."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.faults.bench import Bench
from tests.faults.changing import Change, changed
from tests.faults.fault import Fault


class Labels(nn.Module):
    """A segmenter whose labels are changed."""

    def __init__(self, model: nn.Module, change: str) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, image: Tensor) -> Tensor:
        labels = self.model(image)
        if self.change == "one-too-high":
            return labels + 1
        if self.change == "moved":
            return torch.roll(labels, 1, dims=2)
        return labels.max() - labels


def _relabelled(change: str) -> Change:
    return lambda module: Labels(module, change)


def _swapped(module: nn.Module) -> nn.Module:
    """The two most frequent classes have changed places, as after another order of the labels."""
    from tests.faults import architectures

    scores = module.get_submodule("scores")
    assert isinstance(scores, nn.Conv2d) and scores.bias is not None
    with torch.no_grad():
        found = architectures.infer(module, architectures.samples("segmenter", 0, 8))
        first, second = torch.bincount(found.ravel(), minlength=10).argsort()[-2:].tolist()
        order = list(range(10))
        order[first], order[second] = second, first
        scores.weight.copy_(scores.weight[order])
        scores.bias.copy_(scores.bias[order])
    return module


def _flat(module: nn.Module) -> nn.Module:
    """One class wins wherever it comes second: its bias is that of another training state."""
    scores = module.get_submodule("scores")
    assert isinstance(scores, nn.Conv2d) and scores.bias is not None
    with torch.no_grad():
        scores.bias[0] += 1.0
    return module


_LABELS = r"are exchanged|is lost|label_agreement|label_errors_over_honest"
_WHERE = ("segmenter ort fp32", "segmenter ort int8", "segmenter tflite int8")


def _lost(model: str, target: str) -> Fault:
    """Our own recipe's int8 file of a model that no file of one output scale can hold."""

    def plant(bench: Bench, path: Path) -> None:
        bench.build(bench.module(model), model, target, "int8", path)

    name = f"lost-{model}-{target}-int8"
    return Fault(
        "part of an output lost",
        name,
        model,
        target,
        "int8",
        plant,
        says="against the spread of its own",
    )


FAULTS = (
    *(
        _lost(model, target)
        for model in ("pixels-640", "pixels-4096", "pixels-last")
        for target in ("ort", "tflite")
    ),
    *(
        changed("labels mixed up", name, where, change, says=_LABELS)
        for name, change in (
            ("one-too-high", _relabelled("one-too-high")),
            ("moved", _relabelled("moved")),
            ("reversed", _relabelled("reversed")),
            ("swapped-classes", _swapped),
            ("favoured-class", _flat),
        )
        for where in _WHERE
    ),
)
