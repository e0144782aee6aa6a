"""The weight audit: silent on every honest rounding, and exact about an element that is not one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgecheck.capture import torch as program
from edgecheck.declare.model import Input
from edgecheck.targets.common import keep_float, program_weights
from edgecheck.targets.common.weight_audit import (
    Stored,
    audited,
    from_floats,
    from_integers,
    from_palette,
)
from edgecheck.targets.registry import all_targets
from tests.localization.files import opened
from tests.targets.common.test_keep_float import Network, request

Array = np.ndarray[Any, Any]
law = settings(max_examples=60, deadline=None, derandomize=True)
SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=4).filter(
    lambda item: np.prod(item) >= 40 and np.prod(item[1:]) >= 8
)
SEEDS = st.integers(0, 2**31)


def rounded(weight: Array, *, per_channel: bool, clip: float = 1.0, largest: int = 127) -> Stored:
    """As a symmetric quantizer stores it; with `clip` below 1 it gives up the largest values."""
    axes = tuple(range(1, weight.ndim)) if per_channel else None
    scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True) * clip / largest, 1e-9)
    integers = np.clip(np.rint(weight / scale), -largest, largest).astype(np.int8)
    return from_integers("w", integers, scale, 0.0)


def found(stored: Stored, weight: Array) -> dict[str, Any]:
    return audited([stored], {"layer": [weight]})


@law
@given(SHAPES, SEEDS, st.booleans(), st.booleans(), st.sampled_from([1.0, 0.7]))
def test_every_honest_rounding_passes(
    shape: list[int], seed: int, per_channel: bool, folded: bool, clip: float
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(3, shape).astype(np.float32)
    factors = rng.uniform(0.1, 3.0, (shape[0],) + (1,) * (len(shape) - 1)).astype(np.float32)
    stored = weight * factors if folded else weight
    for item in (
        rounded(stored, per_channel=per_channel, clip=clip),
        rounded(stored, per_channel=per_channel, clip=clip, largest=63),  # a reduced range
        from_floats("w", stored),
        from_floats("w", stored.astype(np.float16)),
    ):
        assert found(item, weight)["damaged"] == []


@law
@given(SHAPES, SEEDS, st.randoms(use_true_random=False), st.sampled_from([3, 8, 64, 127]))
def test_an_element_moved_by_three_steps_is_found_in_any_order_of_axes(
    shape: list[int], seed: int, random: Any, steps: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(-1, 1, shape).astype(np.float32)
    scale = np.abs(weight).max(axis=tuple(range(1, len(shape))), keepdims=True) / 127
    integers = np.rint(weight / scale).astype(np.int8)
    at = tuple(int(rng.integers(size)) for size in shape)
    before = int(integers[at])
    integers[at] -= steps if before > 0 else -steps
    # What stays within two steps of zero is too small to tell.
    assume(max(abs(before), abs(int(integers[at]))) >= 3)
    order = random.sample(range(len(shape)), len(shape))
    item = from_integers("w", integers.transpose(order), scale.transpose(order), 0.0)
    (damage,) = found(item, weight)["damaged"]
    assert (damage["layer"], damage["count"], damage["of"]) == ("layer", 1, weight.size)
    if len({size for size in shape if size > 1}) == len([size for size in shape if size > 1]):
        assert tuple(damage["index"]) == at
    assert damage["error"] == pytest.approx(steps, abs=0.6)
    assert damage["expected"] == pytest.approx(weight[at], abs=1e-6)


@law
@given(SEEDS, st.booleans(), st.integers(3, 6))
def test_a_flipped_bit_is_found_where_a_batch_norm_is_folded_in_and_the_scale_unknown(
    seed: int, scaled: bool, bit: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((8, 4, 3, 3)).astype(np.float32)
    stored = weight * rng.uniform(0.1, 3.0, (8, 1, 1, 1)).astype(np.float32)
    scale = np.abs(stored).max(axis=(1, 2, 3), keepdims=True) / 127
    integers = np.rint(stored / scale).astype(np.int8)
    at = tuple(int(rng.integers(size)) for size in weight.shape)
    integers[at] ^= 1 << bit
    item = from_integers("w", integers, scale if scaled else None, 0.0)
    (damage,) = found(item, weight)["damaged"]
    assert (damage["count"], tuple(damage["index"])) == (1, at)
    assert damage["error"] == pytest.approx(2**bit, abs=1.5)


@law
@given(SEEDS, st.sampled_from([(np.float16, "u2"), (np.float32, "u4")]), st.integers(0, 9))
def test_a_flipped_bit_of_a_float_is_found_even_the_last(
    seed: int, kind: tuple[type, str], bit: int
) -> None:
    dtype, bits = kind
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.1, 1.0, (12, 16)).astype(np.float32)
    stored: np.ndarray = weight.astype(dtype)
    at = (int(rng.integers(12)), int(rng.integers(16)))
    stored.view(bits)[at] ^= stored.view(bits).dtype.type(1 << bit)
    (damage,) = found(from_floats("w", stored), weight)["damaged"]
    assert (damage["count"], tuple(damage["index"])) == (1, at)
    assert not damage["quantized"]


def test_the_last_bit_of_a_half_shows_where_a_batch_norm_is_folded_in() -> None:
    found_of = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        weight = rng.standard_normal((8, 3, 3, 4)).astype(np.float32)
        stored = (weight * rng.uniform(0.1, 3.0, (8, 1, 1, 1)).astype(np.float32)).astype(
            np.float16
        )
        assert found(from_floats("w", stored), weight)["damaged"] == []
        at = tuple(int(rng.integers(size)) for size in stored.shape)
        stored.view("u2")[at] ^= 1
        for damage in found(from_floats("w", stored), weight)["damaged"]:
            assert damage["index"][0] == at[0]
            found_of += 1
    # The others may leave room for a factor that explains the changed bit as well.
    assert found_of >= 180


def test_a_batch_norm_that_was_never_trained_is_no_damage_and_hides_none() -> None:
    """Its factor is 1/sqrt(1 + 1e-5) in all channels: only elements halfway round otherwise."""
    factor = np.float32(1.0) / np.sqrt(np.float32(1.0) + np.float32(1e-5))
    flips = detected = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        weight = rng.uniform(-0.2, 0.2, (16, 3, 3, 3)).astype(np.float32)
        stored = (weight * factor).astype(np.float16)
        flips += int(np.count_nonzero(stored != weight.astype(np.float16)))
        assert found(from_floats("w", stored), weight)["damaged"] == []
        at = tuple(int(rng.integers(size)) for size in stored.shape)
        stored.view("u2")[at] ^= 1
        damaged = found(from_floats("w", stored), weight)["damaged"]
        detected += [tuple(item["index"]) for item in damaged] == [at]
    assert flips > 100
    # The others are halfway themselves.
    assert detected >= 95


def test_a_factor_that_one_channel_has_is_no_damage() -> None:
    weight = np.random.default_rng(0).uniform(0.1, 1.0, (2000, 4)).astype(np.float32)
    stored = weight.copy()
    stored[7] *= np.float32(1.5)
    for item in (from_floats("w", stored), from_floats("w", stored.astype(np.float16))):
        assert found(item, weight)["damaged"] == []


def test_values_of_other_arithmetic_are_not_told_by_their_last_bits() -> None:
    weight = np.random.default_rng(0).uniform(0.1, 1.0, (64, 64)).astype(np.float32)
    item = from_floats("w", weight * np.float32(3.0) / np.float32(3.0))
    assert 0 < np.count_nonzero(item.values != weight) < weight.size
    result = found(item, weight)
    assert (result["matched_weights"], result["damaged"]) == (1, [])


def palettized(weight: Array, entries: int) -> tuple[Array, Array]:
    """Indices into a table of quantiles, and the table in float16."""
    table = np.quantile(weight, np.linspace(0, 1, entries)).astype(np.float16)
    distances = np.abs(weight[..., None] - table.astype(np.float32))
    return distances.argmin(axis=-1), table


@law
@given(SHAPES, SEEDS, st.booleans(), st.randoms(use_true_random=False))
def test_a_weight_of_a_palette_is_the_nearest_or_damaged(
    shape: list[int], seed: int, folded: bool, random: Any
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape).astype(np.float32)
    factors = rng.uniform(0.5, 2.0, (shape[0],) + (1,) * (len(shape) - 1)).astype(np.float32)
    indices, table = palettized(weight * factors if folded else weight, 16)
    order = random.sample(range(len(shape)), len(shape))
    assert found(from_palette("w", indices.transpose(order), table), weight)["damaged"] == []
    if not folded:
        at = tuple(int(rng.integers(size)) for size in shape)
        indices[at] += 4 if indices[at] < 8 else -4
        (damage,) = found(from_palette("w", indices.transpose(order), table), weight)["damaged"]
        assert (damage["count"], damage["quantized"]) == (1, True)


def test_a_palette_of_a_pruned_weight_is_not_the_programs() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    pruned = np.where(np.abs(weight) < 0.5, np.float32(0), weight)
    for of, matched in ((weight, 1), (pruned, 0)):
        result = found(from_palette("w", *palettized(of, 16)), weight)
        assert (result["matched_weights"], result["damaged"]) == (matched, [])


@law
@given(SEEDS)
def test_a_layer_that_is_another_as_a_whole_is_none_of_its_business(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((16, 24)).astype(np.float32)
    down = np.floor(weight / 0.02).clip(-127, 127).astype(np.int8)
    others = {
        "fine-tuned": rounded(weight + 0.05 * rng.standard_normal(weight.shape), per_channel=True),
        "another": rounded(rng.standard_normal(weight.shape), per_channel=True),
        "rounded down": from_integers("w", down, np.full((1, 1), 0.02), 0.0),
        "pruned": from_floats("w", np.where(np.abs(weight) < 0.1, 0, weight)),
        "both sides scaled": from_floats(
            "w", weight * rng.uniform(1, 2, (16, 1)) * rng.uniform(1, 2, (1, 24))
        ),
    }
    for name, item in others.items():
        result = found(item, weight)
        assert (result["matched_weights"], result["damaged"]) == (0, []), name


def test_few_and_empty_weights_prove_nothing() -> None:
    weight = np.zeros((64, 64), np.float32)
    weight[:3, :3] = 1
    stored = weight.copy()
    stored[0, 0] = 0.5
    assert found(from_floats("w", stored), weight)["matched_weights"] == 0
    assert found(from_floats("w", np.zeros_like(weight)), weight)["matched_weights"] == 0


def test_a_layer_that_is_another_one_s_copy_but_for_an_element_is_its_own() -> None:
    one = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    other = one.copy()
    other[3, 4] = 5.0
    weights = {"one": [one], "other": [other]}
    stored = [from_floats("b", other), from_floats("a", one)]
    assert audited(stored, weights)["damaged"] == []
    stored[0].values[1, 1] += 1
    assert [item["layer"] for item in audited(stored, weights)["damaged"]] == ["other"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of test_kept's network, and its float files."""
    folder = tmp_path_factory.mktemp("program")
    torch.manual_seed(0)
    inputs = [Input("image", ("batch", 3, 8, 8), low=-1.0, high=1.0)]
    program.capture(Network().eval(), inputs, ["scores"], {}, folder / "m.pt2")
    images = np.random.default_rng(0).uniform(-1, 1, (8, 3, 8, 8)).astype(np.float32)
    np.save(folder / "images.npy", images)
    np.save(folder / "one.npy", images[:1])
    for target in ("ort", "tflite"):
        tools(target).build(**request(folder, target, "fp32", []))
    return folder


