"""The command line: the cache is listed, pruned and cleared, the schema printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgecheck.build.artifact_cache import Store
from edgecheck.commands.cli import main


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    store = Store(tmp_path / "cache", tmp_path)

    def build(path: Path) -> dict[str, str]:
        path.write_text("x" * 500)
        return {}

    for number in range(3):
        store.get_or_build(f"{number:064x}", "m.onnx", f"toy/ort/{number}", build)
    return tmp_path / "cache"


def test_the_cache_is_listed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", "--edge-cache", str(cache)]) == 0
    printed = capsys.readouterr().out
    assert "toy/ort/2" in printed
    assert "3 entries, 1.5 kB" in printed


def test_the_cache_is_pruned_to_a_size_and_cleared(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "prune", "1 kB", "--edge-cache", str(cache)]) == 0
    assert "removed 1 entries, 500 B" in capsys.readouterr().out
    assert main(["cache", "clear", "--edge-cache", str(cache)]) == 0
    assert list(cache.glob("objects/*/*")) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cache", "list"], "there is no cache at"),
        (["cache", "prune", "much"], "'much' is not a bytes quantity"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*arguments, "--edge-cache", str(tmp_path / "none")]) == 2
    assert says in capsys.readouterr().err


def test_the_installed_command_prints_the_schema() -> None:
    command = shutil.which("edgecheck", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, "schema"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["title"] == "edgecheck report"
