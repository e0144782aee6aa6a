"""A weight by few values, as palettization stores it: part of the simulated quantizers."""

from __future__ import annotations

import torch

_LLOYD_STEPS = 100


def palettized(weight: torch.Tensor, entries: int) -> torch.Tensor:
    """A weight with each element replaced by the nearest of so many values.

    They are found by k-means (Lloyd, Least Squares Quantization in PCM, 1982), on sorted numbers:
    each value's own are a stretch of them.
    """
    ordered = weight.detach().flatten().double().sort().values
    sums = torch.cat((ordered.new_zeros(1), ordered.cumsum(0)))
    places = torch.linspace(0, len(ordered) - 1, entries).round().long()
    # Between quantiles, which leave out the tails, and even spacing, which sees little else.
    even = torch.linspace(float(ordered[0]), float(ordered[-1]), entries, dtype=torch.float64)
    values = (ordered[places] + even) / 2
    for _ in range(_LLOYD_STEPS):
        edges = torch.searchsorted(ordered, (values[1:] + values[:-1]) / 2)
        bounds = torch.cat((edges.new_zeros(1), edges, edges.new_full((1,), len(ordered))))
        counts = bounds.diff()
        means = (sums[bounds[1:]] - sums[bounds[:-1]]) / counts.clamp(min=1)
        moved = torch.where(counts > 0, means, values)
        if torch.equal(moved, values):
            break
        values = moved
    nearest = torch.bucketize(weight.double().contiguous(), (values[1:] + values[:-1]) / 2)
    found: torch.Tensor = values[nearest].to(weight.dtype)
    return found
