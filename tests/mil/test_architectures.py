"""A slice of `make architectures`: two networks of transformers, which the dev extra brings."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("transformers")


@pytest.mark.long
def test_architectures_of_others_agree_with_pytorch() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.architectures", "BertModel", "Wav2Vec2ForCTC"],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 of 2 within 0.0001, 0 over it." in done.stdout
