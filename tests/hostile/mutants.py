"""Mutated model files of every kind, judged as a user would: what dies, hangs or passes wrongly."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecheck.errors import EdgecheckError
from edgecheck.targets.registry import find_target
from edgecheck.testing.workshop import Workshop

ROOT = Path(__file__).parents[2]
TARGETS = ("ort", "tflite", "executorch", "coreml")
SOURCES = (".onnx", ".pt2")
# Of the root of the mean square of the sound file's outputs: far above what rounding does.
WRONG = 1e-3
_SESSION_S = 1800.0
SUITE = """
from pathlib import Path

from edgecheck import Artifact, Conformance, Input, Model

HERE = Path(__file__).parent
for path in sorted(HERE.joinpath("files").iterdir()):
    name, kind, _ = path.name.split("-", 2)
    given = {"inputs": [Input("x", ("batch", 12), low=-1, high=1)], "outputs": ["y"]}
    if kind == "source":
        model = Model(path, targets={"ort": ["fp32"]}, **given)
    else:
        model = Model(HERE / "sound.onnx", artifacts={(kind, "fp32"): Artifact(path)}, **given)
    suite = type(f"Test{name.title()}", (Conformance,), {"model": model, "__module__": __name__})
    globals()[suite.__name__] = suite
del suite
"""


class Network(torch.nn.Module):
    """Small, with weights of several shapes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(12, 16)
        self.second = torch.nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x))).sigmoid()


@dataclass
class Tally:
    """What became of mutants.

    Attributes:
        verdicts: how often a mutant as a whole passed or failed, by kind of file.
        problems: what must not be, in a sentence each.
    """

    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Bytes with one to three faults: bits, ranges and ends, most of them small."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        start = rng.randrange(len(changed) + 1)
        length = min(rng.choice((1, 2, 4, 4, 16, 64, 1024)), len(changed) - start)
        junk = rng.randbytes(length)
        match rng.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 6)):
            case 0 if start < len(changed):
                changed[start] ^= 1 << rng.randrange(8)
            case 1:
                changed[start : start + length] = junk
            case 2:
                changed[start : start + length] = bytes(length)
            case 3:
                del changed[start : start + length]
            case 4:
                changed[start:start] = changed[start : start + length]
            case 5:
                del changed[start:]
            case _:
                changed += junk
    return bytes(changed)


def mutate(sound: Path, path: Path, rng: random.Random) -> None:
    """Write a mutant of a file, or of one file of a package."""
    if not sound.is_dir():
        path.write_bytes(mutated(sound.read_bytes(), rng))
        return
    shutil.copytree(sound, path)
    inside = rng.choice(sorted(item for item in path.rglob("*") if item.is_file()))
    inside.write_bytes(mutated(inside.read_bytes(), rng))


def run(count: int, seed: int, folder: Path, *, workers: int = 2, at_once: int = 60) -> Tally:
    """Judge mutants of all kinds, some in each pytest run."""
    tally, rng = Tally(), random.Random(seed)
    samples = {"x": np.random.default_rng(0).uniform(-1, 1, (64, 12)).astype(np.float32)}
    folder.mkdir(parents=True, exist_ok=True)
    shops = {name: _workshop(name, samples, folder) for name in TARGETS}
    try:
        kinds = [*TARGETS, *(f"source{suffix}" for suffix in SOURCES)]
        sound = {name: shop.file("fp32") for name, shop in shops.items()}
        for suffix, file in zip(SOURCES, (sound["ort"], shops["ort"].program), strict=True):
            sound[f"source{suffix}"] = file
        for first in range(0, count, at_once):
            batch = folder / f"session-{first}"
            (batch / "files").mkdir(parents=True)
            shutil.copy(sound["ort"], batch / "sound.onnx")
            made = {}
            for number in range(first, min(first + at_once, count)):
                kind = kinds[number % len(kinds)]
                suffix = sound[kind].suffix
                path = batch / "files" / f"m{number}-{kind.split('.')[0]}-x{suffix}"
                mutate(sound[kind], path, rng)
                made[f"m{number}"] = (kind, path)
            _judge(batch, made, shops, tally, workers)
            print(f"{first + len(made)} of {count} mutants", file=sys.stderr, flush=True)
            shutil.rmtree(batch)
    finally:
        for shop in shops.values():
            shop.close()
    return tally


