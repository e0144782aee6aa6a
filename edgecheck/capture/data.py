"""Data of the user's on disk: calibration, evaluation and sample data as .npy files, streamed.

Whatever form the data comes in, it ends as one .npy per input with samples on axis 0, written row
by row, so that no process holds it in memory. Also the seeded random inputs of the declared domain.
Not for judging whether the data is good.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgecheck.declare.model import BATCH, DEFAULT_DIM, Input
from edgecheck.errors import DataError

Array = npt.NDArray[Any]
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class DataFiles:
    """Data on disk.

    Attributes:
        inputs: .npy path by input name, samples on axis 0.
        labels: .npy path, or None.
        count: number of samples.
        sha256: of all values.
    """

    inputs: Mapping[str, str]
    labels: str | None
    count: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "inputs": dict(self.inputs),
            "labels": self.labels,
            "count": self.count,
            "sha256": self.sha256,
        }


def materialize(
    data: Any, labels: Any, inputs: Sequence[Input], directory: Path, what: str, labelled: bool
) -> DataFiles:
    """Write data in any accepted form (see `edgecheck.Evaluation.inputs`) to .npy files.

    Args:
        what: "calibration", "evaluation" or "samples", for messages.
        labelled: whether labels are needed, from `labels` or from the data's pairs.

    Raises:
        DataError: the data is empty, does not fit the inputs, or holds NaN or infinite values.
    """
    data = data() if callable(data) and not _is_array(data) else data
    labels = labels() if callable(labels) and not _is_array(labels) else labels
    pairs = labelled and labels is None
    if _is_array(data):
        if len(inputs) != 1:
            raise DataError(
                f"{what} is one array, but the model has {len(inputs)} inputs: give a dict by "
                f"input name ({', '.join(item.name for item in inputs)})"
            )
        data = {inputs[0].name: data}
    label_path = None
    if isinstance(data, Mapping):
        if pairs:
            raise DataError(f"{what} has no labels: pass labels=, or yield (sample, label) pairs")
        _check_keys(data, inputs, what)
        paths, counts = {}, {}
        for item, file in zip(inputs, _files(inputs, directory), strict=True):
            paths[item.name] = _store_array(_as_array(data[item.name]), item, file, what)
            counts[item.name] = len(np.load(paths[item.name], mmap_mode="r"))
    elif isinstance(data, Iterable) or hasattr(data, "__getitem__"):
        paths, counts, found = _store_samples(data, inputs, directory, what, pairs)
        labels = found if pairs else labels
    else:
        raise DataError(f"{what} is a {type(data).__name__}, neither an array nor iterable")
    if len(set(counts.values())) > 1:
        raise DataError(f"{what} has different numbers of samples by input: {counts}")
    count = next(iter(counts.values()))
    if count == 0:
        raise DataError(f"{what} is empty")
    if labelled:
        labels = np.asarray(_as_array(labels))
        if labels.ndim == 0 or labels.dtype.kind not in "fiubc":
            raise DataError(f"{what} labels are no array of numbers: {labels!r:.60}")
        if len(labels) != count:
            raise DataError(f"{what} has {count} samples but {len(labels)} labels")
        label_path = str(directory / "labels.npy")
        np.save(label_path, labels, allow_pickle=False)
    digest = hashlib.sha256()
    for path in [*paths.values(), *([label_path] if label_path else [])]:
        with Path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return DataFiles(paths, label_path, count, digest.hexdigest())


def _files(inputs: Sequence[Input], directory: Path) -> list[Path]:
    """A file for each input, named by position: an input's name may hold any character."""
    return [directory / f"input-{position}.npy" for position in range(len(inputs))]


def _is_array(data: Any) -> bool:
    return isinstance(data, np.ndarray) or (
        hasattr(data, "__array__") and hasattr(data, "shape") and hasattr(data, "dtype")
    )


def _as_array(data: Any) -> Array:
    """Any array-like as a NumPy array, memory-mapped ones left so."""
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    if isinstance(data, np.ndarray):
        return data
    array: Array = np.asarray(data)
    return array


def _check_keys(sample: Mapping[Any, Any], inputs: Sequence[Input], what: str) -> None:
    names = {item.name for item in inputs}
    if set(sample) != names:
        raise DataError(
            f"{what} has entries {sorted(map(str, sample))}, but the inputs are {sorted(names)}"
        )


