"""False regressions between runs: the same files judged again and again against one baseline.

Half of them with the other cores idle, half with all busy. Not for the comparison of two
files within one run: that is `benchmarks.regressions`.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from benchmarks import chain
from benchmarks.common import PLUGIN, BenchmarkError, Row, environment, pytest, told
from benchmarks.regressions import busy_cores

RERUNS, ALLOWED = 200, 1
TARGETS = ("ort", "tflite")

SUITE = """
from edgecheck import Conformance, Input, Model

SIZES = {sizes!r}


def declared(files, rows, width):
    return Model(
        files["ort"],
        inputs=[Input("x", (rows, width), low=-1, high=1)],
        outputs=["y"],
        artifacts={{(target, "fp32"): path for target, path in files.items()}},
    )


for number, (files, rows, width) in enumerate(SIZES):
    suite = type(f"TestChain{{number}}", (Conformance,), {{"model": declared(files, rows, width)}})
    globals()[suite.__name__] = suite
del suite
"""


def measure(quick: bool) -> list[Row]:
    """Count the runs of unchanged files that ``--edge-fail-on=regression`` fails."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        _write_suite(place)
        _run(place, "--edge-json=base.json")
        for busy in (False, True):
            count = max(2, round(RERUNS / 2 * (0.03 if quick else 1.0)))
            state = "busy" if busy else "idle"
            with (
                told(f"{count} reruns, other cores {state}"),
                busy_cores() if busy else contextlib.nullcontext(),
            ):
                closed = sum(_is_closed(place) for _ in range(count))
            what = f"reruns of unchanged files that close the gate, other cores {state}"
            rows.append(Row(what, f"{closed} of {count}", f"<= {ALLOWED}", closed <= ALLOWED))
    return rows


def _write_suite(place: Path) -> None:
    sizes = []
    for size in ("0.05 ms", "5 ms"):
        files = {}
        for target in TARGETS:
            files[target] = str(chain.save(place, size, target).path)
        sizes.append((files, *chain.SIZES[size]))
    (place / "test_chains.py").write_text(SUITE.format(sizes=sizes))


def _run(place: Path, *arguments: str) -> None:
    common = ("-q", "--edge-targets=ort,tflite", "--edge-precisions=fp32", "--edge-history=none")
    checks = "--edge-checks=export,latency,memory"
    pytest([*PLUGIN, *common, checks, *arguments], cwd=place, env=environment())


def _is_closed(place: Path) -> bool:
    try:
        _run(place, "--edge-baseline=base.json", "--edge-fail-on=regression")
    except BenchmarkError as error:
        if "regression against" not in str(error):
            raise
        return True
    return False
