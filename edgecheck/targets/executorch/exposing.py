"""A .pte program whose every intermediate tensor is one of its outputs.

The runtime's event tracer (ETDump) shows what goes in and out of a delegate, never what lies within
XNNPACK's, and a method's intermediate tensors share memory. So the program is rewritten: each gets
memory of its own, and what XNNPACK computes is handed out (`xnnpack_exposing`). Weights and
operators stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from edgecheck.targets.executorch import xnnpack_exposing, xnnpack_graph
from edgecheck.targets.executorch.file import DTYPES, FileError, Program
from edgecheck.targets.executorch.xnnpack_exposing import Grid

_ITEM_BYTES = {
    **dict.fromkeys(("uint8", "int8", "bool"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64"), 8),
}
# More than XNNPACK reads past a tensor's end (XNN_EXTRA_BYTES).
_ALIGNMENT, _SLACK_BYTES = 128, 128
# Tensors that take more are no longer kept side by side.
LIMIT_BYTES = 8 << 30
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Observed:
    """An intermediate tensor.

    Attributes:
        output: its position among the outputs of the rewritten method.
        operator: a kernel's name or an XNNPACK node's type.
        grid: scale and zero point where its values are quantized.
    """

    name: str
    operator: str
    output: int
    grid: Grid | None


@dataclass(frozen=True)
class Exposed:
    """A rewritten program.

    Attributes:
        data: the file's bytes.
        observed: in the order of execution.
        opaque: backends of delegates whose format is not known, and whose results are not observed.
    """

    data: bytes
    observed: tuple[Observed, ...]
    opaque: tuple[str, ...]


def expose(data: bytes, program: Program) -> Exposed:
    """Rewrite the method that `Program.method` gives.

    Args:
        data: the file.
        program: what was read of it.

    Raises:
        FileError: it has branches, or too much memory would be needed.
    """
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    restored = deserialize_pte_binary(data)
    whole = restored.program
    name = program.method().name
    plan = next(item for item in whole.execution_plan if item.name == name)
    work = _Rewriting(plan, whole.backend_delegate_data)
    work.run()
    written = serialize_pte_binary(restored, extract_delegate_segments=True)
    return Exposed(bytes(written), tuple(work.observed), tuple(sorted(work.opaque)))


@dataclass(frozen=True)
class _Written:
    """Memory that holds a tensor.

    Attributes:
        start, end: as it was planned.
        moved: where it starts now; None where it is.
    """

    memory: int
    start: int
    end: int
    moved: int | None


class _Rewriting:
    """One method, changed in place.

    Inputs, states, and what delegates of other kinds give stay where they were planned; as all else
    moves away, they still don't overlap while they are needed.
    """

    def __init__(self, plan: Any, blobs: list[Any]) -> None:
        self._plan, self._blobs = plan, blobs
        self._planned = plan.non_const_buffer_sizes
        if len(self._planned) < 2:
            self._planned[:] = [0, 0]
        self._end = _aligned(self._planned[1])
        # The latest last; and the values whose place is settled.
        self._memory: list[_Written] = []
        self._settled: set[int] = set()
        self._grids: dict[int, Grid] = {}
        self._rewritten: set[int] = set()
        self.observed: list[Observed] = []
        self.opaque: set[str] = set()

    def run(self) -> None:
        states = (
            position
            for position in range(len(self._plan.values))
            if (tensor := self._tensor(position)) and tensor.data_buffer_idx
        )
        for position in (*self._plan.inputs, *states):
            self._stay(position)
        for instruction in self._plan.chains[0].instructions:
            call = instruction.instr_args
            kind = type(call).__name__
            if kind == "KernelCall":
                self._kernel(call)
            elif kind == "DelegateCall":
                self._delegate(call)
            else:
                raise FileError(
                    "the program has branches or loops, and which of their tensors an inference "
                    "computes can't be told: only straight programs are traced"
                )
        self._planned[1] = self._end

    def _kernel(self, call: Any) -> None:
        """What a kernel returns comes last among its arguments, several results as a list.

        An out variant writes to a tensor of its own. Others change or view one that there is.
        """
        operator = self._plan.operators[call.op_index]
        name = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
        last: Any = self._plan.values[call.args[-1]].val if call.args else None
        results = last.items if type(last).__name__ == "TensorList" else call.args[-1:]
        out = operator.overload.endswith("out")
        for position in call.args:
            if not (out and position in results):
                self._follow(position)
        for position in results:
            if out:
                self._move(position)
            self._observe(f"value {position}", name, position)

    def _delegate(self, call: Any) -> None:
        delegate = self._plan.delegates[call.delegate_index]
        given = list(call.args)
        if delegate.id != xnnpack_graph.BACKEND:
            self.opaque.add(delegate.id)
            for position in given:  # which of them are its results is not known
                if not self._follow(position):
                    self._stay(position)
            return
        if call.delegate_index in self._rewritten:
            raise FileError("a delegate is called twice, which is not handled")
        self._rewritten.add(call.delegate_index)
        # Delegates' data are inline once the file is restored.
        blob = self._blobs[delegate.processed.index]
        found = xnnpack_exposing.expose(bytes(blob.data), len(given))
        blob.data = found.data
        for argument, position in enumerate(given):
            if argument not in found.results:
                self._follow(position)
        for argument in found.results:
            self._move(given[argument])
        for item in found.values:
            if item.argument < len(given):
                position = given[item.argument]
            else:
                position = self._added(item.dtype, item.shape)
                call.args.append(position)
            if item.grid is not None:
                self._grids[position] = item.grid
            self._observe(f"delegate {call.delegate_index}: {item.name}", item.type, position)

    def _stay(self, position: int) -> None:
        tensor = self._tensor(position)
        self._settled.add(position)
        if tensor is not None and tensor.allocation_info is not None:
            memory, start = _place(tensor)
            self._memory.append(_Written(memory, start, start + _size(tensor), None))

    def _move(self, position: int) -> None:
        """Give a tensor that is written to memory of its own."""
        tensor = self._tensor(position)
        if tensor is None or tensor.allocation_info is None or position in self._settled:
            return
        self._settled.add(position)
        memory, start = _place(tensor)
        size = _size(tensor)
        tensor.allocation_info = self._room(size)
        self._memory.append(_Written(memory, start, start + size, _place(tensor)[1]))

    def _follow(self, position: int) -> bool:
        """Let a tensor that is a view, since nothing wrote to it, lie where what it views does.

        Most views are not instructions: they share their memory. Returns whether it is settled.
        """
        from executorch.exir.schema import AllocationDetails

        tensor = self._tensor(position)
        if tensor is None or tensor.allocation_info is None or position in self._settled:
            return True
        memory, start = _place(tensor)
        end = start + _size(tensor)
        for item in reversed(self._memory):
            if item.memory == memory and item.start <= start and end <= item.end:
                if item.moved is not None:
                    moved = item.moved + start - item.start
                    tensor.allocation_info = AllocationDetails(1, moved & _LOW, moved >> 32)
                self._settled.add(position)
                return True
        return False

    def _tensor(self, position: int) -> Any:
        value = self._plan.values[position].val
        return value if type(value).__name__ == "Tensor" else None

    def _room(self, size_bytes: int) -> Any:
        from executorch.exir.schema import AllocationDetails

        start = self._end
        self._end = _aligned(start + size_bytes + _SLACK_BYTES)
        if self._end > LIMIT_BYTES:
            raise FileError(f"its intermediate tensors take more than {LIMIT_BYTES >> 30} GiB")
        return AllocationDetails(1, start & _LOW, start >> 32)

    def _added(self, dtype: str, shape: tuple[int, ...]) -> int:
        """Position of a new value; of shapes that vary it has room for the largest."""
        from executorch.exir.scalar_type import ScalarType
        from executorch.exir.schema import EValue, Tensor, TensorShapeDynamism

        tensor = Tensor(
            scalar_type=ScalarType({name: code for code, name in DTYPES.items()}[dtype]),
            storage_offset=0,
            sizes=list(shape),
            dim_order=list(range(len(shape))),
            requires_grad=False,
            layout=0,
            data_buffer_idx=0,
            allocation_info=None,
            shape_dynamism=TensorShapeDynamism.DYNAMIC_BOUND,
        )
        tensor.allocation_info = self._room(_size(tensor))
        self._plan.values.append(EValue(tensor))
        self._settled.add(len(self._plan.values) - 1)
        return len(self._plan.values) - 1

    def _observe(self, name: str, operator: str, position: int) -> None:
        tensor, grid = self._tensor(position), self._grids.get(position)
        if tensor is None:
            return
        if grid is None and "float" not in DTYPES.get(int(tensor.scalar_type), ""):
            return
        if position not in self._plan.outputs:
            # What others may still write to, or has no planned memory, can't be handed out.
            if tensor.allocation_info is None or position not in self._settled:
                return
            self._plan.outputs.append(position)
        output = self._plan.outputs.index(position)
        self.observed.append(Observed(name, operator, output, grid))


def _place(tensor: Any) -> tuple[int, int]:
    """Memory and offset of a planned tensor."""
    where = tensor.allocation_info
    return where.memory_id, where.memory_offset_low + (where.memory_offset_high << 32)


def _size(tensor: Any) -> int:
    sizes: list[int] = tensor.sizes
    return prod(sizes) * _ITEM_BYTES.get(DTYPES.get(int(tensor.scalar_type), ""), 8)


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT
