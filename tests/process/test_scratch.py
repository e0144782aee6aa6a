"""Directories for temporary files: those of killed runs are removed, others stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from edgecheck.process import scratch

LONG_AGO = time.time() - 3600


def made(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / "large.npy").write_bytes(b"0" * 1000)
    os.utime(folder, (LONG_AGO, LONG_AGO))
    return folder


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / f"edgecheck-{'a' * 32}"
    hold = "import sys, time; from pathlib import Path; from edgecheck.process import scratch; "
    run = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{hold}scratch.hold(Path(sys.argv[1])); print(1, flush=True); time.sleep(300)",
            str(folder),
        ],
        stdout=subprocess.PIPE,
    )
    assert run.stdout is not None and run.stdout.readline() == b"1\n"
    os.utime(folder, (LONG_AGO, LONG_AGO))
    assert scratch.remove_abandoned(tmp_path) == []
    run.kill()
    run.wait()
    run.stdout.close()
    assert scratch.remove_abandoned(tmp_path) == [folder]
    assert not folder.exists()


def test_what_may_be_anothers_stays(tmp_path: Path) -> None:
    names = ["edgecheck-notes", f"edgecheck-{'b' * 31}", f"other-{'b' * 32}"]
    others = [made(tmp_path, name) for name in names]
    young = tmp_path / f"edgecheck-{'c' * 32}"
    young.mkdir()
    target = made(tmp_path, "target")
    link = tmp_path / f"edgecheck-{'d' * 32}"
    link.symlink_to(target)
    assert scratch.remove_abandoned(tmp_path) == []
    assert all(path.exists() for path in (*others, young, target, link))
