"""The ONNX Runtime Web driver on real files, in a real browser."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper

from edgecheck.checks import memory
from edgecheck.declare.budget import DEFAULTS
from edgecheck.errors import ChildError
from edgecheck.judge.latency_statistics import Samples
from edgecheck.judge.verdict import Outcome
from edgecheck.process.parent import Child
from edgecheck.runtime.results import Placement
from tests.targets.ort_web import web

pytestmark = web.needs_browser
law = settings(
    deadline=None,
    derandomize=True,
    max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DTYPES = (
    *("float32", "float64", "float16", "bool", "int8", "uint8", "int16", "uint16"),
    *("int32", "uint32", "int64", "uint64"),
)


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with web.start(tmp_path_factory.mktemp("driver")) as started:
        yield started


def placement_record(child: Child, feed: dict[str, str]) -> dict[str, Any]:
    fields = child.call("placement_data", timeout_s=web.PATIENCE_S, feed=feed)
    return Placement(**fields).as_record()


def save_identity(path: Path, dtype: str) -> Path:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = ["batch", 2, None]
    node = helper.make_node("Identity", ["x"], ["y"])
    return web.save(path, [node], (kind, shape), (kind, shape))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_tensor_goes_in_and_comes_back(
    child: Child, tmp_path: Path, dtype: str
) -> None:
    info = web.load(child, save_identity(tmp_path / "m.onnx", dtype))
    expected = {"name": "x", "dtype": dtype, "shape": [None, 2, None]}
    assert info["inputs"] == [expected]
    assert info["outputs"] == [{**expected, "name": "y"}]
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (3, 2, 5 * np.dtype(dtype).itemsize), np.uint8)
    array = (array % 2 if dtype == "bool" else array).view(dtype)
    found = web.run(child, array, tmp_path)
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


def test_floats_keep_every_bit(child: Child, tmp_path: Path) -> None:
    web.load(child, save_identity(tmp_path / "m.onnx", "float32"))
    shapes = st.tuples(st.integers(1, 3), st.just(2), st.integers(0, 4))

    @law
    @given(arrays.arrays(np.float32, shapes, elements=st.floats(width=32)))
    def check(array: np.ndarray) -> None:
        found = web.run(child, array, tmp_path)
        assert found.shape == array.shape
        assert np.array_equal(found, array, equal_nan=True)

    check()


@pytest.mark.parametrize("batch_size", [None, 2, 5])
def test_outputs_are_those_of_the_native_runtime(
    child: Child, tmp_path: Path, batch_size: int | None
) -> None:
    rng = np.random.default_rng(0)
    path = web.save_product(tmp_path / "m.onnx", rng.normal(size=(64, 10)).astype(np.float32))
    array = rng.normal(size=(5, 64)).astype(np.float32)
    web.load(child, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": array})
    np.testing.assert_allclose(web.run(child, array, tmp_path, batch_size), expected, rtol=1e-5)


def test_weights_beside_the_file_are_found(child: Child, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    path = web.save_product(
        tmp_path / "m.onnx",
        weight,
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    assert (tmp_path / "weights.data").stat().st_size >= weight.nbytes
    web.load(child, path)
    found = web.run(child, np.eye(64, dtype=np.float32), tmp_path)
    np.testing.assert_allclose(found, weight, rtol=1e-6)


def test_more_threads_give_the_same(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    path = web.save_product(tmp_path / "m.onnx", weight)
    with web.start(tmp_path) as child:
        web.load(child, path, threads=2)
        found = web.run(child, np.eye(256, dtype=np.float32), tmp_path)
    np.testing.assert_allclose(found, weight, rtol=1e-6)


def test_placement_tells_the_browser_and_the_download(child: Child, tmp_path: Path) -> None:
    web.load(child, web.save_product(tmp_path / "m.onnx", np.eye(4, dtype=np.float32)))
    feed = web.save_feed(np.zeros((1, 4), np.float32), tmp_path)
    found = placement_record(child, feed)
    assert found["operators_by_provider"] == {"CPUExecutionProvider": 1}
    assert found["browser"].startswith("Chromium ")
    assert {Path(name).suffix for name in found["runtime_files"]} == {".mjs", ".wasm"}
    # The smaller of the published builds of 1.x have had 9 to 15 MB.
    assert 5e6 < found["runtime_download_bytes"] < 30e6
    assert 1e6 < found["runtime_download_gzip_bytes"] < found["runtime_download_bytes"] / 2


# -- what goes wrong


def test_a_corrupt_file_is_one_clear_line(child: Child, tmp_path: Path) -> None:
    path = web.save_product(tmp_path / "m.onnx", np.eye(64, dtype=np.float32))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ChildError) as caught:
        web.load(child, path)
    assert "protobuf parsing failed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.kind == "raised"


def test_a_wrong_shape_is_one_clear_line(child: Child, tmp_path: Path) -> None:
    web.load(child, web.save_product(tmp_path / "m.onnx", np.eye(64, dtype=np.float32)))
    with pytest.raises(ChildError, match=r"(?s)invalid dimensions.*Got: 63 Expected: 64") as caught:
        web.run(child, np.zeros((2, 63), np.float32), tmp_path)
    assert "\n" not in str(caught.value)
    # And the page lives on.
    assert web.run(child, np.ones((2, 64), np.float32), tmp_path).shape == (2, 64)


def test_an_unknown_operator_is_named(child: Child, tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    shape = (TensorProto.FLOAT, [1])
    with pytest.raises(ChildError, match="NoSuchOperator"):
        web.load(child, web.save(tmp_path / "m.onnx", [node], shape, shape))


def test_strings_are_not_handled(child: Child, tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    shape = (TensorProto.STRING, [1])
    with pytest.raises(ChildError, match="tensor 'x' has type string, which is not handled"):
        web.load(child, web.save(tmp_path / "m.onnx", [node], shape, shape))


def test_without_the_runtime_the_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECHECK_ORT_WEB", str(tmp_path))
    path = web.save_product(tmp_path / "m.onnx", np.eye(4, dtype=np.float32))
    with (
        web.start(tmp_path) as child,
        pytest.raises(ChildError, match="onnxruntime-web is not installed: npm install"),
    ):
        web.load(child, path)


def test_without_a_browser_its_names_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    path = web.save_product(tmp_path / "m.onnx", np.eye(4, dtype=np.float32))
    with web.start(tmp_path) as child, pytest.raises(ChildError, match="no Chromium"):
        web.load(child, path)


def save_endless(path: Path) -> Path:
    """A loop of 2^62 rounds."""
    scalar = [helper.make_tensor_value_info("round", TensorProto.INT64, [])]
    condition = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, [1])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["v", "v"], ["next"]),
        ],
        "body",
        [*scalar, condition, value],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1]),
        ],
    )
    return web.save(
        path,
        [helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)],
        (TensorProto.FLOAT, [1]),
        (TensorProto.FLOAT, [1]),
        {"rounds": np.array(1 << 62), "yes": np.array(True)},
    )


def test_a_page_that_hangs_is_ended_with_its_browser(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # tmp_path is too long for Chromium's socket
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", temporary)
            child = web.start(tmp_path)
            web.load(child, save_endless(tmp_path / "m.onnx"))
        started = web.browsers_of(child._process.pid)
        assert len(started) > 3
        assert list(Path(temporary).iterdir())
        feed = {
            "inputs": web.save_feed(np.ones(1, np.float32), tmp_path),
            "directory": str(tmp_path),
        }
        with pytest.raises(ChildError, match="run took longer than the limit of 2 s"):
            child.call("run", timeout_s=2, feeds=[feed])
        assert not web.wait_until_gone(started)
        assert not list(Path(temporary).iterdir())


# -- timing and weighing


def candidate(path: Path, directory: Path, width: int, adapter: str = "") -> dict[str, Any]:
    return {
        "path": str(path),
        "options": web.options(adapter),
        "binding": web.binding(),
        "feed": web.save_feed(np.ones((1, width), np.float32), directory),
    }


def test_candidates_are_timed_in_turns(child: Child, tmp_path: Path) -> None:
    small = web.save_product(tmp_path / "small.onnx", np.eye(16, dtype=np.float32))
    large = web.save_product(tmp_path / "large.onnx", np.ones((16, 100_000), np.float32))
    found = child.call(
        "time_round",
        timeout_s=web.PATIENCE_S,
        candidates=[candidate(item, tmp_path, 16) for item in (small, large)],
        duration_s=0.05,
        blocks=2,
    )
    assert set(found) == {"candidates", "contention", "cpus", "frequency_mhz"}
    assert found["contention"]["run_ns"] > 0
    calls = {item["calls_per_sample"] for item in found["candidates"]}
    assert len(calls) == 1
    assert calls.pop() > 1  # an inference of the small one is shorter than 100 steps of the clock
    medians = []
    for item in found["candidates"]:
        assert item["load_ns"] > 0
        assert item["first_ns"] > 0
        assert item["warmup_runs"] >= 3
        assert len(item["blocks"]) == 2
        assert all(len(block["wall_ns"]) >= 2 for block in item["blocks"])
        samples = Samples.of([item], threads=1)
        assert not samples.own_work  # no clock in a page tells CPU time
        medians.append(samples.quantile(0.5).value)
    assert medians[1] > 2 * medians[0]  # 1.6 million products against 256


def test_a_model_weighs_its_download_and_its_copy(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)
    path = web.save_product(tmp_path / "m.onnx", weight)
    with web.start(tmp_path) as child:
        found = child.call(
            "measure_memory",
            timeout_s=web.PATIENCE_S,
            path=str(path),
            options=web.options(),
            binding=web.binding(),
            feed=web.save_feed(np.ones((1, 2048), np.float32), tmp_path),
            runs=3,
            growth_runs=(20, 60),
            growth_limit_s=1.0,
        )
    # 16.8 MB downloaded, the runtime's copy, and what it packs of it for its kernels.
    assert found["load_bytes"] > 1.9 * weight.nbytes
    assert found["peak_bytes"] >= found["load_bytes"]
    assert found["steady_bytes"] < found["load_bytes"] - 0.5 * weight.nbytes
    assert found["reported"]["wasm_memory_bytes"] > weight.nbytes
    assert found["reported"]["js_heap_bytes"] < weight.nbytes
    verdict = memory.judge(found, DEFAULTS["fp32"].select(frozenset(), "default"))
    assert verdict.outcome is Outcome.PASSED


# -- WebGPU


@pytest.fixture(scope="module")
def webgpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with web.start(tmp_path_factory.mktemp("webgpu")) as started:
        yield started


def test_software_webgpu_computes_the_same(webgpu: Child, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    web.load(webgpu, web.save_product(tmp_path / "m.onnx", weight), adapter="software")
    array = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    found = web.run(webgpu, array, tmp_path)
    np.testing.assert_allclose(found, array @ weight, rtol=1e-4, atol=1e-5)
    feed = web.save_feed(array, tmp_path)
    placement = placement_record(webgpu, feed)
    assert placement["operators_by_provider"] == {"WebGpuExecutionProvider": 1}
    assert placement["software"] is True
    assert placement["undelegated_operators"] == 0


def test_operators_that_webgpu_does_not_run_are_told(webgpu: Child, tmp_path: Path) -> None:
    path = web.save(
        tmp_path / "m.onnx",
        [
            helper.make_node("Abs", ["x"], ["a"]),
            helper.make_node("Det", ["a"], ["d"]),
            helper.make_node("Exp", ["d"], ["y"]),
        ],
        (TensorProto.FLOAT, [3, 3]),
        (TensorProto.FLOAT, []),
    )
    web.load(webgpu, path, adapter="software")
    feed = web.save_feed(np.eye(3, dtype=np.float32), tmp_path)
    placement = placement_record(webgpu, feed)
    assert placement["undelegated_operators_by_type"]["Det"] == 1
    assert placement["operators_by_provider"]["WebGpuExecutionProvider"] >= 1


def test_a_silent_fallback_of_the_whole_model_is_an_error(webgpu: Child, tmp_path: Path) -> None:
    path = web.save(
        tmp_path / "m.onnx",
        [helper.make_node("Det", ["x"], ["y"])],
        (TensorProto.FLOAT, [3, 3]),
        (TensorProto.FLOAT, []),
    )
    with pytest.raises(ChildError, match="no operator runs on WebGPU: they are placed on"):
        web.load(webgpu, path, adapter="software")


def test_half_precision_needs_an_adapter_that_has_it(webgpu: Child, tmp_path: Path) -> None:
    weight = np.ones((8, 8), np.float16)
    path = web.save(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        (TensorProto.FLOAT16, ["batch", 8]),
        (TensorProto.FLOAT16, ["batch", 8]),
        {"w": weight},
    )
    with pytest.raises(ChildError, match="has no shader-f16, which float16 operators need"):
        web.load(webgpu, path, adapter="software")
        web.run(webgpu, np.ones((2, 8), np.float16), tmp_path)


def test_a_software_adapter_is_not_taken_for_hardware(tmp_path: Path) -> None:
    if not web.TARGET.missing() and any(Path("/dev").glob("dri/renderD*")):
        pytest.skip("this machine may have a GPU")
    with (
        web.start(tmp_path) as child,
        pytest.raises(ChildError, match=r"the only WebGPU adapter is a software one|no WebGPU"),
    ):
        child.call("probe", timeout_s=web.PATIENCE_S, adapter="hardware")
