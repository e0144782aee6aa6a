"""Each check fails on a model that deserves it, and bad input gets one clear line."""

from __future__ import annotations

import pytest

from tests.conftest import Judge, Judged

SUITE = '''
import os, time
from pathlib import Path


def model(source=tiny, **options):
    """Ships one file, where it does not say what: the others would fail alike."""
    said = {"targets", "artifacts", "builders"} & set(options)
    targets = {} if said else {"targets": {"ort": ["fp32"]}}
    return Model(source, **{"inputs": [X], "outputs": ["logits"], **targets, **options})


# -- models that deserve to fail a check


def unlike(model, path):
    """An exporter that ships another model's weights."""
    write_onnx(Tiny(seed=7).eval(), path)


def write_onnx(module, path, **options):
    torch.onnx.export(
        module, (), kwargs={"x": torch.zeros(2, 16)}, f=str(path), dynamo=True, verbose=False,
        input_names=["x"], output_names=["logits"], external_data=False,
        **{"dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}, **options},
    )


class TestUnlike(Conformance):
    model = model(builders={"ort": unlike}, evaluation=EVALUATION)


class WithNan(Tiny):
    def forward(self, x):
        return super().forward(x) + torch.where(x.sum(1, keepdim=True) > 8.5, torch.nan, 0.0)


def nan_builder(model, path):
    write_onnx(WithNan().eval(), path)


class TestNan(Conformance):
    model = model(builders={"ort": nan_builder})


def fixed_batch(model, path):
    write_onnx(tiny(), path, dynamic_shapes=None)


class TestFixedBatch(Conformance):
    model = model(builders={"ort": fixed_batch})


def reshaped_batch(model, path):
    """A dynamic batch that a reshape within does not follow."""
    import onnx
    write_onnx(tiny(), path)
    file = onnx.load(path)
    for node in file.graph.node:
        node.input[:] = ["one" if name == "x" else name for name in node.input]
    shape = onnx.numpy_helper.from_array(np.array([1, 16]), "shape_of_one")
    file.graph.initializer.append(shape)
    file.graph.node.insert(0, onnx.helper.make_node("Reshape", ["x", shape.name], ["one"]))
    onnx.save(file, path)


class TestReshapedBatch(Conformance):
    model = model(builders={"ort": reshaped_batch})


class TestNoop(Conformance):
    """The float file passes for an int8 one."""
    model = model(builders={("ort", "int8"): lambda model, path: write_onnx(tiny(), path)})


class TestSlowFatLarge(Conformance):
    model = model(targets={"ort": ["fp32"]})
    budget = Budget(latency_p50="10 ns", throughput="100000000 /s", peak_memory="1 kB",
                    size="1 kB", size_gzip="1 kB")


# -- sources that don't work


def raising():
    raise ValueError("no weights here")


class TestRaising(Conformance):
    model = model(raising)


class TestNoModule(Conformance):
    model = model(lambda: [1, 2, 3])


class TestWrongInput(Conformance):
    model = model(inputs=[Input("image", ("batch", 16))])


class TestMissingInput(Conformance):
    class Two(torch.nn.Module):
        def forward(self, x, mask):
            return x * mask
    model = model(lambda: TestMissingInput.Two())


class TestWrongShape(Conformance):
    model = model(inputs=[Input("x", ("batch", 17))])


class TestWrongOutputs(Conformance):
    model = model(outputs=["logits", "hidden"])


class Branching(Tiny):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x[:, :4]


class TestUncapturable(Conformance):
    model = model(lambda: Branching().eval())


class BakedBatch(Tiny):
    def forward(self, x):
        return super().forward(x.reshape(3, 16))


class TestBakedBatch(Conformance):
    model = model(lambda: BakedBatch().eval())


# -- builders that don't work


class TestBuilderRaises(Conformance):
    model = model(builders={"ort": lambda model, path: 1 / 0})


class TestBuilderForgets(Conformance):
    model = model(builders={"ort": lambda model, path: None})


class TestBuilderAborts(Conformance):
    model = model(builders={"ort": lambda model, path: os.abort()})


class TestBuilderHangs(Conformance):
    model = model(builders={"ort": lambda model, path: time.sleep(1000)})


class TestBuilderExhausts(Conformance):
    model = model(builders={"ort": lambda model, path: bytearray(1 << 60)})


def chatty(model, path):
    os.write(1, b"\\xff\\xfe not text " * 100000)
    os.write(2, b"last words")
    os._exit(3)


class TestBuilderChats(Conformance):
    model = model(builders={"ort": chatty})


# -- artifacts that don't work

HERE = Path(__file__).parent
(HERE / "empty.onnx").touch()
(HERE / "text.onnx").write_text("this is not a model")
(HERE / "text.tflite").write_text("this is not a model either")
(HERE / "cut.onnx").write_bytes((HERE / "tiny_file.onnx").read_bytes()[:-100])


def shipped(path, **options):
    return model(artifacts={"ort": Artifact(HERE / path, **options)})


class TestArtifactMissing(Conformance):
    model = shipped("nowhere.onnx")


class TestArtifactEmpty(Conformance):
    model = shipped("empty.onnx")


class TestArtifactText(Conformance):
    model = shipped("text.onnx")


class TestArtifactCut(Conformance):
    model = shipped("cut.onnx")


class TestArtifactOtherFormat(Conformance):
    model = model(artifacts={"tflite": HERE / "tiny_file.onnx"})


class TestArtifactMapping(Conformance):
    model = shipped("tiny_file.onnx", inputs={"x": "image"})


class TestArtifactShape(Conformance):
    model = Model(tiny, inputs=[Input("x", ("batch", 4, 4))], outputs=["logits"],
                  artifacts={"ort": HERE / "tiny_file.onnx"})


# -- data and metrics that don't work


def calibrated(data):
    return model(calibration=data, targets={"ort": ["int8"]})


class TestCalibrationShape(Conformance):
    model = calibrated(np.zeros((8, 15), np.float32))


class TestCalibrationEmpty(Conformance):
    model = calibrated(lambda: np.zeros((0, 16), np.float32))


class TestCalibrationRaises(Conformance):
    model = calibrated(lambda: open("/nowhere/at/all"))


class TestCalibrationIterator(Conformance):
    model = calibrated([np.zeros(16, np.float32), np.zeros(15, np.float32)])


class TestCalibrationNan(Conformance):
    model = calibrated(np.full((8, 16), np.nan, np.float32))


def scored(metric, **options):
    return model(targets={"ort": ["fp32"]},
                 evaluation=Evaluation(evaluation_inputs, labels, metric=metric, **options))


class TestMetricRaises(Conformance):
    model = scored(lambda predictions, labels: predictions["missing"])


class TestMetricNan(Conformance):
    model = scored(lambda predictions, labels: float("nan"))


class TestLabelsMismatch(Conformance):
    model = model(targets={"ort": ["fp32"]}, evaluation=Evaluation(
        evaluation_inputs, lambda: np.zeros(3), metric=metrics.top1))


class TestAccuracyFloor(Conformance):
    """Labels that the model itself can't predict."""
    model = model(targets={"ort": ["fp32"]}, evaluation=Evaluation(
        evaluation_inputs, lambda: (labels() + 1) % 4, metric=metrics.top1))
    budget = Budget(accuracy_floor=0.9)


# -- and one that is as it should be, after all that


class TestGood(Conformance):
    model = shipped("tiny_file.onnx")
'''


