"""Writes and inspects .npz perceptrons."""

from pathlib import Path

import numpy as np

from edgecheck.runtime.torch_program import load_program
from edgecheck.targets.base import Builder, BuildRequest, Inspection
from edgecheck.targets.common.contents import Contents


class PerceptronBuilder(Builder):
    """Stores the weights and biases of a program's linear layers, in order."""

    def write(self, request: BuildRequest) -> None:
        if request.precision == "fp16":
            with np.load(request.source, allow_pickle=False) as stored:
                arrays = {
                    name: array.astype(np.float16) if array.dtype == np.float32 else array
                    for name, array in stored.items()
                }
        else:
            program = load_program(request.source)
            arrays = {name: value.detach().numpy() for name, value in program.state_dict.items()}
            arrays["output_name"] = np.array(request.outputs[0])
        with Path(request.output).open("wb") as stream:
            np.savez(stream, **arrays)

    def inspect_file(self, path: Path) -> Inspection:
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = [array for array in stored.values() if array.dtype.kind == "f"]
        except Exception as error:
            return Inspection.unreadable(f"{path.name} is not an .npz file: {error}")
        contents = Contents()
        for array in arrays:
            contents.add_weight(array.dtype.name, array.size, array.nbytes)
        return contents.added_to(Inspection(format={"container": "npz"}))
