"""What all runners share: feeding inputs in batches, timing, and weighing.

It uses the standard library and NumPy alone, since it is sent to the device.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from edgecheck.runtime import memory, timing
from edgecheck.runtime.results import Placement, Profile

# A tensor of the model file: name, shape (None on a dynamic axis), dtype, and for quantized tensors
# scale and zero_point.
Tensor = dict[str, Any]


class Runner(abc.ABC):
    """A model file loaded into a runtime: subclass it in ``run.py``.

    `open_file` and `infer` are to be overridden; `prepare_inference`, `placement`, `profile`,
    `reported_memory` and `warm_runtime` may be, by runtimes that can tell more. The other methods
    are what the parent process calls, in the declared names of inputs and outputs; `bind` says what
    those are called in the file.
    """

    def __init__(self) -> None:
        self._binding: dict[str, Any] = {}
        self._inputs: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}

    @abc.abstractmethod
    def open_file(self, path: str, options: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Load the file; return its inputs and outputs.

        Args:
            options: ``threads`` (a number), ``optimize`` (whether the runtime may rewrite the
                graph), ``cpus`` (cores to keep to, none for all) and ``target`` (its options).

        Raises:
            Exception: the runtime refuses the file; the message is shown to users.
        """

    @abc.abstractmethod
    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference, in the file's names, shapes and dtypes."""

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs that are compared: of `infer`, where no processor does it in its own way."""
        return self.infer(inputs)

    def placement(self, feed: dict[str, str]) -> Placement:
        """Where operators really run.

        Args:
            feed: .npy path by declared input, one call.
        """
        return Placement()

    def profile(self, feed: dict[str, str]) -> Profile:
        """Where time goes, for a feed as `placement` takes it."""
        return Profile(note="this runtime has no profiler")

    @final
    def placement_data(self, feed: dict[str, str]) -> dict[str, Any]:
        """The fields of `placement`."""
        return asdict(self.placement(feed))

    @final
    def profile_data(self, feed: dict[str, str]) -> dict[str, Any]:
        """The fields of `profile`."""
        return self.profile(feed).as_data()

    def warm_runtime(self) -> None:  # noqa: B027  # most runtimes need nothing
        """Make the runtime allocate what it needs with no model at all."""

    def load(self, path: str, options: dict[str, Any]) -> dict[str, Any]:
        """Load a file; return ``inputs`` and ``outputs`` as lists of tensors."""
        inputs, outputs = self.open_file(path, options)
        self._inputs = {item["name"]: item for item in inputs}
        self._outputs = {item["name"]: item for item in outputs}
        return {"inputs": inputs, "outputs": outputs}

    def bind(self, binding: dict[str, Any]) -> None:
        """Say how declared names and layouts correspond to the file's.

        ``inputs`` and ``outputs``: by declared name a dict of ``name`` and ``transpose`` (axes or
        None); ``batched``: the declared inputs with samples on axis 0; ``batch``: the batch size
        that the file is fixed to, or None.
        """
        self._binding = binding

    def run(
        self, feeds: list[dict[str, Any]], batch_size: int | None = None
    ) -> list[dict[str, str]]:
        """Run feeds and save their outputs.

        Each feed has ``inputs`` (.npy path by declared name) and ``directory``. Returns for each
        the .npy paths by declared output name. Inputs are cut into calls of the file's fixed batch
        size, else of `batch_size`, else made in one call.
        """
        return [self._run_feed(feed, batch_size) for feed in feeds]

    def _run_feed(self, feed: dict[str, Any], batch_size: int | None) -> dict[str, str]:
        arrays = {
            name: np.load(path, mmap_mode="r", allow_pickle=False)
            for name, path in feed["inputs"].items()
        }
        batched = [name for name in self._binding["batched"] if name in arrays]
        rows = len(arrays[batched[0]]) if batched else 1
        fixed = self._binding["batch"]
        step = fixed or batch_size or rows
        writers: dict[str, np.ndarray] = {}
        paths = {
            name: str(Path(feed["directory"]) / f"{position}.npy")
            for position, name in enumerate(self._binding["outputs"])
        }
        for start in range(0, rows, step):
            count = min(step, rows - start)
            call = {
                name: _rows(array, start, count, fixed or count) if name in batched else array
                for name, array in arrays.items()
            }
            outputs = self._declared_outputs(self.compute(self._file_inputs(call)))
            for name, value in outputs.items():
                if count == rows and step <= rows:  # the whole feed in one call: any shape will do
                    np.save(paths[name], value, allow_pickle=False)
                    continue
                if value.shape[:1] != (fixed or count,):
                    raise ValueError(
                        f"output {name!r} has shape {value.shape} for a batch of "
                        f"{fixed or count}: its first axis is not the batch"
                    )
                if start == 0:
                    writers[name] = np.lib.format.open_memmap(
                        paths[name], "w+", value.dtype, (rows, *value.shape[1:])
                    )
                writers[name][start : start + count] = value[:count]
        for writer in writers.values():
            writer.flush()  # type: ignore[attr-defined]
        return paths

    def _file_inputs(self, declared: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        inputs = {}
        for name, array in declared.items():
            bound = self._binding["inputs"][name]
            if bound["transpose"] is not None:
                array = np.transpose(array, bound["transpose"])
            inputs[bound["name"]] = _fit(array, self._inputs[bound["name"]], name)
        return inputs

    def _declared_outputs(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        declared = {}
        for name, bound in self._binding["outputs"].items():
            array = _dequantize(outputs[bound["name"]], self._outputs[bound["name"]])
            if bound["transpose"] is not None:
                array = np.transpose(array, np.argsort(bound["transpose"]))
            declared[name] = array
        return declared

    def prepare_inference(self, inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        """One inference to be timed, with as little of Python around it as the runtime allows."""
        return partial(self.infer, inputs)

    def time_round(
        self, candidates: list[dict[str, Any]], *, duration_s: float, blocks: int
    ) -> dict[str, Any]:
        """Load candidates afresh and time them in turns (see `edgecheck.runtime.timing`).

        Each candidate has ``path``, ``options``, ``binding`` and ``feed``. Meant for a process
        that does nothing else; ``options`` may have ``cpus``, the cores to keep to.
        """

        def loader(candidate: dict[str, Any]) -> Callable[[], Callable[[], object]]:
            feed = {
                name: np.load(path, allow_pickle=False) for name, path in candidate["feed"].items()
            }

            def load() -> Callable[[], object]:
                runner = type(self)()
                runner.load(candidate["path"], candidate["options"])
                runner.bind(candidate["binding"])
                return runner.prepare_inference(runner._file_inputs(feed))

            return load

        if candidates[0]["options"].get("cpus"):
            os.sched_setaffinity(0, candidates[0]["options"]["cpus"])
        return {
            **timing.time_round(
                [loader(item) for item in candidates], duration_s=duration_s, blocks=blocks
            ),
            "cpus": timing.cpus(),
            "frequency_mhz": timing.frequency_mhz(),
        }

    def reported_memory(self, feed: dict[str, str]) -> dict[str, int]:
        """Memory in bytes as the runtime itself accounts for it; {} if it does not."""
        return {}

    def measure_memory(
        self,
        path: str,
        options: dict[str, Any],
        binding: dict[str, Any],
        feed: dict[str, str],
        **settings: Any,
    ) -> dict[str, Any]:
        """Resident memory of loading and running; see `edgecheck.runtime.memory.measure`."""
        return memory.measure(self, path, options, binding, feed, **settings)

    def _load_feed(self, feed: dict[str, str]) -> dict[str, np.ndarray]:
        return self._file_inputs(
            {name: np.load(path, allow_pickle=False) for name, path in feed.items()}
        )


def _rows(array: np.ndarray, start: int, count: int, size: int) -> np.ndarray:
    """Rows from `start`, the last one repeated up to `size`."""
    rows = array[start : start + count]
    if count < size:
        rows = np.concatenate([rows, np.repeat(rows[-1:], size - count, axis=0)])
    return rows


def _fit(array: np.ndarray, tensor: Tensor, name: str) -> np.ndarray:
    """The array in the tensor's dtype, contiguous and in native byte order.

    Runtimes misread other byte orders and strides silently.

    Raises:
        ValueError: an integer does not fit the tensor's dtype.
    """
    wanted: np.dtype[Any] = np.dtype(tensor["dtype"])
    if array.dtype.kind == "f" and wanted.kind in "iu" and tensor.get("scale"):
        scaled = np.rint(array / tensor["scale"]) + tensor["zero_point"]
        bounds = np.iinfo(wanted)
        return np.asarray(np.clip(scaled, bounds.min, bounds.max).astype(wanted), order="C")
    if array.dtype.kind in "iu" and wanted.kind in "iu" and array.size:
        bounds = np.iinfo(wanted)
        low, high = int(array.min()), int(array.max())
        if low < bounds.min or high > bounds.max:
            raise ValueError(
                f"input {name!r} holds values {low}..{high}, which the file's {wanted} cannot hold"
            )
    elif array.dtype.kind != wanted.kind:
        raise ValueError(f"input {name!r} is {array.dtype}, but the file takes {wanted}")
    return np.asarray(array, dtype=wanted, order="C")


def _dequantize(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Real values of a quantized tensor: (q - zero_point) * scale, as TFLite specifies."""
    if array.dtype.kind in "iu" and tensor.get("scale"):
        shifted = array.astype(np.float32) - np.float32(tensor["zero_point"])
        return shifted * np.float32(tensor["scale"])
    return array
