"""ExecuTorch: runs .pte files with the kernels and delegates of its Python package."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

# `executorch.runtime` wraps this, but imports the exporter too: 3 s and 140 MB.
from executorch.extension.pybindings import _C

from edgecheck.runtime.results import OperatorTime, Placement, Profile
from edgecheck.runtime.runner import Runner, Tensor
from edgecheck.targets.executorch import file, xnnpack_graph
from edgecheck.targets.executorch.file import FileError, Method
from edgecheck.targets.executorch.flatbuffer import Window

PORTABLE = "portable kernels"
# executorch::runtime::Error (runtime/core/error.h), in words.
_ERRORS = {
    0x01: "internal error",
    0x02: "invalid state",
    0x10: "not supported",
    0x11: "not implemented",
    0x12: "invalid argument",
    0x13: "invalid type",
    0x14: "a kernel is missing",
    0x20: "something it needs is not there",
    0x21: "out of memory",
    0x22: "a file can't be read",
    0x23: "the program is invalid",
    0x24: "the external data is invalid",
    0x25: "out of resources",
    0x30: "a delegate's data is of a version that it does not take",
    0x31: "a delegate is out of memory",
    0x32: "a delegate's handle is invalid",
}
_PROFILED_RUNS, _WARMUP_RUNS, _PROFILE_LIMIT_S = 50, 3, 1.0
_CHANNELS_LAST = (0, 2, 3, 1)


class ExecutorchError(RuntimeError):
    """The runtime refuses a program."""

    stands_alone = True


class ExecutorchRunner(Runner):
    """A method of a program. Its inputs and outputs have no names, and are numbered."""

    def __init__(self) -> None:
        super().__init__()
        self._path = ""
        self._backend = ""
        self._program: Any = None
        self._loaded: Any = None
        self._file: Method | None = None

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        with file.mapped(path) as data:
            program = file.read_program(data)
        if program.external:
            raise FileError("the program keeps weights in a .ptd file, which is not handled")
        method = program.method()
        self._path, self._file = path, method
        self._backend = options.get("target", {}).get("backend", "xnnpack")
        _check_runnable(method)
        # The pool is the process's own; resetting it is only safe while nothing runs.
        if _C._threadpool_get_thread_count() != options["threads"]:
            _C._unsafe_reset_threadpool(options["threads"])
        self._program, self._loaded = _load(path, method.name)
        return (
            [_tensor(method, "input", *item) for item in enumerate(method.inputs)],
            [_tensor(method, "output", *item) for item in enumerate(method.outputs)],
        )

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with _translated("inference failed"):
            outputs = self._loaded.call(self._arguments(inputs))
        return {name: _to_numpy(value) for name, value in zip(self._outputs, outputs, strict=True)}

    def prepare_inference(self, inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        # Planned inputs lie in the arena and are overwritten: each call has to set them.
        return partial(self._loaded.call, self._arguments(inputs), False)

    def _arguments(self, inputs: dict[str, np.ndarray]) -> list[torch.Tensor]:
        """The method's inputs in its order and memory layout.

        The runtime reads a tensor's bytes as if they lay as the program expects.
        """
        arguments = []
        for name, tensor in self._inputs.items():
            array = inputs[name]
            bounds = tuple(tensor["bounds"])
            fits = array.ndim == len(bounds) and all(
                size == bound or (tensor["dynamic"] and size < bound)
                for size, bound in zip(array.shape, bounds, strict=True)
            )
            if not fits:
                most = " at most" if tensor["dynamic"] else ""
                raise ValueError(
                    f"{name} has shape {array.shape}, but the file takes{most} {bounds}"
                )
            value = torch.from_numpy(array if array.flags.writeable else array.copy())
            if tensor["channels_last"]:
                value = value.contiguous(memory_format=torch.channels_last)
            arguments.append(value)
        return arguments

    def warm_runtime(self) -> None:
        # PyTorch's first operator allocates megabytes, more than a small model does.
        torch.from_numpy(np.zeros(1, np.float32)).clone()

    def placement(self, feed: dict[str, str]) -> Placement:
        """Operators of the file by where they run; with the portable backend that is as asked."""
        assert self._file is not None
        delegated: Counter[str] = Counter()
        with file.mapped(self._path) as data:
            for item in self._file.delegates:
                if item.backend == xnnpack_graph.BACKEND:
                    graph = xnnpack_graph.read_graph(data, item.start, item.end)
                    delegated.update(node.type for node in graph.nodes)
        left = self._file.kernels
        operators = delegated.total() + left.total()
        facts = {
            "delegates": dict(self._file.backends),
            "delegated_operators": delegated.total(),
        }
        if self._backend == "portable":
            return Placement(operators, facts={**facts, "portable_operators": left.total()})
        return Placement(
            operators,
            undelegated_operators=left.total(),
            undelegated_operators_by_type=dict(sorted(left.items())),
            facts=facts,
        )

    def profile(self, feed: dict[str, str]) -> Profile:
        """Times of kernels and, at XNNPACK's resolution of 1 us, of operators within delegates."""
        assert self._file is not None
        preferred = PORTABLE if self._backend == "portable" else xnnpack_graph.BACKEND
        program, method = _load(self._path, self._file.name, etdump=True)
        if not program.has_etdump():
            return Profile(preferred=preferred, note="this build of ExecuTorch has no event tracer")
        arguments = self._arguments(self._load_feed(feed))
        done, deadline = 0, time.monotonic() + _PROFILE_LIMIT_S
        while done < _PROFILED_RUNS + _WARMUP_RUNS and (
            done < 3 + _WARMUP_RUNS or time.monotonic() < deadline
        ):
            method.call(arguments, False)
            done += 1
        with tempfile.TemporaryDirectory() as directory:
            dump = Path(directory) / "profile.etdp"
            program.write_etdump_result_to_file(str(dump), None)
            data = dump.read_bytes()
        operators = _operator_times(data, self._file)
        return Profile(operators, done - _WARMUP_RUNS, preferred=preferred)

    def reported_memory(self, feed: dict[str, str]) -> dict[str, int]:
        """The arenas that the program was planned for; what delegates take comes on top."""
        assert self._file is not None
        return {"planned_arena_bytes": sum(self._file.planned_bytes)}


