"""What the tests share: a tiny model, and running suites in pytest processes of their own."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

# Side by side, torch's threads would spend their time waiting for each other's cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_QUICK_EXAMPLES = 10
# Left out by --quick, with what uses the judge fixture: packages that take a second or more.
_HEAVY = (
    *("torch", "torchao", "onnx", "onnxruntime", "tensorflow", "keras", "coremltools"),
    *("executorch", "litert_torch", "ai_edge_litert", "sklearn", "playwright"),
    "edgecheck.testing",  # whose tests build files
)
_ANY_HEAVY = f"(?:{'|'.join(map(re.escape, _HEAVY))})"
_IMPORTS_HEAVY = re.compile(
    rf"^\s*(?:import|from)\s+{_ANY_HEAVY}\b"
    rf"|\bimportorskip\(\s*[\"']{_ANY_HEAVY}\b"
    r"|^\s*(?:async )?def \w+\([^)]*\bjudge\b[^)]*\)",
    re.MULTILINE,
)
_IMPORTS_HELPER = re.compile(
    r"^\s*from (tests|suites|fixtures|benchmarks)((?:\.\w+)*) import (.*)", re.MULTILINE
)

# A classifier with fixed weights: all that edgecheck does, in milliseconds.
TINY_NETWORK = """
import torch


