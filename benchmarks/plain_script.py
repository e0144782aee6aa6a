"""What a person would write by hand instead of using edgecheck: the bundled matrix, in one process.

``python -m benchmarks.plain_script RESULT.json SUITE.py ...`` takes each model x target x precision
that the suites declare, one after another, with the tools' public libraries: capture with
``torch.export``, convert, look into the file, run it on the same inputs and data as the reference,
time it, and weigh it in a process of its own, since a peak can be measured in no other way.

Two things come from edgecheck. The list of what to do is read from the suites' declarations, so
that it can't differ from what pytest does. Conversions and inspections call the ``build`` and
``inspect`` of `edgecheck.targets` in this process, so that the recipes are the same. Nothing else
is shared: no child processes, no cache, no isolation, no verdicts, no reports; and it does less,
in that gzip sizes and the placement of operators are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgecheck.declare.case import Case
    from edgecheck.declare.model import Model

Arrays = dict[str, np.ndarray]
Runner = Callable[[Arrays], Arrays]

SAMPLES = 32
EXAMPLE_BATCH = 3
WARMUP_RUNS, TIMED_RUNS, TIMED_LIMIT_S = 20, 200, 10.0
WEIGHED_RUNS = 3


class Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start


def main(result: Path, suites: list[Path]) -> None:
    """Do everything; write the seconds by phase and what was found of each `Class[case]`."""
    watch = Stopwatch()
    with watch("imports"):
        for name in (
            *("torch", "onnx", "onnxscript", "onnxruntime.quantization", "onnxconverter_common"),
            *("litert_torch", "ai_edge_quantizer", "ai_edge_litert.interpreter"),
        ):
            importlib.import_module(name)
    judged: dict[str, dict[str, Any]] = {}
    for cases in declared(suites):
        with tempfile.TemporaryDirectory() as directory:
            judged |= judge_model(cases, Path(directory), watch)
    result.write_text(json.dumps({"seconds": watch.seconds, "judged": judged}))


def declared(suites: list[Path]) -> Iterator[list[Case]]:
    """The candidates of each model in the suites on ort and tflite, the model's own fp32 first."""
    from edgecheck.declare.case import Selection, expand
    from edgecheck.plugin.conformance import Conformance
    from edgecheck.targets.registry import find_target

    selection = Selection(targets=(find_target("ort"), find_target("tflite")))
    for path in suites:
        for item in vars(importlib.import_module(f"suites.{path.stem}")).values():
            if isinstance(item, type) and issubclass(item, Conformance):
                yield list(expand(item.__name__, item.model, item.budget, selection).cases)


# -- one model ------------------------------------------------------------------------------------


def judge_model(cases: list[Case], place: Path, watch: Stopwatch) -> dict[str, dict[str, Any]]:
    """Judge all candidates of one model."""
    from edgecheck.names import CALIBRATED

    model = cases[0].model
    with watch("data"):
        calibration = save(arrays_of(model, model.calibration), place / "calibration")
        evaluation = arrays_of(model, model.evaluation.inputs) if model.evaluation else None
        labels = model.evaluation.labels() if model.evaluation else None
        feeds = parity_feeds(model, evaluation or load(calibration))
        single = {name: array[:1] for name, array in feeds[-1].items()}
        example = save(random_feed(model, 1, np.random.default_rng(model.seed)), place / "example")
    programs: dict[str, Path] = {}
    expected: dict[str, list[Arrays]] = {}
    float_files: dict[tuple[str, str], Path] = {}
    scores: dict[str, float] = {}
    judged = {}
    for case in cases:
        source = "qat" if case.precision == "int8-qat" else case.variant
        if source not in programs:
            with watch("source and capture"):
                module = source_of(model, source)()
                programs[source] = capture(model, module, place / f"source-{source}.pt2")
            with watch("reference"):
                reference = torch_runner(model, module)
                expected[source] = [reference(feed) for feed in feeds]
                if source == "" and evaluation is not None:
                    scores["reference"] = score(model, batched(reference, evaluation, 64), labels)
        origin = programs[source]
        if case.target.build.precisions[case.precision] == "float":
            origin = float_files[case.variant, case.target.name]
        path = place / f"{case.id}{case.target.files.suffix}"
        with watch(f"convert to {case.target.name}"):
            tools = tools_of(case)
            tools.build(
                precision=case.precision,
                source=str(origin),
                output=str(path),
                inputs=[item.name for item in model.inputs],
                outputs=list(model.outputs),
                calibration=calibration if case.precision in CALIBRATED else None,
                example=example,
                options=case.options,
            )
        if case.precision == "fp32":
            float_files[case.variant, case.target.name] = path
        with watch("inspect"):
            contents = tools.inspect(path=str(path))
        with watch("run"):
            run, step = RUNTIMES[case.target.name](path, list(model.outputs))
            agreements = [
                agreement(batched(run, feed, step or len(next(iter(feed.values())))), reference)
                for feed, reference in zip(feeds, expected[source], strict=True)
            ]
            if evaluation is not None:
                scores[case.id] = score(model, batched(run, evaluation, step or 64), labels)
        with watch("latency"):
            times_ms = time_runs(run, single)
        with watch("memory"):
            peak_bytes = weigh_in_fresh_process(
                case.target.name, path, single, model.outputs, place
            )
        judged[f"{case.model_name}[{case.id}]"] = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
            "operators": contents["operators"],
            "sqnr_db": agreements,
            "score": scores.get(case.id),
            "reference_score": scores.get("reference"),
            "latency_p50_ms": float(np.median(times_ms)),
            "peak_memory_bytes": peak_bytes,
        }
    return judged