def _check_runnable(method: Method) -> None:
    """Say what the runtime lacks before it does, by number."""
    available = _C._get_registered_backend_names()
    if lacking := sorted(set(method.backends) - set(available)):
        raise ExecutorchError(
            f"the program is lowered to {', '.join(lacking)}, which this machine's ExecuTorch "
            f"does not have: it has {', '.join(sorted(available))}"
        )
    lacking = sorted(set(method.kernels) - set(_C._get_operator_names()))
    if any(name.startswith("quantized_decomposed::") for name in lacking):
        import executorch.kernels.quantized  # noqa: F401  # registers them

        lacking = sorted(set(method.kernels) - set(_C._get_operator_names()))
    if lacking:
        raise ExecutorchError(f"this machine's ExecuTorch has no kernel for {', '.join(lacking)}")


def _load(path: str, method: str, *, etdump: bool = False) -> tuple[Any, Any]:
    """A program and its method; the program must live as long."""
    with _translated("the program does not load"):
        program = _C._load_program(
            path,
            enable_etdump=etdump,
            program_verification=_C.Verification.InternalConsistency,
        )
        return program, program.load_method(method)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Words for the runtime's error numbers."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        code = re.search(r"0x:?([0-9a-fA-F]+)", text)
        meaning = _ERRORS.get(int(code[1], 16)) if code else None
        raise ExecutorchError(f"{what}: {meaning or text} (ExecuTorch: {text})") from error


def _tensor(method: Method, what: str, index: int, position: int) -> Tensor:
    name, value = f"{what}_{index}", method.values[position]
    if value is None:
        raise FileError(f"{what} {index} of {method.name} is not a tensor, which is not handled")
    dtype = value.dtype
    if what == "output" and dtype == "bfloat16":
        dtype = "float32"  # NumPy has no such type
    if dtype == "bfloat16" or dtype.startswith("type "):
        raise FileError(f"{what} {index} of {method.name} is {dtype}, which NumPy does not have")
    contiguous = value.order == tuple(range(len(value.shape)))
    if what == "input" and not contiguous and value.order != _CHANNELS_LAST:
        raise FileError(f"input {index} has its axes in the order {value.order} in memory")
    return {
        "name": name,
        "shape": [None] * len(value.shape) if value.dynamic else list(value.shape),
        "dtype": dtype,
        "bounds": list(value.shape),
        "dynamic": value.dynamic,
        "channels_last": not contiguous,
    }


def _to_numpy(value: torch.Tensor) -> np.ndarray:
    if value.dtype == torch.bfloat16:
        value = value.float()
    return value.contiguous().numpy()


def _operator_times(data: bytes, method: Method) -> tuple[OperatorTime, ...]:
    """Times of an ETDump's inferences after warm-up, in the order of the program.

    Slots are those of ExecuTorch's devtools/etdump/etdump_schema_flatcc.fbs; the file has its size
    before it. What a delegate's call takes beyond its operators gets a row of its own.
    """
    kernels = {item.instruction: item.kernel for item in method.calls if item.kernel}
    backends = {
        item.instruction: method.delegates[item.delegate].backend
        for item in method.calls
        if not item.kernel
    }
    dump = Window(data, 4, len(data)).root()
    runs = [item for item in dump.tables(1) if item.text(0) == "Execute"][_WARMUP_RUNS:]
    times_ms: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        inside: Counter[int] = Counter()
        for event in filter(None, (item.table(0) for item in run.tables(3))):
            kind, inner, place = event.text(0), event.text(4), event.number(2, "int32", -1)
            time_ns = event.number(7, "uint64") - event.number(6, "uint64")
            if inner and place in backends:
                inside[place] += time_ns
                key = (inner.split(" #")[0], f"{inner}, instruction {place}", backends[place])
            elif kind == "DELEGATE_CALL" and place in backends:
                time_ns = max(0, time_ns - inside[place])
                key = ("rest of the call", f"instruction {place}", backends[place])
            elif kind == "OPERATOR_CALL" and place in kernels:
                key = (kernels[place], f"instruction {place}", PORTABLE)
            else:
                continue
            times_ms.setdefault(key, []).append(time_ns / 1e6)
    return tuple(
        OperatorTime(operator, name, placed, sum(values) / len(runs), len(values) / len(runs))
        for (operator, name, placed), values in times_ms.items()
    )
