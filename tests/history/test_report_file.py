"""The JSON report: written whole or not at all, and known to be writable before the run."""

from __future__ import annotations

import json
import math
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.errors import EdgecheckError
from edgecheck.history import report_file as report

law = settings(deadline=None, derandomize=True, max_examples=50)

documents = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    ),
    max_size=4,
)  # fmt: skip


@law
@given(documents)
def test_what_is_written_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("json") / "edge.json"
    report.write(path, document)
    assert json.loads(path.read_text(encoding="utf-8")) == document
    assert path.read_text(encoding="utf-8").endswith("}\n")


def test_a_report_replaces_an_older_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "edge.json"
    path.write_text("x" * 10_000)
    report.write(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["edge.json"]


def test_others_may_read_the_report(tmp_path: Path) -> None:
    report.write(tmp_path / "edge.json", {})
    assert stat.S_IMODE((tmp_path / "edge.json").stat().st_mode) == 0o644


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}, b"bytes"])
def test_a_document_that_is_no_json_leaves_the_older_report_and_no_litter(
    value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "edge.json"
    path.write_text("older")
    with pytest.raises((ValueError, TypeError)):
        report.write(path, {"a": value})
    assert path.read_text() == "older"
    assert [item.name for item in tmp_path.iterdir()] == ["edge.json"]


def test_a_report_can_hold_file_names_that_are_no_unicode(tmp_path: Path) -> None:
    """An argument of the command line may hold any bytes; Python reads them as surrogates."""
    report.write(tmp_path / "edge.json", {"command": ["pytest", "suite-\udcff.py"]})
    assert json.loads((tmp_path / "edge.json").read_text())["command"][0] == "pytest"


def test_a_disk_that_is_full_leaves_the_older_report_and_no_litter(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        (place / "edge.json").write_text("older")
        with pytest.raises(OSError, match="No space left"):
            report.write(place / "edge.json", {"a": "x" * 100_000})
        assert (place / "edge.json").read_text() == "older"
        assert [item.name for item in place.iterdir()] == ["edge.json"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


# -- before the run


def test_a_path_in_new_folders_is_made_writable_and_nothing_left_in_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "edge.json"
    report.check_writable(path)
    assert list(path.parent.iterdir()) == []
    report.write(path, {"a": 1})
    assert path.is_file()


def test_an_existing_report_is_left_alone_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "edge.json").write_text("older")
    report.check_writable(tmp_path / "edge.json")
    assert (tmp_path / "edge.json").read_text() == "older"


def test_a_folder_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(EdgecheckError, match="Is a directory"):
        report.check_writable(tmp_path)


@pytest.mark.parametrize("below", ["edge.json", "folder/edge.json"])
def test_a_path_below_a_file_is_refused(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgecheckError, match=r"can't write .*file"):
        report.check_writable(tmp_path / "file" / below)


def test_a_name_that_is_too_long_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(EdgecheckError, match="can't write"):
        report.check_writable(tmp_path / ("a" * 300))
