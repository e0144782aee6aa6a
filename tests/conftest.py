"""What the tests share: small trained-looking models, and a pytester with the plugin's cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

# A linear classifier with fixed weights: everything that edgecheck does, in milliseconds.
MODULES = '''
import numpy as np
import torch
import edgecheck

class Tiny(torch.nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.hidden = torch.nn.Linear(16, 32)
        self.output = torch.nn.Linear(32, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)

    def forward(self, x):
        return self.output(torch.relu(self.hidden(x)))

def tiny():
    return Tiny().eval()

def inputs(count=64, seed=1):
    return np.random.default_rng(seed).uniform(0, 1, (count, 16)).astype(np.float32)

def evaluation_inputs():
    return inputs(200, seed=2)

def labels():
    with torch.no_grad():
        return tiny()(torch.from_numpy(evaluation_inputs())).argmax(1).numpy()

X = edgecheck.Input("x", ("batch", 16), low=0.0, high=1.0)

def model(source=tiny, **options):
    options = {"inputs": [X], "outputs": ["logits"], **options}
    return edgecheck.Model(source, **options)
'''


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One artifact cache for all tests: what is built alike is built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run_suite(
    pytester: pytest.Pytester, cache: Path
) -> Callable[..., pytest.RunResult]:
    """Run a suite, given as source that may use `MODULES`, in a pytest process of its own."""

    def run(suite: str, *arguments: str, timeout: float = 300) -> pytest.RunResult:
        pytester.makepyfile(tiny_models=MODULES)
        pytester.makepyfile(test_suite="from tiny_models import *\n" + suite)
        pytester.syspathinsert()
        return pytester.runpytest_subprocess(
            f"--edge-cache={cache}", "-p", "no:cacheprovider", *arguments, timeout=timeout
        )

    return run
