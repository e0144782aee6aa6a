"""Intermediate tensors in LiteRT: the interpreter keeps them all.

XNNPACK then takes operators one at a time, so that what it fuses across operators is not seen. Not
for running files otherwise: see `edgecheck.targets.tflite.run`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ai_edge_litert import interpreter as litert

from edgecheck.runtime.runner import Tensor
from edgecheck.runtime.trace import Array, Seen
from edgecheck.runtime.tracer import Tracer, dequantized
from edgecheck.targets.tflite.run import TfliteRunner


class TfliteTracer(Tracer, TfliteRunner):
    """An interpreter that keeps its tensors."""

    note = "XNNPACK ran one operator at a time"

    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        found = super().open_file(path, options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the memory that this takes
            self._interpreter = litert.Interpreter(
                model_path=path,
                num_threads=self._threads,
                experimental_preserve_all_tensors=True,
            )
        self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        self._shapes = {item["index"]: tuple(item["shape"]) for item in inputs}
        return found

    def observe(self, inputs: dict[str, Array]) -> tuple[Sequence[Seen], dict[str, Array]]:
        outputs = {name: array.copy() for name, array in self.infer(inputs).items()}
        details = {item["index"]: item for item in self._interpreter.get_tensor_details()}
        seen = []
        for operator in self._interpreter._get_ops_details():
            if operator["op_name"] == "DELEGATE":  # listed again after the operators it replaces
                continue
            for index in map(int, operator["outputs"]):
                if index not in details:
                    continue
                detail = details[index]
                try:
                    values = self._interpreter.get_tensor(index)
                except ValueError:  # never computed: in a branch, or a resource
                    continue
                real = _real(values, detail["quantization_parameters"])
                if real is not None:
                    dtype = values.dtype.name
                    seen.append(Seen(detail["name"], operator["op_name"], dtype, real))
        return seen, outputs


def _real(values: Array, quantization: dict[str, Any]) -> Array | None:
    if values.dtype.kind == "f":
        return values.copy()
    if values.dtype.kind not in "iu" or not len(quantization["scales"]):
        return None
    return dequantized(
        values,
        quantization["scales"],
        quantization["zero_points"],
        quantization["quantized_dimension"],
    )
