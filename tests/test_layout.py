"""Imports run downward only: from a wing to those below it, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import edgecheck
from edgecheck.targets.registry import all_targets

PACKAGE = Path(edgecheck.__file__).parent
# From the top down; a wing imports those below it. `edgecheck` itself has the public names, which
# load lazily.
ORDER = (
    *("commands", "plugin", "testing", "report", "history", "sensitivity", "checks"),
    *("localization", "workbench", "build", "capture", "devices", "judge", "declare", "targets"),
    *("mil", "runtime", "process", "names", "units", "digests", "errors", "plain"),
)
# Targets whose files another one runs, holds or extends.
FAMILIES = {
    "ort_web": {"ort"},
    "ort_webgpu": {"ort_web"},
    "executorch": {"coreml"},
}


def modules() -> dict[str, Path]:
    """Path by dotted name, without the leading package."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules of edgecheck that a module imports, also lazily or for type checkers only."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgecheck"):
            base = (node.module or "").removeprefix("edgecheck").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                yield inner if inner in MODULES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("edgecheck."):
                    yield alias.name.removeprefix("edgecheck.")


EDGES = {name: set(imports(name)) - {name, ""} for name in MODULES if name}


def wing(name: str) -> str:
    return name.split(".")[0]


def test_every_module_has_a_wing() -> None:
    assert {wing(name) for name in MODULES if name} == set(ORDER)


def test_imports_run_downward() -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in EDGES.items()
        for other in others
        if ORDER.index(wing(other)) < ORDER.index(wing(name))
    ]
    assert upward == []


def test_no_imports_in_a_circle() -> None:
    entered: list[str] = []
    done: set[str] = set()
    circles = []

    def visit(name: str) -> None:
        if name in entered:
            circles.append(" -> ".join([*entered[entered.index(name) :], name]))
        if name in done or name in entered:
            return
        entered.append(name)
        for other in sorted(EDGES[name]):
            visit(other)
        done.add(entered.pop())

    for name in EDGES:
        visit(name)
    assert circles == []


def test_a_target_imports_what_targets_share_and_nothing_of_others() -> None:
    allowed = ("targets.base", "targets.common", "runtime", "mil", "process", "names", "units")
    strangers = [
        f"{name} imports {other}"
        for name, others in EDGES.items()
        if name.startswith("targets.") and wing(name.removeprefix("targets.")) not in SHARED
        for other in others
        if not _is_own(name, other) and not other.startswith((*allowed, "errors"))
    ]
    assert strangers == []


SHARED = ("base", "common", "registry")


def _is_own(name: str, other: str) -> bool:
    if not other.startswith("targets."):
        return False
    own, used = name.split(".")[1], other.split(".")[1]
    return used == own or used in FAMILIES.get(own, ())


def test_what_is_sent_to_devices_imports_nothing_but_each_other() -> None:
    assert {
        other for name, others in EDGES.items() if wing(name) == "runtime" for other in others
    } <= {name for name in MODULES if wing(name) == "runtime"}


def test_the_same_file_names_in_every_target() -> None:
    for target in all_targets().values():
        build, runtime = target.build, target.runtime
        assert build.builder.split(":")[0].split(".")[-1] == "build"
        assert runtime.runner.split(":")[0].split(".")[-1] == "run"
        assert runtime.tracer.split(":")[0].split(".")[-1] in ("trace", "")
        assert build.weights.split(".")[-1] in ("weights", "")


def test_no_module_is_long() -> None:
    long = {
        name: lines
        for name, path in MODULES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