@pytest.fixture(scope="module")
def judged(judge: Judge) -> Judged:
    """One run of all of them."""
    return judge(SUITE, "--edge-targets=ort,tflite", "--edge-timeout=40", timeout_s=900)


# key -> what its one line must say
EXPECTED = {
    "unlike/ort/fp32/parity": "noise_ratio[logits]",
    "unlike/ort/fp32/accuracy": "accuracy_drop",
    "nan/ort/fp32/parity": "the candidate's output 'logits' on random",
    "fixed_batch/ort/fp32/export": "'batch' is declared dynamic, but the file fixes it to 2",
    "reshaped_batch/ort/fp32/export": "runs on random, batch 1, but not on random, batch 2: a size",
    "noop/ort/int8/export": "nothing in the file is int8: its weights are",
    "slow_fat_large/ort/fp32/latency": "latency_p50",
    "slow_fat_large/ort/fp32/memory": "peak_memory",
    "slow_fat_large/ort/fp32/export": "size",
    "raising/ort/fp32/export": "source raising raised ValueError: no weights here (",
    "no_module/ort/fp32/export": "returned a list, not a torch.nn.Module",
    "wrong_input/ort/fp32/export": "input 'image' is not a parameter of Tiny.forward(x)",
    "missing_input/ort/fp32/export": "needs 'mask', which no declared input provides",
    "wrong_shape/ort/fp32/export": "the model raised on inputs of shapes {'x': (3, 17)}",
    "wrong_outputs/ort/fp32/export": "returns 1 tensors, but outputs declares 2",
    "uncapturable/ort/fp32/export": "torch.export can't capture the model",
    "baked_batch/ort/fp32/export": "'batch'",
    "builder_raises/ort/fp32/export": "the builder raised ZeroDivisionError",
    "builder_forgets/ort/fp32/export": "the builder wrote no file at the path",
    "builder_aborts/ort/fp32/export": "crashed with SIGABRT",
    "builder_hangs/ort/fp32/export": "took longer than the limit of 40 s",
    "builder_exhausts/ort/fp32/export": "MemoryError",
    "builder_chats/ort/fp32/export": "ended by itself with exit code 3",
    "artifact_missing/ort/fp32/export": "nowhere.onnx does not exist",
    "artifact_empty/ort/fp32/export": "empty.onnx is empty",
    "artifact_text/ort/fp32/export": "ONNX",
    "artifact_cut/ort/fp32/export": "ONNX",
    "artifact_other_format/tflite/fp32/export": "not a TFLite flatbuffer",
    "artifact_mapping/ort/fp32/export": "mapped to 'image', but the file has ['x']",
    "artifact_shape/ort/fp32/export": "declared (batch, 4, 4), but 'x' in the file is (?, 16)",
    "calibration_shape/ort/int8/export": "has shape (8, 15); expected (samples, 16)",
    "calibration_empty/ort/int8/export": "calibration is empty",
    "calibration_raises/ort/int8/export": "calibration data raised FileNotFoundError",
    "calibration_iterator/ort/int8/export": "sample 1",
    "calibration_nan/ort/int8/export": "has NaN or infinite values",
    "metric_raises/ort/fp32/accuracy": "the metric raised",
    "metric_nan/ort/fp32/accuracy": "the metric returned nan",
    "labels_mismatch/ort/fp32/accuracy": "200 samples but 3 labels",
    "accuracy_floor/ort/fp32/accuracy": "accuracy_floor",
}


