"""The workbench on real files: what a candidate and the last release are timed with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck.declare.budget import Budget
from edgecheck.declare.case import Case
from edgecheck.declare.model import Artifact, Input, Model
from edgecheck.declare.settings import Settings
from edgecheck.devices.local import Loadable
from edgecheck.errors import EdgecheckError
from edgecheck.targets.registry import find_target
from edgecheck.workbench import Workbench

Open = Callable[[], Workbench]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Workbenches of one run."""
    made: list[Workbench] = []

    def open_one() -> Workbench:
        settings = Settings(
            tmp_path / "cache", tmp_path / "scratch", lock=tmp_path / "lock", sharers=2
        )
        made.append(Workbench(settings))
        return made[-1]

    yield open_one
    for workbench in made:
        workbench.close()


def save(path: Path, batch: int | str, name: str = "x", width: int = 4) -> Path:
    """``y = x + x``."""
    graph = helper.make_graph(
        [helper.make_node("Add", [name, name], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(made, path)
    return path


def case(path: Path, last: Any = None, **options: Any) -> Case:
    model = Model(
        inputs=[Input("x", ("batch", 4))],
        outputs=["y"],
        reference="ort",
        artifacts={"ort": path},
        baselines={"ort": last} if last else {},
        **options,
    )
    return Case("digits", "", find_target("ort"), "fp32", model, Budget())


def rows(loadable: Loadable) -> np.ndarray:
    """What a timed inference gets."""
    assert set(loadable.feed) == {"x"}
    array: np.ndarray = np.load(loadable.feed["x"])
    return array


def test_the_users_code_gets_this_processs_share_of_the_cores(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def samples() -> np.ndarray:
        return np.full((1, 4), float(os.environ["OMP_NUM_THREADS"]), np.float32)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = opened().data(case(save(tmp_path / "m.onnx", "batch"), samples=samples), "samples")
    share = max(1, (os.cpu_count() or 1) // 2)
    np.testing.assert_array_equal(np.load(made["inputs"]["x"]), np.full((1, 4), share))


def test_a_dynamic_file_is_timed_with_one_sample_or_as_many_as_asked_for(
    opened: Open, tmp_path: Path
) -> None:
    workbench, own = opened(), case(save(tmp_path / "m.onnx", "batch"))
    one = rows(workbench.loadable(own))
    assert one.shape == (1, 4)
    many = rows(workbench.loadable(own, 16))
    assert many.shape == (16, 4)
    np.testing.assert_array_equal(many[:1], one)


def test_a_fixed_file_is_timed_with_what_it_is_fixed_to(opened: Open, tmp_path: Path) -> None:
    workbench, own = opened(), case(save(tmp_path / "m.onnx", 3))
    assert workbench.binding(own).batch == 3
    for asked in (1, 16):
        assert rows(workbench.loadable(own, asked)).shape == (3, 4)


def test_two_processes_of_a_run_time_the_same(opened: Open, tmp_path: Path) -> None:
    """The second finds what the first made, without opening the file again."""
    own = case(save(tmp_path / "m.onnx", "batch"))
    first, second = opened(), opened()
    assert first.loadable(own) == second.loadable(own)
    session = first.session(own)
    assert session.binding is not None
    assert second.binding(own).for_runner() == session.binding.for_runner()


def test_a_timed_candidate_really_runs(opened: Open, tmp_path: Path) -> None:
    workbench, own = opened(), case(save(tmp_path / "m.onnx", "batch"))
    with workbench.device.stopwatch(own.target) as stopwatch:
        found = stopwatch.round(workbench.loadable(own, 4), duration_s=0.01)
    (side,) = found["candidates"]
    assert len(side["blocks"]) == 1
    assert min(side["blocks"][0]["wall_ns"]) > 0


# -- the last release


def test_without_one_there_is_none(opened: Open, tmp_path: Path) -> None:
    assert opened().baseline(case(save(tmp_path / "m.onnx", "batch"))) is None


def test_it_gets_the_same_input_under_its_own_names(opened: Open, tmp_path: Path) -> None:
    last = Artifact(save(tmp_path / "old.onnx", "batch", "image"), inputs={"x": "image"})
    own = case(save(tmp_path / "m.onnx", "batch"), last)
    workbench = opened()
    found = workbench.baseline(own)
    assert found is not None
    assert found.path == tmp_path / "old.onnx"
    assert found.binding["inputs"]["x"]["name"] == "image"
    assert found.feed == workbench.loadable(own).feed
    with workbench.device.stopwatch(own.target) as stopwatch:
        pair = stopwatch.round(workbench.loadable(own), found, duration_s=0.01, blocks=2)
    assert [len(side["blocks"]) for side in pair["candidates"]] == [2, 2]


@pytest.mark.parametrize(("new", "old"), [(3, 3), (3, "batch"), ("batch", 1)])
def test_files_that_can_take_as_many_samples_are_compared(
    opened: Open, tmp_path: Path, new: int | str, old: int | str
) -> None:
    own = case(save(tmp_path / "m.onnx", new), save(tmp_path / "old.onnx", old))
    workbench = opened()
    found = workbench.baseline(own)
    assert found is not None
    assert len(rows(found)) == len(rows(workbench.loadable(own))) == (new if new == 3 else 1)


@pytest.mark.parametrize(
    ("new", "old", "width", "says"),
    [
        ("batch", 3, 4, "the baseline old.onnx has batch 3 and the candidate 1: "),
        (3, 1, 4, "the baseline old.onnx has batch 1 and the candidate 3: "),
        ("batch", "batch", 5, "input 'x' is declared (batch, 4), but 'x' in the file is (?, 5)"),
    ],
)
def test_one_that_takes_other_inputs_is_an_error(
    opened: Open, tmp_path: Path, new: int | str, old: int | str, width: int, says: str
) -> None:
    last = save(tmp_path / "old.onnx", old, width=width)
    with pytest.raises(EdgecheckError) as caught:
        opened().baseline(case(save(tmp_path / "m.onnx", new), last))
    assert says in str(caught.value)
    assert "baseline" in str(caught.value)


@pytest.mark.parametrize(("content", "says"), [(None, "does not exist"), (b"", "is empty")])
def test_one_that_is_not_there_is_an_error(
    opened: Open, tmp_path: Path, content: bytes | None, says: str
) -> None:
    last = tmp_path / "old.onnx"
    if content is not None:
        last.write_bytes(content)
    with pytest.raises(EdgecheckError, match=f"baseline .*old.onnx {says}"):
        opened().baseline(case(save(tmp_path / "m.onnx", "batch"), last))


def test_one_that_does_not_load_is_an_error(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "old.onnx").write_text("no model")
    own = case(save(tmp_path / "m.onnx", "batch"), tmp_path / "old.onnx")
    with pytest.raises(EdgecheckError, match=r"ONNX Runtime can't load old\.onnx"):
        opened().baseline(own)
