"""Faults of files: cut, without their weights, too new for the runtime, or with narrowed ids."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch

import edgecheck
from fixtures import series
from tests.faults.bench import Bench
from tests.faults.fault import Fault

# -- ids that are narrowed on their way


class _Ticketed(torch.nn.Module):
    """The series model, its sensor looked up by a ticket number."""

    def __init__(self, route: str = "") -> None:
        super().__init__()
        self.net = series.trained_model()
        self.route = route

    def forward(self, signal: torch.Tensor, ticket: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.route == "float":
            ticket = (ticket.float() % 97).long()
        if self.route == "int32":
            ticket = ticket.to(torch.int32)
        found: dict[str, torch.Tensor] = self.net(signal, (ticket % 97 % 4).long())
        return found


def ticketed() -> torch.nn.Module:
    """The model as it was trained."""
    return _Ticketed().eval()


def _ids(name: str, target: str, precision: str, route: str, high: int) -> Fault:
    inputs = [
        edgecheck.Input("signal", ("batch", 3, 128), low=-2.0, high=2.0),
        edgecheck.Input("ticket", ("batch",), low=0, high=high, dtype="int64"),
    ]

    def plant(bench: Bench, path: Path) -> None:
        module = _Ticketed(route).eval()
        bench.build(module, "series", target, precision, path, inputs=inputs)

    return Fault(
        "rounding of int64",
        f"{name}-{target}-{precision}",
        "series",
        target,
        precision,
        plant,
        says="noise_ratio|with all inputs at|which the file's int32 cannot hold",
        declared={"source": ticketed, "inputs": inputs, "evaluation": None, "calibration": None},
    )


def _int_faults() -> Iterator[Fault]:
    """float32 holds integers up to 2^24; Core ML's integers have 32 bits themselves."""
    yield _ids("ids-by-float", "ort", "fp32", "float", 2**31 - 1)
    yield _ids("few-ids-by-float", "ort", "fp32", "float", 2**24 + 2**20 + 1)
    yield _ids("ids-by-float", "tflite", "fp32", "float", 2**31 - 1)
    yield _ids("ids-by-int32", "tflite", "fp16", "int32", 2**40)
    yield _ids("ids-by-int32", "ort", "fp16", "int32", 2**33)
    yield _ids("ids-by-float", "coreml", "fp32", "float", 2**31 - 1)
    yield _ids("few-ids-by-float", "coreml", "fp16", "float", 2**24 + 2**18 + 1)


# -- edits of files


def edited(
    kind: str,
    name: str,
    candidate: str,
    edit: Callable[[Path], object],
    says: str,
    check: str = "export",
    **others: Any,
) -> Fault:
    """A fault that changes a copy of the sound file of a ``model/target/precision``."""
    model, target, precision = candidate.split("/")

    def plant(bench: Bench, path: Path) -> None:
        sound = bench.sound(model, target, precision)
        (shutil.copytree if sound.is_dir() else shutil.copy)(sound, path)
        edit(path)

    name = f"{name}-{candidate.replace('/', '-')}"
    return Fault(kind, name, model, target, precision, plant, check, says, **others)


def _onnx(change: Callable[[Any], object], path: Path) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def _opset(version: int, ir_version: int, model: Any) -> None:
    model.opset_import[0].version = version
    model.ir_version = ir_version


def change_tflite(change: Callable[[Any], object], path: Path) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    change(model)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def _newer_operator(by: int, model: Any) -> None:
    model.operatorCodes[0].version += by


def _unknown_operator(model: Any) -> None:
    model.operatorCodes[0].builtinCode = 5000
    model.operatorCodes[0].deprecatedBuiltinCode = 127


def _specification(version: int, model: Any) -> None:
    model.specificationVersion = version


def _too_new() -> Iterator[Fault]:
    known = onnx.defs.onnx_opset_version()
    kind, range_text = "opset beyond the runtime", "out of the range of ONNX Runtime"
    for candidate, version, ir_version, says in (
        ("cnn/ort/fp32", known, 10, range_text),  # onnx knows it, the runtime does not yet
        ("transformer/ort/int8", 20, onnx.IR_VERSION, range_text),
        ("series/ort/fp16", known + 5, 10, "(?i)opset"),
    ):
        edit = functools.partial(_onnx, functools.partial(_opset, version, ir_version))
        name = f"opset-{version}-ir-{ir_version}"
        yield edited(kind, name, candidate, edit, says)
    for candidate, name, change, says in (
        ("cnn/tflite/fp32", "operator-version", functools.partial(_newer_operator, 90), "version"),
        ("series/tflite/int8", "next-version", functools.partial(_newer_operator, 8), "version"),
        (
            "transformer/tflite/fp16",
            "operator-code",
            _unknown_operator,
            "builtin_code out of range",
        ),
    ):
        yield edited(kind, name, candidate, functools.partial(change_tflite, change), says)
    for candidate, version, declared, says in (
        ("cnn/coreml/fp16", 99, {}, "specification version 99"),
        ("transformer/coreml/int4", 9, {"deployment_target": "iOS17"}, "needs iOS18"),
        # As is done to "support" older systems.
        ("cnn/coreml/fp32", 6, {}, "opset"),
    ):
        edit = functools.partial(_change_package, functools.partial(_specification, version))
        options: dict[str, Any] = (
            {"declared": {"target_options": {"coreml": declared}}} if declared else {}
        )
        yield edited(kind, f"specification-{version}", candidate, edit, says, **options)


