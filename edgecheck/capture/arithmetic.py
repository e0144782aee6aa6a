"""A PyTorch reference in other arithmetic: float64, true half precision, simulated quantization.

What it gives is the yardstick of parity: how far rounding alone moves each output. Runs in a child
(see `edgecheck.capture.worker`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from edgecheck.capture.base import SimulationError, story
from edgecheck.capture.half_precision import HalfPrecision, Rounding, half
from edgecheck.capture.palette import palettized
from edgecheck.names import layer_of
from edgecheck.runtime.torch import name_outputs
from edgecheck.runtime.torch_program import select_outputs

Infer = Callable[..., dict[str, np.ndarray]]
_aten = torch.ops.aten
# Operators whose operands a quantizer rounds: positions of the operands. What is a weight among
# them is told by its storage.
_OPERANDS = {
    _aten.convolution.default: (0, 1),
    _aten.linear.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.mm.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.baddbmm.default: (1, 2),
    _aten._scaled_dot_product_flash_attention_for_cpu.default: (0, 1, 2),
    _aten.add.Tensor: (0, 1),
    _aten.mean.dim: (0,),
}
# The axis of a weight that counts output channels, where it is not the first.
_LAST = (_aten.addmm.default, _aten.mm.default)


def simulator(
    module: torch.nn.Module,
    outputs: Sequence[str],
    arithmetic: Mapping[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]] = (),
) -> Infer:
    """A function like `edgecheck.capture.base.Live.infer` that computes in other arithmetic.

    Args:
        arithmetic: ``kind`` is ``"float64"``; ``"float16"`` (each operator computes in float32 and
            rounds what it gives to half precision, IEEE 754 binary16; with ``sums`` set to
            ``"half"``, what depends on a sum inside an operator that half precision could not hold
            is NaN); or ``"quantized"`` with
            ``weight_bits``, ``activation_bits`` and ``activations`` (``"none"``, ``"dynamic"`` or
            ``"static"``): symmetric weights per output channel, asymmetric activations per tensor.
            With ``palette``, weights are the nearest of the best values for the whole tensor.
            That function also takes ``keep``, names of layers that stay in float.
        calibration: calls that show the ranges of static activations.

    Returns:
        That function. In half precision it has `overflowing_sums`, a sentence on each operator
        whose calls so far had sums inside that half precision could not hold.

    Raises:
        SimulationError: the module does not run so; the message says why. The function too.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise SimulationError("a TorchScript module can't be run in other arithmetic")
    kind = arithmetic["kind"]

    def guarded(call: Infer) -> Infer:
        def infer(inputs: Mapping[str, np.ndarray], **keeping: Any) -> dict[str, np.ndarray]:
            try:
                return call(inputs, **keeping)
            except SimulationError:
                raise
            except Exception as error:
                raise SimulationError(f"in {kind} the model raised {story(error)}") from error

        return infer

    if kind == "float64":
        return guarded(_float64(module, outputs))
    if kind == "float16":
        sums: dict[tuple[str, int], float] = {}
        call = guarded(_float16(module, outputs, sums, poison=arithmetic.get("sums") == "half"))
        return HalfPrecision(call, sums)
    return guarded(_quantized(module, outputs, arithmetic, calibration))


