"""Model files that are named: what is no file, leads elsewhere, or is too large is refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from edgecheck.capture.model_files import existing
from edgecheck.errors import ArtifactError


def refused(path: Path, limit_bytes: int = 10_000) -> str:
    with pytest.raises(ArtifactError) as caught:
        existing(path, "artifact", limit_bytes)
    return str(caught.value)


def test_files_and_folders_within_the_limit_are_given_back(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"0" * 10_000)
    assert existing(file, "artifact", 10_000) == file
    package = tmp_path / "model.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "weight.bin").write_bytes(b"0" * 5_000)
    (package / "link.bin").symlink_to("Data/weight.bin")
    assert existing(package, "artifact", 10_000) == package


def test_what_is_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with file.open("wb") as stream:
        stream.truncate(3 * 10**9)
    says = refused(file, 10**9)
    assert says.startswith(f"artifact {file} has 3 GB, more than the limit of 1 GB")
    assert "--edge-file-limit" in says
    folder = tmp_path / "saved_model"
    folder.mkdir()
    file.rename(folder / "variables")
    assert "has 3 GB" in refused(folder, 10**9)


def test_an_archive_counts_as_what_it_unpacks_to(tmp_path: Path) -> None:
    bomb = tmp_path / "model.pt2"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models/model.json", b"[" * 10**6)
    assert bomb.stat().st_size < 10_000
    assert "has 1 MB" in refused(bomb)


@pytest.mark.parametrize("inside", [False, True])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, inside: bool) -> None:
    folder = tmp_path / "model.mlpackage"
    folder.mkdir()
    pipe = folder / "model.onnx"
    os.mkfifo(pipe)
    says = refused(folder if inside else pipe)
    assert f"{pipe} " in says and "is no plain file" in says
    assert inside == (f"in artifact {folder}" in says)


def test_a_link_to_a_device_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "model.onnx"
    link.symlink_to("/dev/zero")
    assert "is no plain file" in refused(link)


@pytest.mark.parametrize(("target", "says"), [("/etc", "leads out of it"), ("x", "leads nowhere")])
def test_links_in_a_folder_stay_in_it(tmp_path: Path, target: str, says: str) -> None:
    folder = tmp_path / "model.mlpackage"
    folder.mkdir()
    (folder / "Data").symlink_to(target)
    assert refused(folder) == f"artifact {folder} holds the link Data, which {says}"
