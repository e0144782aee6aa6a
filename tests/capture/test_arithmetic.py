"""References in other arithmetic: against PyTorch's own double and half, and against by-hand
quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecheck.capture.arithmetic import simulator
from edgecheck.capture.base import SimulationError

INT8 = {"kind": "quantized", "weight_bits": 8, "activation_bits": 8, "activations": "none"}


class Net(nn.Module):
    """Convolution, batch norm, in-place work, a cast, a constant, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu_(self.norm(self.conv(x))).mean(1)
        y = self.encoder(y).to(torch.float32) * torch.tensor(1.5)
        out = torch.zeros(x.shape[0], 3)
        out[:] = self.head(y[:, -1])
        return out


def made(factory: Callable[[], Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return factory().eval()


def run(
    module: Any,
    inputs: dict[str, np.ndarray],
    arithmetic: dict[str, Any],
    *calibration: dict[str, np.ndarray],
) -> np.ndarray:
    return simulator(module, ["y"], arithmetic, calibration)(inputs)["y"]


def db(found: np.ndarray, exact: np.ndarray) -> float:
    error = ((found.astype(np.float64) - exact) ** 2).sum()
    return 10 * np.log10((exact.astype(np.float64) ** 2).sum() / error)


IMAGE = {"x": np.random.default_rng(0).uniform(0, 1, (3, 1, 6, 8)).astype(np.float32)}
MLP = {"input": np.random.default_rng(0).uniform(0, 1, (16, 32)).astype(np.float32)}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))


def most_by_order(first: Any, second: Any, inputs: Any, unit: float) -> Any:
    """By how much two orders of the sums in two layers can differ, by output.

    A sum of n products is off by at most n roundings of the sum of their magnitudes, whatever the
    order and with or without fused multiply-adds (Higham, Accuracy and Stability of Numerical
    Algorithms, 3.1), and so are both of those that are compared. Another processor, another number
    of threads or another alignment may choose the order.

    Args:
        unit: half the distance from 1 to the next larger number.
    """
    magnitude = np.abs(inputs.astype(np.float64))
    roundings = 0
    for layer in (first, second):
        weight, bias = (item.detach().double().abs().numpy() for item in layer.parameters())
        magnitude = magnitude @ weight.T + bias
        roundings += weight.shape[1] + 1  # one for the bias
    return 2 * roundings * unit * magnitude


def test_float64_is_that_of_a_module_in_double() -> None:
    module = made(mlp)
    found = run(module, MLP, {"kind": "float64"})
    assert found.dtype == np.float64
    with torch.no_grad():
        expected = made(mlp).double()(torch.from_numpy(MLP["input"]).double()).numpy()
    # A single rounding to float32 would be 2**29 of these.
    most = most_by_order(module[0], module[2], MLP["input"], 2.0**-53)
    assert (np.abs(found - expected) <= most).all()


def test_casts_and_constants_in_float32_round_nothing() -> None:
    module = made(Net)
    found = run(module, IMAGE, {"kind": "float64"})
    assert found.dtype == np.float64
    assert not np.array_equal(found, found.astype(np.float32))
    with torch.no_grad():
        own = module(torch.from_numpy(IMAGE["x"])).numpy()
    assert 110 < db(own, found) < 160


def test_the_module_itself_stays_as_it_was() -> None:
    module = made(Net)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    run(module, IMAGE, {"kind": "float64"})
    run(module, IMAGE, {"kind": "float16"})
    run(module, IMAGE, INT8)
    assert torch.get_default_dtype() == torch.float32
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])


def test_half_is_about_what_pytorchs_own_half_gives() -> None:
    module, exact = made(mlp), run(made(mlp), MLP, {"kind": "float64"})
    found = run(module, MLP, {"kind": "float16"})
    with torch.no_grad():
        own = made(mlp).half()(torch.from_numpy(MLP["input"]).half()).float().numpy()
    assert np.array_equal(found, found.astype(np.float16))
    assert db(found, exact) == pytest.approx(db(own, exact), abs=3)


def test_half_overflows_where_half_does() -> None:
    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x / 1000

    inputs = {"x": np.array([1.0, 200.0, 300.0], np.float32)}
    found = run(Square(), inputs, {"kind": "float16"})
    assert np.isfinite(found).tolist() == [True, True, False]  # 90000 is beyond 65504
    assert np.isfinite(run(Square(), inputs, {"kind": "float64"})).all()


def test_work_in_place_is_rounded_too() -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 1
            y[:, 0].mul_(1000.7)
            return y

    found = run(InPlace(), {"x": np.ones((2, 2), np.float32)}, {"kind": "float16"})
    assert found[0].tolist() == [float(np.float16(1000.7)), 1.0]


def test_weights_are_rounded_by_output_channel() -> None:
    module = made(lambda: nn.Linear(32, 8))
    with torch.no_grad():
        module.weight[0] *= 100  # which would cost the others, were there one scale
    weight = module.weight.detach().double().numpy()
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    rounded = np.rint(weight / step) * step
    expected = MLP["input"] @ rounded.T + module.bias.detach().numpy()
    assert run(module, MLP, INT8) == pytest.approx(expected, abs=1e-4)