def tools_of(case: Case) -> Any:
    """The target's converter."""
    module, _, name = case.target.build.builder.partition(":")
    return getattr(importlib.import_module(module), name)()


def source_of(model: Model, which: str) -> Callable[[], Any]:
    """The callable that returns the model itself (""), its QAT program or a variant."""
    found = {"": model.source, "qat": model.qat, **model.variants}[which]
    assert callable(found)
    return found


# -- data -----------------------------------------------------------------------------------------


def arrays_of(model: Model, data: Any) -> Arrays:
    """What a data callable of the suites returns, by input name."""
    values = data()
    return dict(values) if isinstance(values, Mapping) else {model.inputs[0].name: values}


def parity_feeds(model: Model, samples: Arrays) -> list[Arrays]:
    """Random inputs at each batch size, then the first samples."""
    rng = np.random.default_rng(model.seed)
    random = [random_feed(model, batch, rng) for batch in model.batch_sizes]
    return [*random, {name: array[:SAMPLES] for name, array in samples.items()}]


def random_feed(model: Model, batch: int, rng: np.random.Generator) -> Arrays:
    """Inputs of the declared domain."""
    feed: Arrays = {}
    for item in model.inputs:
        shape = (batch, *(int(size) for size in item.shape[1:]))
        if np.dtype(item.dtype).kind in "iu":
            feed[item.name] = rng.integers(
                int(item.low), int(item.high), shape, dtype=item.dtype, endpoint=True
            )
        else:
            feed[item.name] = rng.uniform(item.low, item.high, shape).astype(item.dtype)
    return feed


def save(arrays: Arrays, directory: Path) -> dict[str, str]:
    """One .npy file per input, as the converters want their data."""
    directory.mkdir()
    paths = {name: str(directory / f"{name}.npy") for name in arrays}
    for name, path in paths.items():
        np.save(path, arrays[name])
    return paths


def load(paths: dict[str, str]) -> Arrays:
    """What `save` wrote."""
    return {name: np.load(path) for name, path in paths.items()}


# -- running --------------------------------------------------------------------------------------


def capture(model: Model, module: Any, path: Path) -> Path:
    """Export to a .pt2 file."""
    import torch

    feed = random_feed(model, EXAMPLE_BATCH, np.random.default_rng(0))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        module,
        (),
        {name: torch.from_numpy(array) for name, array in feed.items()},
        dynamic_shapes={name: {0: batch} for name in feed},
    )
    torch.export.save(program, path)
    return path


def torch_runner(model: Model, module: Any) -> Runner:
    """Run the module itself."""
    import torch

    def run(feed: Arrays) -> Arrays:
        with torch.inference_mode():
            found = module(**{name: torch.from_numpy(array) for name, array in feed.items()})
        if not isinstance(found, Mapping):
            found = dict(zip(model.outputs, [found], strict=True))
        return {name: found[name].numpy() for name in model.outputs}

    return run


