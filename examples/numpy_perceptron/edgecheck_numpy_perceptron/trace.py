"""Shows what each layer of a perceptron computes."""

from __future__ import annotations

import numpy as np

from edgecheck.runtime.trace import Seen
from edgecheck.runtime.tracer import Tracer
from edgecheck_numpy_perceptron.run import PerceptronRunner


class PerceptronTracer(Tracer, PerceptronRunner):
    """A perceptron whose layers are run one at a time."""

    def observe(self, inputs: dict[str, np.ndarray]) -> tuple[list[Seen], dict[str, np.ndarray]]:
        (values,) = inputs.values()
        seen = []
        for position, (weight, bias) in enumerate(self.layers):
            values = (np.maximum(values, 0) if position else values) @ weight.T + bias
            seen.append(Seen(f"layer{position}", "linear", "float32", values))
        return seen, {self.output: values}
