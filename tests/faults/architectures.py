"""Small networks of many kinds with random weights, for the set of sound files.

Each is seeded and tamed as training leaves networks: batch norms have the statistics of the data,
and outputs depend on the inputs. Not for accuracy: they have learned nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import edgecheck

if TYPE_CHECKING:
    import torch

IMAGE = edgecheck.Input("image", ("batch", 3, 32, 32), low=-1.0, high=1.0)
SERIES = edgecheck.Input("series", ("batch", 4, 96), low=-1.0, high=1.0)
FEATURES = edgecheck.Input("features", ("batch", 24), low=-1.0, high=1.0)
SECOND = edgecheck.Input("second", ("batch", 24), low=-1.0, high=1.0)
WORDS = edgecheck.Input("words", ("batch", 16), low=0, high=99, dtype="int64")
STEPS = edgecheck.Input("steps", ("batch", 6, 12), low=-1.0, high=1.0)
STATE = edgecheck.Input("state", ("batch", 16), low=-1.0, high=1.0)
PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_COUNT = 64


@dataclass(frozen=True)
class Architecture:
    """How a network is declared.

    Attributes:
        network: its module's name in `networks.NETWORKS`; by default its own.
        fresh: whether batch norms are as they were created, not as training leaves them.
        batch: a number where the batch is static.
        precisions: those in which an honest file is as good as the model.
        unbuilt: targets whose converter lacks an operator of it.
    """

    inputs: tuple[edgecheck.Input, ...]
    outputs: tuple[str, ...] = ("out",)
    network: str = ""
    fresh: bool = False
    batch: int | str = "batch"
    precisions: tuple[str, ...] = PRECISIONS
    unbuilt: tuple[str, ...] = ()

    @property
    def declared_inputs(self) -> tuple[edgecheck.Input, ...]:
        """The inputs with this batch."""
        return tuple(replace(item, shape=(self.batch, *item.shape[1:])) for item in self.inputs)


ARCHITECTURES: Mapping[str, Architecture] = {
    "perceptron": Architecture((FEATURES,)),
    "lenet": Architecture((IMAGE,)),
    "residual": Architecture((IMAGE,)),
    "dense": Architecture((IMAGE,)),
    "inverted-residual": Architecture((IMAGE,)),
    "squeeze-excite": Architecture((IMAGE,)),
    "inception": Architecture((IMAGE,)),
    "convnext": Architecture((IMAGE,)),
    "unet": Architecture((IMAGE,)),
    "super-resolution": Architecture((IMAGE,)),
    "autoencoder": Architecture((FEATURES,)),
    "detector": Architecture((IMAGE,), ("boxes", "scores")),
    "siamese": Architecture((FEATURES, SECOND)),
    "temporal": Architecture((SERIES,)),
    "recurrent": Architecture((STEPS,)),
    "vision-transformer": Architecture((IMAGE,)),
    "mixer": Architecture((IMAGE,)),
    "text-encoder": Architecture((WORDS,)),
    # A recurrent layer in int8 is a matter of each converter: what is judged is float.
    "gru": Architecture((STEPS,), precisions=("fp32", "fp16")),
    "lstm": Architecture((STEPS,), precisions=("fp32", "fp16")),
    "step": Architecture((FEATURES, STATE), ("out", "next")),
    "segmenter": Architecture((IMAGE,), ("labels",)),
    "spectrum": Architecture((SERIES,), precisions=("fp32", "fp16"), unbuilt=("coreml",)),
    # In int8 these lose their scores, whoever quantizes them.
    "pixels-640": Architecture((IMAGE,), ("pred",), precisions=("fp32", "fp16")),
    "pixels-4096": Architecture((IMAGE,), ("pred",), precisions=("fp32", "fp16")),
    "pixels-last": Architecture((IMAGE,), ("pred",), precisions=("fp32", "fp16")),
    **{
        f"untrained-{name}": Architecture(inputs, network=name, fresh=True)
        for name, inputs in (
            *((name, (IMAGE,)) for name in ("residual", "dense", "inverted-residual")),
            *((name, (IMAGE,)) for name in ("squeeze-excite", "inception", "unet")),
            ("temporal", (SERIES,)),
        )
    },
    **{
        f"static-{name}": Architecture(inputs, network=name, batch=1)
        for name, inputs in (
            ("perceptron", (FEATURES,)),
            ("residual", (IMAGE,)),
            ("text-encoder", (WORDS,)),
            ("temporal", (SERIES,)),
        )
    },
}


def declaration(name: str, seed: int, **declared: Any) -> edgecheck.Model:
    """The model of an architecture with the weights, data and random inputs of a seed."""
    architecture = ARCHITECTURES[name]
    return edgecheck.Model(
        partial(seeded, name, seed),
        name=f"{name}-{seed}",
        inputs=architecture.declared_inputs,
        outputs=architecture.outputs,
        calibration=partial(samples, name, seed, CALIBRATION_COUNT),
        seed=seed,
        batch_sizes=(1, 3) if architecture.batch == "batch" else (1, 2, 5),
        **declared,
    )


def samples(name: str, seed: int, count: int) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs as a sensor gives them: smooth along the last axes, with some noise."""
    rng = np.random.default_rng((seed, count))
    return {item.name: _drawn(item, count, rng) for item in ARCHITECTURES[name].inputs}


def _drawn(item: edgecheck.Input, count: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    from scipy.ndimage import gaussian_filter

    shape = (count, *(int(size) for size in item.shape[1:]))
    if item.dtype == "int64":
        return rng.integers(int(item.low), int(item.high), shape, endpoint=True)
    blur = (0, *(0 for _ in shape[1:-2]), *(3.0 for _ in shape[-2:]))[: len(shape)]
    smooth = gaussian_filter(rng.standard_normal(shape), blur if len(shape) > 2 else 0.0)
    mixed = 0.5 * smooth / smooth.std() + 0.1 * rng.standard_normal(shape)
    return np.clip(mixed, item.low, item.high).astype(np.float32)


def seeded(name: str, seed: int) -> torch.nn.Module:
    """The module in eval mode."""
    import torch
    from torch import nn

    from tests.faults.networks import NETWORKS

    torch.manual_seed(seed)
    architecture = ARCHITECTURES[name]
    model: nn.Module = NETWORKS[architecture.network or name]()
    if architecture.fresh:
        return model.eval()
    norms = [item for item in model.modules() if isinstance(item, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None
            # About 0, batch norms and ReLUs of random weights amplify rounding errors in each layer
            # (Yang et al., A Mean Field Theory of Batch Normalization, 2019).
            norm.bias.normal_(1, 0.5)
            norm.weight.uniform_(0.5, 1.5)
        if norms:
            drawn = samples(name, seed, CALIBRATION_COUNT)
            model.train()
            infer(model, drawn)
    return model.eval()


def infer(model: Callable[..., Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    import torch

    return model(**{key: torch.from_numpy(value) for key, value in arrays.items()})
