"""Counts what is in a model file while it is read, for an `Inspection`."""

from __future__ import annotations

from dataclasses import replace

from edgecheck.targets.base import Inspection


class Contents:
    """Counts what is in a file while it is read."""

    def __init__(self) -> None:
        self.operators: dict[str, int] = {}
        self.quantized_operators: dict[str, int] = {}
        self.weight_elements: dict[str, int] = {}
        self.weight_bytes: dict[str, int] = {}
        self.layers: dict[str, list[str]] = {"integer": [], "float": []}

    def add_operator(self, kind: str, count: int = 1) -> None:
        """An operator of a type."""
        self.operators[kind] = self.operators.get(kind, 0) + count

    def add_quantized_operator(self, kind: str, count: int = 1) -> None:
        """An operator whose data or weights are quantized."""
        self.quantized_operators[kind] = self.quantized_operators.get(kind, 0) + count

    def add_weight(self, storage: str, elements: int, size_bytes: int) -> None:
        """A constant, of a number of elements in a storage type."""
        self.weight_elements[storage] = self.weight_elements.get(storage, 0) + elements
        self.weight_bytes[storage] = self.weight_bytes.get(storage, 0) + size_bytes

    def add_layer(self, name: str, *, integer: bool) -> None:
        """A layer with constant weights, computed on integers or in float."""
        self.layers["integer" if integer else "float"].append(name)

    def added_to(self, inspection: Inspection) -> Inspection:
        """An inspection with these operators and weights, each sorted by name."""
        return replace(
            inspection,
            operators=dict(sorted(self.operators.items())),
            quantized_operators=dict(sorted(self.quantized_operators.items())),
            weight_elements=dict(sorted(self.weight_elements.items())),
            weight_bytes=dict(sorted(self.weight_bytes.items())),
        )
