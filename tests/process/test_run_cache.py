"""Doing each thing once a run: by one process for all, failures included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgecheck.errors import ArtifactError, ChildError, DataError, EdgecheckError
from edgecheck.process.run_cache import Once

WORKER = """
import sys, time
from pathlib import Path
from edgecheck.process.run_cache import Once

def produce(folder):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    time.sleep(0.2)
    (folder / "file").write_text("content")
    return {"path": str(folder / "file")}

print(Path(Once(Path(sys.argv[1]))("thing", produce)["path"]).read_text())
"""


def test_one_of_many_processes_does_it_and_all_have_the_result(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", WORKER, str(tmp_path / "scratch"), str(log)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [worker.communicate()[0] for worker in workers] == ["content\n"] * 6
    assert log.read_text() == "made\n"


@pytest.mark.parametrize(
    "error",
    [
        ArtifactError("no file"),
        DataError("no data"),
        EdgecheckError("neither"),
        ChildError("it crashed", kind="crashed", log_tail="last words"),
    ],
)
def test_a_failure_is_the_same_for_all_and_not_tried_again(
    tmp_path: Path, error: EdgecheckError
) -> None:
    tries = []

    def fail(folder: Path) -> None:
        tries.append(folder)
        raise error

    first, other = Once(tmp_path), Once(tmp_path)
    for once in (first, first, other):
        with pytest.raises(type(error)) as caught:
            once("thing", fail)
        assert str(caught.value) == str(error)
        assert vars(caught.value) == vars(error)
    assert len(tries) == 1


def test_different_things_have_folders_of_their_own(tmp_path: Path) -> None:
    once = Once(tmp_path)
    folders = {once(name, str) for name in ("a", "b", "../c", "a b")}
    assert len(folders) == 4
    assert all(Path(folder).parent == tmp_path / "once" for folder in folders)


def test_an_error_that_nobody_foresaw_is_not_remembered(tmp_path: Path) -> None:
    once = Once(tmp_path)
    with pytest.raises(ZeroDivisionError):
        once("thing", lambda folder: 1 / 0)
    assert once("thing", lambda folder: 5) == 5