def onnx_runner(path: Path, outputs: list[str]) -> tuple[Runner, int | None]:
    """Run an .onnx file; its batch is free."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(feed: Arrays) -> Arrays:
        return dict(zip(outputs, session.run(outputs, feed), strict=True))

    return run, None


def tflite_runner(path: Path, outputs: list[str]) -> tuple[Runner, int | None]:
    """Run a .tflite file; its batch is fixed to one."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    signature = interpreter.get_signature_runner()
    inputs = signature.get_input_details()
    # The converter calls them output_0, output_1 ... in declared order.
    details = signature.get_output_details()
    ordered = dict(zip(outputs, [details[name] for name in sorted(details)], strict=True))

    def run(feed: Arrays) -> Arrays:
        for name, array in feed.items():
            interpreter.set_tensor(inputs[name]["index"], stored(array, inputs[name]))
        interpreter.invoke()
        return {
            name: real(interpreter.get_tensor(item["index"]), item)
            for name, item in ordered.items()
        }

    return run, 1


def stored(array: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """Values as a tensor of a .tflite file holds them: int64 as int32, some floats as int8."""
    scale, zero_point = tensor["quantization"]
    if scale and array.dtype.kind == "f":
        bounds = np.iinfo(tensor["dtype"])
        array = np.clip(np.rint(array / scale) + zero_point, bounds.min, bounds.max)
    return array.astype(tensor["dtype"], copy=False)


def real(array: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """The values that a tensor of a .tflite file stands for."""
    scale, zero_point = tensor["quantization"]
    return (array.astype(np.float32) - zero_point) * np.float32(scale) if scale else array


RUNTIMES = {"ort": onnx_runner, "tflite": tflite_runner}


def batched(run: Runner, feed: Arrays, step: int) -> Arrays:
    """Outputs of any number of samples, `step` at a time."""
    count = len(next(iter(feed.values())))
    parts = [
        run({name: array[start : start + step] for name, array in feed.items()})
        for start in range(0, count, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# -- measuring ------------------------------------------------------------------------------------


def agreement(found: Arrays, expected: Arrays) -> dict[str, float]:
    """Signal-to-noise ratio by output, in decibels."""
    ratios = {}
    for name, reference in expected.items():
        signal = reference.astype(np.float64)
        noise = found[name].astype(np.float64) - signal
        ratios[name] = float(10 * np.log10((signal**2).sum() / max((noise**2).sum(), 1e-300)))
    return ratios


def score(model: Model, predictions: Arrays, labels: Any) -> float:
    """The metric of the model's scored output."""
    assert model.evaluation is not None
    output = model.evaluation.output or model.outputs[0]
    metric = model.evaluation.metric
    assert callable(metric)
    return float(metric(predictions[output], labels))


def time_runs(run: Runner, feed: Arrays) -> list[float]:
    """Milliseconds of single inferences."""
    for _ in range(WARMUP_RUNS):
        run(feed)
    times_ms: list[float] = []
    deadline = time.perf_counter() + TIMED_LIMIT_S
    while len(times_ms) < TIMED_RUNS and time.perf_counter() < deadline:
        start = time.perf_counter()
        run(feed)
        times_ms.append(1e3 * (time.perf_counter() - start))
    return times_ms


def weigh_in_fresh_process(
    target: str, path: Path, feed: Arrays, outputs: Sequence[str], place: Path
) -> int:
    """Peak bytes of loading and running a file, above the empty runtime."""
    inputs = place / "single.npz"
    named: dict[str, Any] = dict(feed)
    np.savez(inputs, **named)
    script = [sys.executable, "-m", "benchmarks.plain_script"]
    command = [*script, "--weigh", target, str(path), str(inputs), *outputs]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def weigh(target: str, path: Path, inputs: Path, outputs: list[str]) -> None:
    """Print the peak of this process; nothing else may have run in it."""
    importlib.import_module({"ort": "onnxruntime", "tflite": "ai_edge_litert.interpreter"}[target])
    with np.load(inputs) as archive:
        feed = dict(archive)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    empty = status_bytes("VmRSS")
    run, _ = RUNTIMES[target](path, outputs)
    for _ in range(WEIGHED_RUNS):
        run(feed)
    print(status_bytes("VmHWM") - empty)


def status_bytes(field: str) -> int:
    """A figure of /proc/self/status."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    if sys.argv[1] == "--weigh":
        weigh(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
    else:
        main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
