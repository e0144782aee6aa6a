"""What may be declared: every kind of source, artifact, builder, input and data, end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecheck import Input, Model
from edgecheck.capture.client import _spread
from tests.conftest import Judge, Judged

SUITE = '''
import os
from pathlib import Path

HERE = Path(__file__).parent


def write_onnx(module, path):
    torch.onnx.export(
        module, (), kwargs={"x": torch.zeros(2, 16)}, f=str(path), dynamo=True, verbose=False,
        input_names=["x"], output_names=["logits"], external_data=False,
        dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
    )


def made(name, write):
    """A file that is written once, also where several processes import this module."""
    path = HERE / name
    if not path.is_file():
        part = HERE / f"{os.getpid()}-{name}"
        write(part)
        os.replace(part, path)
    return path


def write_pt2(path):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        tiny(), (), {"x": torch.zeros(3, 16)}, dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, path)


PT2 = made("saved.pt2", write_pt2)
def write_renamed(path):
    import onnx
    file = onnx.load(ONNX)
    others = {"x": "data", "logits": "scores"}
    for value in (*file.graph.input, *file.graph.output):
        value.name = others[value.name]
    for node in file.graph.node:
        node.input[:] = [others.get(name, name) for name in node.input]
        node.output[:] = [others.get(name, name) for name in node.output]
    onnx.save(file, path)


ONNX = HERE / "tiny_file.onnx"
RENAMED = made("renamed.onnx", write_renamed)


# -- sources


class TestPt2(Conformance):
    model = model(PT2, calibration=inputs, evaluation=EVALUATION,
                  targets={"ort": ["fp32", "int8"], "tflite": ["fp32"]})


class TestOnnx(Conformance):
    model = model(ONNX, calibration=inputs, evaluation=EVALUATION,
                  targets={"ort": ["fp32", "fp16", "int8"], "tflite": ["fp32"]})


# -- artifacts


class TestByPosition(Conformance):
    model = model(artifacts={"ort": RENAMED}, evaluation=EVALUATION)


def write_external(path):
    import onnx
    onnx.save(onnx.load(ONNX), path, save_as_external_data=True, location="weights.bin",
              size_threshold=0)


EXTERNAL = made("external.onnx", write_external)


class TestExternal(Conformance):
    """Its weights are in a file beside it, which counts."""
    model = model(artifacts={"ort": EXTERNAL}, evaluation=EVALUATION)


class TestByMapping(Conformance):
    model = model(artifacts={"ort": Artifact(
        RENAMED, inputs={"x": "data"}, outputs={"logits": "scores"})})


class TestArtifactsOnly(Conformance):
    """No source: one of the files is the reference of the others."""
    model = Model(inputs=[X], outputs=["logits"], reference="ort",
                  artifacts={"ort": ONNX, ("ort", "fp16"): RENAMED})
    budget = Budget(quantized_weights=0)


class Picture(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 5, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, image):
        return self.conv(image)


class ChannelsLast(Picture):
    def forward(self, image):
        return super().forward(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def write_channels_last(path):
    torch.onnx.export(
        ChannelsLast().eval(), (), kwargs={"image": torch.zeros(2, 8, 9, 3)}, f=str(path),
        dynamo=True, verbose=False, input_names=["image"], output_names=["map"],
        external_data=False, dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
    )


NHWC = made("nhwc.onnx", write_channels_last)
IMAGE = Input("image", ("batch", 3, 8, 9), low=-1.0, high=1.0)


class TestTransposed(Conformance):
    model = Model(lambda: Picture().eval(), inputs=[IMAGE], outputs=["map"], artifacts={
        "ort": Artifact(NHWC, transpose={"image": (0, 2, 3, 1), "map": (0, 2, 3, 1)})})


class TestUntransposed(Conformance):
    model = Model(lambda: Picture().eval(), inputs=[IMAGE], outputs=["map"],
                  artifacts={"ort": NHWC})


# -- shapes


class TestStatic(Conformance):
    model = model(inputs=[Input("x", (4, 16))], evaluation=EVALUATION, calibration=inputs,
                  targets={"ort": ["fp32", "int8"], "tflite": ["fp32"]})


class Sequence(torch.nn.Module):
    """A dynamic length beside the batch, an integer input, and two outputs in a dict."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.nn.Embedding(10, 6)
        self.output = torch.nn.Linear(6, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, tokens, weight):
        hidden = self.embedding(tokens) * weight.unsqueeze(-1)
        return {"scores": self.output(hidden.mean(1)), "best": hidden.argmax(-1)}


class TestSequence(Conformance):
    model = Model(
        lambda: Sequence().eval(),
        inputs=[Input("tokens", ("batch", "time"), low=0, high=9, dtype="int64"),
                Input("weight", ("batch", "time"), low=0.1, high=1.0)],
        outputs=["scores", "best"],
        dims={"time": (4, 12)},
        targets={"ort": ["fp32"], "tflite": ["fp32"]},
    )


# -- data


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 200

    def __getitem__(self, index):
        return evaluation_inputs()[index], int(labels()[index])


class TestDataset(Conformance):
    model = model(calibration=torch.utils.data.DataLoader(inputs(), batch_size=7),
                  evaluation=Evaluation(Pairs(), metric=metrics.top1),
                  targets={"ort": ["fp32", "int8"]})


def generated():
    yield from inputs(20)


class TestGenerator(Conformance):
    model = model(calibration=generated, evaluation=Evaluation(
        evaluation_inputs, labels, metric=lambda chosen, truth: (chosen == truth).mean(),
        postprocess=lambda scores: scores.argmax(1)), targets={"ort": ["fp32", "int8"]})