def test_fewer_bits_cost_more_and_activations_cost_too() -> None:
    module, exact = made(mlp), run(made(mlp), MLP, {"kind": "float64"})
    weights = db(run(module, MLP, INT8), exact)
    four = db(run(module, MLP, {**INT8, "weight_bits": 4}), exact)
    dynamic = db(run(module, MLP, {**INT8, "activations": "dynamic"}), exact)
    static = {**INT8, "activations": "static"}
    good = db(run(module, MLP, static, MLP), exact)
    wrong = db(run(module, MLP, static, {"input": MLP["input"] * 50}), exact)
    assert four < weights - 15
    assert dynamic < weights
    assert 25 < good < weights
    assert wrong < good - 20


def test_ranges_are_those_of_all_calibration_calls() -> None:
    """To the bit, since nothing is rounded while the ranges are watched.

    A batch of another size may be summed in another order, and a range that differs in its last bit
    moves every level. So inputs and weights are multiples of 1/16 and 1/32: all sums are multiples
    of 2**-14 below 2**7, which float32 holds exactly in any order.
    """
    module, static = made(mlp), {**INT8, "activations": "static"}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((parameter * 32).round() / 32)
    inputs = {"input": np.round(MLP["input"] * 16) / 16}
    inputs["input"][0] += 1
    inputs["input"][-1] -= 1
    calls = [{"input": part} for part in np.array_split(inputs["input"], 5)]
    found, expected = (run(module, inputs, static, *data) for data in (calls, [inputs]))
    assert np.array_equal(found, expected)
    for call in calls:  # none shows both ends
        assert not np.array_equal(run(module, inputs, static, call), expected)


def test_palettes_are_simulated() -> None:
    module = made(mlp)
    exact = run(module, MLP, {"kind": "float64"})
    four = db(run(module, MLP, {**INT8, "weight_bits": 4, "palette": True}), exact)
    assert 12 < four < db(run(module, MLP, INT8), exact) - 10


def test_a_weight_that_the_model_writes_is_rounded_anew() -> None:
    class Growing(nn.Module):
        weight: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(4, 32))

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            self.weight.add_(1)
            return input @ self.weight.T

    infer = simulator(Growing(), ["y"], INT8)
    first, second = (infer(MLP)["y"] for _ in range(2))
    assert second == pytest.approx(first * 1.5, rel=0.02)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_run(kind: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(8, 12, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)[0]

    inputs = {"x": np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)}
    module = made(Recurrent)
    exact = run(module, inputs, {"kind": "float64"})
    with torch.no_grad():
        assert db(module(torch.from_numpy(inputs["x"])).numpy(), exact) > 110
    assert 40 < db(run(module, inputs, {"kind": "float16"}), exact) < 100


def test_a_captured_program_runs() -> None:
    module = made(mlp)
    program = torch.export.export(module, (), {"input": torch.from_numpy(MLP["input"])}).module()
    expected = run(module, MLP, {"kind": "float64"})
    assert run(program, MLP, {"kind": "float64"}) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("factory", "arithmetic", "calibration", "says"),
    [
        (lambda: torch.jit.script(mlp()), {"kind": "float64"}, [], "TorchScript"),
        (lambda: nn.ReLU(), INT8, [], "no convolution or matrix product"),
        (mlp, {**INT8, "activations": "static"}, [], "no calibration data"),
        (mlp, {**INT8, "activations": "static"}, [{"input": np.ones((2, 3), "f")}], "calibration"),
    ],
)
def test_what_can_not_be_simulated_says_why(
    factory: Callable[..., Any], arithmetic: dict[str, Any], calibration: list[Any], says: str
) -> None:
    with pytest.raises(SimulationError, match=says):
        run(made(factory), MLP, arithmetic, *calibration)


def test_a_module_that_raises_is_named() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            return x

    with pytest.raises(SimulationError, match="in float64 the model raised TypeError: float32"):
        run(Broken(), {"x": np.ones((1, 2), np.float32)}, {"kind": "float64"})


class TwoLayers(nn.Module):
    """Between the layers one channel is a thousand times as large as the others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 16), nn.Linear(16, 8)
        with torch.no_grad():
            self.first.weight[0] *= 1000
            self.second.weight[:, 0] /= 1000

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(input)))


def test_what_lies_between_layers_is_rounded_unless_both_stay_in_float() -> None:
    module = made(TwoLayers)
    static = {**INT8, "activations": "static"}
    infer = simulator(module, ["y"], static, [MLP])
    exact = module(torch.from_numpy(MLP["input"])).detach().numpy()
    most = most_by_order(module.first, module.second, MLP["input"], 2.0**-24)
    assert (np.abs(infer(MLP, keep=["first", "second"])["y"] - exact) <= most).all()
    for keep in ((), ("first",), ("second",)):
        assert db(infer(MLP, keep=keep)["y"], exact) < 25
    dynamic = simulator(module, ["y"], {**INT8, "activations": "dynamic"})
    assert db(dynamic(MLP, keep=["first"])["y"], exact) < 25
    assert db(dynamic(MLP, keep=["second"])["y"], exact) > 35
