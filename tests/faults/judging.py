"""Runs pytest on a suite that is written for it, as a user would. Not for what is in the suite."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# The entry point of the targets that leak; see `leaking`.
SITE = str(Path(__file__).with_name("site"))
sys.path.append(SITE)
_SHARE = re.compile(r"\[ *(\d+)%\]")


def judge(
    folder: Path, source: str, targets: Iterable[str], workers: int, *options: str
) -> dict[str, Any]:
    """What ``--edge-json`` wrote of a suite.

    Args:
        source: of the test module; its output stays beside it in ``pytest.txt``.
    """
    (folder / "test_suite.py").write_text(source)
    report = folder / "edge.json"
    command = [
        *(sys.executable, "-m", "pytest", str(folder / "test_suite.py")),
        *("-q", "--tb=no", "-p", "no:cacheprovider", "--rootdir", str(folder)),
        *("--edge-history=none", f"--edge-json={report}"),
        *(f"--edge-cache={folder / 'cache'}", f"--edge-lock={folder / 'lock'}"),
        "--edge-targets=" + ",".join(sorted(targets)),
        *(["-n", str(workers), "--dist=loadscope"] if workers > 1 else []),
        *options,
    ]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        "PYTHONPATH": os.pathsep.join([str(ROOT), SITE]),
    }
    log = folder / "pytest.txt"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            stream.write(line)
            if share := _SHARE.search(line):
                progress(f"judging {share[1]} %")
    progress("")
    if process.returncode not in (0, 1):
        raise SystemExit(f"pytest did not run the cases:\n{log.read_text()[-3000:]}")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def progress(text: str) -> None:
    """One line on the terminal that is rewritten; "" clears it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