# -- builders


class Branching(Tiny):
    def forward(self, x):
        return super().forward(x) if x.sum() > -1e9 else x[:, :4]


class TestOwnExporter(Conformance):
    """torch.export can't capture this one; its author knows how to export it."""
    model = model(lambda: Branching().eval(), evaluation=EVALUATION,
                  builders={"ort": lambda model, path: write_onnx(Tiny().eval(), path)})


# -- the reference


class TestTraining(Conformance):
    model = model(lambda: torch.nn.Sequential(tiny(), torch.nn.Dropout()).train()
                  and WithDropout(), targets={"ort": ["fp32"]}, evaluation=EVALUATION)


class WithDropout(Tiny):
    def forward(self, x):
        return torch.nn.functional.dropout(super().forward(x), training=self.training)
'''


@pytest.fixture(scope="module")
def judged(judge: Judge) -> Judged:
    return judge(SUITE, "--edge-targets=ort,tflite", timeout_s=900)


PASS = [
    *(f"pt2/{item}" for item in ("ort/fp32", "ort/int8", "tflite/fp32")),
    *(f"onnx/ort/{item}" for item in ("fp32", "fp16", "int8")),
    "by_position/ort/fp32",
    "by_mapping/ort/fp32",
    "external/ort/fp32",
    "artifacts_only/ort/fp32",
    "transposed/ort/fp32",
    *(f"static/{item}" for item in ("ort/fp32", "ort/int8", "tflite/fp32")),
    "sequence/ort/fp32",
    "sequence/tflite/fp32",
    *(f"{name}/ort/{item}" for name in ("dataset", "generator") for item in ("fp32", "int8")),
    "own_exporter/ort/fp32",
    "training/ort/fp32",
]


@pytest.mark.parametrize("candidate", PASS)
def test_passes(judged: Judged, candidate: str) -> None:
    cases = {key: case for key, case in judged.cases.items() if key.startswith(f"{candidate}/")}
    assert len(cases) >= 4
    assert {key: case["reason"] for key, case in cases.items() if case["verdict"] != "passed"} == {}


def test_a_layout_that_does_not_fit_gets_the_transpose_that_would(judged: Judged) -> None:
    reason = judged.cases["untransposed/ort/fp32/export"]["reason"]
    assert "declared (batch, 3, 8, 9), but 'image' in the file is (?, 8, 9, 3)" in reason
    assert "transpose={'image': (0, 2, 3, 1)} would fit" in reason


def test_an_onnx_source_has_no_route_to_tflite_and_says_so(judged: Judged) -> None:
    assert judged.report is not None
    absences = {item["subject"]: item["reason"] for item in judged.report["absences"]}
    assert "no route from an ONNX file to LiteRT" in absences["onnx/tflite"]


def test_given_files_are_judged_as_they_are(judged: Judged) -> None:
    artifact = judged.cases["by_position/ort/fp32/export"]["artifact"]
    assert (artifact["origin"], artifact["file"]) == ("given", "renamed.onnx")


def test_the_files_that_belong_to_a_model_count(judged: Judged) -> None:
    artifact = judged.cases["external/ort/fp32/export"]["artifact"]
    files = [judged.directory / name for name in ("external.onnx", "weights.bin")]
    assert artifact["size_bytes"] == sum(path.stat().st_size for path in files)


def test_a_float_file_given_as_fp16_fails_the_export_check(judged: Judged) -> None:
    reason = judged.cases["artifacts_only/ort/fp16/export"]["reason"]
    assert "nothing in the file is fp16" in reason


def test_a_module_in_training_mode_is_told(judged: Judged) -> None:
    warnings = judged.cases["training/ort/fp32/export"]["warnings"]
    assert any("training mode" in line for line in warnings)


def test_drawn_lengths_are_tried_where_the_file_takes_them(judged: Judged) -> None:
    dynamic = judged.cases["sequence/ort/fp32/parity"]["measurements"]["inputs"]
    fixed = judged.cases["sequence/tflite/fp32/parity"]["measurements"]["inputs"]
    lengths = {label.rpartition(" ")[2] for label in dynamic}
    assert len(lengths) > 1
    assert {label.rpartition(" ")[2] for label in fixed} == {"12"}


@pytest.mark.parametrize(
    ("shape", "low", "calls"),
    [
        ((4,), 1, [20]),
        ((3, 400, 400), 1, [1] * 8),  # large samples: the fewest, one by one
        ((3, 400, 400), 4, [4, 4]),  # unless the model takes no fewer
    ],
)
def test_calibration_is_spread_over_the_data_in_small_calls(
    tmp_path: Path, shape: tuple[int, ...], low: int, calls: list[int]
) -> None:
    rows = np.broadcast_to(
        np.arange(20, dtype=np.float32).reshape(-1, *[1] * len(shape)), (20, *shape)
    )
    np.save(tmp_path / "x.npy", rows)
    model = Model(
        lambda: None,
        inputs=[Input("x", ("batch", *shape), low=0, high=1)],
        outputs=["y"],
        dims={"batch": (low, 64)},
        batch_sizes=(low,),
    )
    files = {"inputs": {"x": str(tmp_path / "x.npy")}, "count": 20}
    found = [np.load(call["x"]) for call in _spread(files, model, tmp_path)]
    assert [len(call) for call in found] == calls
    seen = np.concatenate(found).reshape(sum(calls), -1)[:, 0]
    assert (seen[0], seen[-1]) == (0, 19)
    assert _spread(None, model, tmp_path) == []