def _change_package(edit: Callable[[Any], None], path: Path) -> None:
    from tests.mil import packages  # imports coremltools

    packages.change(path, edit)


# -- cut files


def _cut(keep: Callable[[int], int], inside: str, path: Path) -> None:
    """Leave so many of a file's bytes; `inside` is its place where the target's is a folder."""
    file = path / inside if inside else path
    content = file.read_bytes()
    file.write_bytes(content[: keep(len(content))])


_CUTS: dict[str, Callable[[int], int]] = {
    "by-1": lambda size: size - 1,
    "by-4096": lambda size: size - 4096,
    "in-half": lambda size: size // 2,
    "to-64": lambda size: 64,
    "to-0": lambda size: 0,
}
_PACKED = "Data/com.apple.CoreML"


def _outside(path: Path) -> None:
    """Weights after the flatbuffer, as in files beyond 2 GB; the last 100 bytes are lost."""
    blobs: list[bytes] = []

    def move(start: int, model: Any) -> None:
        blobs.clear()
        for buffer in model.buffers:
            if buffer.data is not None and len(buffer.data) > 256:
                blobs.append(bytes(buffer.data).ljust(-(-len(buffer.data) // 16) * 16, b"\0"))
                buffer.offset, buffer.size = start, len(buffer.data)
                buffer.data = None
                start += len(blobs[-1])

    original = path.read_bytes()
    change_tflite(functools.partial(move, 1 << 20), path)
    start = -(-path.stat().st_size // 16) * 16
    path.write_bytes(original)
    change_tflite(functools.partial(move, start), path)
    path.write_bytes((path.read_bytes().ljust(start, b"\0") + b"".join(blobs))[:-100])


def _truncated() -> Iterator[Fault]:
    unread = "can't be read|can't be parsed|is cut|truncated|damaged|no TFLite|empty"
    for candidate, cut, inside in (
        ("cnn/ort/fp32", "by-1", ""),
        ("transformer/ort/int8", "in-half", ""),
        ("series/ort/fp16", "to-0", ""),
        ("cnn/tflite/int8", "by-1", ""),
        ("series/tflite/fp32", "by-4096", ""),
        ("transformer/tflite/fp32", "in-half", ""),
        ("cnn/tflite/fp16", "to-64", ""),
        ("cnn/coreml/fp16", "by-1", "weights/weight.bin"),
        ("transformer/coreml/int8-weights", "in-half", "weights/weight.bin"),
        ("series/coreml/fp32", "by-1", "model.mlmodel"),
        ("series/coreml/fp16", "in-half", "model.mlmodel"),
        ("cnn/coreml/fp32", "to-0", "model.mlmodel"),
        ("cnn/executorch/fp32", "by-1", ""),
        ("cnn/executorch/int8", "in-half", ""),
    ):
        place = f"{_PACKED}/{inside}" if inside else ""
        what = f"-{Path(inside).stem}" if inside else ""
        edit = functools.partial(_cut, _CUTS[cut], place)
        yield edited("truncated file", f"cut{what}-{cut}", candidate, edit, unread)
    yield edited("truncated file", "cut-outside", "transformer/tflite/fp32", _outside, unread)


# -- weights that are elsewhere


def _external(change: Callable[[Path], object], path: Path) -> None:
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    change(path.with_name("weights.bin"))


def _of_build_machine(path: Path) -> None:
    """The place where the weights lay when the file was made."""
    _external(lambda weights: weights.unlink(), path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "/build/export/weights.bin"
    onnx.save(model, path)


def _missing() -> Iterator[Fault]:
    kind, weights = "external data missing", "weights?.bin"
    shorter: Callable[[Path], object] = functools.partial(_cut, _CUTS["by-4096"], "")
    for candidate, name, change, says in (
        ("cnn/ort/fp32", "no-weights", Path.unlink, weights),
        ("series/ort/int8", "no-weights", Path.unlink, weights),
        ("transformer/ort/fp32", "short-weights", shorter, "External data length"),
    ):
        yield edited(kind, name, candidate, functools.partial(_external, change), says)
    yield edited(kind, "weights-at-build", "cnn/ort/fp16", _of_build_machine, weights)
    for candidate, name, inside, says in (
        ("cnn/coreml/fp32", "no-weights", f"{_PACKED}/weights/weight.bin", weights),
        ("transformer/coreml/palettized", "no-weights", f"{_PACKED}/weights/weight.bin", weights),
        ("series/coreml/fp16", "no-manifest", "Manifest.json", "no Manifest.json"),
    ):
        edit = functools.partial(_remove, inside)
        yield edited(kind, name, candidate, edit, says)
    yield Fault(
        kind,
        "weights-of-fp16-cnn-coreml-fp32",
        "cnn",
        "coreml",
        "fp32",
        _weights_of_another,
        "export",
        "weight.bin at offset",
    )


def _remove(inside: str, path: Path) -> None:
    (path / inside).unlink()


def _weights_of_another(bench: Bench, path: Path) -> None:
    """The weight file of the half-precision build, copied over that of this one."""
    from tests.mil import packages  # imports coremltools

    shutil.copytree(bench.sound("cnn", "coreml", "fp32"), path)
    other = packages.weight_file(bench.sound("cnn", "coreml", "fp16"))
    shutil.copy(other, packages.weight_file(path))


FAULTS = (*_int_faults(), *_too_new(), *_truncated(), *_missing())
