"""The user's calibration, evaluation and sample data as .npy files, and random inputs.

Each form of data has its own writer. All of them store one .npy per input with samples on axis 0,
written row by row, so that no process holds it in memory. If the inputs share no batch axis, a
sample is a whole call (see `takes_whole_calls`), and has all axes of the declared shape. The random
inputs are drawn from the declared domain with a seed. See also `edgecheck.judge.vacuity`, which
judges whether the data is good.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.capture.arrays import as_array, convert, is_array
from edgecheck.capture.row_writer import RowWriter
from edgecheck.declare.inputs import takes_whole_calls
from edgecheck.declare.model import BATCH, DEFAULT_DIM, Input
from edgecheck.errors import DataError

Array = npt.NDArray[Any]
_CHUNK_BYTES = 1 << 24
# Neither 0 nor 1, which torch.export specialises, nor a size that a kernel or stride may have too.
_EXAMPLE_BATCH = 3


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
    data, labels = _loaded(data), _loaded(labels)
    pairs = labelled and labels is None
    stored = _store(data, inputs, directory, what, pairs)
    if len(set(stored.counts.values())) > 1:
        raise DataError(f"{what} has different numbers of samples by input: {stored.counts}")
    count = next(iter(stored.counts.values()))
    if count == 0:
        raise DataError(f"{what} is empty")
    label_path = None
    if labelled:
        label_path = _store_labels(stored.labels if pairs else labels, count, directory, what)
    digest = _digest([*stored.paths.values(), *([label_path] if label_path else [])])
    return DataFiles(stored.paths, label_path, count, digest)


@dataclass(frozen=True)
class _Stored:
    """The files of one form of data.

    Attributes:
        paths: .npy path by input name.
        counts: number of samples by input name.
        labels: of all samples, if the data came in pairs.
    """

    paths: Mapping[str, str]
    counts: Mapping[str, int]
    labels: Array | None = None


def _loaded(data: Any) -> Any:
    """The data itself, if a callable returns it."""
    return data() if callable(data) and not is_array(data) else data


def _store(data: Any, inputs: Sequence[Input], directory: Path, what: str, pairs: bool) -> _Stored:
    """Store data by the writer of its form; `pairs` if it has to bring its labels."""
    if is_array(data):
        data = _by_only_input(data, inputs, what)
    if isinstance(data, Mapping):
        if pairs:
            raise DataError(f"{what} has no labels: pass labels=, or yield (sample, label) pairs")
        return _store_arrays(data, inputs, directory, what)
    if isinstance(data, Iterable) or hasattr(data, "__getitem__"):
        store = _store_pairs if pairs else _store_samples
        return store(data, inputs, directory, what)
    raise DataError(f"{what} is a {type(data).__name__}, neither an array nor iterable")


def _by_only_input(data: Any, inputs: Sequence[Input], what: str) -> dict[str, Any]:
    if len(inputs) != 1:
        raise DataError(
            f"{what} is one array, but the model has {len(inputs)} inputs: give a dict by "
            f"input name ({', '.join(item.name for item in inputs)})"
        )
    return {inputs[0].name: data}


def _store_arrays(
    data: Mapping[Any, Any], inputs: Sequence[Input], directory: Path, what: str
) -> _Stored:
    """Write one array for each input, or point at the file that it is mapped from."""
    _check_keys(data, inputs, what)
    paths, counts = {}, {}
    for item, file in zip(inputs, _files(inputs, directory), strict=True):
        array = as_array(data[item.name])
        if takes_whole_calls(inputs):
            array = _as_calls(array, item, what)
        elif array.ndim == len(item.shape) + 1:  # whole calls, stacked
            array = array.reshape(-1, *array.shape[2:])
            _check_shape(array.shape, item, what)
        else:
            _check_shape(array.shape, item, what)
        paths[item.name] = _store_array(array, item, file, what)
        counts[item.name] = len(np.load(paths[item.name], mmap_mode="r"))
    return _Stored(paths, counts)


def _store_samples(data: Any, inputs: Sequence[Input], directory: Path, what: str) -> _Stored:
    """Write an iterable of samples or batches, ignoring values beyond the inputs."""
    with _SampleWriter(inputs, directory) as writer:
        for position, sample in enumerate(_entries(data)):
            writer.append(sample, f"{what} sample {position}")
    return writer.stored()


def _store_pairs(data: Any, inputs: Sequence[Input], directory: Path, what: str) -> _Stored:
    """Write an iterable of (sample, label) or (batch, labels) pairs."""
    labels: list[Array] = []
    with _SampleWriter(inputs, directory) as writer:
        for position, pair in enumerate(_entries(data)):
            where = f"{what} sample {position}"
            if not (isinstance(pair, tuple | list) and len(pair) == 2):
                raise DataError(f"{where} is not a (sample, label) pair")
            label = np.asarray(as_array(pair[1]))
            rows = writer.append(pair[0], where)
            if rows is not None and label.shape[:1] != (rows,):
                raise DataError(f"{where} has {rows} rows but labels of {label.shape}")
            labels.append(label[None] if rows is None else label)
    if len({label.shape[1:] for label in labels}) > 1:
        raise DataError(f"{what} has labels of different shapes")
    return writer.stored(np.concatenate(labels) if labels else None)


def _store_labels(labels: Any, count: int, directory: Path, what: str) -> str:
    """Write one label for each of `count` samples; return the .npy path."""
    labels = np.asarray(as_array(labels))
    if labels.ndim == 0 or labels.dtype.kind not in "fiubc":
        raise DataError(f"{what} labels are not an array of numbers: {labels!r:.60}")
    if len(labels) != count:
        raise DataError(f"{what} has {count} samples but {len(labels)} labels")
    path = str(directory / "labels.npy")
    np.save(path, labels, allow_pickle=False)
    return path


def _digest(paths: Iterable[str]) -> str:
    """SHA-256 of the files' contents, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _files(inputs: Sequence[Input], directory: Path) -> list[Path]:
    """A file for each input, named by position: an input's name may hold any character."""
    return [directory / f"input-{position}.npy" for position in range(len(inputs))]


