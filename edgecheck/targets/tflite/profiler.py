"""Times of single operators in LiteRT, through the C interface of the library in its wheel.

The Python interpreter has no profiler, and the benchmark tool in the wheel times whole inferences
only; the compiled-model interface has one (litert/c/litert_profiler.h in LiteRT's sources), which
also looks into delegates.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np

from edgecheck.runtime.results import OperatorTime

# A C interface without a stability promise: only releases that it was tried on.
KNOWN_RELEASES = ("2.3.",)
_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
_RANKED_TYPE_BYTES = 1024  # more than LiteRtRankedTensorType holds, whatever its padding
_ROW = re.compile(
    r"^\s*(?P<operator>\S.*?)\s+(?:[\d.]+\s+){3}(?P<share>[\d.]+)%\s+[\d.]+%\s+[\d.]+\s+"
    r"(?P<calls>\d+)\s+\[(?P<place>Delegate|Builtin)[^\]]*\]:(?P<index>\d+)\s*$"
)
_TOTAL = re.compile(r"^Timings \(microseconds\): .*?(?:avg|curr)=(?P<microseconds>[\d.]+)", re.M)


def unavailable() -> str:
    """Why operators can't be timed here; empty if they can."""
    release = metadata.version("ai-edge-litert")
    if not release.startswith(KNOWN_RELEASES):
        known = ", ".join(f"{item}x" for item in KNOWN_RELEASES)
        return f"operators are timed with ai-edge-litert {known} only, and this is {release}"
    if not _library_path().is_file():
        return f"ai-edge-litert {release} has no {_library_path().name} here"
    return ""


def summary(
    path: str, inputs: Mapping[str, np.ndarray], *, warmup: int, runs: int, limit_s: float
) -> tuple[str, int]:
    """LiteRT's own table of operator times, and the number of inferences it covers.

    Args:
        inputs: by name in the first signature.

    Raises:
        RuntimeError: a call of the library failed, or an input has not the size that the file says.
    """
    library = _Library()
    environment = library.made("CreateEnvironment", 0, None)
    model = library.made("CreateModelFromFile", environment, path.encode())
    options = library.made("CreateOptions")
    library.call("SetOptionsHardwareAccelerators", options, _CPU)
    library.add_options(options, "runtime_options_string", "enable_profiling = true\n")
    compiled = library.made("CreateCompiledModel", environment, model, options)
    signature = library.made("GetModelSignature", model, ctypes.c_size_t(0))
    sides: list[Any] = []
    for side in ("Input", "Output"):
        count = ctypes.c_size_t()
        library.call(f"GetNumSignature{side}s", signature, ctypes.byref(count))
        buffers = (ctypes.c_void_p * count.value)()
        for position in range(count.value):
            index = ctypes.c_size_t(position)
            tensor = library.made(f"GetSignature{side}TensorByIndex", signature, index)
            kind = (ctypes.c_char * _RANKED_TYPE_BYTES)()
            library.call("GetRankedTensorType", tensor, kind)
            needs = library.made(
                f"GetCompiledModel{side}BufferRequirements", compiled, ctypes.c_size_t(0), index
            )
            buffer = library.made(
                "CreateManagedTensorBufferFromRequirements", environment, kind, needs
            )
            if side == "Input":
                name = ctypes.c_char_p()
                library.call("GetSignatureInputName", signature, index, ctypes.byref(name))
                library.fill(buffer, inputs[(name.value or b"").decode()])
            buffers[position] = buffer.value
        sides += [count, buffers]
    profiler = library.made("CompiledModelGetProfiler", compiled)

    def infer() -> None:
        library.call("RunCompiledModel", compiled, ctypes.c_size_t(0), *sides)

    for _ in range(warmup):
        infer()
    library.call("StartProfiler", profiler)
    done, deadline = 0, time.monotonic() + limit_s
    while done < runs and (done < 3 or time.monotonic() < deadline):
        infer()
        done += 1
    library.call("StopProfiler", profiler)
    text = ctypes.c_char_p()
    library.call("GetProfileSummary", profiler, compiled, ctypes.byref(text))
    # Nothing is freed: the process belongs to one file, and ends with it.
    return (text.value or b"").decode(errors="replace"), done


def operator_times(text: str, runs: int) -> tuple[OperatorTime, ...]:
    """The operators in LiteRT's table, in run order.

    An operator has as ``name`` its number within the graph or delegate call. LiteRT counts whole
    microseconds, so that times come as share of the total.

    Raises:
        ValueError: the text is not such a table.
    """
    table = text.partition("Run Order")[2].partition("Top by Computation Time")[0]
    matches = [match for line in table.splitlines() if (match := _ROW.match(line))]
    total = _TOTAL.search(text)
    if not matches or total is None:
        raise ValueError("LiteRT's profile has no table of operators")
    total_ms = float(total["microseconds"]) / 1e3 / runs
    return tuple(
        OperatorTime(
            operator=match["operator"].removeprefix("Delegate/"),
            name=f"#{match['index']}",
            placed="XNNPACK" if match["place"] == "Delegate" else "built-in kernels",
            time_ms=float(match["share"]) / 100 * total_ms,
            calls=int(match["calls"]) / runs,
        )
        for match in matches
    )


def _library_path() -> Path:
    return Path(ai_edge_litert.__file__).with_name("libLiteRt.so")


class _Library:
    """Calls of the C interface: each returns a status, 0 for success."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(_library_path()))
        self._libc = ctypes.CDLL(None)
        self._libc.strdup.restype = ctypes.c_void_p

    def call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, f"LiteRt{name}")
        function.restype = ctypes.c_int
        if status := function(*arguments):
            raise RuntimeError(f"LiteRt{name} failed with status {status}")

    def made(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """The handle that a call gives through its last argument."""
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle

    def add_options(self, options: ctypes.c_void_p, identifier: str, text: str) -> None:
        """Options travel as text that the library frees itself."""
        payload = ctypes.c_void_p(self._libc.strdup(text.encode()))
        free = ctypes.cast(self._libc.free, ctypes.c_void_p)
        opaque = self.made("CreateOpaqueOptions", identifier.encode(), payload, free)
        self.call("AddOpaqueOptions", options, opaque)

    def fill(self, buffer: ctypes.c_void_p, array: np.ndarray) -> None:
        size = ctypes.c_size_t()
        self.call("GetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != array.nbytes:
            raise RuntimeError(f"the file takes {size.value} bytes, the input has {array.nbytes}")
        address = ctypes.c_void_p()
        self.call("LockTensorBuffer", buffer, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        self.call("UnlockTensorBuffer", buffer)
