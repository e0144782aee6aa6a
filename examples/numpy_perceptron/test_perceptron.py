from edgecheck_numpy_perceptron import TARGET

from edgecheck.testing import TargetConformance


class TestPerceptron(TargetConformance):
    target = TARGET
