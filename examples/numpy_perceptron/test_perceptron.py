from edgecheck.testing import TargetConformance
from edgecheck_numpy_perceptron import TARGET


class TestPerceptron(TargetConformance):
    target = TARGET
