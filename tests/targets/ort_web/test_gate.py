"""The browser targets: what they need, what they can't check here, and suites that run on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecheck.names import CHECKS
from edgecheck.targets.ort_web.browser import find_browser
from edgecheck.targets.ort_web.package import find_runtime
from edgecheck.targets.registry import all_targets, find_target
from tests.conftest import Judge, Judged
from tests.targets.ort_web.web import needs_browser

WEB, WEBGPU = all_targets()["ort-web"], all_targets()["ort-webgpu"]
SOFTWARE = {"adapter": "software"}


def install_runtime(folder: Path) -> Path:
    """The names of an installed package, which is all that finding it looks at."""
    package = folder / "node_modules" / "onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    for name in ("ort.wasm.min.mjs", "ort.webgpu.min.mjs"):
        (package / "dist" / name).touch()
    (package / "package.json").write_text(json.dumps({"version": "1.2.3"}))
    return package


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with neither a browser nor the runtime."""
    for name in ("PATH", "PLAYWRIGHT_BROWSERS_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "bin"))
    monkeypatch.delenv("EDGECHECK_ORT_WEB", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def add_browser(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)


def test_what_is_missing_is_told_with_the_commands_that_help(bare: Path) -> None:
    assert WEB.host.missing() == (
        "no Chromium: apt-get install chromium, or python -m playwright install chromium; "
        "no onnxruntime-web in node_modules here or above: npm install onnxruntime-web@1.30.0 "
        "(or set EDGECHECK_ORT_WEB to the package's folder)"
    )
    assert WEB.runtime.other_versions() == {}
    add_browser(bare / "bin" / "chromium")
    assert WEB.host.missing().startswith("no onnxruntime-web")
    install_runtime(bare)
    assert WEB.host.missing() == WEBGPU.host.missing() == ""
    assert WEB.runtime.other_versions()["onnxruntime-web"] == "1.2.3"
    assert str(bare / "bin" / "chromium") in WEB.runtime.other_versions()["browser"]


def test_the_runtime_is_found_above_and_where_the_variable_says(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install_runtime(bare)
    (bare / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(bare / "a" / "b")
    assert find_runtime() == package / "dist"
    other = install_runtime(bare / "other")
    for stated in (other, other / "dist"):
        monkeypatch.setenv("EDGECHECK_ORT_WEB", str(stated))
        assert find_runtime() == other / "dist"
    monkeypatch.setenv("EDGECHECK_ORT_WEB", str(bare / "nowhere"))
    assert find_runtime() is None


@pytest.mark.parametrize(
    "place", ["chromium-1200/chrome-linux64/chrome", "chromium-9/chrome-linux/chrome"]
)
def test_playwrights_own_browser_is_found(bare: Path, place: str) -> None:
    assert find_browser() == ""
    add_browser(bare / "bin" / place)
    assert find_browser() == str(bare / "bin" / place)


def test_the_packages_are_those_that_building_needs_too() -> None:
    assert set(all_targets()["ort"].host.packages) <= set(WEB.host.packages)
    assert "playwright" in WEB.host.packages


def test_names_that_people_use() -> None:
    assert find_target("web") is WEB
    assert find_target("webgpu") is WEBGPU


def test_an_adapter_is_hardware_or_software() -> None:
    assert WEBGPU.options.problem(WEBGPU.options.defaults) == ""
    assert WEBGPU.options.problem(SOFTWARE) == ""
    assert WEBGPU.options.problem({"adapter": "fast"}) == (
        "adapter is 'fast', but may be hardware or software"
    )


def test_software_is_for_parity_and_accuracy_only() -> None:
    gaps = {check: WEBGPU.gap(check, "fp32", SOFTWARE) for check in CHECKS}
    assert [check for check, reason in gaps.items() if reason] == ["latency", "memory"]
    assert "software" in gaps["latency"]
    assert "no shader-f16" in WEBGPU.gap("parity", "fp16", SOFTWARE)
    assert WEBGPU.gap("export", "fp16", SOFTWARE) == ""
    assert "no shader-f16" in WEBGPU.gap("run", "fp16", SOFTWARE)


@pytest.mark.skipif(
    any(any(Path("/dev").glob(item)) for item in ("dri/renderD*", "nvidiactl", "dxg")),
    reason="this machine may have a GPU",
)
def test_without_a_gpu_files_are_only_built_and_inspected() -> None:
    assert WEBGPU.gap("export") == ""
    for check in set(CHECKS) - {"export"}:
        reason = WEBGPU.gap(check)
        assert reason.startswith("no GPU for WebGPU (this machine has no GPU device)")
        assert 'target_options={"ort-webgpu": {"adapter": "software"}}' in reason


SUITE = """
from pathlib import Path

HERE = Path(__file__).parent
(HERE / "text.onnx").write_text("this is not a model")


def shipped(path, **options):
    return model(artifacts={"ort-web": Artifact(HERE / path, **options)},
                 targets={"ort-web": ["fp32"]})


def onnx_file(model, path):
    torch.onnx.export(
        tiny(), (), kwargs={"x": torch.zeros(2, 16)}, f=str(path), dynamo=True, verbose=False,
        input_names=["x"], output_names=["logits"], external_data=False,
        dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
    )


class TestGood(Conformance):
    model = model(evaluation=EVALUATION, targets={"ort-web": ["fp32", "int8-dynamic"]})
    budget = Budget(download_size="1 MB", download_size_gzip="20 MB")


class TestCorrupt(Conformance):
    model = shipped("text.onnx")


class TestOtherShape(Conformance):
    model = Model(tiny, inputs=[Input("x", ("batch", 4, 4))], outputs=["logits"],
                  builders={"ort-web": onnx_file}, targets={"ort-web": ["fp32"]})


class TestGpu(Conformance):
    model = model(targets={"ort-webgpu": ["fp32", "fp16"]},
                  target_options={"ort-webgpu": {"adapter": "software"}})
    budget = Budget(download_size="1 GB")
"""


@pytest.fixture(scope="module")
def judged(judge: Judge) -> Judged:
    """One run of all of them, which finds the runtime of this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECHECK_ORT_WEB", str(find_runtime()))
        return judge(
            SUITE,
            "--edge-targets=ort-web,ort-webgpu",
            "--edge-precisions=fp32,fp16,int8-dynamic",
            "--edge-checks=export,parity,accuracy,latency",
            "-k=not latency or Gpu",
        )


def case(judged: Judged, key: str) -> dict[str, str]:
    found: dict[str, str] = judged.cases[key]
    return found


@needs_browser
@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_a_good_model_keeps_its_outputs_in_the_browser(judged: Judged, precision: str) -> None:
    for check in ("parity", "accuracy"):
        assert case(judged, f"good/ort-web/{precision}/{check}")["verdict"] == "passed"


@needs_browser
def test_the_download_has_a_budget(judged: Judged) -> None:
    record = judged.cases["good/ort-web/fp32/export"]
    assert record["verdict"] == "failed"
    assert len(record["failures"]) == 1  # the gzipped download keeps its limit
    assert "download_size" in record["reason"]
    found = record["measurements"]
    runtime = found["placement"]["runtime_download_bytes"]
    assert found["download_size_bytes"] == found["size_bytes"] + runtime
    packed = found["placement"]["runtime_download_gzip_bytes"]
    assert found["download_size_gzip_bytes"] == found["size_gzip_bytes"] + packed


@needs_browser
def test_a_corrupt_file_is_told(judged: Judged) -> None:
    assert "can't be read as an ONNX model" in case(judged, "corrupt/ort-web/fp32/export")["reason"]
    reason = case(judged, "corrupt/ort-web/fp32/parity")["reason"]
    assert reason.startswith("ONNX Runtime Web can't load text.onnx: ")
    assert "protobuf parsing failed" in reason


@needs_browser
def test_an_input_of_another_shape_is_told(judged: Judged) -> None:
    reason = case(judged, "other_shape/ort-web/fp32/parity")["reason"]
    assert "'x'" in reason
    assert "\n" not in reason


@needs_browser
@pytest.mark.long
def test_a_build_that_hangs_is_ended(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECHECK_ORT_WEB", str(find_runtime()))
    suite = """
    import time

    class TestHangs(Conformance):
        model = model(builders={"ort-web": lambda model, path: time.sleep(1000)},
                      targets={"ort-web": ["fp32"]})
    """
    found = judge(suite, "--edge-targets=ort-web", "--edge-checks=export", "--edge-timeout=20")
    assert found.status == 1
    assert case(found, "hangs/ort-web/fp32/export")["reason"] == (
        "build took longer than the limit of 20 s and was ended (raise it with --edge-timeout)"
    )


@needs_browser
def test_software_webgpu_checks_what_it_can(judged: Judged) -> None:
    assert case(judged, "gpu/ort-webgpu/fp32/export")["verdict"] == "passed"
    assert case(judged, "gpu/ort-webgpu/fp32/parity")["verdict"] == "passed"
    latency = case(judged, "gpu/ort-webgpu/fp32/latency")
    assert latency["verdict"] == "not_checked"
    assert "software" in latency["reason"]
    half = case(judged, "gpu/ort-webgpu/fp16/parity")
    assert half["verdict"] == "not_checked"
    assert "shader-f16" in half["reason"]
    export = judged.cases["gpu/ort-webgpu/fp16/export"]
    assert any("download_size is not judged" in line for line in export["warnings"])


def test_without_browser_and_runtime_cases_are_skipped_and_the_gate_is_closed(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATH", "PLAYWRIGHT_BROWSERS_PATH", "EDGECHECK_ORT_WEB"):
        monkeypatch.setenv(name, str(tmp_path))
    suite = "class TestTiny(Conformance):\n    model = model()\n"
    found = judge(
        suite, "--edge-targets=ort-web", "--edge-precisions=fp32", "--edge-checks=export,parity"
    )
    assert found.status == 1
    for record in found.cases.values():
        assert record["verdict"] == "not_checked"
        assert "python -m playwright install chromium" in record["reason"]
        assert "npm install onnxruntime-web@" in record["reason"]
