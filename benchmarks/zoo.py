"""Architectures that others wrote, small and with random weights, for `benchmarks.architectures`.

Needs torchvision, timm and transformers. torchvision's wheel is built for a CUDA torch, so that its
own operators don't load beside a CPU torch; the architectures here use none of them, and their
names are defined so that it can be imported: `pip install --no-deps --target <folder> torchvision
timm`, and that folder on PYTHONPATH.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Inputs = tuple[torch.Tensor, ...]
_CALIBRATION_PASSES = 3


@dataclass(frozen=True)
class Architecture:
    """One model.

    Attributes:
        build: makes the module with random weights, in eval mode.
        draw: fresh inputs for a batch of so many.
        target: the Core ML deployment target to convert for.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    draw: Callable[[int], Inputs]
    target: str


def _images(size: int) -> Callable[[int], Inputs]:
    """Blotches and some noise: noise alone looks the same from one image to the next."""

    def draw(count: int) -> Inputs:
        blotches = nn.functional.interpolate(torch.randn(count, 3, 5, 5), size, mode="bicubic")
        return (blotches + 0.3 * torch.randn(count, 3, size, size),)

    return draw


def _video(frames: int, size: int) -> Callable[[int], Inputs]:
    return lambda count: (torch.randn(count, 3, frames, size, size),)


def _sound(samples: int) -> Callable[[int], Inputs]:
    return lambda count: (torch.randn(count, samples),)


def _spectrogram(*shape: int) -> Callable[[int], Inputs]:
    return lambda count: (torch.randn(count, *shape),)


def _words(vocabulary: int, length: int) -> Callable[[int], Inputs]:
    return lambda count: (torch.randint(5, vocabulary, (count, length), dtype=torch.int32),)


class _First(nn.Module):
    """The first result of a model that gives several, or a record of them.

    A decoder is given the mask of a text without padding, else it looks for packed texts by
    operators that coremltools does not convert.
    """

    def __init__(self, model: nn.Module, *, decoder: bool = False) -> None:
        super().__init__()
        self.model, self.decoder = model, decoder

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        fixed: dict[str, Any] = {}
        if self.decoder:
            fixed = {"use_cache": False, "attention_mask": torch.ones_like(given[0])}
        found = self.model(*given, **fixed)
        if isinstance(found, dict):
            return next(iter(found.values()))
        return found if isinstance(found, torch.Tensor) else found[0]


def _torchvision(name: str, size: int = 64, **how: Any) -> Architecture:
    def build() -> nn.Module:
        _define_operators()
        models = importlib.import_module("torchvision.models")
        return _First(models.get_model(name, weights=None, **how))

    return Architecture(name, "torchvision", build, _images(size), "iOS17")


def _clip(name: str) -> Architecture:
    return Architecture(
        name, "torchvision", _torchvision(name, num_classes=20).build, _video(4, 32), "iOS17"
    )


def _timm(name: str, size: int = 64, **how: Any) -> Architecture:
    def build() -> nn.Module:
        _define_operators()
        timm = importlib.import_module("timm")
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=20, **how)
        return model

    return Architecture(name, "timm", build, _images(size), "iOS17")


def _transformers(
    name: str, config: str, draw: Callable[[int], Inputs], part: str = "", **how: Any
) -> Architecture:
    """`part` is what is used alone, such as an encoder."""

    def build() -> nn.Module:
        _define_operators()
        transformers = importlib.import_module("transformers")
        model = getattr(transformers, name)(getattr(transformers, config)(**how))
        return _First(
            getattr(model, part) if part else model,
            decoder=name.endswith(("CausalLM", "LMHeadModel")),
        )

    return Architecture(name, "transformers", build, draw, "iOS18")


def _define_operators() -> None:
    """The names of torchvision's operators, without which it can't be imported."""
    if not _LIBRARIES:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)


# Definitions last as long as the object that made them.
_LIBRARIES: list[torch.library.Library] = []

_NARROW: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_TEXT = {**_NARROW, "vocab_size": 300}
_TOKENS = _words(300, 24)
_DECODER = {**_TEXT, "num_key_value_heads": 2, "pad_token_id": 0}
_PIXELS = {**_NARROW, "image_size": 64, "patch_size": 16}
_SPEECH: dict[str, Any] = {
    **_NARROW,
    "conv_dim": (32,) * 4,
    "conv_stride": (5, 4, 4, 2),
    "conv_kernel": (10, 8, 4, 2),
    "num_feat_extract_layers": 4,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 40,
}