def _float64(module: torch.nn.Module, outputs: Sequence[str]) -> Infer:
    state = _state(module, lambda tensor: tensor.double())

    def infer(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with _default_dtype(torch.float64), _Promoting():  # type: ignore[no-untyped-call]
            returned = _call(module, state, inputs, lambda tensor: tensor.double())
        return name_outputs(returned, list(outputs))

    return infer


def _float16(
    module: torch.nn.Module,
    outputs: Sequence[str],
    sums: dict[tuple[str, int], float],
    *,
    poison: bool,
) -> Infer:
    state = _state(module, half)

    def infer(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with Rounding(sums, poison=poison):
            returned = _call(module, state, inputs, half)
        return name_outputs(returned, list(outputs))

    return infer


def _quantized(
    module: torch.nn.Module,
    outputs: Sequence[str],
    scheme: Mapping[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]],
) -> Infer:
    state = _state(module, lambda tensor: tensor)
    weights = {
        tensor.untyped_storage().data_ptr(): layer_of(name) for name, tensor in state.items()
    }
    ranges: dict[tuple[int, int], tuple[float, float]] = {}
    rounded: dict[tuple[object, ...], torch.Tensor] = {}

    def run(
        inputs: Mapping[str, np.ndarray], *, watch: bool = False, keep: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        mode = _Quantizing(scheme, weights, ranges, rounded, frozenset(keep), watch=watch)
        with mode as quantizing:
            returned = _call(module, state, inputs, lambda tensor: tensor)
        tensors = quantizing.outputs(select_outputs(returned, list(outputs)))
        if not (watch or quantizing.quantized or keep):
            raise SimulationError("the model has no convolution or matrix product with weights")
        return name_outputs(tensors, list(outputs))

    if scheme["activations"] == "static":
        if not calibration:
            raise SimulationError("no calibration data shows the ranges of activations")
        try:
            for inputs in calibration:
                run(inputs, watch=True)
        except Exception as error:
            raise SimulationError(
                f"on the calibration data the model raised {story(error)}"
            ) from error
    return run


def _state(module: torch.nn.Module, convert: Any) -> dict[str, torch.Tensor]:
    """The module's parameters and buffers by name, floating ones converted; it keeps its own."""
    with torch.no_grad():
        # Copies, since a model may write its buffers.
        return {
            name: convert(tensor.detach().clone()) if tensor.is_floating_point() else tensor.clone()
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
        }


def _call(
    module: torch.nn.Module,
    state: dict[str, torch.Tensor],
    feed: Mapping[str, np.ndarray],
    convert: Any,
) -> Any:
    """One call with another state. Without autograd, below which composite operators are taken
    apart; in inference mode they would come whole.
    """
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in feed.items()}
    tensors = {
        name: convert(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    with torch.no_grad(), _plainly():
        return torch.func.functional_call(module, state, (), tensors)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """Transformer layers as their parts, not as one operator; and one thread.

    Between many small operators threads wait for each other: on a busy machine sixty times as long
    as one takes.
    """
    fast, threads = torch.backends.mha.get_fastpath_enabled(), torch.get_num_threads()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_num_threads(threads)


class _Promoting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Casts and constants in lower precision become float64, so that nothing rounds in between."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        written = _written(func, args)

        def promote(value: Any) -> Any:
            if isinstance(value, torch.dtype):
                return torch.float64 if value.is_floating_point else value
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                return value if any(value is item for item in written) else value.double()
            return value

        return func(*tree_map(promote, args), **tree_map(promote, kwargs or {}))


class _Quantizing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operands are rounded to the levels of a scheme, or their ranges watched.

    Args:
        weights: layers by the addresses of the storages that are their parameters.
        ranges: of static activations, by position of the call and of the operand.
        rounded: weights as they were rounded in calls before.
        keep: layers in float. What lies between two of them is too: a quantized operator gives
            quantized values, and so does one without weights after a quantized one.
    """

    def __init__(
        self,
        scheme: Mapping[str, Any],
        weights: Mapping[int, str],
        ranges: dict[tuple[int, int], tuple[float, float]],
        rounded: dict[tuple[object, ...], torch.Tensor],
        keep: frozenset[str] = frozenset(),
        *,
        watch: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._scheme, self._weights, self._ranges, self._watch = scheme, weights, ranges, watch
        self._rounded = rounded
        self._keep = keep
        # The nearest layers before each tensor.
        self._sources = WeakTensorKeyDictionary()
        self._calls = 0
        self.quantized = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        sources = self._before((args, kwargs)) if self._keep else frozenset()
        if func in _OPERANDS:
            self._calls += 1
            layer = next((name for item in args if (name := self._layer(item)) is not None), None)
            kept = bool(sources) and sources <= self._keep if layer is None else layer in self._keep
            sources = sources if layer is None else frozenset([layer])
            new = list(args)
            for position in _OPERANDS[func]:
                operand = args[position]
                if not (isinstance(operand, torch.Tensor) and operand.is_floating_point()):
                    continue
                if self._layer(operand) is not None:
                    new[position] = (
                        operand if kept else self._weight(operand, -1 if func in _LAST else 0)
                    )
                elif not (kept and self._comes_in_float(operand)):
                    new[position] = self._activation(operand, position)
            args = tuple(new)
        returned = func(*args, **(kwargs or {}))
        if self._keep:
            for item in tree_leaves(returned):
                if isinstance(item, torch.Tensor):
                    self._sources[item] = sources
        return returned

    def _layer(self, operand: Any) -> str | None:
        if not isinstance(operand, torch.Tensor):
            return None
        return self._weights.get(operand.untyped_storage().data_ptr())

    def _before(self, values: Any) -> frozenset[str]:
        tensors = [item for item in tree_leaves(values) if isinstance(item, torch.Tensor)]
        known = [self._sources[item] for item in tensors if item in self._sources]
        return frozenset().union(*known)

    def _comes_in_float(self, tensor: torch.Tensor) -> bool:
        static = self._scheme["activations"] == "static"
        return not static or self._before(tensor) <= self._keep

    def outputs(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """The model's outputs, which static files hold quantized too."""
        if self._scheme["activations"] != "static":
            return tensors
        self._calls = -1
        return [
            self._activation(tensor, position)
            if tensor.is_floating_point() and not (self._keep and self._comes_in_float(tensor))
            else tensor
            for position, tensor in enumerate(tensors)
        ]

    def _weight(self, weight: torch.Tensor, axis: int) -> torch.Tensor:
        if self._watch or weight.dim() < 2:
            return weight
        self.quantized += 1
        # A view of it, and what the model wrote into it, are others.
        key = (weight.data_ptr(), weight._version, weight.shape, weight.stride(), axis)
        if key in self._rounded:
            return self._rounded[key]
        if self._scheme.get("palette"):
            self._rounded[key] = palettized(weight, 2 ** self._scheme["weight_bits"])
            return self._rounded[key]
        top = 2 ** (self._scheme["weight_bits"] - 1) - 1
        others = [item for item in range(weight.dim()) if item != axis % weight.dim()]
        step = (weight.abs().amax(dim=others, keepdim=True) / top).clamp_min(1e-30)
        rounded: torch.Tensor = (weight / step).round().clamp(-top, top) * step
        self._rounded[key] = rounded
        return rounded

    def _activation(self, tensor: torch.Tensor, position: int) -> torch.Tensor:
        if self._scheme["activations"] == "none" or not tensor.numel():
            return tensor
        key = (self._calls, position)
        if self._watch:
            low, high = self._ranges.get(key, (0.0, 0.0))
            lowest, highest = tensor.aminmax()
            self._ranges[key] = min(low, float(lowest)), max(high, float(highest))
            return tensor
        if self._scheme["activations"] == "dynamic":
            lowest, highest = tensor.aminmax()
            low, high = min(0.0, float(lowest)), max(0.0, float(highest))
        elif key in self._ranges:
            low, high = self._ranges[key]
        else:
            raise SimulationError("the model computes other operators on other inputs")
        levels = 2 ** self._scheme["activation_bits"] - 1
        step = max((high - low) / levels, 1e-30)
        zero = round(-low / step)
        found: torch.Tensor = ((tensor / step).round() + zero).clamp(0, levels).sub(zero) * step
        return found


def _written(func: Any, args: Any) -> list[Any]:
    """The arguments that an operator writes in place."""
    return [
        value
        for value, declared in zip(args, func._schema.arguments, strict=False)
        if declared.alias_info is not None and declared.alias_info.is_write
    ]
