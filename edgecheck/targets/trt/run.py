"""TensorRT: runs engines on an NVIDIA GPU.

Written against NVIDIA's documentation (TensorRT's Python API, CUDA's runtime API) for TensorRT 10
and 11 and TensorRT for RTX, and kept thin: no machine of ours had a GPU to run it on.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.runtime.results import Placement
from edgecheck.runtime.runner import Runner, Tensor

_LIBRARIES = ("tensorrt", "tensorrt_rtx")


class TrtRunner(Runner):
    """A deserialized engine with one execution context and one stream."""

    def __init__(self) -> None:
        super().__init__()
        self._trt: Any = None
        self._cuda: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._stream: Any = None
        self._buffers: dict[str, tuple[int, int]] = {}
        self._held_bytes = 0

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        name = next((item for item in _LIBRARIES if importlib.util.find_spec(item)), None)
        if name is None:
            raise RuntimeError("neither tensorrt nor tensorrt_rtx is installed")
        self._trt = importlib.import_module(name)
        # Elsewhere than on a machine with a GPU, deserializing ends the process.
        self._cuda = _Cuda()
        before = self._cuda.free_bytes()
        errors: list[str] = []
        runtime = self._trt.Runtime(_logger(self._trt, errors))
        self._engine = runtime.deserialize_cuda_engine(Path(path).read_bytes())
        if self._engine is None:
            reason = " ".join(" ".join(errors).split())[:300] or "it gave no reason"
            raise ValueError(
                f"{name} {self._trt.__version__} can't load the engine on {self._cuda.name()}: "
                f"{reason}. An engine holds for one architecture and version: build it for this one"
            )
        self._context = self._engine.create_execution_context()
        self._stream = self._cuda.stream()
        self._held_bytes = max(0, before - self._cuda.free_bytes())
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = self._trt.TensorIOMode.INPUT
        inputs = [item for item in names if self._engine.get_tensor_mode(item) == is_input]
        return (
            [self._tensor(item) for item in inputs],
            [self._tensor(item) for item in names if item not in inputs],
        )

    def _tensor(self, name: str) -> Tensor:
        shape = [size if size >= 0 else None for size in self._engine.get_tensor_shape(name)]
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))).name
        return {"name": name, "shape": shape, "dtype": dtype}

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        run = self.prepare_inference(inputs)
        run()
        outputs = {}
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            array = np.empty(shape, self._outputs[name]["dtype"])
            self._cuda.copy_to_host(array, self._buffers[name][0])
            outputs[name] = array
        return outputs

    def prepare_inference(self, inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        """One inference on inputs that are on the device already, until its stream has finished."""
        for name, array in inputs.items():
            if not self._context.set_input_shape(name, array.shape):
                raise ValueError(
                    f"input {name!r} of shape {array.shape} leaves the engine's profile of shapes"
                )
            self._cuda.copy_to_device(self._buffer(name, array.nbytes), array)
        for name, tensor in self._outputs.items():
            shape = tuple(self._context.get_tensor_shape(name))
            size = int(np.prod(shape)) * np.dtype(tensor["dtype"]).itemsize
            self._buffer(name, size)
        for name, (address, _) in self._buffers.items():
            self._context.set_tensor_address(name, address)

        def run() -> None:
            if not self._context.execute_async_v3(self._stream):
                raise RuntimeError("TensorRT could not run the engine")
            self._cuda.synchronize(self._stream)

        return run

    def _buffer(self, name: str, size: int) -> int:
        """The address of at least so many bytes on the device."""
        address, held = self._buffers.get(name, (0, 0))
        if held < size:
            if address:
                self._cuda.free(address)
            address = self._cuda.allocate(size)
            self._buffers[name] = (address, size)
        return address

    def placement(self, feed: dict[str, str]) -> Placement:
        """The GPU that runs it all."""
        return Placement(facts={"device": self._cuda.name()})

    def reported_memory(self, feed: dict[str, str]) -> dict[str, int]:
        """Device memory: what loading took, and the buffers of inputs and outputs."""
        return {
            "device_held_bytes": self._held_bytes,
            "device_buffers_bytes": sum(size for _, size in self._buffers.values()),
        }


def _logger(trt: Any, errors: list[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(message)

    return Logger()


class _Cuda:
    """The few calls of CUDA's runtime API that it takes, by cuda-python; each error is raised."""

    def __init__(self) -> None:
        self._api: Any = importlib.import_module("cuda.bindings.runtime")
        if self._call("cudaGetDeviceCount") < 1:
            raise RuntimeError("no NVIDIA GPU")

    def _call(self, function: str, *arguments: Any) -> Any:
        error, *values = getattr(self._api, function)(*arguments)
        if int(error) != 0:
            raise RuntimeError(f"{function}: {self._api.cudaGetErrorString(error)[1].decode()}")
        return values[0] if len(values) == 1 else values

    def name(self) -> str:
        return str(self._call("cudaGetDeviceProperties", 0).name.decode())

    def free_bytes(self) -> int:
        return int(self._call("cudaMemGetInfo")[0])

    def stream(self) -> int:
        return int(self._call("cudaStreamCreate"))

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", max(1, size)))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def copy_to_device(self, address: int, array: np.ndarray) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpy", address, array.ctypes.data, array.nbytes, kind)

    def copy_to_host(self, array: np.ndarray, address: int) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpy", array.ctypes.data, address, array.nbytes, kind)
