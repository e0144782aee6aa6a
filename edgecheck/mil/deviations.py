"""Where Core ML's runtime is known, or reported, to differ from PyTorch or its documentation.

Each entry has its source. What the runtime gives is known for some: the reference executor computes
that. For others it is not: the executor refuses, or computes what is documented and the inspection
of a package warns. docs/targets.md lists the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgecheck.mil.call import TensorType
from edgecheck.mil.program import Function, Operation, Value, ValueType

COMPUTED, REFUSED, REPORTED = "computed", "refused", "reported"
_ISSUES = "https://github.com/apple/coremltools/issues"


class _Uses:
    """An operation's constant parameters and declared types."""

    def __init__(
        self,
        operation: Operation,
        makers: Mapping[str, Operation],
        types: Mapping[str, ValueType],
    ) -> None:
        self.operation, self._makers, self._types = operation, makers, types

    def maker(self, parameter: str) -> Operation | None:
        """The operation that computes an input."""
        bindings = self.operation.inputs.get(parameter, ())
        name = bindings[0] if bindings else None
        return self._makers.get(name) if isinstance(name, str) else None

    def integers(self, parameter: str) -> list[int]:
        """A constant vector of integers or truth values; empty where it is not given."""
        bindings = self.operation.inputs.get(parameter, ())
        value = bindings[0] if bindings else None
        if isinstance(value, str):
            maker = self._makers.get(value)
            value = maker.attributes.get("val") if maker is not None else None
        if not isinstance(value, Value) or isinstance(value.data, str | tuple):
            return []
        return [int(item) for item in value.data.reshape(-1)]

    def type_of(self, parameter: str) -> TensorType | None:
        """The declared type of an input that is computed."""
        bindings = self.operation.inputs.get(parameter, ())
        name = bindings[0] if bindings else None
        declared = self._types.get(name) if isinstance(name, str) else None
        return declared if isinstance(declared, TensorType) else None

    @property
    def first_type(self) -> TensorType | None:
        """The declared type of the first result."""
        declared = self.operation.outputs[0].type if self.operation.outputs else None
        return declared if isinstance(declared, TensorType) else None


@dataclass(frozen=True)
class Deviation:
    """One use of an operator.

    Attributes:
        operators: that it is about.
        use: which use of them.
        gives: what the runtime is said to give.
        handling: ``computed``, ``refused`` or ``reported`` (see the module).
        source: where it was measured.
        applies: whether an operation is such a use; None where only the data tells.
    """

    operators: tuple[str, ...]
    use: str
    gives: str
    handling: str
    source: str
    applies: Callable[[_Uses], bool] | None = None


def _counts_overhang(uses: _Uses) -> bool:
    ceil, excluded = uses.integers("ceil_mode"), uses.integers("exclude_padding_from_average")
    if ceil != [1] or excluded == [1]:
        return False
    given, kernel = uses.type_of("x"), uses.integers("kernel_sizes")
    strides = uses.integers("strides") or [1] * len(kernel)
    pad = uses.integers("pad") or [0] * 2 * len(kernel)
    sizes = given.shape[2:] if given is not None else (None,) * len(kernel)
    return any(
        size is None or (size + before + after - width) % stride
        for size, width, stride, before, after in zip(
            sizes, kernel, strides, pad[::2], pad[1::2], strict=True
        )
    )


def _pads_three(uses: _Uses) -> bool:
    return 7 in uses.integers("kernel_sizes") and 3 in uses.integers("pad")


def _uneven_kernel(uses: _Uses) -> bool:
    maker = uses.maker("weight")
    declared = maker.outputs[0].type if maker is not None and maker.outputs else None
    kernel = declared.shape[2:] if isinstance(declared, TensorType) else ()
    strided, padded = max(uses.integers("strides"), default=1), max(uses.integers("pad"), default=0)
    return len(set(kernel)) > 1 and strided > 1 and padded > 0


def _uneven_half(uses: _Uses) -> bool:
    pad, declared = uses.integers("pad"), uses.first_type
    half = declared is not None and declared.dtype == "fp16"
    return half and any(a != b for a, b in zip(pad[::2], pad[1::2], strict=False))


def _attention_of_ten(uses: _Uses) -> bool:
    declared, maker = uses.first_type, uses.maker("x")
    large = declared is not None and bool(declared.shape) and (declared.shape[0] or 0) >= 10
    return large and maker is not None and maker.operator == "add"


TABLE = (
    Deviation(
        ("avg_pool",),
        "ceil_mode without exclude_padding_from_average",
        "windows that reach beyond the padded input a mean over the whole kernel, PyTorch one over "
        "what lies in it (without padding, count_include_pad=False gives the same on both)",
        COMPUTED,
        f"{_ISSUES}/2772",
        _counts_overhang,
    ),
    Deviation(
        ("reduce_argmax", "reduce_argmin"),
        "of NaN",
        "often an index of neither NaN nor the extreme",
        REFUSED,
        "https://github.com/webmachinelearning/webnn/issues/811",
    ),
    Deviation(
        ("conv_transpose",),
        "output_shape other than what padding gives",
        "other values on the CPU than on all compute units",
        REFUSED,
        f"{_ISSUES}/2281",
    ),
    Deviation(
        ("conv_transpose",),
        "fp16 with uneven padding",
        "values that are shifted",
        REPORTED,
        f"{_ISSUES}/2324",
        _uneven_half,
    ),
    Deviation(
        ("avg_pool",),
        "kernel 7 with padding 3",
        "other values than PyTorch",
        REPORTED,
        f"{_ISSUES}/1901",
        _pads_three,
    ),
    Deviation(
        ("conv",),
        "a kernel that is not square, with padding and a stride",
        "a wrong last element",
        REPORTED,
        f"{_ISSUES}/2515",
        _uneven_kernel,
    ),
    Deviation(
        ("softmax",),
        "of scores plus a mask, batches of 10 and more",
        "wrong values on the GPU, where attention is fused",
        REPORTED,
        f"{_ISSUES}/2650",
        _attention_of_ten,
    ),
)


def warnings(function: Function) -> list[str]:
    """The uses in a function that deviate, or are reported to, a line each."""
    operations = list(function.block.walk())
    makers = {output.name: item for item in operations for output in item.outputs}
    variables = [*function.inputs, *(output for item in operations for output in item.outputs)]
    types = {variable.name: variable.type for variable in variables}
    found = []
    for deviation in TABLE:
        applies = deviation.applies
        if applies is None:
            continue
        names = [
            item.name
            for item in operations
            if item.operator in deviation.operators and applies(_Uses(item, makers, types))
        ]
        if names:
            known = deviation.handling == COMPUTED
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            found.append(
                f"{names[0]}{more} ({'/'.join(deviation.operators)}, {deviation.use}): Core ML "
                f"{'gives' if known else 'is reported to give'} {deviation.gives}"
                f"{'' if known else ', which the reference executor does not show'} "
                f"({deviation.source})"
            )
    return found
