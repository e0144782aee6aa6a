"""Data on disk: every accepted form gives the same files, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecheck.capture import data
from edgecheck.capture.data import DataFiles, dimension_sizes, materialize, random_inputs, save_feed
from edgecheck.declare.model import Input
from edgecheck.errors import DataError

law = settings(deadline=None, derandomize=True, max_examples=40)

IMAGE = Input("image", ("batch", 3, 4))
IDS = Input("ids", ("batch", 5), dtype="int64", high=100)


def images(count: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (count, 3, 4)).astype(np.float32)


def ids(count: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, (count, 5))


def labels(count: int = 10) -> np.ndarray:
    return np.arange(count) % 3


def write(
    given: Any,
    directory: Path,
    inputs: tuple[Input, ...] = (IMAGE,),
    truth: Any = None,
    labelled: bool = False,
) -> DataFiles:
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return materialize(given, truth, inputs, directory, "evaluation", labelled)


def arrays_of(files: DataFiles) -> dict[str, np.ndarray]:
    return {name: np.load(path, allow_pickle=False) for name, path in files.inputs.items()}


def assert_holds(
    files: DataFiles, expected: dict[str, np.ndarray], truth: np.ndarray | None = None
) -> None:
    """The files hold exactly these arrays."""
    found = arrays_of(files)
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert files.count == len(next(iter(expected.values())))
    if truth is None:
        assert files.labels is None
    else:
        assert files.labels is not None
        np.testing.assert_array_equal(np.load(files.labels, allow_pickle=False), truth)


class MapStyle:
    """A Dataset as PyTorch means it: a length and an index, no iterator, no IndexError."""

    def __init__(self, *columns: np.ndarray) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int) -> np.ndarray | tuple[np.ndarray, ...]:
        index = index % len(self)  # an iteration by index would never end
        row = tuple(column[index] for column in self._columns)
        return row if len(row) > 1 else row[0]


class OnlyArrayProtocol:
    """Another library's array."""

    shape = (10, 3, 4)
    dtype = np.dtype(np.float32)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return images()


# Each gives images() for the one input.
SINGLE_INPUT_FORMS = {
    "array": images,
    "array of float64": lambda: images().astype(np.float64),
    "array in Fortran order": lambda: np.asfortranarray(images()),
    "big-endian array": lambda: images().astype(">f4"),
    "array that is a strided view": lambda: np.repeat(images(), 2, axis=0)[::2],
    "whole calls, stacked": lambda: images().reshape(5, 2, 3, 4),
    "object with the array protocol": OnlyArrayProtocol,
    "dict": lambda: {"image": images()},
    "dict of nested lists": lambda: {"image": images().tolist()},
    "nested lists": lambda: images().tolist(),
    "list of samples": lambda: list(images()),
    "tuple of samples": lambda: tuple(images()),
    "generator of samples": lambda: (sample for sample in images()),
    "generator of batches": lambda: (images()[i : i + 3] for i in range(0, 10, 3)),
    "samples and batches mixed": lambda: [images()[0], images()[1:4], images()[4], images()[5:]],
    "iterable of dicts": lambda: ({"image": sample} for sample in images()),
    "iterable of dicts of batches": lambda: ({"image": images()[i : i + 4]} for i in (0, 4, 8)),
    "iterable of one-tuples": lambda: ((sample,) for sample in images()),
    "map-style dataset": lambda: MapStyle(images()),
    "map-style dataset of pairs": lambda: MapStyle(images(), labels()),
    "a callable that returns an array": lambda: images,
    "a callable that returns a generator": lambda: lambda: iter(images()),
}


@pytest.mark.parametrize("form", SINGLE_INPUT_FORMS)
def test_every_form_of_unlabelled_data_gives_the_same_file(form: str, tmp_path: Path) -> None:
    files = write(SINGLE_INPUT_FORMS[form](), tmp_path / "form")
    assert_holds(files, {"image": images()})
    assert files.sha256 == write(images(), tmp_path / "plain").sha256


