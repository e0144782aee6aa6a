"""ONNX Runtime: runs .onnx files on its CPU provider, or on those that are asked for."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgecheck.runtime.results import OperatorTime, Placement, Profile
from edgecheck.runtime.runner import Runner, Tensor

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
_CPU = "CPUExecutionProvider"
# Without it, products of unsigned and signed bytes saturate at 16 bits on x86 processors that have
# no VNNI, and on no others (onnxruntime_session_options_config_keys.h, and "When and why do I need
# to try U8U8?" in ONNX Runtime's guide to quantization).
_NO_SATURATION = ("session.x64quantprecision", "1")
_SATURATES = (
    "int8 products may saturate on this processor, and on no newer one: the file can't be loaded "
    "with session.x64quantprecision=1, as where operators share weights or quantization "
    "parameters. Its outputs are those without integer kernels; times and memory are as it runs"
)
# Operators between DequantizeLinear and QuantizeLinear stay in float32, as the format defines them.
_FLOAT_KERNELS = ("session.disable_quant_qdq", "1")
# A serialized ONNX model with one Identity node on one float (IR 8, opset 17): loading it makes the
# runtime allocate its thread pools and arenas before a model is weighed.
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a001011"
)


class OrtRunner(Runner):
    """An inference session."""

    def __init__(self) -> None:
        super().__init__()
        self._session: Any = None
        self._path = ""
        self._options: dict[str, Any] = {}
        self._providers: list[str] = []
        self._saturates = False
        self._float_session: Any = None

    def _session_options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._options["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not self._saturates:
            options.add_session_config_entry(*_NO_SATURATION)
        if not self._options.get("optimize", True):
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        self._path, self._options = path, options
        providers = list(options.get("target", {}).get("providers", [_CPU]))
        self._providers = providers
        self._session = self._load(path, providers)
        # An unknown or absent provider falls back to the CPU without a word.
        if missing := [name for name in providers if name not in self._session.get_providers()]:
            raise RuntimeError(
                f"ONNX Runtime did not enable {missing}, asked for {providers}; this build has "
                f"{onnxruntime.get_available_providers()}"
            )
        return (
            [_tensor(item) for item in self._session.get_inputs()],
            [_tensor(item) for item in self._session.get_outputs()],
        )

    def _load(self, path: str, providers: list[str]) -> Any:
        """A session, if need be without the option that some valid graphs can't be loaded with."""
        self._saturates, self._float_session = False, None
        try:
            return onnxruntime.InferenceSession(path, self._session_options(), providers=providers)
        except Exception:  # its errors share no base class
            self._saturates = True
            return onnxruntime.InferenceSession(path, self._session_options(), providers=providers)

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = list(self._outputs)
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self._saturates:
            return self.infer(inputs)
        if self._float_session is None:
            options = self._session_options()
            options.add_session_config_entry(*_FLOAT_KERNELS)
            self._float_session = onnxruntime.InferenceSession(
                self._path, options, providers=self._providers
            )
        names = list(self._outputs)
        return dict(zip(names, self._float_session.run(names, inputs), strict=True))

    def prepare_inference(self, inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        return partial(self._session.run, list(self._outputs), inputs)

    def placement(self, feed: dict[str, str]) -> Placement:
        """Executed operators by provider, from the runtime's own profile of one inference."""
        events, _ = self._profiled(feed, warmup=0, runs=1, limit_s=0)
        providers = Counter(event["args"]["provider"] for event in events)
        asked = self._providers[0]
        left = Counter(
            event["args"]["op_name"] for event in events if event["args"]["provider"] != asked
        )
        return Placement(
            operators=len(events),
            undelegated_operators=left.total(),
            undelegated_operators_by_type=dict(sorted(left.items())),
            asked_provider=asked,
            operators_by_provider=dict(sorted(providers.items())),
            facts={"providers": self._session.get_providers()},
            warnings=(_SATURATES,) if self._saturates else (),
        )

    def profile(self, feed: dict[str, str]) -> Profile:
        """Times of nodes, after the runtime's graph optimizations."""
        events, runs = self._profiled(feed, warmup=3, runs=50, limit_s=1.0)
        times_ms: dict[tuple[str, str, str], list[float]] = {}
        for event in events:
            name = event["name"].removesuffix("_kernel_time")
            place = (event["args"]["op_name"], name, event["args"]["provider"])
            times_ms.setdefault(place, []).append(event["dur"] / 1e3)
        operators = tuple(
            OperatorTime(operator, name, provider, sum(times) / runs, len(times) / runs)
            for (operator, name, provider), times in times_ms.items()
        )
        return Profile(operators, runs, preferred=self._session.get_providers()[0])

    def _profiled(
        self, feed: dict[str, str], *, warmup: int, runs: int, limit_s: float
    ) -> tuple[list[dict[str, Any]], int]:
        """Kernel events of up to `runs` inferences after warm-up, and how many there were."""
        inputs = self._load_feed(feed)
        with tempfile.TemporaryDirectory() as directory:
            options = self._session_options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(directory) / "profile")
            session = onnxruntime.InferenceSession(
                self._path, options, providers=self._session.get_providers()
            )
            for _ in range(warmup):
                session.run(None, inputs)
            done, deadline = 0, time.monotonic() + limit_s
            while done < runs and (done < 3 or time.monotonic() < deadline):
                session.run(None, inputs)
                done += 1
            events = json.loads(Path(session.end_profiling()).read_text())
        starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
        kernels = [
            event
            for event in events
            if event.get("cat") == "Node"
            and event["name"].endswith("_kernel_time")
            and event.get("args", {}).get("provider")
            and event["ts"] >= starts[warmup]
        ]
        return kernels, done

    def reported_memory(self, feed: dict[str, str]) -> dict[str, int]:
        """The CPU arena, and the largest node's inputs, weights and outputs, from a profile.

        Releases before the arena's figures are in the profile tell the node's alone.
        """
        events, _ = self._profiled(feed, warmup=2, runs=1, limit_s=0)
        parts = {
            "arena_held_bytes": ("mem_arena_held",),
            "arena_peak_in_use_bytes": ("mem_in_use_peak",),
            "largest_node_bytes": ("activation_size", "parameter_size", "output_size"),
        }
        largest = {
            name: max(sum(int(item["args"].get(key, 0)) for key in keys) for item in events)
            for name, keys in parts.items()
            if events
        }
        return {name: size for name, size in largest.items() if size}

    def warm_runtime(self) -> None:
        onnxruntime.InferenceSession(_IDENTITY, providers=[_CPU])


def _tensor(item: Any) -> Tensor:
    if item.type not in _DTYPES:
        raise ValueError(f"tensor {item.name!r} has type {item.type}, which is not handled")
    shape = [size if isinstance(size, int) else None for size in item.shape]
    return {"name": item.name, "shape": shape, "dtype": _DTYPES[item.type]}
