"""The tiny model that the tests share: its file has the weights that its module draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TINY_NETWORK, TINY_WEIGHTS, write_tiny


@pytest.mark.long
def test_the_file_is_the_module(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    names: dict[str, Any] = {}
    exec(TINY_NETWORK, names)
    tiny = names["Tiny"]().eval()
    with np.load(TINY_WEIGHTS) as weights:
        for name, drawn in tiny.state_dict().items():
            np.testing.assert_allclose(weights[name], drawn.numpy(), rtol=1e-6)
    write_tiny(tmp_path)
    x = np.random.default_rng(2).uniform(0, 1, (200, 16)).astype(np.float32)
    (given,) = onnxruntime.InferenceSession(tmp_path / "tiny_file.onnx").run(None, {"x": x})
    with torch.no_grad():
        expected = tiny(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)
    assert (np.load(tmp_path / "tiny_labels.npy") == expected.argmax(1)).all()
