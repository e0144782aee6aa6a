"""Shows what each layer of a perceptron computes."""

import numpy as np

from edgecheck.runtime.trace import Seen
from edgecheck.runtime.tracer import Tracer
from edgecheck_numpy_perceptron.run import PerceptronRunner


class PerceptronTracer(Tracer, PerceptronRunner):
    def observe(self, inputs: dict[str, np.ndarray]) -> tuple[list[Seen], dict[str, np.ndarray]]:
        outputs = self.layer_outputs(inputs["x"])
        seen = [Seen(f"layer{n}", "linear", "float32", values) for n, values in enumerate(outputs)]
        return seen, {self.output: outputs[-1]}
