"""What the tests of ONNX Runtime Web share: whether it can run here, and its driver in a child."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecheck.devices.local import runner_service
from edgecheck.process.parent import Child
from edgecheck.targets.registry import all_targets

TARGET = all_targets()["ort-web"]
needs_browser = pytest.mark.skipif(bool(TARGET.missing()), reason=TARGET.missing())
PATIENCE_S = 60.0


def start(directory: Path) -> Child:
    """A driver's process, as edgecheck starts it: with the sources of the driver's modules only."""
    return Child(runner_service(TARGET), directory)


def options(adapter: str = "", threads: int = 1) -> dict[str, Any]:
    target = {"adapter": adapter} if adapter else {}
    return {"threads": threads, "cpus": [], "target": target}


def binding() -> dict[str, Any]:
    return {
        "inputs": {"x": {"name": "x", "transpose": None}},
        "outputs": {"y": {"name": "y", "transpose": None}},
        "batched": ["x"],
        "batch": None,
    }


def load(child: Child, path: Path | str, **chosen: Any) -> Any:
    info = child.call("load", timeout_s=PATIENCE_S, path=str(path), options=options(**chosen))
    child.call("bind", timeout_s=PATIENCE_S, binding=binding())
    return info


def save_feed(array: np.ndarray, directory: Path) -> dict[str, str]:
    np.save(directory / "x.npy", array)
    return {"x": str(directory / "x.npy")}


def run(child: Child, array: np.ndarray, directory: Path, batch_size: int | None = None) -> Any:
    feed = {"inputs": save_feed(array, directory), "directory": str(directory)}
    (outputs,) = child.call("run", timeout_s=PATIENCE_S, feeds=[feed], batch_size=batch_size)
    return np.load(outputs["y"])


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    x: tuple[int, list[Any]],
    y: tuple[int, list[Any]],
    weights: dict[str, np.ndarray] | None = None,
    **settings: Any,
) -> Path:
    """A model from x to y; each with its type and shape."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info("y", *y)],
        [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, path, **settings)
    return path


def save_product(path: Path, weight: np.ndarray, **settings: Any) -> Path:
    """``y = x @ weight`` in float32."""
    rows, columns = weight.shape
    return save(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        (TensorProto.FLOAT, ["batch", rows]),
        (TensorProto.FLOAT, ["batch", columns]),
        {"w": weight},
        **settings,
    )


def browsers_of(process_id: int) -> set[int]:
    """The Chromium processes that a driver's process started, children of its children too."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:
            continue
    found = {process_id}
    while more := {item for item, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process_id}


def wait_until_gone(processes: set[int], limit_s: float = 30.0) -> set[int]:
    """Those that still run after so long."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and processes:
        processes = {item for item in processes if _runs(item)}
        time.sleep(0.05)
    return processes


def _runs(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