@pytest.mark.parametrize(
    "form",
    {
        "arrays": lambda: {"image": images(), "ids": ids()},
        "tuples": lambda: zip(images(), ids(), strict=True),
        "lists": lambda: [list(pair) for pair in zip(images(), ids(), strict=True)],
        "dicts": lambda: ({"ids": i, "image": x} for x, i in zip(images(), ids(), strict=True)),
        "batches": lambda: [(images()[:4], ids()[:4]), (images()[4:], ids()[4:])],
        "dataset with labels": lambda: MapStyle(images(), ids(), labels()),
    }.items(),
    ids=lambda item: item[0],
)
def test_every_form_of_data_for_two_inputs_gives_the_same_files(
    form: tuple[str, Callable[..., Any]], tmp_path: Path
) -> None:
    files = write(form[1](), tmp_path, (IMAGE, IDS))
    assert_holds(files, {"image": images(), "ids": ids()})


@pytest.mark.parametrize(
    ("form", "truth"),
    [
        (images, labels()),
        (images, labels().tolist()),
        (images, labels),
        (lambda: {"image": images()}, labels()),
        (lambda: iter(images()), labels()),
        (lambda: zip(images(), labels(), strict=True), None),
        (lambda: MapStyle(images(), labels()), None),
        (lambda: [list(pair) for pair in zip(images(), labels().tolist(), strict=True)], None),
        (lambda: [(images()[:7], labels()[:7]), (images()[7:], labels()[7:])], None),
        (lambda: (({"image": x}, y) for x, y in zip(images(), labels(), strict=True)), None),
        (lambda: [(images()[:1], labels()[:1]), (images()[1:], labels()[1:])], None),
    ],
    ids=[
        *("labels array", "labels list", "labels callable", "dict", "iterator and labels array"),
        *("pairs", "dataset", "pairs as lists", "batches of pairs", "pairs with dicts"),
        "batch of one",
    ],
)
def test_every_form_of_labelled_data_gives_the_same_files(
    form: Callable[..., Any], truth: Any, tmp_path: Path
) -> None:
    files = write(form(), tmp_path, truth=truth, labelled=True)
    assert_holds(files, {"image": images()}, labels())


def test_labels_that_are_vectors_stay_so(tmp_path: Path) -> None:
    boxes = np.arange(40.0).reshape(10, 4)
    pairs = write(zip(images(), boxes, strict=True), tmp_path, labelled=True)
    assert_holds(pairs, {"image": images()}, boxes)


def test_labels_that_nobody_needs_are_not_written(tmp_path: Path) -> None:
    files = write(images(), tmp_path, truth=labels())
    assert files.labels is None


def test_torch_tensors_datasets_and_loaders_give_the_same_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    tensor, classes = torch.from_numpy(images()), torch.from_numpy(labels())
    dataset = TensorDataset(tensor, classes)
    unlabelled = {
        "tensor": tensor,
        "tensor with gradient": tensor.clone().requires_grad_(),
        "dict of tensors": {"image": tensor},
        "list of tensors": list(tensor),
        "dataset": dataset,
        "loader of tensors": DataLoader(tensor, batch_size=4),
    }
    for name, form in unlabelled.items():
        assert_holds(write(form, tmp_path / name), {"image": images()})
    labelled = {
        "dataset": (dataset, None),
        "loader": (DataLoader(dataset, batch_size=4), None),
        "loader of single pairs": (DataLoader(dataset, batch_size=None), None),
        "tensor and tensor": (tensor, classes),
    }
    for name, (form, truth) in labelled.items():
        files = write(form, tmp_path / f"labelled {name}", truth=truth, labelled=True)
        assert_holds(files, {"image": images()}, labels())


def _torch_calibration_forms() -> dict[str, Any]:
    import torch
    from torch.utils.data import DataLoader, IterableDataset, TensorDataset

    class Stream(IterableDataset[np.ndarray]):
        """An IterableDataset with a length inherits a `__getitem__` that only raises."""

        def __iter__(self) -> Iterator[np.ndarray]:
            return iter(images())

        def __len__(self) -> int:
            return 10

    tensor, classes = torch.from_numpy(images()), torch.from_numpy(labels())
    return {
        "loader of an unlabelled dataset": DataLoader(TensorDataset(tensor), batch_size=4),
        "loader of a labelled dataset": DataLoader(TensorDataset(tensor, classes), batch_size=4),
        "iterable dataset with a length": Stream(),
    }


