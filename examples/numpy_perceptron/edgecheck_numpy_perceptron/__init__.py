"""A target that edgecheck does not know: perceptrons as .npz files, run with NumPy alone."""

from edgecheck.targets.base import Build, Files, Host, Runtime, Target

TARGET = Target(
    name="numpy-perceptron",
    title="NumPy perceptron",
    files=Files(suffix=".npz"),
    build=Build(
        builder="edgecheck_numpy_perceptron.build:PerceptronBuilder",
        precisions={"fp32": "torch", "fp16": "float"},
        distributions=("numpy",),
    ),
    runtime=Runtime(
        package="numpy",
        runner="edgecheck_numpy_perceptron.run:PerceptronRunner",
        tracer="edgecheck_numpy_perceptron.trace:PerceptronTracer",
    ),
    host=Host(packages={"numpy": "numpy"}, install="pip install edgecheck-numpy-perceptron"),
)
