"""Half precision of a PyTorch reference: operators compute in float32, their results are rounded.

See also `edgecheck.capture.arithmetic`, which runs the reference, and `half_sums` for what
operators add up inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgecheck.capture.half_sums import sums_inside


@dataclass(frozen=True)
class HalfPrecision:
    """A simulation in half precision, and the largest sum by operator and number of terms."""

    infer: Callable[..., dict[str, np.ndarray]]
    sums: Mapping[tuple[str, int], float]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.infer(inputs)

    @property
    def overflowing_sums(self) -> list[str]:
        return [
            f"{operator} adds {terms} values to {largest:.3g}"
            for (operator, terms), largest in self.sums.items()
        ]


class Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What each operator gives is rounded to half precision, in float32's storage.

    Args:
        sums: takes the largest sum that half precision could not hold, by operator and terms.
        poison: whether the results of such sums become NaN.
    """

    def __init__(self, sums: dict[tuple[str, int], float], *, poison: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sums, self._poison = sums, poison

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        several = isinstance(returned, tuple | list)
        items = list(returned) if several else [returned]
        items[:1] = [self._added(func, args, kwargs or {}, items)] if items else []
        for position, declared in enumerate(func._schema.returns[: len(items)]):
            item = items[position]
            if not (isinstance(item, torch.Tensor) and item.is_floating_point()):
                continue
            if declared.alias_info is None:
                items[position] = half(item)
            elif declared.alias_info.is_write:
                item.copy_(half(item))
            # Else a view, of what is rounded already.
        return (
            type(returned)(items)
            if several and type(returned) in (tuple, list)
            else (returned if several else items[0])
        )

    def _added(self, func: Any, args: Any, kwargs: dict[str, Any], items: list[Any]) -> Any:
        """An operator's first result, after a look at the sums inside."""
        found = sums_inside(func, args, kwargs, items)
        if found is None or not bool((overflowing := found.overflowing).any()):
            return items[0]
        key = func.overloadpacket.__name__.strip("_"), found.terms
        largest = float(found.values[overflowing].max())
        self._sums[key] = max(self._sums.get(key, 0.0), largest)
        return items[0].masked_fill(overflowing, torch.nan) if self._poison else items[0]


def half(tensor: torch.Tensor) -> torch.Tensor:
    rounded: torch.Tensor = tensor.half().to(tensor.dtype)
    return rounded
