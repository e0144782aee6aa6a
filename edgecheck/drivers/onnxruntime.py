"""ONNX Runtime: runs .onnx files on its CPU provider."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgecheck.drivers.common import Driver, Tensor

# ONNX Runtime's names of tensor types.
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{
        f"tensor({sign}int{bits})": f"{sign}int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
# A serialized ONNX model with one Identity node on one float (IR 8, opset 17): loading it makes the
# runtime allocate its thread pools and arenas before a model is weighed.
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a001011"
)


class OnnxRuntimeDriver(Driver):
    """An inference session on the CPU provider."""

    def __init__(self) -> None:
        super().__init__()
        self._session: Any = None
        self._path = ""
        self._options: dict[str, Any] = {}

    def _session_options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._options["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not self._options.get("optimize", True):
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def _open(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        self._path, self._options = path, options
        providers = options.get("providers", ["CPUExecutionProvider"])
        self._session = onnxruntime.InferenceSession(
            path, self._session_options(), providers=providers
        )
        # An unknown or absent provider falls back to the CPU without a word.
        if missing := [name for name in providers if name not in self._session.get_providers()]:
            raise RuntimeError(f"ONNX Runtime did not enable {missing}, asked for {providers}")
        return (
            [_tensor(item) for item in self._session.get_inputs()],
            [_tensor(item) for item in self._session.get_outputs()],
        )

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = list(self._outputs)
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    def placement(self, feed: dict[str, str]) -> dict[str, Any]:
        """Executed operators by provider, from the runtime's own profile of one inference."""
        with tempfile.TemporaryDirectory() as directory:
            options = self._session_options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(directory) / "profile")
            session = onnxruntime.InferenceSession(
                self._path, options, providers=self._session.get_providers()
            )
            session.run(None, self._load_feed(feed))
            events = json.loads(Path(session.end_profiling()).read_text())
        providers = Counter(
            event["args"]["provider"]
            for event in events
            if event.get("cat") == "Node" and event.get("args", {}).get("provider")
        )
        return {
            "providers": self._session.get_providers(),
            "operators_by_provider": dict(sorted(providers.items())),
        }

    def warm_runtime(self) -> None:
        onnxruntime.InferenceSession(_IDENTITY, providers=["CPUExecutionProvider"])


def _tensor(item: Any) -> Tensor:
    if item.type not in _DTYPES:
        raise ValueError(f"tensor {item.name!r} has type {item.type}, which is not handled")
    shape = [size if isinstance(size, int) else None for size in item.shape]
    return {"name": item.name, "shape": shape, "dtype": _DTYPES[item.type]}