@pytest.mark.parametrize(
    "form",
    [
        "loader of an unlabelled dataset",
        "loader of a labelled dataset",
        "iterable dataset with a length",
    ],
)
def test_usual_torch_data_serves_as_calibration_data(form: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    files = write(_torch_calibration_forms()[form], tmp_path)
    assert_holds(files, {"image": images()})


# -- memory-mapped files


def test_a_memory_mapped_npy_file_is_used_in_place(tmp_path: Path) -> None:
    given_path = tmp_path / "given.npy"
    np.save(given_path, images())
    files = write(np.load(given_path, mmap_mode="r"), tmp_path / "out")
    assert given_path.samefile(files.inputs["image"])
    assert list((tmp_path / "out").iterdir()) == []
    assert files.sha256 == write(images(), tmp_path / "copy").sha256


@pytest.mark.parametrize(
    "view",
    {
        "slice": lambda whole: whole[2:7],
        "every second": lambda whole: whole[::2],
        "reversed": lambda whole: whole[::-1],
        "a computed copy": lambda whole: whole + 1,
    }.items(),
    ids=lambda item: item[0],
)
def test_a_part_of_a_memory_mapped_file_is_copied(
    view: tuple[str, Callable[..., Any]], tmp_path: Path
) -> None:
    given_path = tmp_path / "given.npy"
    np.save(given_path, images())
    files = write(view[1](np.load(given_path, mmap_mode="r")), tmp_path / "out")
    assert_holds(files, {"image": view[1](images())})
    assert not given_path.samefile(files.inputs["image"])


def test_a_memory_mapped_file_of_another_dtype_is_converted(tmp_path: Path) -> None:
    np.save(tmp_path / "given.npy", images().astype(np.float64))
    files = write(np.load(tmp_path / "given.npy", mmap_mode="r"), tmp_path / "out")
    assert_holds(files, {"image": images()})


def test_a_memory_mapped_file_of_stacked_calls_is_copied_flat(tmp_path: Path) -> None:
    np.save(tmp_path / "given.npy", images().reshape(5, 2, 3, 4))
    files = write(np.load(tmp_path / "given.npy", mmap_mode="r"), tmp_path / "out")
    assert_holds(files, {"image": images()})


def test_a_raw_memory_map_is_copied(tmp_path: Path) -> None:
    images().tofile(tmp_path / "raw.bin")
    raw = np.memmap(tmp_path / "raw.bin", np.float32, "r", shape=(10, 3, 4))
    assert_holds(write(raw, tmp_path / "out"), {"image": images()})


def test_values_changed_in_a_copy_on_write_map_are_the_ones_that_count(tmp_path: Path) -> None:
    np.save(tmp_path / "given.npy", images())
    mapped = np.load(tmp_path / "given.npy", mmap_mode="c")
    mapped *= 0.5
    assert_holds(write(mapped, tmp_path / "out"), {"image": images() * np.float32(0.5)})


def test_nan_in_a_memory_mapped_file_is_found(tmp_path: Path) -> None:
    broken = images()
    broken[7, 1, 2] = np.nan
    np.save(tmp_path / "given.npy", broken)
    with pytest.raises(DataError, match=r"NaN or infinite values, the first at \(7, 1, 2\)"):
        write(np.load(tmp_path / "given.npy", mmap_mode="r"), tmp_path / "out")


# -- laws


dtypes = st.sampled_from(["float32", "float16", "int8", "uint8", "int64", "bool"])


@law
@given(st.data(), dtypes, st.integers(1, 400))
def test_any_values_survive_whatever_the_chunk_size(
    tmp_path_factory: pytest.TempPathFactory, drawn: st.DataObject, dtype: str, chunk_bytes: int
) -> None:
    shape = drawn.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None
    array = drawn.draw(hnp.arrays(dtype, shape, elements=elements))
    item = Input("x", ("batch", *shape[1:]), dtype=dtype)
    directory = tmp_path_factory.mktemp("law")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_CHUNK_BYTES", chunk_bytes)
        whole = write(array, directory / "whole", (item,))
        parts = write(iter(array), directory / "parts", (item,))
    np.testing.assert_array_equal(arrays_of(whole)["x"], array, strict=True)
    np.testing.assert_array_equal(arrays_of(parts)["x"], array, strict=True)
    assert whole.sha256 == parts.sha256


@law
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_batches_of_any_sizes_join_to_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    total = sum(sizes)
    stops = np.cumsum(sizes)
    batches = [
        (images(total)[stop - size : stop], labels(total)[stop - size : stop])
        for size, stop in zip(sizes, stops, strict=True)
    ]
    files = write(iter(batches), tmp_path_factory.mktemp("law"), labelled=True)
    assert_holds(files, {"image": images(total)}, labels(total))


@pytest.mark.parametrize("change", ["value", "order", "label", "dtype"])
def test_the_digest_tells_different_data_apart(change: str, tmp_path: Path) -> None:
    array, truth = images(), labels()
    base = write(array.copy(), tmp_path / "base", truth=truth.copy(), labelled=True).sha256
    item = IMAGE
    if change == "value":
        array[3, 1, 1] = 0.25
    elif change == "order":
        array = array[::-1]
    elif change == "label":
        truth[0] += 1
    else:
        item = Input("image", ("batch", 3, 4), dtype="float64")
    other = write(array, tmp_path / "other", (item,), truth=truth, labelled=True).sha256
    assert other != base


def test_a_directory_that_held_other_data_is_written_anew(tmp_path: Path) -> None:
    write(images(10), tmp_path)
    assert_holds(write(images(3), tmp_path), {"image": images(3)})


def test_plain_data_of_the_files_round_trips(tmp_path: Path) -> None:
    files = write(images(), tmp_path, truth=labels(), labelled=True)
    assert data.DataFiles(**files.as_dict()) == files


# -- what is refused


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.asarray, list, lambda array: {"image": array}])
def test_nan_and_infinity_are_refused(bad: float, form: Any, tmp_path: Path) -> None:
    array = images()
    array[4, 2, 3] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        write(form(array), tmp_path)