def tools(target: str) -> Any:
    module, name = all_targets()[target].build.builder.split(":")
    return getattr(importlib.import_module(module), name)()


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        *(("ort", precision) for precision in ("fp32", "fp16", "int8", "int8-dynamic")),
        *(("tflite", precision) for precision in ("fp16", "int8")),
        *(("coreml", precision) for precision in ("fp16", "int8-weights", "palettized")),
    ],
)
def test_every_layer_of_a_file_is_known_and_a_flipped_bit_is_laid_to_its_own(
    made: Path, target: str, precision: str
) -> None:
    if target == "coreml":
        pytest.importorskip("coremltools")
    given = request(made, target, precision, [])
    if precision != "fp32" or target == "coreml":
        tools(target).build(**given)

    def audit(path: Path) -> dict[str, Any]:
        result: dict[str, Any] = tools(target).audit(
            path=str(path), program=str(made / "m.pt2"), reader=all_targets()[target].build.weights
        )
        return result

    sound = Path(given["output"])
    result = audit(sound)
    assert result["damaged"] == []
    assert result["matched_weights"] == len(Network.sizes)
    assert result["matched_elements"] == sum(Network.sizes.values())
    file = opened(sound)
    packed = (target, precision) in (("ort", "int8-dynamic"), ("coreml", "palettized"))
    weights = [] if packed else file.weights
    for position, weight in enumerate(weights):
        if weight.size != Network.sizes["hidden"]:
            continue
        changed = np.array(weight, order="C")
        bits = changed.view(f"u{changed.itemsize}")
        bits[5, 7] ^= bits.dtype.type(1 << (5 if changed.itemsize == 1 else 7))
        file.put(position, changed)
    if weights:
        (damage,) = audit(file.save(made / f"flipped-{precision}{sound.suffix}"))["damaged"]
        assert (damage["layer"], damage["count"]) == ("hidden", 1)


