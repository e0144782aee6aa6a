"""The modules of `architectures`: one small network of each kind. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


def _conv(
    inputs: int, outputs: int, size: int = 3, *, act: type[nn.Module] = nn.ReLU, **how: Any
) -> nn.Sequential:
    padding = size // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=padding, bias=False, **how),
        nn.BatchNorm2d(outputs),
        act(),
    )


class Image(nn.Module):
    """Layers of an image, and a linear head on their means."""

    def __init__(self, *layers: nn.Module, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean((2, 3)))


class Named(nn.Module):
    """Layers whose input has another name than ``input``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)


class Features(Named):
    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class Series(Named):
    def forward(self, series: Tensor) -> Tensor:
        return self.layers(series)


class Picture(Named):
    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class Residual(nn.Module):
    """A shortcut around layers."""

    def __init__(self, *layers: nn.Module, act: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.act = act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.layers(x))


class Concatenated(nn.Module):
    """Branches side by side, after what they read where `keep`."""

    def __init__(self, *branches: nn.Module, keep: bool = False) -> None:
        super().__init__()
        self.branches, self.keep = nn.ModuleList(branches), keep

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.keep + [branch(x) for branch in self.branches], dim=1)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * functional.hardsigmoid(gate)


class ChannelNorm(nn.Module):
    """A layer norm over the channels of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.down3 = _conv(3, 8), _conv(8, 16), _conv(16, 32)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.join2, self.join1, self.head = _conv(32, 16), _conv(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = self.down1(image)
        second = self.down2(functional.max_pool2d(first, 2))
        x = self.up2(self.down3(functional.max_pool2d(second, 2)))
        x = self.up1(self.join2(torch.cat([x, second], dim=1)))
        return self.head(self.join1(torch.cat([x, first], dim=1)))


class Detector(nn.Module):
    """Two scales joined, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = _conv(3, 16, stride=2), _conv(16, 24, stride=2)
        self.lateral = nn.Conv2d(16, 24, 1)
        self.boxes, self.scores = nn.Conv2d(24, 4, 3, padding=1), nn.Conv2d(24, 3, 3, padding=1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        fine = self.stem(image)
        x = functional.interpolate(self.deep(fine), scale_factor=2.0, mode="nearest")
        x = x + self.lateral(fine)
        boxes, scores = self.boxes(x).flatten(2), self.scores(x).flatten(2)
        return {"boxes": boxes, "scores": torch.sigmoid(scores)}


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 4)

    def forward(self, features: Tensor, second: Tensor) -> Tensor:
        return self.head((self.tower(features) - self.tower(second)).abs())


class Recurrent(nn.Module):
    """A gated cell over six steps."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.gate, self.new = nn.Linear(12 + width, width), nn.Linear(12 + width, width)
        self.head, self.width = nn.Linear(width, 4), width

    def forward(self, steps: Tensor) -> Tensor:
        state = torch.tanh(functional.pad(steps[:, 0], (0, self.width - 12)))
        for step in range(1, 6):
            x = torch.cat([steps[:, step], state], dim=1)
            gate = torch.sigmoid(self.gate(x))
            state = gate * state + (1 - gate) * torch.tanh(self.new(x))
        return self.head(state)


class Gated(nn.Module):
    """A recurrent layer of torch's own over six steps."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.cells, self.head = kind(12, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, steps: Tensor) -> Tensor:
        return self.head(self.cells(steps)[0][:, -1])


class Step(nn.Module):
    """One step of a recurrent network, whose state the caller carries."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(24, width), nn.Linear(width, 4)

    def forward(self, features: Tensor, state: Tensor) -> dict[str, Tensor]:
        state = self.cell(features, state)
        return {"out": self.head(state), "next": state}


class Segmenter(nn.Module):
    """The class of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(_conv(3, 12), _conv(12, 12))
        self.scores = nn.Conv2d(12, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.scores(self.features(image)).argmax(1)


class Spectrum(nn.Module):
    """Logarithms of the power in bands: nothing in it is learned."""

    def forward(self, series: Tensor) -> Tensor:
        frames = series.unfold(2, 16, 8)
        low, high = frames.mean(-1), frames[..., 1:] - frames[..., :-1]
        power = torch.stack([low.square(), high.square().mean(-1)], dim=-1)
        return torch.log(power + 1e-2)


class PixelsAndScores(nn.Module):
    """A detector whose one output holds boxes in pixels beside class probabilities."""

    def __init__(self, size: float, *, last: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 12, stride=2), _conv(12, 16, stride=2))
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 3, 1)
        self.size, self.last = size, last

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        boxes = torch.sigmoid(self.boxes(x)) * self.size
        both = torch.cat([boxes, torch.sigmoid(2.0 * self.scores(x))], dim=1).flatten(2)
        return both.transpose(1, 2) if self.last else both


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.project(x).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


def _encoder(width: int, heads: int = 4) -> nn.Module:
    return nn.Sequential(
        Residual(nn.LayerNorm(width), Attention(width, heads)),
        Residual(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        ),
    )


