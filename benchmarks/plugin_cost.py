"""What a pytest run that has nothing to do with models pays for edgecheck being installed."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.common import PLUGIN, Row, at_most, environment, pytest

PAIRS = 40
QUICK_PAIRS = 10
LIMIT_MS = 20.0
ML_LIBRARIES = (
    *("torch", "onnx", "onnxruntime", "tensorflow", "ai_edge_litert", "litert_torch"),
    *("sklearn", "scipy"),
)
_TEST = "def test_nothing():\n    assert 1 + 1 == 2\n"
# A pytest plugin that notes at the very end of the process what was imported.
_WITNESS = """
import atexit, json, sys

@atexit.register
def note():
    with open("imported.json", "w") as stream:
        json.dump(sorted(sys.modules), stream)
"""


def measure(quick: bool) -> list[Row]:
    """Time trivial runs with and without the plugin, in turn; look at what it imports."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "test_trivial.py").write_text(_TEST)
        (place / "witness.py").write_text(_WITNESS)
        differences_ms = _paired_differences_ms(place, QUICK_PAIRS if quick else PAIRS)
        imported = _imported(place)
    libraries = [name for name in ML_LIBRARIES if name in imported]
    lower, _, upper = statistics.quantiles(differences_ms, n=4)
    return [
        at_most(
            "unrelated run, with the plugin minus without (median of pairs)",
            statistics.median(differences_ms),
            LIMIT_MS,
            "ms",
        ),
        Row(f"  middle half of its {len(differences_ms)} pairs", f"{lower:.3g} to {upper:.3g} ms"),
        Row("  ML libraries it imports", ", ".join(libraries) or "none", "none", not libraries),
        Row("  imports numpy", "yes" if "numpy" in imported else "no"),
    ]


def _paired_differences_ms(place: Path, pairs: int) -> list[float]:
    """With minus without, each pair in the other order than the one before."""
    for plugin in ((), PLUGIN):  # write the bytecode, warm the disk
        _run_s(place, plugin)
    differences = []
    for pair in range(pairs):
        order = ((), PLUGIN) if pair % 2 else (PLUGIN, ())
        took = {plugin: _run_s(place, plugin) for plugin in order}
        differences.append(1e3 * (took[PLUGIN] - took[()]))
    return differences


def _run_s(place: Path, plugin: tuple[str, ...]) -> float:
    return pytest(["-q", *plugin], cwd=place, env=environment()).wall_s


def _imported(place: Path) -> set[str]:
    pytest(["-q", "-p", "witness", *PLUGIN], cwd=place, env=environment(place))
    return set(json.loads((place / "imported.json").read_text()))