def _convert(array: Array, item: Input, what: str, first: int = 0) -> Array:
    """The values in the input's dtype; `first` is the position of the first row in all data."""
    wanted = np.dtype(item.dtype)
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and wanted.kind != "f"):
        raise DataError(f"{what} for input {item.name!r} is {array.dtype}; the input is {wanted}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row, *rest = (int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise DataError(
            f"{what} for input {item.name!r} has NaN or infinite values, "
            f"the first at {(first + row, *rest)}"
        )
    if wanted.kind != "b" and array.size:
        bounds = np.iinfo(wanted) if wanted.kind in "iu" else np.finfo(wanted)
        low, high = array.min(), array.max()
        if low < bounds.min or high > bounds.max:
            raise DataError(
                f"{what} for input {item.name!r} has values {low}..{high}, "
                f"which {wanted} can't hold"
            )
    return array.astype(wanted, copy=False)


def _check_shape(shape: tuple[int, ...], item: Input, what: str) -> None:
    """`shape` has the batch axis."""
    fits = len(shape) == len(item.shape) and all(
        isinstance(declared, str) or declared == size
        for declared, size in zip(item.shape[1:], shape[1:], strict=True)
    )
    if not fits:
        expected = ", ".join(["samples", *map(str, item.shape[1:])])
        raise DataError(f"{what} for input {item.name!r} has shape {shape}; expected ({expected})")


def _store_array(array: Array, item: Input, path: Path, what: str) -> str:
    if array.ndim == len(item.shape) + 1:  # whole calls, stacked
        array = array.reshape(-1, *array.shape[2:])
    _check_shape(array.shape, item, what)
    if len(array) == 0:
        raise DataError(f"{what} is empty")
    existing = _backing_file(array)
    if existing is not None and array.dtype == np.dtype(item.dtype):
        for start, stop in _chunks(array):
            _convert(array[start:stop], item, what, start)
        return existing
    with _RowWriter(path, item.name) as writer:
        for start, stop in _chunks(array):
            writer.append(_convert(array[start:stop], item, what, start))
    return str(path)


def _backing_file(array: Array) -> str | None:
    """The .npy file that a memory-mapped array is the whole of, if there is one."""
    name = getattr(array, "filename", None)
    saved = getattr(array, "mode", "") in ("r", "r+")  # what a copy-on-write map holds is not saved
    if name is None or not saved or not str(name).endswith(".npy"):
        return None
    whole = np.load(name, mmap_mode="r", allow_pickle=False)
    same = whole.shape == array.shape and whole.dtype == array.dtype
    return str(name) if same and whole.strides == array.strides else None


