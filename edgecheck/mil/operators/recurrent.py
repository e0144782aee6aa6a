"""Recurrent layers over x [sequence, batch, features].

Where coremltools' documentation is silent, its tests against Core ML itself decide: the reset gate
of `gru` acts before the product (unless ``reset_after``), ``clip`` bounds the cell state, the
output gate's peephole sees the new cell state, ``hard_sigmoid`` is 0.2 x + 0.5 and ``scaled_tanh``
is tanh.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgecheck.mil.call import Call, Handler

_Activation = Callable[[torch.Tensor], torch.Tensor]


def _hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return (0.2 * x + 0.5).clamp(0, 1)


_ACTIVATIONS: dict[str, _Activation] = {
    "hard_sigmoid": _hard_sigmoid,
    "linear": lambda x: x,
    "relu": torch.relu,
    "scaled_tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sigmoid_hard": _hard_sigmoid,
    "tanh": torch.tanh,
}


def _activation(call: Call, parameter: str, default: str) -> _Activation:
    name = call.text(parameter, default)
    if name not in _ACTIVATIONS:
        raise call.unsupported(f"with {parameter} {name!r}")
    return _ACTIVATIONS[name]


def _directions(call: Call, allowed: tuple[str, ...]) -> str:
    direction = call.text("direction", "forward")
    if direction not in allowed:
        raise call.unsupported(f"with direction {direction!r}")
    return direction


def _sequence(call: Call, steps: list[torch.Tensor], *, reverse: bool) -> torch.Tensor:
    """All hidden states in the order of the input, or the last one computed."""
    if not call.flag("output_sequence", False):
        return steps[-1].unsqueeze(0)
    return torch.stack(steps[::-1] if reverse else steps)


def _rnn(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    reverse = _directions(call, ("forward", "reverse")) == "reverse"
    act = _activation(call, "activation", "tanh")
    projected = _projected(call, "weight_ih", "bias")
    recurrent, hidden = call.tensor("weight_hh").T, call.tensor("initial_h")
    steps = []
    for at in projected.flip(0) if reverse else projected:
        hidden = act(at + hidden @ recurrent)
        steps.append(hidden)
    return _sequence(call, steps, reverse=reverse), hidden


def _gru(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """Gates in the order reset, output, update."""
    reverse = _directions(call, ("forward", "reverse")) == "reverse"
    act = _activation(call, "activation", "tanh")
    gate = _activation(call, "recurrent_activation", "sigmoid")
    projected = _projected(call, "weight_ih", "input_bias")
    hidden, weight = call.tensor("initial_h"), call.tensor("weight_hh")
    bias = call.optional("bias")
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    (w_r, w_o, w_z), (b_r, b_o, b_z) = (part.chunk(3) for part in (weight, bias))
    reset_after = call.flag("reset_after", False)
    steps = []
    for at in projected.flip(0) if reverse else projected:
        x_r, x_o, x_z = at.chunk(3, -1)
        reset = gate(x_r + hidden @ w_r.T + b_r)
        update = gate(x_z + hidden @ w_z.T + b_z)
        if reset_after:
            candidate = act(x_o + reset * (hidden @ w_o.T + b_o))
        else:
            candidate = act(x_o + (reset * hidden) @ w_o.T + b_o)
        hidden = (1 - update) * candidate + update * hidden
        steps.append(hidden)
    return _sequence(call, steps, reverse=reverse), hidden


def _lstm(call: Call) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    direction = _directions(call, ("forward", "reverse", "bidirectional"))
    if direction != "bidirectional":
        return _one_lstm(
            call,
            "",
            call.tensor("initial_h"),
            call.tensor("initial_c"),
            reverse=direction == "reverse",
        )
    hidden, cell = call.tensor("initial_h").chunk(2, -1), call.tensor("initial_c").chunk(2, -1)
    forward = _one_lstm(call, "", hidden[0], cell[0], reverse=False)
    backward = _one_lstm(call, "_back", hidden[1], cell[1], reverse=True)
    sequence, last, state = (torch.cat(pair, -1) for pair in zip(forward, backward, strict=True))
    return sequence, last, state


def _one_lstm(
    call: Call, suffix: str, hidden: torch.Tensor, cell: torch.Tensor, *, reverse: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One direction; gates in the order input, forget, output, cell."""
    gate = _activation(call, "recurrent_activation", "sigmoid")
    act_cell = _activation(call, "cell_activation", "tanh")
    act = _activation(call, "activation", "tanh")
    projected = _projected(call, f"weight_ih{suffix}", f"bias{suffix}")
    recurrent = call.tensor(f"weight_hh{suffix}").T
    peephole = call.optional(f"peephole{suffix}")
    p_i, p_f, p_o = [0.0] * 3 if peephole is None else peephole.chunk(3)
    bound = call.number("clip") if call.has("clip") else None
    steps = []
    for at in projected.flip(0) if reverse else projected:
        x_i, x_f, x_o, x_z = (at + hidden @ recurrent).chunk(4, -1)
        kept, added = gate(x_f + p_f * cell), gate(x_i + p_i * cell)
        cell = kept * cell + added * act_cell(x_z)
        cell = cell if bound is None else cell.clamp(-bound, bound)
        hidden = gate(x_o + p_o * cell) * act(cell)
        steps.append(hidden)
    return _sequence(call, steps, reverse=reverse), hidden, cell


def _projected(call: Call, weight: str, bias: str) -> torch.Tensor:
    """The input's part of all gates at all steps."""
    y = call.tensor("x") @ call.tensor(weight).T
    offset = call.optional(bias)
    return y if offset is None else y + offset


HANDLERS: dict[str, Handler] = {"gru": _gru, "lstm": _lstm, "rnn": _rnn}
