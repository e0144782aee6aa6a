"""Operators that belong to the running of a program: casts, lists, states, the classifier's end.

Their definitions are coremltools', in converters/mil/mil/ops/defs (control_flow, states, classify).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from edgecheck.mil.call import Call
from edgecheck.mil.values import ListValue, State, integer_range, widened, zeros


def _identity(call: Call) -> Any:
    return call.inputs["x"] if call.has("x") else call.inputs["input"]


def _cast(call: Call) -> torch.Tensor:
    """To another type; a float loses its fraction.

    What an integer type can't hold becomes its nearest value and NaN becomes 0: ML Programs leave
    that open.
    """
    tensor, dtype = call.tensor("x"), call.outputs[0].dtype
    if call.text("dtype") != dtype:
        raise call.unsupported(f"to {call.text('dtype')} where {dtype} is declared")
    if dtype == "bool":
        return tensor != 0
    if dtype.startswith("fp"):
        return tensor.float()
    if not tensor.is_floating_point():
        return tensor.long()
    least, greatest = integer_range(dtype)
    whole = torch.nan_to_num(tensor.double(), nan=0.0).trunc().clamp(least, greatest)
    return whole.long()


def _make_list(call: Call) -> ListValue:
    length = call.integer("init_length", 1)
    return ListValue((None,) * length, call.outputs[0], call.flag("dynamic_length", True))


def _list_length(call: Call) -> torch.Tensor:
    return torch.tensor(len(_list(call).items))


def _list_read(call: Call) -> torch.Tensor:
    return _item(call, call.integer("index"))


def _list_gather(call: Call) -> torch.Tensor:
    return torch.stack([_item(call, index) for index in call.integers("indices")])


def _list_write(call: Call) -> ListValue:
    return _written(call, {call.integer("index"): call.tensor("value")})


def _list_scatter(call: Call) -> ListValue:
    rows = call.tensor("value").unbind(0)
    return _written(call, dict(zip(call.integers("indices"), rows, strict=True)))


def _list(call: Call) -> ListValue:
    value: ListValue = call.inputs["ls"]
    return value


def _item(call: Call, index: int) -> torch.Tensor:
    value = _list(call)
    if not 0 <= index < len(value.items):
        raise IndexError(f"index {index} in a list of {len(value.items)}")
    item = value.items[index]
    return zeros(value.element) if item is None else item


def _written(call: Call, new: Mapping[int, torch.Tensor]) -> ListValue:
    """The list with other items; it grows to hold them if its length is dynamic."""
    value = _list(call)
    items = list(value.items)
    longest = max(new, default=-1) + 1
    if min(new, default=0) < 0 or (longest > len(items) and not value.dynamic_length):
        raise IndexError(f"indices {sorted(new)} in a list of {len(items)}")
    items += [None] * (longest - len(items))
    for index, item in new.items():
        items[index] = item
    return replace(value, items=tuple(items))


def _read_state(call: Call) -> torch.Tensor:
    state: State = call.inputs["input"]
    tensor: torch.Tensor = widened(state.tensor)
    return tensor


def _write_state(call: Call) -> tuple[()]:
    state: State = call.inputs["input"]
    data = call.tensor("data")
    if data.shape != state.tensor.shape:
        raise ValueError(f"shape {tuple(data.shape)} for a state of {tuple(state.tensor.shape)}")
    state.tensor = data.to(state.tensor.dtype)
    return ()


def _classify(call: Call) -> tuple[Any, dict[Any, float]]:
    """The label of the greatest probability, and each label's."""
    probabilities = call.tensor("probabilities").reshape(-1)
    labels = call.inputs["classes"]
    if len(labels) != len(probabilities):
        raise ValueError(f"{len(labels)} labels for {len(probabilities)} probabilities")
    best = labels[int(probabilities.argmax())]
    return (
        best if isinstance(best, str) else torch.tensor(best),
        dict(zip(labels, probabilities.tolist(), strict=True)),
    )


HANDLERS: dict[str, Callable[[Call], Any]] = {
    "cast": _cast,
    "classify": _classify,
    "identity": _identity,
    "list_gather": _list_gather,
    "list_length": _list_length,
    "list_read": _list_read,
    "list_scatter": _list_scatter,
    "list_write": _list_write,
    "make_list": _make_list,
    "read_state": _read_state,
    "write_state": _write_state,
}