def _chunks(array: Array) -> Iterator[tuple[int, int]]:
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    step = max(1, _CHUNK_BYTES // row_bytes)
    for start in range(0, len(array), step):
        yield start, min(len(array), start + step)


def _store_samples(
    data: Any, inputs: Sequence[Input], directory: Path, what: str, pairs: bool
) -> tuple[dict[str, str], dict[str, int], Array | None]:
    """Write an iterable of samples or batches, the latter told by their extra axis."""
    names = [item.name for item in inputs]
    paths = dict(zip(names, _files(inputs, directory), strict=True))
    writers = {name: _RowWriter(path, name) for name, path in paths.items()}
    labels: list[Array] = []
    try:
        for position, entry in enumerate(_entries(data)):
            where = f"{what} sample {position}"
            if pairs:
                if not (isinstance(entry, tuple | list) and len(entry) == 2):
                    raise DataError(f"{where} is no (sample, label) pair")
                entry, label = entry
                labels.append(np.asarray(_as_array(label)))
            rows, batch = 0, False
            for item, value in zip(inputs, _by_input(entry, inputs, where), strict=True):
                array = _convert(np.asarray(_as_array(value)), item, where)
                batch = array.ndim == len(item.shape)
                array = array if batch else array[None]
                _check_shape(array.shape, item, where)
                writers[item.name].append(array)
                rows = len(array)
            if pairs and not batch:
                labels[-1] = labels[-1][None]
            elif pairs and labels[-1].shape[:1] != (rows,):
                raise DataError(f"{where} has {rows} rows but labels of {labels[-1].shape}")
    finally:
        for writer in writers.values():
            writer.close()
    counts = {name: writer.rows for name, writer in writers.items()}
    if len({label.shape[1:] for label in labels}) > 1:
        raise DataError(f"{what} has labels of different shapes")
    return (
        {name: str(path) for name, path in paths.items()},
        counts,
        np.concatenate(labels) if labels else None,
    )


def _entries(data: Any) -> Iterable[Any]:
    """The entries of an iterable, or of a map-style Dataset, which ends at its length only."""
    if hasattr(type(data), "__iter__") or not hasattr(data, "__len__"):
        samples: Iterable[Any] = iter(data)
        return samples
    return (data[index] for index in range(len(data)))


def _by_input(entry: Any, inputs: Sequence[Input], where: str) -> list[Any]:
    if isinstance(entry, Mapping):
        _check_keys(entry, inputs, where)
        return [entry[item.name] for item in inputs]
    # What a loader yields beyond the inputs are labels.
    if isinstance(entry, tuple | list) and len(entry) >= len(inputs) and _is_array(entry[0]):
        return list(entry[: len(inputs)])
    if len(inputs) == 1:
        return [entry]
    raise DataError(f"{where} is a {type(entry).__name__}; expected {len(inputs)} values or a dict")


class _RowWriter:
    """A .npy file that grows by rows.

    NumPy's format pads the header for a growing first axis, so it is rewritten in place at the end.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._stream: BinaryIO | None = None
        self._header_bytes = 0
        self._dtype: np.dtype[Any] | None = None
        self._row_shape: tuple[int, ...] = ()
        self.rows = 0

    def append(self, rows: Array) -> None:
        if self._stream is None:
            self._dtype, self._row_shape = rows.dtype, rows.shape[1:]
            self._stream = self._path.open("wb")
            self._write_header()
            self._header_bytes = self._stream.tell()
        if rows.shape[1:] != self._row_shape:
            raise DataError(
                f"samples of input {self._name!r} have shapes {self._row_shape} and "
                f"{rows.shape[1:]}: all must be alike"
            )
        self._stream.write(np.ascontiguousarray(rows).tobytes())
        self.rows += len(rows)

    def _write_header(self) -> None:
        assert self._stream is not None and self._dtype is not None
        np.lib.format.write_array_header_1_0(
            self._stream,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self.rows, *self._row_shape),
            },
        )

    def close(self) -> None:
        if self._stream is not None:
            self._stream.seek(0)
            self._write_header()
            if self._stream.tell() != self._header_bytes:
                raise DataError(f"{self._path} has more samples than its header can say")
            self._stream.close()

    def __enter__(self) -> _RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def random_inputs(
    inputs: Sequence[Input], sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, Array]:
    """Inputs drawn uniformly from the declared domain, for given sizes of the named dimensions."""
    arrays: dict[str, Array] = {}
    for item in inputs:
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in item.shape)
        dtype = np.dtype(item.dtype)
        if dtype.kind == "b":
            arrays[item.name] = rng.integers(0, 2, shape).astype(bool)
        elif dtype.kind in "iu":
            low, high = math.ceil(item.low), math.floor(item.high)
            arrays[item.name] = rng.integers(low, high, shape, dtype=dtype, endpoint=True)
        elif item.step is not None:
            count = int((item.high - item.low) / item.step + 1e-6)  # 1 / (1 / 255) may be below 255
            steps = rng.integers(0, count, shape, endpoint=True)
            arrays[item.name] = (item.low + steps * item.step).astype(dtype)
        else:
            arrays[item.name] = rng.uniform(item.low, item.high, shape).astype(dtype)
    return arrays


def dimension_sizes(
    inputs: Sequence[Input],
    dims: Mapping[str, tuple[int, int]],
    batch: int,
    rng: np.random.Generator | None,
) -> dict[str, int]:
    """A size for each named dimension: the batch as given, others drawn (largest without rng)."""
    sizes = {}
    for name in sorted({size for item in inputs for size in item.shape if isinstance(size, str)}):
        low, high = dims.get(name, DEFAULT_DIM)
        if name == BATCH:
            sizes[name] = batch
        else:
            sizes[name] = high if rng is None else int(rng.integers(low, high, endpoint=True))
    return sizes


def save_feed(arrays: Mapping[str, Array], directory: Path) -> dict[str, str]:
    """Save one call's inputs; return the .npy path by input name."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for position, (name, array) in enumerate(arrays.items()):
        path = directory / f"input-{position}.npy"
        np.save(path, array, allow_pickle=False)
        paths[name] = str(path)
    return paths
