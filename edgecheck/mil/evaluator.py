"""Runs a function of an ML Program, operation by operation, with its declared types.

After each operation its results are rounded to the declared type, and their shape is held against
the declared one: an executor that disagrees with the file's own types must not go on.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgecheck.mil import control
from edgecheck.mil.call import Call, TensorType, UnsupportedError
from edgecheck.mil.handlers import handlers
from edgecheck.mil.program import (
    Binding,
    Block,
    Function,
    Interface,
    Operation,
    Program,
    ProgramError,
    StateType,
    Variable,
)
from edgecheck.mil.validation import refuse_malformed, refuse_unknown
from edgecheck.mil.values import (
    ExecutionError,
    State,
    constant,
    element_type,
    fits,
    from_array,
    stored,
    widened,
    zeros,
)

Observe = Callable[[str, torch.Tensor], None]
_Scope = MutableMapping[str, Any]

_CONTROL_FLOW = frozenset({"cond", "const", "while_loop"})


class InputError(ValueError):
    """What is given to a program is not what it takes."""

    stands_alone = True


@dataclass(frozen=True)
class _Step:
    """An operation, and the variables that nothing needs after it."""

    operation: Operation
    frees: tuple[str, ...]


class Evaluator:
    """A function, ready to run again and again.

    Constants are kept from the first run on, floats in float32; other values are freed after their
    last use. States start as zeros and live on from run to run. Not to be used by two threads at
    once.

    Args:
        program: as read.
        function: its name; None for the default one.

    Raises:
        ProgramError: if there is no such function, or it uses what nothing computes.
        UnsupportedError: if it has operators that are not handled; it names them all.
    """

    def __init__(self, program: Program, function: str | None = None) -> None:
        name = function or program.default_function
        if name not in program.functions:
            raise ProgramError(f"no function {name!r}; there are {sorted(program.functions)}")
        self._function = program.functions[name]
        self._defaults = _defaults(program.interfaces.get(name, Interface()))
        self._handlers = {**handlers(), **control.HANDLERS}
        refuse_unknown(self._function.block, self._handlers.keys() | _CONTROL_FLOW)
        refuse_malformed(self._function.block)
        self._steps: dict[int, tuple[_Step, ...]] = {}
        self._plan(self._function.block, self._function.inputs, frozenset())
        self._types = _types(self._function)
        self._constants: dict[int, tuple[Any, ...]] = {}
        self._states: dict[str, State] = {}
        self.reset_state()

    def reset_state(self) -> None:
        """Set each state to zeros, as before the first run."""
        self._states = {
            each.name: State(zeros(each.type.wrapped))
            for each in self._function.inputs
            if isinstance(each.type, StateType)
        }

    def run(
        self, inputs: Mapping[str, np.ndarray[Any, Any]], observe: Observe | None = None
    ) -> dict[str, Any]:
        """Run it once.

        Args:
            inputs: by name, all but the states, in the declared shape; one with a default value
                may be left out. A float32 array serves an
                fp16 input, and is rounded. An image is its pixels from 0 to 255, (1, channels,
                height, width); scale and bias are part of the program.
            observe: called with each computed variable's name and tensor, as stored; in a loop
                once a turn. Not called for constants.

        Returns:
            By name an array of the declared type; of a classifier the label as a str or int64
            array, and a dictionary of probabilities.

        Raises:
            InputError: if an input is missing, not known, or of another shape or kind.
            ExecutionError: if an operation fails or gives other than it declares.
            UnsupportedError: if an operator is used in a way that is not handled.
        """
        scope: _Scope = {**self._states, **self._given(inputs)}
        with torch.no_grad():
            results = self._run_block(self._function.block, scope, observe)
        return {
            name: _to_output(stored(result, self._types[name]))
            for name, result in zip(self._function.block.outputs, results, strict=True)
        }

    def _given(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, torch.Tensor]:
        declared = {
            each.name: each.type
            for each in self._function.inputs
            if isinstance(each.type, TensorType)
        }
        full = {**self._defaults, **inputs}
        if declared.keys() != full.keys():
            raise InputError(f"inputs {sorted(inputs)} are given; it takes {sorted(declared)}")
        return {name: _from_input(name, full[name], declared[name]) for name in declared}

    def _plan(self, block: Block, inputs: Iterable[Variable], outer: frozenset[str]) -> set[str]:
        """Note when each variable of a block is used last; returns what it uses from outside."""
        own = {variable.name for variable in inputs}
        last_use = dict.fromkeys(own, 0)
        foreign: set[str] = set()
        for index, operation in enumerate(block.operations):
            used = set(operation.used())
            for nested in operation.blocks:
                used |= self._plan(nested, nested.inputs, outer | own)
            for name in used:
                if name not in own and name not in outer:
                    raise ProgramError(
                        f"operation {operation.name!r} uses {name!r}, which nothing computes"
                    )
            own.update(variable.name for variable in operation.outputs)
            last_use.update(dict.fromkeys((each.name for each in operation.outputs), index))
            last_use.update(dict.fromkeys(used & own, index))
            foreign |= used - own
        for name in block.outputs:
            if name not in own and name not in outer:
                raise ProgramError(f"output {name!r} is computed by nothing")
        frees: dict[int, list[str]] = {}
        for name, index in last_use.items():
            if name not in block.outputs:
                frees.setdefault(index, []).append(name)
        self._steps[id(block)] = tuple(
            _Step(operation, tuple(frees.get(index, ())))
            for index, operation in enumerate(block.operations)
        )
        return foreign | (set(block.outputs) - own)

    def _run_block(self, block: Block, scope: _Scope, observe: Observe | None) -> list[Any]:
        for step in self._steps[id(block)]:
            results = self._results(step.operation, scope, observe)
            for variable, result in zip(step.operation.outputs, results, strict=True):
                scope[variable.name] = result
            for name in step.frees:
                del scope[name]
        return [scope[name] for name in block.outputs]

    def _results(
        self, operation: Operation, scope: _Scope, observe: Observe | None
    ) -> Sequence[Any]:
        if operation.operator == "const" or operation.operator.startswith("constexpr_"):
            if id(operation) not in self._constants:
                computed = self._computed(operation, scope)
                self._constants[id(operation)] = tuple(map(widened, computed))
            return self._constants[id(operation)]
        if operation.operator == "cond":
            results: Sequence[Any] = self._cond(operation, scope, observe)
        elif operation.operator == "while_loop":
            results = self._while_loop(operation, scope, observe)
        else:
            results = self._computed(operation, scope)
        if observe is not None:
            for variable, result in zip(operation.outputs, results, strict=True):
                if isinstance(result, torch.Tensor):
                    observe(variable.name, result)
        return results

    def _computed(self, operation: Operation, scope: _Scope) -> tuple[Any, ...]:
        """The results of an operator with a handler, or of a `const`, as stored."""
        try:
            if operation.operator == "const":
                results: tuple[Any, ...] = (constant(operation.attributes["val"]),)
            else:
                given = self._handlers[operation.operator](_call(operation, scope))
                results = tuple(given) if isinstance(given, (tuple, list)) else (given,)
            if len(results) != len(operation.outputs):
                raise ExecutionError(
                    f"gives {len(results)} results where {len(operation.outputs)} are declared"
                )
            return tuple(map(stored, results, (each.type for each in operation.outputs)))
        except UnsupportedError:
            raise
        except Exception as error:  # whatever torch or a handler raises, about a file's content
            raise _failed(operation, error) from error

    def _cond(self, operation: Operation, scope: _Scope, observe: Observe | None) -> list[Any]:
        (predicate,) = _values(operation.inputs["pred"], scope)
        if_true, if_false = operation.blocks
        chosen = if_true if _true(operation, predicate) else if_false
        return _declared(operation, self._run_block(chosen, ChainMap({}, scope), observe))

    def _while_loop(
        self, operation: Operation, scope: _Scope, observe: Observe | None
    ) -> list[Any]:
        condition, body = operation.blocks
        variables = _values(operation.inputs["loop_vars"], scope)
        while True:
            (more,) = self._run_block(condition, _inner(condition, variables, scope), observe)
            if not _true(operation, more):
                return _declared(operation, variables)
            variables = self._run_block(body, _inner(body, variables, scope), observe)


def _inner(block: Block, values: Sequence[Any], scope: _Scope) -> _Scope:
    names = (each.name for each in block.inputs)
    return ChainMap(dict(zip(names, values, strict=True)), scope)


def _values(bindings: Sequence[Binding], scope: Mapping[str, Any]) -> list[Any]:
    return [scope[each] if isinstance(each, str) else constant(each) for each in bindings]


def _call(operation: Operation, scope: Mapping[str, Any]) -> Call:
    """The call of an operation: inputs, and attributes, which iOS16's constexpr operators use."""
    inputs: dict[str, Any] = {
        parameter: constant(value) for parameter, value in operation.attributes.items()
    }
    for parameter, bindings in operation.inputs.items():
        values = [widened(value) for value in _values(bindings, scope)]
        inputs[parameter] = values[0] if len(values) == 1 else values
    outputs = [element_type(each.type) for each in operation.outputs]
    return Call(operation.operator, operation.name, inputs, outputs)


