"""The Core ML models inside a .pte file, taken out as .mlpackage folders.

For inspecting them, and for running them with `edgecheck.mil`. The format is that of
backends/apple/coreml/runtime/inmemoryfs in ExecuTorch: the files' bytes one after another, then a
JSON index of them with the root folder last, written backwards so that it can be read from the
end. ExecuTorch's own binding is not used, since it writes whatever paths the index names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from edgecheck.targets.executorch.file import FileError, Program, mapped, read_program

BACKEND = "CoreMLBackend"
# Where programs of several methods say under which name their shared data is (coreml_preprocess).
_REFERENCE = b"CMJR"
_MOST_FILES = 10_000
_FILE_KIND, _FOLDER_KIND = 0, 1
_PLAIN_NAME = re.compile(r"[^/\\\x00-\x1f]+")


def extract_packages(path: str, directory: Path) -> list[Path]:
    """Write the file's Core ML models below a directory, and return their .mlpackage folders.

    Beside each is a ``metadata.json`` with ``inputNames`` and ``outputNames`` in the order in which
    the program passes them.

    Raises:
        FileError: the file is damaged, or holds compiled models, which only macOS reads.
    """
    with mapped(path) as data:
        program = read_program(data)
        found = []
        for index, (start, end) in enumerate(_spans(program, data)):
            folder = directory / f"model_{index}"
            _unpack(bytes(data[start:end]), folder)
            package = folder / "model.mlpackage"
            if not package.is_dir():
                raise FileError(f"Core ML model {index} of the program is not a .mlpackage")
            found.append(package)
    return found


def _spans(program: Program, data: Any) -> Iterator[tuple[int, int]]:
    """Where the models' data is, each once."""
    seen = set()
    for delegate in (item for method in program.methods for item in method.delegates):
        span = (delegate.start, delegate.end)
        if delegate.backend != BACKEND:
            continue
        if data[delegate.start : delegate.start + 4] == _REFERENCE:
            try:
                key = json.loads(bytes(data[delegate.start + 4 : delegate.end]))["key"]
                span = program.named[key]
            except (ValueError, KeyError, TypeError) as error:
                raise FileError("a Core ML delegate refers to data that is not there") from error
        if span not in seen:
            seen.add(span)
            yield span


def _unpack(blob: bytes, folder: Path) -> None:
    try:
        index, _ = json.JSONDecoder().raw_decode(blob[::-1].decode("latin-1"))
        nodes = index["nodes"]
        files = dict(_files(nodes, len(nodes) - 1, PurePosixPath()))
        for place, node in files.items():
            region = node["dataRegion"]
            start, size = int(region["offset"]), int(region["size"])
            if start < 0 or size < 0 or start + size > len(blob):
                raise FileError(f"{place} of a Core ML model is not all in the file")
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(blob[start : start + size])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"the index of a Core ML model can't be read: {error!r}") from error


def _files(
    nodes: list[dict[str, Any]], position: int, above: PurePosixPath
) -> Iterator[tuple[PurePosixPath, dict[str, Any]]]:
    """The files of an index by path, from a folder on.

    Raises:
        FileError: a name is a path of its own, or the folders hold each other.
    """
    if len(above.parts) > len(nodes) or len(nodes) > _MOST_FILES:
        raise FileError("the folders of a Core ML model hold each other")
    node = nodes[position]
    if node["kind"] == _FILE_KIND:
        yield above, node
        return
    for name, child in node["children"].items():
        # Windows would take a colon for a drive.
        if not _PLAIN_NAME.fullmatch(name) or name in (".", "..") or ":" in name:
            raise FileError(f"a Core ML model has a file named {name!r}")
        yield from _files(nodes, int(child), above / name)