def _workshop(name: str, samples: dict[str, Any], folder: Path) -> Workshop:
    own = folder / f"sound-{name}"
    own.mkdir()
    return Workshop(find_target(name), Network().eval(), samples, own)


def _judge(
    batch: Path,
    made: Mapping[str, tuple[str, Path]],
    shops: Mapping[str, Workshop],
    tally: Tally,
    workers: int,
) -> None:
    (batch / "test_suite.py").write_text(SUITE)
    temporary = batch / "temporary"
    temporary.mkdir()
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"),
        *("--edge-history=none", "--edge-json=edge.json", "--edge-html=edge.html"),
        *("--junitxml=junit.xml", f"--edge-lock={batch / 'lock'}", f"--edge-cache={batch / 'c'}"),
        *(f"--edge-targets={','.join(TARGETS)}", "--edge-checks=export,parity"),
        *("--edge-timeout=60", "--edge-missing=skip", *(["-n", str(workers)] * (workers > 1))),
    ]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        **{"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
    }
    try:
        done = subprocess.run(
            command, cwd=batch, env=environment, capture_output=True, text=True, timeout=_SESSION_S
        )
    except subprocess.TimeoutExpired:
        tally.problems.append(f"{batch.name}: the run hangs")
        return
    if done.returncode not in (0, 1) or "INTERNALERROR" in done.stdout:
        tail = f"{done.stdout}{done.stderr}"[-1500:]
        tally.problems.append(f"{batch.name}: exit code {done.returncode}: {tail}")
        return
    report = json.loads((batch / "edge.json").read_text())
    by_name: dict[str, list[dict[str, Any]]] = {name: [] for name in made}
    for case in report["cases"]:
        by_name[case["model"]].append(case)
    for name, cases in by_name.items():
        kind, path = made[name]
        tally.problems += [f"{name} ({kind}): {text}" for text in _wrong_words(cases)]
        verdict = "passed" if {case["verdict"] for case in cases} == {"passed"} else "failed"
        tally.verdicts[kind, verdict] += 1
        if verdict == "passed" and kind in shops and (text := _difference(shops[kind], path)):
            tally.problems.append(f"{name} ({kind}): passed, and {text}")
    if left := left_in(temporary):
        tally.problems.append(f"{batch.name}: left behind: {', '.join(left[:5])}")


def left_in(temporary: Path) -> list[str]:
    """What lies in a folder for temporary files, but for what others keep there on purpose.

    That is pytest's folder, and a file in which ONNX Runtime 1.31 names its session.
    """
    names = sorted(item.name for item in temporary.iterdir())
    return [name for name in names if not name.startswith("pytest-of-") and name != ".ses"]


def _wrong_words(cases: list[dict[str, Any]]) -> Iterator[str]:
    if not cases:
        yield "no case of it was judged"
    for case in cases:
        reason = case["reason"]
        signs = ("Traceback", "site-packages", '.py", line', "\n")
        if any(sign in reason for sign in signs):
            yield f"a traceback for a reason: {reason[:300]!r}"
        if case["verdict"] != "passed" and not reason.strip():
            yield "no reason"


def _difference(shop: Workshop, mutant: Path) -> str:
    """What differs between a mutant's outputs and the sound file's on inputs of its own, or ""."""
    rng = np.random.default_rng(7)
    feed = shop.save("fresh", {"x": rng.uniform(-1, 1, (64, 12)).astype(np.float32)})
    expected = shop.run(shop.runner("fp32"), feed)
    try:
        found = shop.run(shop.runner("fp32", path=mutant), feed)
    except EdgecheckError as error:
        return f"does not run: {error}"
    if found.shape != expected.shape:
        return f"its output has the shape {found.shape}"
    off = float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))
    return "" if off < WRONG else f"its outputs are off by {off:.2g} of their size"