ARCHITECTURES = (
    *(
        _torchvision(name, size, num_classes=20)
        for name, size in {
            "alexnet": 96,
            "vgg11_bn": 64,
            "resnet18": 64,
            "resnext50_32x4d": 64,
            "densenet121": 64,
            "squeezenet1_1": 64,
            "mobilenet_v2": 64,
            "mobilenet_v3_small": 64,
            "mnasnet0_5": 64,
            "shufflenet_v2_x0_5": 64,
            "efficientnet_b0": 64,
            "regnet_y_400mf": 64,
            "convnext_tiny": 64,
            "swin_t": 64,
            "swin_v2_t": 64,
        }.items()
    ),
    _torchvision("googlenet", num_classes=20, aux_logits=False, init_weights=False),
    _torchvision("inception_v3", 96, num_classes=20, aux_logits=False, init_weights=False),
    _torchvision("vit_b_16", num_classes=20, image_size=64),
    *(
        _torchvision(name, num_classes=20, weights_backbone=None)
        for name in ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
    ),
    _clip("r3d_18"),
    _timm("ghostnet_100"),
    _timm("hrnet_w18_small"),
    _timm("mixer_s32_224", img_size=64),
    _timm("gmlp_s16_224", img_size=64),
    _timm("deit_tiny_patch16_224", img_size=64),
    _timm("levit_128s", 64, img_size=64),
    _timm("mobilevit_xxs", 64),
    _timm("repvgg_a0"),
    _timm("edgenext_xx_small"),
    _timm("poolformer_s12"),
    _timm("pvt_v2_b0"),
    _timm("fastvit_t8"),
    _timm("xcit_nano_12_p16_224", img_size=64),
    _timm("rexnet_100"),
    _timm("dla34"),
    _transformers("BertModel", "BertConfig", _TOKENS, **_TEXT),
    _transformers("RobertaModel", "RobertaConfig", _TOKENS, **_TEXT),
    _transformers("AlbertModel", "AlbertConfig", _TOKENS, **_TEXT),
    _transformers("ElectraModel", "ElectraConfig", _TOKENS, **_TEXT, embedding_size=32),
    _transformers("MPNetModel", "MPNetConfig", _TOKENS, **_TEXT),
    _transformers("DebertaV2Model", "DebertaV2Config", _TOKENS, **_TEXT, relative_attention=True),
    _transformers(
        "DistilBertModel",
        "DistilBertConfig",
        _TOKENS,
        vocab_size=300,
        dim=64,
        n_layers=3,
        n_heads=4,
        hidden_dim=128,
    ),
    _transformers(
        "GPT2LMHeadModel", "GPT2Config", _TOKENS, vocab_size=300, n_embd=64, n_layer=3, n_head=4
    ),
    _transformers("GPTNeoXForCausalLM", "GPTNeoXConfig", _TOKENS, **_TEXT),
    _transformers("LlamaForCausalLM", "LlamaConfig", _TOKENS, **_DECODER),
    _transformers("Qwen2ForCausalLM", "Qwen2Config", _TOKENS, **_DECODER),
    _transformers(
        "T5EncoderModel",
        "T5Config",
        _TOKENS,
        vocab_size=300,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=3,
        num_heads=4,
    ),
    _transformers(
        "WhisperModel",
        "WhisperConfig",
        _spectrogram(20, 64),
        "encoder",
        num_mel_bins=20,
        max_source_positions=32,
        d_model=64,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_layers=1,
        decoder_attention_heads=4,
        vocab_size=300,
        pad_token_id=0,
    ),
    _transformers("Wav2Vec2ForCTC", "Wav2Vec2Config", _sound(4000), **_SPEECH),
    _transformers("HubertModel", "HubertConfig", _sound(4000), **_SPEECH),
    _transformers(
        "ASTModel", "ASTConfig", _spectrogram(64, 32), **_NARROW, max_length=64, num_mel_bins=32
    ),
    _transformers("ViTModel", "ViTConfig", _images(64), **_PIXELS),
    _transformers("BeitModel", "BeitConfig", _images(64), **_PIXELS),
    _transformers("Dinov2Model", "Dinov2Config", _images(64), **_PIXELS),
    _transformers("CLIPVisionModel", "CLIPVisionConfig", _images(64), **_PIXELS),
    _transformers("SegformerForSemanticSegmentation", "SegformerConfig", _images(64)),
)


def calibrated(architecture: Architecture) -> nn.Module:
    """The module, seeded, with weights that let its output depend on its input.

    Parameters that start as constants (biases, scales of residual branches) are drawn at random,
    and batch norms take their statistics from a few batches. Their biases are about 1: about 0,
    batch norms and ReLUs of random weights amplify rounding errors by a fifth a layer, in PyTorch
    itself too (Yang et al., A Mean Field Theory of Batch Normalization, 2019).
    """
    torch.manual_seed(0)
    model = architecture.build().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            if parameter.ndim == 1 and not name.endswith("bias"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.1)
    norms = [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
        if norm.affine:
            norm.bias.normal_(1, 1)
    if norms:
        for _ in range(_CALIBRATION_PASSES):
            model(*architecture.draw(8))
    return model.eval()
