"""Recurrent layers against torch's, and what torch lacks against a loop in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecheck.mil.call import UnsupportedError
from tests.mil.operators.common import close, noise, run

STEPS, BATCH, FEATURES, HIDDEN = 4, 2, 3, 5


def _weights(layer: nn.RNNBase, order: list[int], suffix: str = "") -> list[torch.Tensor]:
    """Input and recurrent weights and biases, torch's gates reordered."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    gates = len(order)
    return [
        torch.cat([getattr(layer, f"{name}_l0{suffix}").detach().chunk(gates)[i] for i in order])
        for name in names
    ]


def _last(sequence: torch.Tensor, whole: bool) -> torch.Tensor:
    return sequence if whole else sequence[-1:]


@settings(max_examples=10, deadline=None)
@given(kind=st.sampled_from(["tanh", "relu"]), reverse=st.booleans(), whole=st.booleans())
def test_rnn(kind: str, reverse: bool, whole: bool) -> None:
    layer = nn.RNN(FEATURES, HIDDEN, nonlinearity=kind)
    x, start = noise(STEPS, BATCH, FEATURES), noise(BATCH, HIDDEN, seed=1)
    sequence, end = layer(x.flip(0) if reverse else x, start[None])
    w_ih, w_hh, b_ih, b_hh = _weights(layer, [0])
    found = run(
        "rnn",
        x=x,
        initial_h=start,
        weight_ih=w_ih,
        weight_hh=w_hh,
        bias=b_ih + b_hh,
        direction="reverse" if reverse else "forward",
        output_sequence=whole,
        activation=kind,
    )
    expected = _last(sequence.detach(), whole)
    close(found[0], expected.flip(0) if reverse else expected)
    close(found[1], end[0].detach())


@settings(max_examples=10, deadline=None)
@given(reverse=st.booleans(), whole=st.booleans(), biased=st.booleans())
def test_gru_with_reset_after_is_torchs(reverse: bool, whole: bool, biased: bool) -> None:
    layer = nn.GRU(FEATURES, HIDDEN, bias=biased)
    x, start = noise(STEPS, BATCH, FEATURES), noise(BATCH, HIDDEN, seed=1)
    sequence, end = layer(x.flip(0) if reverse else x, start[None])
    order = [0, 2, 1]
    given_: dict[str, torch.Tensor] = {}
    if biased:
        w_ih, w_hh, given_["input_bias"], given_["bias"] = _weights(layer, order)
    else:
        w_ih, w_hh = (
            torch.cat([getattr(layer, f"weight_{name}_l0").detach().chunk(3)[i] for i in order])
            for name in ("ih", "hh")
        )
    found = run(
        "gru",
        x=x,
        initial_h=start,
        weight_ih=w_ih,
        weight_hh=w_hh,
        direction="reverse" if reverse else "forward",
        output_sequence=whole,
        reset_after=True,
        **given_,
    )
    expected = _last(sequence.detach(), whole)
    close(found[0], expected.flip(0) if reverse else expected)
    close(found[1], end[0].detach())


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def test_gru_resets_before_the_product() -> None:
    x, h = noise(STEPS, BATCH, FEATURES).numpy(), noise(BATCH, HIDDEN, seed=1).numpy()
    w_ih, w_hh = noise(15, FEATURES, seed=2).numpy(), noise(15, HIDDEN, seed=3).numpy()
    bias = noise(15, seed=4).numpy()
    (wr, wo, wz), (rr, ro, rz), (br, bo, bz) = (np.split(a, 3) for a in (w_ih, w_hh, bias))
    expected = []
    state = h
    for step in x:
        z = _sigmoid(step @ wz.T + state @ rz.T + bz)
        r = _sigmoid(step @ wr.T + state @ rr.T + br)
        o = np.tanh(step @ wo.T + (state * r) @ ro.T + bo)
        state = (1 - z) * o + z * state
        expected.append(state)
    given_ = {"x": x, "initial_h": h, "weight_ih": w_ih, "weight_hh": w_hh, "bias": bias}
    tensors = {name: torch.from_numpy(array) for name, array in given_.items()}
    found = run("gru", **tensors, output_sequence=True)
    close(found[0], np.stack(expected))
    close(run("gru", **tensors)[0], expected[-1][None])


