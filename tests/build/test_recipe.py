"""Cache keys follow the sources that decide a file: an edit of these counts, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from edgecheck.build import recipe as recipes
from edgecheck.process.modules import imported_modules, module_source
from edgecheck.process.parent import Child, Service
from edgecheck.targets.registry import all_targets
from edgecheck.testing import TargetConformance
from edgecheck.testing.workshop import TIMEOUT_S, Workshop

TARGETS = all_targets()
_ONNX = {"ort", "ort-web", "ort-webgpu"}


def changed_by(edited: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The targets whose files would be built anew after an edit of a module."""
    before = {name: recipes.recipe(target) for name, target in TARGETS.items()}
    source = module_source

    def with_edit(module: str) -> str:
        return source(module) + ("\nEDITED = True\n" if module == edited else "")

    monkeypatch.setattr(recipes, "module_source", with_edit)
    return {name for name, target in TARGETS.items() if recipes.recipe(target) != before[name]}


@pytest.mark.parametrize(
    ("edited", "anew"),
    [
        # The reference executor calibrates Core ML's int8 files.
        ("edgecheck.mil.operators.linear", {"coreml"}),
        ("edgecheck.mil.evaluator", {"coreml"}),
        # The plan of activation memory is kept with the file.
        (
            "edgecheck.targets.common.static_arena",
            {"ort", "ort-web", "ort-webgpu", "tflite", "trt"},
        ),
        ("edgecheck.targets.tflite.layers", {"tflite"}),
        ("edgecheck.targets.common.onnx.quantization", {*_ONNX, "trt"}),
        # A lowered program has Core ML packages in it, which are looked into.
        ("edgecheck.targets.coreml.inspection", {"coreml", "executorch"}),
        (
            "edgecheck.runtime.torch_program",
            {*_ONNX, "coreml", "executorch", "tflite"},
        ),
        # What runs, judges, audits or shows a file does not decide what is in it.
        ("edgecheck.targets.ort.run", set()),
        ("edgecheck.targets.tflite.trace", set()),
        ("edgecheck.targets.common.weight_audit", set()),
        ("edgecheck.runtime.timing", set()),
        ("edgecheck.judge.noise", set()),
        ("edgecheck.plugin.run", set()),
        ("edgecheck.process.parent", set()),
    ],
)
def test_an_edit_rebuilds_what_imports_it_and_nothing_else(
    edited: str, anew: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert changed_by(edited, monkeypatch) == anew


@pytest.mark.parametrize("name", ["coreml", "executorch", "ort", "tflite"])
def test_every_module_that_a_build_loads_is_known(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    if reason := target.missing():
        pytest.skip(reason)
    workshop = Workshop(target, TargetConformance.network(), TargetConformance.samples(), tmp_path)
    # The most that a recipe does: with calibration.
    request = workshop.request("int8", tmp_path / f"m{target.files.suffix}")
    with Child(Service("tests.build.loaded_modules:LoadedModules"), tmp_path) as child:
        loaded = child.call(
            "of_build", timeout_s=TIMEOUT_S, builder=target.build.builder, request=request
        )
    workshop.close()
    assert len(loaded) > 3
    known = set(imported_modules(target.build.builder.split(":")[0]))
    # A package's own declaration loads with what is in it, and decides nothing.
    for module in list(known):
        known |= set(imported_modules(module.rpartition(".")[0]))
    assert set(loaded) <= known


def test_the_versions_of_the_tools_are_part_of_it() -> None:
    ort = TARGETS["ort"]
    assert "onnxruntime" in recipes.recipe(ort)
    other = replace(ort, build=replace(ort.build, distributions=("numpy",)))
    assert recipes.recipe(other) != recipes.recipe(ort)


def test_a_module_of_its_own_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else lies in the folder that it is installed in."""
    (tmp_path / "single_file_plugin.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from edgecheck.targets.base import Builder\n"
        "import other_package\n"
        "if TYPE_CHECKING:\n"
        "    from edgecheck.workbench import Workbench\n"
    )
    (tmp_path / "other_package.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    modules = imported_modules("single_file_plugin")
    assert modules[-1] == "single_file_plugin"
    assert "edgecheck.targets.base" in modules
    assert "edgecheck.workbench" not in modules
    assert "other_package" not in modules


def test_a_package_may_import_relatively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "relative_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("from .build import f\n")
    (package / "build.py").write_text("def f():\n    from . import helper\n")
    (package / "helper.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert imported_modules("relative_plugin.build") == (
        "relative_plugin.helper",
        "relative_plugin.build",
    )
