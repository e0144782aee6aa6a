"""LiteRT: runs .tflite files with its default delegate (XNNPACK)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert

from edgecheck.runtime.results import OperatorTime, Placement, Profile
from edgecheck.runtime.runner import Runner, Tensor


class TfliteRunner(Runner):
    """An interpreter, addressed through the file's signature where it has one."""

    def __init__(self) -> None:
        super().__init__()
        self._interpreter: Any = None
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._path = ""
        self._threads = 1

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        self._path, self._threads = path, options["threads"]
        self._interpreter = litert.Interpreter(model_path=path, num_threads=self._threads)
        self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        self._shapes = {item["index"]: tuple(item["shape"]) for item in inputs}
        inputs_by_name, outputs_by_name = _signature(self._interpreter)
        return (
            [_tensor(name, item) for name, item in inputs_by_name.items()],
            [_tensor(name, item) for name, item in outputs_by_name.items()],
        )

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._set_inputs(inputs)
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(tensor["index"])
            for name, tensor in self._outputs.items()
        }

    def prepare_inference(self, inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        self._set_inputs(inputs)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke

    def _set_inputs(self, inputs: dict[str, np.ndarray]) -> None:
        interpreter = self._interpreter
        resized = False
        for name, array in inputs.items():
            index = self._inputs[name]["index"]
            if self._shapes[index] != array.shape:
                interpreter.resize_tensor_input(index, array.shape, strict=True)
                self._shapes[index] = array.shape
                resized = True
        if resized:
            interpreter.allocate_tensors()
        for name, array in inputs.items():
            interpreter.set_tensor(self._inputs[name]["index"], array)

    def placement(self, feed: dict[str, str]) -> Placement:
        """Operators of the graph, and which of them no delegate took."""
        details = self._interpreter._get_ops_details()
        operators = [item for item in details if item["op_name"] != "DELEGATE"]
        delegates = [item for item in details if item["op_name"] == "DELEGATE"]
        delegated = _delegated(operators, delegates)
        left = Counter(
            item["op_name"] for index, item in enumerate(operators) if index not in delegated
        )
        return Placement(
            operators=len(operators),
            undelegated_operators=len(operators) - len(delegated),
            undelegated_operators_by_type=dict(sorted(left.items())),
            facts={
                "delegates": {"XNNPACK": len(delegates)} if delegates else {},
                "delegated_operators": len(delegated),
            },
        )

    def profile(self, feed: dict[str, str]) -> Profile:
        """Times of operators, also within the delegate, at LiteRT's resolution of 1 us."""
        from edgecheck.targets.tflite import profiler

        operators: tuple[OperatorTime, ...] = ()
        runs = 0
        note = profiler.unavailable()
        if not note:
            try:
                text, runs = profiler.summary(
                    self._path, self._load_feed(feed), warmup=3, runs=50, limit_s=1.0
                )
                operators = profiler.operator_times(text, runs)
            except (AttributeError, KeyError, OSError, RuntimeError, ValueError) as error:
                note = f"LiteRT's profiler failed: {error}"
        return Profile(operators, runs, preferred="XNNPACK", note=note)


def _delegated(operators: list[Any], delegates: list[Any]) -> set[int]:
    """Positions of the operators between the inputs and the outputs of a delegate call.

    The interpreter lists all operators of the graph, and after them the delegate calls that replace
    some.
    """
    producer = {
        int(tensor): index for index, item in enumerate(operators) for tensor in item["outputs"]
    }
    delegated: set[int] = set()
    for call in delegates:
        borders = {int(tensor) for tensor in call["inputs"]}
        reached = [int(tensor) for tensor in call["outputs"]]
        while reached:
            index = producer.get(reached.pop())
            if index is None or index in delegated:
                continue
            delegated.add(index)
            reached += [int(item) for item in operators[index]["inputs"] if item not in borders]
    return delegated


def _signature(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Input and output details by name, from the first signature or else the tensors' own names."""
    signatures = interpreter.get_signature_list()
    if not signatures:
        return (
            {item["name"]: item for item in interpreter.get_input_details()},
            {item["name"]: item for item in interpreter.get_output_details()},
        )
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    outputs = runner.get_output_details()
    return runner.get_input_details(), {name: outputs[name] for name in sorted(outputs, key=_order)}


def _order(name: str) -> tuple[str, int, str]:
    """Sorts output_10 after output_2."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number), "") if number.isdigit() else (name, 0, name)


def _tensor(name: str, details: dict[str, Any]) -> Tensor:
    signature = details.get("shape_signature", details["shape"])
    scale, zero_point = details.get("quantization", (0.0, 0))
    return {
        "name": name,
        "index": int(details["index"]),
        "shape": [int(size) if size >= 0 else None for size in signature],
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(scale),
        "zero_point": int(zero_point),
    }
