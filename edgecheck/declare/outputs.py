"""The declaration of an output: its parts, and how its values are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgecheck.errors import DeclarationError

_NONFINITE = ("fail", "match")


@dataclass(frozen=True)
class Output:
    """One output of a model, if its name alone does not say how it is to be compared.

    Attributes:
        name: as in `Model.outputs`.
        parts: slices along `axis` that are judged on their own, by name:
            ``{"boxes": slice(0, 4), "scores": slice(4, None)}``. A budget names one by output and
            part: ``part_sqnr_db={"pred/scores": 20}``.
        axis: that of `parts`; axis 0 holds the samples.
        nonfinite: ``"fail"``: a NaN or infinite value is a failure; ``"match"``: it is part of the
            result, and must stand in the same places on both sides.
        magnitudes: whether integers are amounts (pixels, counts), compared by their distance;
            otherwise they are labels, compared by equality.

    Raises:
        DeclarationError: a part without a name or a slice, or an unknown word.
    """

    name: str
    parts: Mapping[str, slice] = field(default_factory=dict)
    axis: int = 1
    nonfinite: str = "fail"
    magnitudes: bool = False

    def __post_init__(self) -> None:
        where = f"output {self.name!r}"
        if self.nonfinite not in _NONFINITE:
            raise DeclarationError(
                f"{where}: nonfinite is {self.nonfinite!r}; it is one of {', '.join(_NONFINITE)}"
            )
        if self.axis < 1 and self.axis != -1:
            raise DeclarationError(
                f"{where}: axis is {self.axis}; parts lie along axis 1 or later, or -1, the last"
            )
        for name, part in self.parts.items():
            if not isinstance(name, str) or not name or "/" in name or name == self.name:
                raise DeclarationError(
                    f"{where}: {name!r} can't name a part: use a name other than the output's, "
                    "without '/'"
                )
            if not isinstance(part, slice):
                raise DeclarationError(f"{where}: part {name!r} is {part!r}, which is not a slice")

    @property
    def matches_nonfinite(self) -> bool:
        """Whether NaN and infinite values are part of the result."""
        return self.nonfinite == "match"


def names_and_declarations(
    outputs: Sequence[str | Output],
) -> tuple[tuple[str, ...], dict[str, Output]]:
    """The names of outputs in their order, and the declarations of those that have one."""
    declared = {item.name: item for item in outputs if isinstance(item, Output)}
    return tuple(item.name if isinstance(item, Output) else item for item in outputs), declared
