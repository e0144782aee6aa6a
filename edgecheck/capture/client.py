"""The parent's side of the user's own code: programs, data, builders, reference runs and scores.

The code itself runs in children (`edgecheck.capture.worker`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgecheck.capture import data, drawing, model_files
from edgecheck.capture.calls import save_calls
from edgecheck.capture.pickling import pack
from edgecheck.declare.inputs import takes_whole_calls
from edgecheck.declare.metrics import as_metric
from edgecheck.declare.model import Artifact, Evaluation, Model, Source, source_kind
from edgecheck.declare.settings import FILE_LIMIT_BYTES
from edgecheck.devices.binding import Binding, bind
from edgecheck.devices.local import LoadedModel
from edgecheck.digests import file_sha256
from edgecheck.errors import ChildError, DataError, EdgecheckError
from edgecheck.process.child import one_line
from edgecheck.process.parent import Child, Pool, Service
from edgecheck.process.run_cache import Once

_SERVICE = Service(
    "edgecheck.capture.worker:SourceService",
    environment={"TF_CPP_MIN_LOG_LEVEL": "3", "ABSL_MIN_LOG_LEVEL": "3"},
)
# Calibration samples that show a simulated quantizer its ranges: fewer where they are large, so
# that they cost no more than the comparison itself.
_FEWEST_ROWS, _MOST_ROWS, _CALIBRATION_VALUES = 8, 64, 1 << 20
# Values of one of its calls: what large samples give a network is allocated faster one by one.
_CALL_VALUES = 1 << 18


class Sources:
    """Runs the user's code, each piece once a run."""

    def __init__(
        self,
        pool: Pool,
        once: Once,
        timeout_s: float,
        file_limit_bytes: int = FILE_LIMIT_BYTES,
    ) -> None:
        self._pool = pool
        self._once = once
        self._timeout_s = timeout_s
        self._file_limit_bytes = file_limit_bytes

    def existing(self, path: Any, what: str) -> Path:
        """See `edgecheck.capture.model_files.existing`."""
        return model_files.existing(path, what, self._file_limit_bytes)

    def _source_child(
        self, name: str, source: Source, model: Model
    ) -> tuple[Child, dict[str, Any]]:
        """A child with the source opened, and its ``kind`` and whether it was in ``training``."""
        child = self._child()
        opened = child.call("use", timeout_s=self._timeout_s, name=name)
        if opened is None:
            if not callable(source):
                self.existing(source, "source")
            opened = child.call(
                "open_source",
                timeout_s=self._timeout_s,
                name=name,
                source=pack(source) if callable(source) else str(source),
                inputs=[asdict(item) for item in model.inputs],
                outputs=list(model.outputs),
                seed=model.seed,
                what=f"source {_source_name(source)}",
            )
        return child, opened

    def _child(self) -> Child:
        """The child that runs the user's code; one is enough: importing torch takes seconds."""
        child, _ = self._pool.get("sources", _SERVICE)
        return child

    def data(self, name: str, model: Model, what: str) -> dict[str, Any]:
        """The files of a model's "calibration", "evaluation" or "samples" data (see `DataFiles`).

        Raises:
            EdgecheckError: the data does not fit, or making it failed.
        """
        labelled = what == "evaluation"
        if labelled:
            assert model.evaluation is not None
            values, labels = model.evaluation.inputs, model.evaluation.labels
        else:
            values, labels = getattr(model, what), None

        def produce(folder: Path) -> Any:
            if not callable(values):
                return _materialize_here(values, labels, model, folder, what, labelled)
            child = self._child()
            return child.call(
                "materialize",
                timeout_s=self._timeout_s,
                data=pack(values),
                labels=pack(labels) if labelled else None,
                inputs=[asdict(item) for item in model.inputs],
                directory=str(folder),
                what=what,
            )

        found: dict[str, Any] = self._once(f"data {name} {what}", produce)
        return found

    def kind(self, name: str, source: Source, model: Model) -> str:
        """The kind of a source: ``"torch"``, ``"onnx"`` or ``"tensorflow"``."""
        known = source_kind(source)
        if known:
            return known

        def produce(folder: Path) -> Any:
            return self._source_child(name, source, model)[1]["kind"]

        found: str = self._once(f"kind {name}", produce)
        return found

    def program(self, name: str, source: Source, model: Model) -> dict[str, Any]:
        """The captured program: ``path``, ``kind`` (see `kind`), ``digest`` and ``training``."""
        if source_kind(source) == "onnx":
            path = self.existing(source, "source")
            return {"path": str(path), "kind": "onnx", "digest": file_sha256(path)}

        def produce(folder: Path) -> Any:
            child, opened = self._source_child(name, source, model)
            captured = child.call(
                "capture",
                timeout_s=self._timeout_s,
                folder=str(folder),
                dims=dimension_ranges(model),
                example=_example(model, folder / "example"),
            )
            return {**captured, **opened}

        found: dict[str, Any] = self._once(f"program {name}", produce)
        return found

    def build(self, builder: object, name: str, source: Source, model: Model, path: Path) -> None:
        """Have the user's builder write a file from the source."""
        child, _ = self._source_child(name, source, model)
        child.call(
            "build",
            timeout_s=self._timeout_s,
            builder=pack(builder),
            path=str(path),
            source_path=None if callable(source) else str(source),
        )

    def run(
        self,
        name: str,
        source: Source,
        model: Model,
        feeds: Sequence[Mapping[str, str]],
        directory: Path,
        batch_size: int | None,
    ) -> list[dict[str, str]]:
        """Outputs of the live source, run eagerly, as .npy paths by declared name."""
        child, _ = self._source_child(name, source, model)
        session = LoadedModel(child, {"inputs": [], "outputs": []}, self._timeout_s)
        session.bind(_eager_binding(model))
        return session.run(feeds, directory, batch_size)

    def _calibration(
        self, name: str, model: Model, arithmetic: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """The data that shows ranges, where the arithmetic needs them and there is any.

        A file that came ready has no calibration data here: samples or evaluation data show the
        ranges of the same inputs.
        """
        if arithmetic.get("activations") != "static":
            return None
        for what in ("calibration", "samples", "evaluation"):
            if getattr(model, what) is not None:
                return self.data(name.partition(":")[0], model, what)
        return None

    def calibration(self, model_name: str, model: Model, folder: Path) -> list[dict[str, str]]:
        """Calls of calibration data that show ranges, as .npy paths by input; none without data."""
        if model.calibration is None:
            return []
        return _spread(self.data(model_name, model, "calibration"), model, folder)

    def simulate(
        self,
        name: str,
        source: Source,
        model: Model,
        feeds: Sequence[Mapping[str, str]],
        rows: Sequence[int | None],
        what: str,
        arithmetic: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Outputs of the live source in other arithmetic, or why there are none; once a run.

        See `edgecheck.capture.worker.SourceService.simulate`. A source that crashes so has none
        either.

        Args:
            name: the model's and the variant's, as in `run`.
            rows: how many samples of each feed to take; None for all.
            what: names the feeds.
        """
        files = self._calibration(name, model, arithmetic)

        def produce(folder: Path) -> Any:
            requests = []
            for position, (feed, count) in enumerate(zip(feeds, rows, strict=True)):
                arrays = {path_name: _loaded(path) for path_name, path in feed.items()}
                cut = {key: item[:count] if count else item for key, item in arrays.items()}
                inputs = data.save_feed(cut, folder / f"inputs-{position}")
                (folder / str(position)).mkdir(exist_ok=True)
                requests.append({"inputs": inputs, "directory": str(folder / str(position))})
            try:
                child, _ = self._source_child(name, source, model)
                session = LoadedModel(child, {"inputs": [], "outputs": []}, self._timeout_s)
                session.bind(_eager_binding(model))
                return child.call(
                    "simulate",
                    timeout_s=self._timeout_s,
                    arithmetic=dict(arithmetic),
                    feeds=requests,
                    calibration=_spread(files, model, folder),
                )
            except ChildError as error:
                return {"outputs": [], "reason": str(error)}

        found: dict[str, Any] = self._once(
            f"simulated {name} {what} {sorted(arithmetic.items())}", produce
        )
        return found

    def simulate_keeping(
        self,
        name: str,
        source: Source,
        model: Model,
        folder: Path,
        arithmetic: Mapping[str, Any],
        keeps: Sequence[Sequence[str]],
        feeds: Sequence[Mapping[str, str]],
        references: Sequence[Mapping[str, str]],
    ) -> list[dict[str, float]]:
        """SQNR of each output with layers kept in float, simulated; see `edgecheck.capture.worker`.

        Raises:
            ChildError: the source can't be run so.
        """
        files = self._calibration(name, model, arithmetic)
        child, _ = self._source_child(name, source, model)
        found: list[dict[str, float]] = child.call(
            "simulate_keeping",
            timeout_s=self._timeout_s,
            arithmetic=dict(arithmetic),
            keeps=[list(keep) for keep in keeps],
            feeds=[dict(feed) for feed in feeds],
            references=[dict(reference) for reference in references],
            calibration=_spread(files, model, folder),
        )
        return found

    def compare(
        self,
        evaluation: Evaluation,
        reference: Mapping[str, str],
        candidate: Mapping[str, str],
        labels: str,
        *,
        seed: int,
        limit_s: float,
    ) -> dict[str, Any]:
        """The metric of two models' saved predictions for the same samples, computed in a child.

        Returns ``reference``, ``candidate`` and ``paired`` (see
        `edgecheck.capture.scoring.compare`).
        """
        found: dict[str, Any] = self._child().call(
            "compare",
            timeout_s=self._timeout_s,
            function=_packed_metric(evaluation),
            output=evaluation.output,
            reference=dict(reference),
            candidate=dict(candidate),
            labels=labels,
            seed=seed,
            limit_s=limit_s,
        )
        return found


def _packed_metric(evaluation: Evaluation) -> bytes:
    """The metric and the post-processing, for the child."""
    metric = as_metric(evaluation.metric)
    functions = (metric.function, metric.per_sample, metric.combine, evaluation.postprocess)
    return pack((metric, evaluation.postprocess), *functions)


def _materialize_here(
    values: Any, labels: Any, model: Model, folder: Path, what: str, labelled: bool
) -> dict[str, Any]:
    """Write data that this process holds already."""
    try:
        files = data.materialize(values, labels, model.inputs, folder, what, labelled)
    except EdgecheckError:
        raise
    except Exception as error:  # from the user's iterable
        raise DataError(f"{what} data raised {one_line(error)}") from error
    return files.as_dict()


def _eager_binding(model: Model) -> Binding:
    """A live source takes and gives everything as declared."""
    tensors = [
        {"name": item.name, "dtype": item.dtype, "shape": [None] * len(item.shape)}
        for item in model.inputs
    ]
    outputs = [{"name": name} for name in model.outputs]
    return bind(model.inputs, model.outputs, tensors, outputs, Artifact(""))


def is_onnx(source: Source) -> bool:
    """Whether a source is the path of an ONNX file."""
    return source_kind(source) == "onnx"


def _loaded(path: str) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _spread(files: Mapping[str, Any] | None, model: Model, folder: Path) -> list[dict[str, str]]:
    """Samples of data, evenly spaced over it, as .npy paths by input for each of several calls."""
    if files is None:
        return []
    if takes_whole_calls(model.inputs):
        positions = np.linspace(0, files["count"] - 1, min(files["count"], _MOST_ROWS)).astype(int)
        return save_calls(files["inputs"], positions.tolist(), folder)
    sizes = {item.shape[0] for item in model.inputs if item.shape and not item.batched}
    fixed = next((size for size in sizes if isinstance(size, int)), 1)
    low, high = model.dim_range("batch") if model.dynamic_batch else (fixed, fixed)
    arrays = {name: _loaded(path) for name, path in files["inputs"].items()}
    row_values = max(1, sum(array[0].size for array in arrays.values()))
    affordable = max(_FEWEST_ROWS, _CALIBRATION_VALUES // row_values)
    count = min(files["count"], affordable, _MOST_ROWS)
    if model.dynamic_batch:
        count = min(count, high)
        calls = max(1, count // max(1, low, _CALL_VALUES // row_values))
    else:
        calls = max(1, count // fixed)
        count = calls * fixed
    rows = np.linspace(0, files["count"] - 1, count).astype(int)
    return [
        data.save_feed(
            {name: array[part] for name, array in arrays.items()}, folder / f"calibration-{call}"
        )
        for call, part in enumerate(np.array_split(rows, calls))
    ]


def _example(model: Model, folder: Path) -> dict[str, str] | None:
    """The call with which a source is captured, if the user draws it: .npy path by input name."""
    if model.draw is None:
        return None
    sizes, rng = data.example_sizes(model.inputs, model.dims), np.random.default_rng(0)
    return data.save_feed(drawing.random_call(model.inputs, sizes, rng, model.draw), folder)


def _source_name(source: Source) -> str:
    return str(getattr(source, "__qualname__", repr(source)) if callable(source) else source)


def dimension_ranges(model: Model) -> dict[str, tuple[int, int]]:
    """Smallest and largest size of each named dimension of the inputs."""
    named = {size for item in model.inputs for size in item.shape if isinstance(size, str)}
    return {name: model.dim_range(name) for name in sorted(named)}