def _check_keys(sample: Mapping[Any, Any], inputs: Sequence[Input], what: str) -> None:
    names = {item.name for item in inputs}
    if set(sample) != names:
        raise DataError(
            f"{what} has entries {sorted(map(str, sample))}, but the inputs are {sorted(names)}"
        )


def _check_shape(shape: tuple[int, ...], item: Input, what: str) -> None:
    """`shape` has the batch axis."""
    fits = len(shape) == len(item.shape) and all(
        isinstance(declared, str) or declared == size
        for declared, size in zip(item.shape[1:], shape[1:], strict=True)
    )
    if not fits:
        expected = ", ".join(["samples", *map(str, item.shape[1:])])
        raise DataError(f"{what} for input {item.name!r} has shape {shape}; expected ({expected})")


def _as_calls(array: Array, item: Input, what: str) -> Array:
    """Whole calls with the call on axis 0; a batch of one may lack its axis.

    Raises:
        DataError: the shape is not the declared one in each call.
    """
    if item.batched and array.ndim == len(item.shape):
        array = array[:, None]
    fits = array.ndim == len(item.shape) + 1 and all(
        isinstance(declared, str) or declared == size
        for declared, size in zip(item.shape, array.shape[1:], strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, item.shape))
        raise DataError(
            f"{what} for input {item.name!r} has shape {array.shape[1:]} in a call; expected "
            f"({expected}): the inputs share no batch axis, so a sample is a whole call"
        )
    return array


def _store_array(array: Array, item: Input, path: Path, what: str) -> str:
    if len(array) == 0:
        raise DataError(f"{what} is empty")
    existing = _backing_file(array)
    if existing is not None and array.dtype == np.dtype(item.dtype):
        for start, stop in _chunks(array):
            convert(array[start:stop], item, what, start)
        return existing
    with RowWriter(path, item.name) as writer:
        for start, stop in _chunks(array):
            writer.append(convert(array[start:stop], item, what, start))
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


class _SampleWriter:
    """A .npy file for each input, which grow by a sample or a batch at a time."""

    def __init__(self, inputs: Sequence[Input], directory: Path) -> None:
        self._inputs = inputs
        self._whole_calls = takes_whole_calls(inputs)
        self._paths = _files(inputs, directory)
        self._writers = [
            RowWriter(path, item.name) for path, item in zip(self._paths, inputs, strict=True)
        ]

    def append(self, sample: Any, where: str) -> int | None:
        """Write a sample, or a batch, which has an axis more; return a batch's number of rows.

        Whole calls are written one by one.
        """
        rows = None
        values = _by_input(sample, self._inputs, where)
        for item, value, writer in zip(self._inputs, values, self._writers, strict=True):
            array = convert(np.asarray(as_array(value)), item, where)
            if self._whole_calls:
                writer.append(_as_calls(array[None], item, where))
                continue
            batched = array.ndim == len(item.shape)
            array = array if batched else array[None]
            _check_shape(array.shape, item, where)
            writer.append(array)
            rows = len(array) if batched else None
        return rows

    def stored(self, labels: Array | None = None) -> _Stored:
        """The files by input name, complete once the context has ended."""
        names = [item.name for item in self._inputs]
        return _Stored(
            dict(zip(names, map(str, self._paths), strict=True)),
            {name: writer.rows for name, writer in zip(names, self._writers, strict=True)},
            labels,
        )

    def __enter__(self) -> _SampleWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()


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
    # A loader yields labels after the inputs.
    if isinstance(entry, tuple | list) and len(entry) >= len(inputs) and is_array(entry[0]):
        return list(entry[: len(inputs)])
    if len(inputs) == 1:
        return [entry]
    raise DataError(f"{where} is a {type(entry).__name__}; expected {len(inputs)} values or a dict")


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


def example_sizes(inputs: Sequence[Input], dims: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """A size for each named dimension in the call with which a source is captured."""
    low, high = dims.get(BATCH, DEFAULT_DIM)
    return dimension_sizes(inputs, dims, min(max(_EXAMPLE_BATCH, low), high), None)


def save_feed(arrays: Mapping[str, Array], directory: Path) -> dict[str, str]:
    """Save one call's inputs; return the .npy path by input name."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for position, (name, array) in enumerate(arrays.items()):
        path = directory / f"input-{position}.npy"
        np.save(path, array, allow_pickle=False)
        paths[name] = str(path)
    return paths