@pytest.mark.parametrize("key", EXPECTED)
def test_fails_with_one_line_that_says_why(judged: Judged, key: str) -> None:
    case = judged.cases[key]
    assert case["verdict"] == "failed"
    assert any(part in case["reason"] for part in EXPECTED[key].split("|")), case["reason"]
    assert "\n" not in case["reason"]


def test_a_model_that_agrees_passes_beside_them(judged: Judged) -> None:
    verdicts = {key: case["verdict"] for key, case in judged.cases.items() if "good/" in key}
    assert set(verdicts.values()) == {"passed"}
    assert len(verdicts) == 4


def test_what_a_crashed_process_printed_is_in_the_record(judged: Judged) -> None:
    assert "last words" in judged.cases["builder_chats/ort/fp32/export"]["details"]


def test_every_check_of_an_artifact_that_can_not_be_had_fails(judged: Judged) -> None:
    for check in ("export", "parity", "latency", "memory"):
        case = judged.cases[f"builder_aborts/ort/fp32/{check}"]
        assert (case["verdict"], case["artifact"]) == ("failed", None)


def test_a_parity_failure_says_where_and_what_would_have_passed(judged: Judged) -> None:
    details = judged.cases["unlike/ort/fp32/parity"]["details"]
    assert "worst at [" in details
    assert "would have passed with Budget(" in details
    assert "seed 0" in details


def test_the_run_fails_and_shows_reasons_first(judged: Judged) -> None:
    assert judged.status == 1
    summary = judged.output[judged.output.index(" edgecheck ==") :]
    assert "no weights here" in summary
    assert "gate closed" in summary
    for line in summary.splitlines():
        if line.startswith("==") or "FAILED" in line:
            break
    assert all(len(line) <= 100 for line in summary.split("\n===")[0].splitlines())


def test_no_traceback_of_a_library_is_shown(judged: Judged) -> None:
    assert "INTERNALERROR" not in judged.output
    assert (
        "site-packages"
        not in judged.output.split("short test summary")[0].split("what the process printed last")[
            0
        ]
    )