class Tiny(torch.nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.hidden = torch.nn.Linear(16, 32)
        self.output = torch.nn.Linear(32, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)

    def forward(self, x):
        return self.output(torch.relu(self.hidden(x)))
"""
# Importing torch takes seconds, and only the process that makes the model needs it.
TINY_MODELS = """
from pathlib import Path

import numpy as np
import edgecheck
from edgecheck import Artifact, Budget, Conformance, Evaluation, Input, Model, metrics


def tiny():
    from tiny_network import Tiny

    return Tiny().eval()


def inputs(count=64, seed=1):
    return np.random.default_rng(seed).uniform(0, 1, (count, 16)).astype(np.float32)


def evaluation_inputs():
    return inputs(200, seed=2)


def labels():
    import torch

    with torch.no_grad():
        return tiny()(torch.from_numpy(evaluation_inputs())).argmax(1).numpy()


X = Input("x", ("batch", 16), low=0.0, high=1.0)
EVALUATION = Evaluation(evaluation_inputs, labels, metric=metrics.top1)


def model(source=tiny, **options):
    return Model(source, **{"inputs": [X], "outputs": ["logits"], **options})


# The same in a file, for what is not about PyTorch: no process of the run imports it.
HERE = Path(__file__).parent


def file_labels():
    return np.load(HERE / "tiny_labels.npy")


FILE_EVALUATION = Evaluation(evaluation_inputs, file_labels, metric=metrics.top1)


def file_model(source=HERE / "tiny_file.onnx", **options):
    return model(source, **options)
"""
# What Tiny draws.
TINY_WEIGHTS = Path(__file__).with_name("tiny.npz")


@dataclass(frozen=True)
class Judged:
    """A finished pytest run.

    Attributes:
        report: what ``--edge-json`` wrote, or None.
        directory: where it ran.
    """

    status: int
    output: str
    report: dict[str, Any] | None
    directory: Path

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Records by key."""
        assert self.report is not None, self.output
        return {case["key"]: case for case in self.report["cases"]}


@functools.cache
def _tiny_files() -> dict[str, bytes]:
    """The model as an ONNX file, and its labels, by file name."""
    import onnx
    from onnx import helper, numpy_helper

    with np.load(TINY_WEIGHTS) as weights:
        tensors = {name: weights[name] for name in weights.files}
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node(
                "Gemm", ["x", "hidden.weight", "hidden.bias"], ["h"], "hidden", transB=1
            ),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node(
                "Gemm", ["r", "output.weight", "output.bias"], ["logits"], "output", transB=1
            ),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", float32, ["batch", 16])],
        [helper.make_tensor_value_info("logits", float32, ["batch", 4])],
        [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    # As `evaluation_inputs` of TINY_MODELS.
    x = np.random.default_rng(2).uniform(0, 1, (200, 16)).astype(np.float32)
    hidden = np.maximum(x @ tensors["hidden.weight"].T + tensors["hidden.bias"], 0)
    labels = (hidden @ tensors["output.weight"].T + tensors["output.bias"]).argmax(1)
    stream = io.BytesIO()
    np.save(stream, labels)
    return {"tiny_file.onnx": made.SerializeToString(), "tiny_labels.npy": stream.getvalue()}


def write_tiny(directory: Path) -> None:
    """Write what `TINY_MODELS` needs, and itself."""
    (directory / "tiny_network.py").write_text(TINY_NETWORK)
    (directory / "tiny_models.py").write_text(TINY_MODELS)
    for name, content in _tiny_files().items():
        (directory / name).write_bytes(content)


Judge = Callable[..., Judged]
# Of packages that are installed besides, and have no part in edgecheck: a second a run.
_FOREIGN_PLUGINS = ("hypothesispytest", "hydra_pytest", "jaxtyping", "anyio")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out test files that import a converter or a runtime, or run whole suites",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--quick"):
        return None
    conftest = collection_path / "conftest.py"
    path = conftest if conftest.is_file() else collection_path
    own = path == Path(__file__) or path.suffix != ".py"
    return None if own or not _heavy(path) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under --quick no PostgreSQL server is started, and laws are tried on fewer examples."""
    if not config.getoption("--quick"):
        return
    server = [item for item in items if "postgresql" in item.nodeid]
    config.hook.pytest_deselected(items=server)
    items[:] = [item for item in items if item not in server]
    for item in items:
        law: Any = getattr(item, "obj", None)
        own = getattr(law, "_hypothesis_internal_use_settings", None)
        if own is not None:
            few = hypothesis.settings(own, max_examples=min(own.max_examples, _QUICK_EXAMPLES))
            law = getattr(law, "__func__", law)
            law._hypothesis_internal_use_settings = few


@functools.cache
def _heavy(path: Path) -> bool:
    """Whether a file or its helpers name what --quick leaves out, also in suites it writes."""
    text = path.read_text(encoding="utf-8")
    if _IMPORTS_HEAVY.search(text):
        return True
    return any(_heavy(helper) for helper in _helpers(path, text))


def _helpers(path: Path, text: str) -> Iterator[Path]:
    """The modules of this repository, other than edgecheck's, that a test file imports."""
    root = Path(__file__).parents[1]
    for package, inner, names in _IMPORTS_HELPER.findall(text):
        base = root.joinpath(package, *inner.split(".")[1:])
        parts = [base, *(base / name.split()[0] for name in names.split(",") if name.strip("( "))]
        for part in parts:
            module = part.with_suffix(".py")
            if module.is_file() and module not in (path, Path(__file__)):
                yield module


@pytest.fixture(scope="session", autouse=True)
def outside_ci() -> Iterator[None]:
    """The runs of tests are nothing that a CI's own pages should show."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GITHUB_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One artifact cache for all tests: what is built alike is built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Judge:
    """Run a suite, given as source that may use `TINY_MODELS`, in a pytest process of its own.

    One that names torch or Tiny gets them too.
    """

    def run(suite: str, *arguments: str, timeout_s: float = 300, **files: str) -> Judged:
        directory = tmp_path_factory.mktemp("suite")
        _write_suite(directory, suite, files)
        # A run of its own: it must not take itself for a worker of this one, and it prints the
        # same in CI, where pytest repeats whole failure texts in its summary.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PYTEST_XDIST_") and name not in ("CI", "BUILD_NUMBER")
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--color=no", *_options(arguments, cache)],
            cwd=directory,
            env={**environment, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return _judged(done.returncode, done.stdout + done.stderr, directory)

    return run


@pytest.fixture
def judge_within(pytester: pytest.Pytester, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """As `judge`, within this process: for runs that end before any case, a second faster each."""
    # Imported before, as pytester forgets what is imported meanwhile.
    import edgecheck.plugin.conformance
    import edgecheck.plugin.run  # noqa: F401

    for name in [*os.environ]:
        if name.startswith("PYTEST_XDIST_") or name in ("CI", "BUILD_NUMBER"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")

    def run(suite: str, *arguments: str, **files: str) -> Judged:
        _write_suite(pytester.path, suite, files)
        done = pytester.runpytest_inprocess(*_options(arguments, cache))
        return _judged(int(done.ret), f"{done.stdout}{done.stderr}", pytester.path)

    return run


def _write_suite(directory: Path, suite: str, files: Mapping[str, str]) -> None:
    write_tiny(directory)
    network = "from tiny_network import *\n" if re.search(r"\b(torch|Tiny)\b", suite) else ""
    (directory / "test_suite.py").write_text(
        f"from tiny_models import *\n{network}\n" + textwrap.dedent(suite)
    )
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(textwrap.dedent(content))


def _options(arguments: Sequence[str], cache: Path) -> list[str]:
    """The arguments with what the tests want otherwise than users, where they don't state it."""
    defaults = {
        "cache": f"{cache}",
        # Workers that run other tests need not wait for this one's timing.
        "lock": f"{cache.with_name('machine.lock')}",
        # Seconds for each failure, and most tests are about others.
        "explain": "no",
        "history": "none",
    }
    return [
        *("-p", "no:cacheprovider"),
        *(f"-pno:{name}" for name in _FOREIGN_PLUGINS),
        *(
            f"--edge-{name}={value}"
            for name, value in defaults.items()
            if not any(argument.startswith(f"--edge-{name}=") for argument in arguments)
        ),
        "--edge-json=edge.json",
        *arguments,
    ]


def _judged(status: int, output: str, directory: Path) -> Judged:
    path = directory / "edge.json"
    report = json.loads(path.read_text()) if path.is_file() else None
    return Judged(status, output, report, directory)
