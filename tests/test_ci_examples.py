"""The examples for CI in docs/ci.md: they parse, and every command in them is one that exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgecheck.commands.cli import build_parser

TEXT = (Path(__file__).parents[1] / "docs/ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# A command ends where its line does, or with the quote that it is in.
COMMAND = r"(?:^|[\s/'])({}\s[^\n']*)"


def commands(program: str) -> list[list[str]]:
    """The words of each command in the examples, with a target for the matrix's variable."""
    found = []
    for _, text in BLOCKS:
        # Lines that go on: a shell's, and those of a folded YAML scalar.
        text = re.sub(r"\\?\n\s+(?=--)", " ", text)
        text = re.sub(r"\$\{\{ matrix\.target \}\}|\$TARGET", "ort", text)
        found += [shlex.split(item) for item in re.findall(COMMAND.format(program), text, re.M)]
    return found


def test_there_is_an_example_for_each_system() -> None:
    assert [kind for kind, _ in BLOCKS] == ["yaml", "yaml", "groovy"]
    assert len(commands("pytest")) == len(commands("edgecheck merge")) == 3


@pytest.mark.parametrize("position", [0, 1])
def test_the_yaml_parses_and_each_job_does_something(position: int) -> None:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load(BLOCKS[position][1])
    jobs = document.get("jobs") or {name: document[name] for name in ("judge", "gate")}
    assert set(jobs) == {"judge", "gate"}
    for job in jobs.values():
        steps = job.get("script") or [step["run"] for step in job["steps"] if "run" in step]
        assert all(isinstance(step, str) for step in steps)
        assert any("edgecheck merge" in step or "pytest suites" in step for step in steps)


@pytest.mark.parametrize("words", commands("pytest"), ids=["github", "gitlab", "jenkins"])
def test_pytest_knows_every_option(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "suites").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", *words, "--collect-only", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr


@pytest.mark.parametrize("words", [*commands("edgecheck merge"), *commands("edgecheck report")])
def test_edgecheck_knows_every_command(words: list[str]) -> None:
    build_parser().parse_args(words[1:])


def test_every_option_that_the_text_names_exists() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in sorted(set(re.findall(r"--edge-[a-z-]+|--dist|--tx", TEXT))):
        assert f"{option}=" in shown, option