@settings(max_examples=15, deadline=None)
@given(
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    whole=st.booleans(),
    biased=st.booleans(),
)
def test_lstm(direction: str, whole: bool, biased: bool) -> None:
    both = direction == "bidirectional"
    layer = nn.LSTM(FEATURES, HIDDEN, bidirectional=both)
    if not biased:
        for name, parameter in layer.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
    ways = 2 if both else 1
    x = noise(STEPS, BATCH, FEATURES)
    h, c = noise(ways, BATCH, HIDDEN, seed=1), noise(ways, BATCH, HIDDEN, seed=2)
    sequence, (h_end, c_end) = layer(x.flip(0) if direction == "reverse" else x, (h, c))
    given_: dict[str, torch.Tensor] = {}
    for mils, torchs in (("", ""), ("_back", "_reverse"))[:ways]:
        w_ih, w_hh, b_ih, b_hh = _weights(layer, [0, 1, 3, 2], torchs)
        given_ |= {f"weight_ih{mils}": w_ih, f"weight_hh{mils}": w_hh}
        if biased:
            given_[f"bias{mils}"] = b_ih + b_hh
    found = run(
        "lstm",
        x=x,
        initial_h=torch.cat(list(h), -1),
        initial_c=torch.cat(list(c), -1),
        direction=direction,
        output_sequence=whole,
        **given_,
    )
    ends = [torch.cat(list(state.detach()), -1) for state in (h_end, c_end)]
    expected = sequence.detach()
    if direction == "reverse":
        expected = expected.flip(0)
    close(found[0], expected if whole else ends[0][None])
    close(found[1], ends[0])
    close(found[2], ends[1])


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("name", ["relu", "scaled_tanh", "hard_sigmoid", "linear"])
def test_lstm_with_peepholes_and_clip(clip: float | None, name: str) -> None:
    acts: dict[str, Callable[[Any], Any]] = {
        "relu": lambda v: np.maximum(v, 0),
        "scaled_tanh": np.tanh,
        "hard_sigmoid": lambda v: np.clip(0.2 * v + 0.5, 0, 1),
        "linear": lambda v: v,
    }
    act = acts[name]
    x = noise(STEPS, BATCH, FEATURES).numpy()
    h, c = noise(BATCH, HIDDEN, seed=1).numpy(), noise(BATCH, HIDDEN, seed=2).numpy()
    w_ih, w_hh = noise(20, FEATURES, seed=3).numpy(), noise(20, HIDDEN, seed=4).numpy()
    peephole = noise(15, seed=5).numpy()
    p_i, p_f, p_o = np.split(peephole, 3)
    given_ = {"initial_h": h, "initial_c": c, "weight_ih": w_ih, "weight_hh": w_hh}
    tensors = {key: torch.from_numpy(array) for key, array in given_.items()}
    for step in x:
        i, f, o, z = np.split(step @ w_ih.T + h @ w_hh.T, 4, -1)
        c = c * _sigmoid(f + p_f * c) + _sigmoid(i + p_i * c) * np.tanh(z)
        c = c if clip is None else np.clip(c, -clip, clip)
        h = _sigmoid(o + p_o * c) * act(c)
    found = run(
        "lstm",
        x=torch.from_numpy(x),
        peephole=torch.from_numpy(peephole),
        activation=name,
        **tensors,
        **({} if clip is None else {"clip": clip}),
    )
    close(found[1], h)
    close(found[2], c)


def test_what_is_not_known() -> None:
    x, h, weight = noise(2, 1, 3), noise(1, 3), noise(3, 3)
    given_ = {"x": x, "initial_h": h, "weight_ih": weight, "weight_hh": weight}
    with pytest.raises(UnsupportedError, match="rnn with activation 'elu'"):
        run("rnn", **given_, activation="elu")
    with pytest.raises(UnsupportedError, match="rnn with direction 'bidirectional'"):
        run("rnn", **given_, direction="bidirectional")