def test_weights_are_read_as_pytorch_reads_them(made: Path, tmp_path: Path) -> None:
    path = str(made / "m.pt2")
    expected, own = keep_float.program_weights(path), program_weights.read(path)
    assert {name: len(weights) for name, weights in own.items()} == {
        name: len(weights) for name, weights in expected.items()
    }
    for name, weights in expected.items():
        for one, other in zip(weights, own[name], strict=True):
            np.testing.assert_array_equal(one, other)


class Odd(torch.nn.Module):
    """Weights that are not laid out one after the other, and in other types."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = torch.nn.Parameter(torch.randn(6, 4).t())
        self.narrow = torch.nn.Parameter(torch.randn(4, 4).bfloat16())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.turned @ self.turned.t() @ self.narrow.float()


@pytest.mark.parametrize("turned", [True, False])
def test_so_are_those_of_another_layout(turned: bool, tmp_path: Path) -> None:
    module = Odd().eval()
    if not turned:
        module.turned.data = module.turned.data.contiguous()
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),)), tmp_path / "m.pt2")
    own = program_weights.read(str(tmp_path / "m.pt2"))
    np.testing.assert_array_equal(own["turned"][0], module.turned.detach().numpy())
    np.testing.assert_array_equal(own["narrow"][0], module.narrow.detach().float().numpy())
