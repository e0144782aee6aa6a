"""What a handler of an operator gets: the inputs of one call by name, as what they are meant to
be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class UnsupportedError(ValueError):
    """The reference executor does not know an operator, or this use of it; it never guesses."""

    stands_alone = True


@dataclass(frozen=True)
class TensorType:
    """A declared type.

    Attributes:
        dtype: as ML Programs name it: fp16, fp32, int32, bool, string, uint8, int4 ...
        shape: None on an axis of unknown size; () for a scalar.
    """

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        operator: its type, e.g. ``conv``.
        name: of the operation in the program.
        inputs: by parameter, for those that are given: a tensor (floats always in float32, whatever
            is stored), a str, or a list of those where the parameter takes several.
        outputs: the declared types of the results.
    """

    operator: str
    name: str
    inputs: Mapping[str, Any]
    outputs: Sequence[TensorType] = field(default=())

    def has(self, parameter: str) -> bool:
        """Whether an optional input is given."""
        return parameter in self.inputs

    def tensor(self, parameter: str) -> torch.Tensor:
        """A tensor that must be there."""
        value: torch.Tensor = self._required(parameter)
        return value

    def optional(self, parameter: str) -> torch.Tensor | None:
        """A tensor, or None where it is not given."""
        value: torch.Tensor | None = self.inputs.get(parameter)
        return value

    def tensors(self, parameter: str) -> list[torch.Tensor]:
        """The tensors of a parameter that takes several."""
        value = self._required(parameter)
        return list(value) if isinstance(value, (list, tuple)) else [value]

    def integers(self, parameter: str, default: Sequence[int] | None = None) -> list[int]:
        """A vector of integers, e.g. strides; a scalar gives one."""
        if parameter not in self.inputs and default is not None:
            return list(default)
        return [int(item) for item in self.tensor(parameter).reshape(-1).tolist()]

    def integer(self, parameter: str, default: int | None = None) -> int:
        """One integer."""
        if parameter not in self.inputs and default is not None:
            return default
        return int(self.tensor(parameter).item())

    def number(self, parameter: str, default: float | None = None) -> float:
        """One float."""
        if parameter not in self.inputs and default is not None:
            return default
        return float(self.tensor(parameter).item())

    def flag(self, parameter: str, default: bool | None = None) -> bool:
        """One truth value."""
        if parameter not in self.inputs and default is not None:
            return default
        return bool(self.tensor(parameter).item())

    def text(self, parameter: str, default: str | None = None) -> str:
        """One word."""
        if parameter not in self.inputs and default is not None:
            return default
        return str(self._required(parameter))

    def unsupported(self, what: str) -> UnsupportedError:
        """The error to raise for a use of the operator that is not handled."""
        return UnsupportedError(f"operation {self.name!r}: {self.operator} {what} is not handled")

    def _required(self, parameter: str) -> Any:
        if parameter not in self.inputs:
            raise ValueError(f"operation {self.name!r}: {self.operator} lacks {parameter!r}")
        return self.inputs[parameter]


Handler = Callable[[Call], Any]