def test_the_first_nan_is_told_by_its_index_in_the_whole_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_CHUNK_BYTES", 100)  # two samples a chunk
    array = images()
    array[7, 1, 2] = np.nan
    with pytest.raises(DataError, match=r"the first at \(7, 1, 2\)"):
        write(array, tmp_path)


@pytest.mark.parametrize(
    ("item", "array"),
    [
        (IMAGE, images().astype(np.float64) * 1e300),
        (Input("image", ("batch", 3, 4), dtype="float16"), images() + 1e5),
        (Input("image", ("batch", 3, 4), dtype="float16"), np.full((2, 3, 4), 70_000)),
    ],
    ids=["float64 to float32", "float32 to float16", "integer to float16"],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_values_that_become_infinite_in_the_inputs_dtype_are_refused(
    item: Input, array: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(DataError):
        write(array, tmp_path, (item,))


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 300), ("uint8", -1), ("int8", 128)])
def test_integers_that_would_wrap_around_are_refused(
    dtype: str, value: int, tmp_path: Path
) -> None:
    item = Input("x", ("batch", 2), dtype=dtype)
    with pytest.raises(DataError):
        write(np.array([[0, 1], [2, value]]), tmp_path, (item,))


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((10, 4, 3), np.float32),
        np.zeros((3, 4), np.float32),
        np.zeros((10, 3, 4, 1, 1), np.float32),
        np.zeros(10, np.float32),
        np.float32(1).reshape(()),
        [np.zeros((3, 5), np.float32)],
        [np.zeros((3, 4), np.float32), np.zeros((4, 3), np.float32)],
        [np.zeros((2, 3, 4, 1), np.float32)],
    ],
    ids=["axes", "one sample", "two axes more", "flat", "scalar", "sample", "second", "4-d sample"],
)
def test_a_wrong_shape_is_refused(given: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has shape"):
        write(given, tmp_path)


def test_a_refused_sample_is_told_by_its_position(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluation sample 2 .* has shape"):
        write([images()[0], images()[1], np.zeros((4, 4), np.float32)], tmp_path)


def test_samples_of_a_dynamic_axis_must_be_alike(tmp_path: Path) -> None:
    item = Input("x", ("batch", "time"))
    with pytest.raises(DataError, match=r"samples of input 'x' have shapes \(3,\) and \(4,\)"):
        write([np.zeros(3), np.zeros(4)], tmp_path, (item,))


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((0, 3, 4), np.float32),
        {"image": np.zeros((0, 3, 4), np.float32)},
        [],
        iter(()),
        MapStyle(images(0)),
    ],
    ids=["array", "dict", "list", "iterator", "dataset"],
)
def test_empty_data_is_refused(given: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evaluation is empty"):
        write(given, tmp_path)


@pytest.mark.parametrize(
    "given",
    [
        {"img": images()},
        {},
        {"image": images(), "more": images()},
        [{"img": images()[0]}],
        [{"image": images()[0], 3: images()[0]}],
    ],
)
def test_wrong_keys_are_refused_with_those_expected(
    given: dict[str, Any] | list[Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"but the inputs are \['image'\]"):
        write(given, tmp_path)


def test_different_numbers_of_samples_by_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="different numbers of samples"):
        write({"image": images(10), "ids": ids(9)}, tmp_path, (IMAGE, IDS))


def test_batches_of_different_sizes_by_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="different numbers of samples"):
        write([(images(4), ids(3))], tmp_path, (IMAGE, IDS))