def _declared(operation: Operation, results: Sequence[Any]) -> list[Any]:
    """Results of control flow, held against the declared types."""
    try:
        return [
            stored(result, each.type)
            for result, each in zip(results, operation.outputs, strict=True)
        ]
    except ValueError as error:
        raise _failed(operation, error) from error


def _failed(operation: Operation, error: Exception) -> ExecutionError:
    reason = str(error).strip().split("\n")[0]
    if not isinstance(error, ExecutionError):
        reason = f"{type(error).__name__}: {reason}"
    return ExecutionError(f"operation {operation.name!r} ({operation.operator}): {reason}")


def _true(operation: Operation, value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise _failed(operation, ExecutionError("its condition is not a single truth value"))
    return bool(value)


def _defaults(interface: Interface) -> dict[str, np.ndarray[Any, Any]]:
    return {
        each.name: np.full(each.shape, each.default_value)
        for each in interface.inputs
        if each.default_value is not None
    }


def _types(function: Function) -> dict[str, Any]:
    """The declared type of each variable that the function's own block can give."""
    variables = [*function.inputs]
    for operation in function.block.operations:
        variables += operation.outputs
    return {variable.name: variable.type for variable in variables}


def _from_input(name: str, value: np.ndarray[Any, Any], declared: TensorType) -> torch.Tensor:
    # A copy: what is given may change before the next run, and may be read-only. A scalar input
    # is described, and so given, as an array of one.
    array = np.array(value)
    if declared.shape == () and array.shape == (1,):
        array = array.reshape(())
    if not fits(array.shape, declared.shape):
        raise InputError(f"input {name!r} has shape {array.shape}; it takes {declared.shape}")
    if array.dtype.kind not in "fiub":
        raise InputError(f"input {name!r} holds {array.dtype}; it takes {declared.dtype}")
    tensor = from_array(array.astype(array.dtype.newbyteorder("=")))
    if declared.dtype.startswith("fp"):
        return stored(tensor.float(), declared)  # type: ignore[no-any-return]
    if tensor.is_floating_point():
        raise InputError(f"input {name!r} holds {array.dtype}; it takes {declared.dtype}")
    return stored(tensor if declared.dtype == "bool" else tensor.long(), declared)  # type: ignore[no-any-return]


def _to_output(value: Any) -> Any:
    # A copy: the tensor may be a constant, or a state.
    return np.array(value.numpy()) if isinstance(value, torch.Tensor) else value
