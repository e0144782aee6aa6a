"""Models of a stated size for the latency benchmarks: chains of equal layers, in both formats.

One layer more is a slowdown of a known share, made of real work.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgecheck.devices.local import Loadable

LAYERS = 20
# Rows and width of the matrix products, by the time that one inference of LAYERS layers takes.
SIZES = {"0.05 ms": (4, 128), "0.5 ms": (16, 256), "5 ms": (128, 384), "50 ms": (512, 640)}


def save(directory: Path, size: str, target: str, extra_layers: int = 0) -> Loadable:
    """Write a chain and its input; the file is reused where it exists."""
    import numpy as np

    rows, width = SIZES[size]
    name = f"{size.replace(' ', '')}-{LAYERS + extra_layers}-{target}"
    path = directory / f"{name}{'.onnx' if target == 'ort' else '.tflite'}"
    feed = directory / f"{name}.npy"
    if not path.is_file():
        (_save_onnx if target == "ort" else _save_tflite)(path, rows, width, LAYERS + extra_layers)
        rng = np.random.default_rng(0)
        np.save(feed, rng.standard_normal((rows, width)).astype(np.float32))
    return Loadable(path, _binding(path, target), {"x": str(feed)})


def _binding(path: Path, target: str) -> dict[str, object]:
    names = ("x", "y")
    if target == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner()
        names = (*runner.get_input_details(), *runner.get_output_details())
    sides = ({"name": name, "transpose": None} for name in names)
    return {"inputs": {"x": next(sides)}, "outputs": {"y": next(sides)}, "batched": [], "batch": 1}


def _module(width: int, layers: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    chain = torch.nn.Sequential()
    for _ in range(layers):
        layer = torch.nn.Linear(width, width)
        with torch.no_grad():
            # Outputs keep the size of inputs: no denormal numbers, which are slow.
            layer.weight.copy_(torch.randn(width, width, generator=generator) * (2 / width) ** 0.5)
        chain.extend([layer, torch.nn.ReLU()])
    return chain.eval()


def _save_onnx(path: Path, rows: int, width: int, layers: int) -> None:
    import torch

    torch.onnx.export(
        _module(width, layers),
        (torch.zeros(rows, width),),
        path,
        input_names=["x"],
        output_names=["y"],
        external_data=False,
        verbose=False,
    )


def _save_tflite(path: Path, rows: int, width: int, layers: int) -> None:
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"
    import litert_torch
    import torch

    litert_torch.convert(_module(width, layers), (torch.zeros(rows, width),)).export(str(path))
