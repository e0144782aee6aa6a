"""The float weights in a .pt2 file, read without PyTorch, whose import takes seconds.

The layout is that of PyTorch 2.9's archives (torch/export/pt2_archive/_package.py and
torch/_export/serde/schema.py): raw tensors in a zip file, described in JSON. What is laid out
otherwise PyTorch reads.
"""

from __future__ import annotations

import json
import math
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecheck.names import layer_of
from edgecheck.targets.common import keep_float

Array = npt.NDArray[Any]

_CONFIG = "data/weights/model_weights_config.json"
# Of torch/_export/serde/schema.py: ScalarType, and Layout.Strided. bfloat16 is widened.
_BFLOAT16, _STRIDED = 13, 7
_DTYPES = {6: "<f2", 7: "<f4", 8: "<f8", _BFLOAT16: "<u2"}


class _OtherLayoutError(Exception):
    """The archive is not as described above."""


def read(path: str) -> dict[str, list[Array]]:
    """Float weights of two axes or more by layer, in float32 (see `kept.program_weights`)."""
    try:
        return _read(path)
    except (_OtherLayoutError, zipfile.BadZipFile, KeyError, TypeError, ValueError):
        return keep_float.program_weights(path)


def _read(path: str) -> dict[str, list[Array]]:
    found: dict[str, list[Array]] = {}
    with zipfile.ZipFile(path) as archive:
        configs = [name for name in archive.namelist() if name.endswith(f"/{_CONFIG}")]
        if len(configs) != 1:
            raise _OtherLayoutError
        folder = configs[0].rpartition("/")[0]
        for name, entry in json.loads(archive.read(configs[0]))["config"].items():
            meta = entry["tensor_meta"]
            shape = [size["as_int"] for size in meta["sizes"]]
            if meta["dtype"] not in _DTYPES or len(shape) < 2:
                continue
            dense = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
            strides = [stride["as_int"] for stride in meta["strides"]]
            plain = meta["layout"] == _STRIDED and meta["storage_offset"]["as_int"] == 0
            if entry["use_pickle"] or not plain or strides != dense:
                raise _OtherLayoutError
            raw = archive.read(f"{folder}/{entry['path_name']}")
            values: Array = np.frombuffer(raw, _DTYPES[meta["dtype"]]).reshape(shape)
            if meta["dtype"] == _BFLOAT16:
                values = (values.astype(np.uint32) << 16).view(np.float32)
            found.setdefault(layer_of(name), []).append(values.astype(np.float32, copy=False))
    return found