@pytest.mark.parametrize("count", [0, 9, 11])
def test_another_number_of_labels_is_refused(count: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"10 samples but {count} labels"):
        write(images(), tmp_path, truth=labels(count), labelled=True)


def test_another_number_of_labels_in_a_batch_is_refused(tmp_path: Path) -> None:
    batches = [(images(4), labels(4)), (images(4), labels(3))]
    with pytest.raises(DataError):
        write(batches, tmp_path, labelled=True)


@pytest.mark.parametrize("truth", [3, "abc", iter([1, 2])], ids=["number", "text", "iterator"])
def test_labels_that_are_no_array_are_refused(truth: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write(images(), tmp_path, truth=truth, labelled=True)


@pytest.mark.parametrize("given", [images(), {"image": images()}], ids=["array", "dict"])
def test_arrays_without_labels_are_refused_where_labels_are_needed(
    given: dict[str, np.ndarray] | np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(DataError):
        write(given, tmp_path, labelled=True)


@pytest.mark.parametrize("entry", [images()[0], (images()[0],), (images()[0], 1, 2)])
def test_entries_that_are_no_pairs_are_refused_where_labels_are_needed(
    entry: np.ndarray | tuple[int | np.ndarray, ...], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="sample 0 is not a"):
        write([entry], tmp_path, labelled=True)


@pytest.mark.parametrize(
    ("item", "array"),
    [
        (IDS, np.zeros((2, 5), np.float32)),
        (IMAGE, np.zeros((2, 3, 4), np.complex64)),
        (IMAGE, np.full((2, 3, 4), "a")),
        (IMAGE, np.full((2, 3, 4), None)),
        (Input("image", ("batch", 3, 4), dtype="bool"), np.zeros((2, 3, 4), np.float32)),
    ],
    ids=["float for integer", "complex", "text", "object", "float for bool"],
)
def test_values_of_another_kind_are_refused(item: Input, array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the input is"):
        write(array, tmp_path, (item,))


def test_integers_and_booleans_are_taken_as_floats(tmp_path: Path) -> None:
    item = Input("x", ("batch", 2))
    files = write(np.array([[0, 255]], np.uint8), tmp_path / "integers", (item,))
    assert_holds(files, {"x": np.array([[0, 255]], np.float32)})
    files = write(np.array([[True, False]]), tmp_path / "booleans", (item,))
    assert_holds(files, {"x": np.array([[1, 0]], np.float32)})


def test_one_array_for_two_inputs_is_refused_with_their_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give a dict by input name \\(image, ids\\)"):
        write(images(), tmp_path, (IMAGE, IDS))


@pytest.mark.parametrize("given", [5, 1.5, object()])
def test_what_is_neither_array_nor_iterable_is_refused(given: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither an array nor iterable"):
        write(given, tmp_path)


def test_too_few_values_a_sample_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 2 values or a dict"):
        write([(images()[0],)], tmp_path, (IMAGE, IDS))


@pytest.mark.parametrize("name", ["model/image:0", "../image", "labels"])
def test_an_input_may_have_any_name(name: str, tmp_path: Path) -> None:
    item = Input(name, ("batch", 3, 4))
    files = write({name: images()}, tmp_path / "out", (item,), truth=labels(), labelled=True)
    assert_holds(files, {name: images()}, labels())
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


# -- random inputs


inputs = st.builds(
    lambda dtype, bounds, shape: Input("x", shape, min(bounds), max(bounds), dtype),
    st.sampled_from(["float32", "float64", "float16", "int8", "int32", "int64", "bool"]),
    st.tuples(st.integers(-100, 100), st.integers(-100, 100)),
    st.lists(st.integers(1, 4) | st.sampled_from(["time", "width"]), max_size=3),
)


@law
@given(inputs, st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5))
def test_random_inputs_keep_to_the_declared_domain(
    item: Input, seed: int, time: int, width: int
) -> None:
    sizes: dict[Any, int] = {"time": time, "width": width}
    found = random_inputs([item], sizes, np.random.default_rng(seed))["x"]
    assert found.dtype == item.dtype
    assert found.shape == tuple(sizes.get(size, size) for size in item.shape)
    if item.dtype != "bool":
        assert (found >= item.low).all() and (found <= item.high).all()


@law
@given(inputs, st.integers(0, 2**32))
def test_random_inputs_of_one_seed_are_the_same(item: Input, seed: int) -> None:
    sizes = {"time": 3, "width": 2}
    one, other = (random_inputs([item], sizes, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one["x"], other["x"], strict=True)


@pytest.mark.parametrize("dtype", ["int8", "uint64", "int64"])
def test_random_integers_reach_both_ends_of_their_range(dtype: str) -> None:
    bounds = np.iinfo(dtype)
    item = Input("x", (5000,), bounds.max - 1, bounds.max, dtype)
    found = random_inputs([item], {}, np.random.default_rng(0))["x"]
    assert set(found.tolist()) == {bounds.max - 1, bounds.max}


def test_random_integers_stay_inside_bounds_that_are_no_integers() -> None:
    item = Input("x", (100,), low=0.5, high=2.5, dtype="int32")
    found = random_inputs([item], {}, np.random.default_rng(0))["x"]
    assert set(found.tolist()) == {1, 2}


def test_sizes_of_dimensions_are_the_largest_or_drawn_and_the_batch_as_given() -> None:
    items = [Input("a", ("batch", "time")), Input("b", ("batch", "width"))]
    dims = {"time": (2, 9)}
    assert dimension_sizes(items, dims, 3, None) == {"batch": 3, "time": 9, "width": 64}
    rng = np.random.default_rng(0)
    drawn = [dimension_sizes(items, dims, 3, rng) for _ in range(200)]
    assert {sizes["time"] for sizes in drawn} == set(range(2, 10))
    assert {sizes["batch"] for sizes in drawn} == {3}


def test_a_saved_feed_is_read_back_by_name(tmp_path: Path) -> None:
    paths = save_feed({"image": images(), "ids": ids()}, tmp_path / "new" / "folder")
    np.testing.assert_array_equal(np.load(paths["image"]), images(), strict=True)
    np.testing.assert_array_equal(np.load(paths["ids"]), ids(), strict=True)


@pytest.mark.parametrize("name", ["model/image:0", "../image"])
def test_a_feed_of_any_input_name_is_saved_in_its_folder(name: str, tmp_path: Path) -> None:
    paths = save_feed({name: images()}, tmp_path / "feed")
    np.testing.assert_array_equal(np.load(paths[name]), images(), strict=True)
    assert {path.name for path in tmp_path.iterdir()} == {"feed"}