class Transposed(nn.Module):
    """Layers on the tokens of each channel."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(1, 2)).transpose(1, 2)


class Patches(nn.Module):
    """An image as tokens, layers on them, and a head on their mean."""

    def __init__(self, *layers: nn.Module, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 8, stride=8)
        self.position = nn.Parameter(0.1 * torch.randn(16, width))
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image).flatten(2).transpose(1, 2) + self.position
        return self.head(self.layers(x).mean(1))


class TextEncoder(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, width)
        self.position = nn.Parameter(0.1 * torch.randn(16, width))
        self.layers = nn.Sequential(_encoder(width), _encoder(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.embed(words) + self.position))[:, 0])


def _inverted(width: int, *, act: type[nn.Module] = nn.ReLU6, excite: bool = False) -> nn.Module:
    inner = 3 * width
    return Residual(
        _conv(width, inner, 1, act=act),
        _conv(inner, inner, 3, act=act, groups=inner),
        *([SqueezeExcite(inner)] if excite else []),
        _conv(inner, width, 1, act=nn.Identity),
    )


def _dense() -> nn.Module:
    grown = [Concatenated(_conv(8 + 8 * step, 8), keep=True) for step in range(4)]
    return Image(_conv(3, 8, stride=2), *grown, width=40)


def _inception() -> nn.Module:
    def block(inputs: int) -> nn.Module:
        pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv(inputs, 8, 1))
        return Concatenated(_conv(inputs, 8, 1), _conv(inputs, 8, 3), _conv(inputs, 8, 5), pooled)

    return Image(_conv(3, 8, stride=2), block(8), nn.MaxPool2d(2), block(32), width=32)


def _convnext() -> nn.Module:
    def block(width: int) -> nn.Module:
        return Residual(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            ChannelNorm(width),
            nn.Conv2d(width, 2 * width, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, width, 1),
        )

    return Image(nn.Conv2d(3, 16, 4, stride=4), ChannelNorm(16), block(16), block(16), width=16)


def _residual() -> nn.Module:
    def block(width: int) -> nn.Module:
        inner = [_conv(width, width), _conv(width, width, act=nn.Identity)]
        return Residual(*inner, act=nn.ReLU())

    layers = [_conv(3, 16, stride=2), block(16), _conv(16, 24, stride=2), block(24)]
    return Image(*layers, width=24)


def _temporal() -> nn.Module:
    def block(dilation: int) -> nn.Module:
        conv = nn.Conv1d(16, 16, 3, padding=dilation, dilation=dilation, bias=False)
        return Residual(conv, nn.BatchNorm1d(16), nn.LeakyReLU(0.1))

    blocks = [block(dilation) for dilation in (1, 2, 4)]
    stem = nn.Conv1d(4, 16, 5, padding=2)
    return Series(stem, *blocks, nn.AvgPool1d(96), nn.Flatten(), nn.Linear(16, 5))


def _lenet() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 16)):
        layers += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)]
    return Picture(*layers, nn.Flatten(), nn.Linear(1024, 32), nn.Tanh(), nn.Linear(32, CLASSES))


def _mixer(width: int = 24) -> nn.Module:
    def block() -> nn.Module:
        tokens = Transposed(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        channels = [nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)]
        return nn.Sequential(
            Residual(nn.LayerNorm(width), tokens), Residual(nn.LayerNorm(width), *channels)
        )

    return Patches(block(), block(), nn.LayerNorm(width), width=width)


def _perceptrons(kind: type[nn.Module], act: type[nn.Module], *sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), act()]
    return kind(*layers[:-1])


def _super_resolution() -> nn.Module:
    layers = [nn.Conv2d(3, 16, 5, padding=2), nn.PReLU(), nn.Conv2d(16, 12, 3, padding=1)]
    return Picture(*layers, nn.PixelShuffle(2))


def _inverted_residual() -> nn.Module:
    stem = _conv(3, 16, act=nn.ReLU6, stride=2)
    return Image(stem, _inverted(16), nn.MaxPool2d(2), _inverted(16), width=16)


def _squeeze_excite() -> nn.Module:
    stem = _conv(3, 16, act=nn.Hardswish, stride=2)
    blocks = [_inverted(16, act=nn.Hardswish, excite=True) for _ in range(2)]
    return Image(stem, *blocks, width=16)


NETWORKS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "perceptron": partial(_perceptrons, Features, nn.ReLU, 24, 48, 48, 5),
        "lenet": _lenet,
        "residual": _residual,
        "dense": _dense,
        "inverted-residual": _inverted_residual,
        "squeeze-excite": _squeeze_excite,
        "inception": _inception,
        "convnext": _convnext,
        "unet": UNet,
        "super-resolution": _super_resolution,
        "autoencoder": partial(_perceptrons, Features, nn.ELU, 24, 32, 6, 32, 24),
        "detector": Detector,
        "siamese": Siamese,
        "temporal": _temporal,
        "recurrent": Recurrent,
        "vision-transformer": lambda: Patches(
            _encoder(32), _encoder(32), nn.LayerNorm(32), width=32
        ),
        "mixer": _mixer,
        "text-encoder": TextEncoder,
        "gru": partial(Gated, nn.GRU),
        "lstm": partial(Gated, nn.LSTM),
        "step": Step,
        "segmenter": Segmenter,
        "spectrum": Spectrum,
        "pixels-640": partial(PixelsAndScores, 640.0),
        "pixels-4096": partial(PixelsAndScores, 4096.0),
        "pixels-last": partial(PixelsAndScores, 1280.0, last=True),
    }
)
