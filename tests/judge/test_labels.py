"""Labels: shares that differ, labels that are exchanged or lost, and ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecheck.judge.labels import LabelAgreement, over_honest, tied

law = settings(deadline=None, derandomize=True, max_examples=30)


def compared(candidate: np.ndarray, reference: np.ndarray) -> LabelAgreement:
    agreement = LabelAgreement()
    agreement.add(candidate, reference, "samples", classes=False)
    return agreement


def labels(classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (40, 10, 10))


@law
@given(classes=st.integers(2, 90), pair=st.tuples(st.integers(0, 1000), st.integers(1, 1000)))
def test_two_labels_that_changed_places_are_named(classes: int, pair: tuple[int, int]) -> None:
    one = pair[0] % classes
    other = (one + 1 + pair[1] % (classes - 1)) % classes
    reference = labels(classes)
    order = np.arange(classes)
    order[[one, other]] = order[[other, one]]
    (sentence,) = compared(order[reference], reference).failures("label")
    low, high = sorted((one, other))
    assert f"labels {low} and {high} are exchanged" in sentence


def test_labels_one_too_high_share_nothing() -> None:
    agreement = compared(labels(10) + 1, labels(10))
    assert agreement.metrics() == {"label_agreement": 0.0}
    assert "label 0 is lost" in agreement.failures("label")[0]
    assert agreement.interval()[1] < 0.1


@law
@given(seed=st.integers(0, 1000), classes=st.integers(2, 20), noise=st.floats(0.0, 0.25))
def test_noise_of_scores_confuses_nothing_systematically(
    seed: int, classes: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((30, classes, 8, 8))
    noisy = scores + noise * rng.standard_normal(scores.shape)
    agreement = compared(noisy.argmax(1), scores.argmax(1))
    assert agreement.failures("label") == []
    assert agreement.metrics()["label_agreement"] > 0.68


def test_the_interval_counts_samples_and_not_their_pixels() -> None:
    reference = np.zeros((10, 100, 100), bool)
    candidate = reference.copy()
    candidate[0] = True
    low, high = compared(candidate, reference).interval()
    assert low < 0.6 and high > 0.99


def test_swaps_and_the_first_difference_are_recorded() -> None:
    agreement = compared(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))
    assert agreement.worst == {"input": "samples", "index": [2], "candidate": 2, "reference": 1}
    assert agreement.record()["label_swaps"] == [
        {"reference": 1, "candidate": 2, "entries": 1, "of": 2}
    ]


@pytest.mark.parametrize("shape", [(), (3,), (0, 4)])
def test_labels_of_any_shape_agree_with_themselves(shape: tuple[int, ...]) -> None:
    agreement = compared(np.zeros(shape, np.int32), np.zeros(shape, np.int64))
    assert bool(agreement.worst) == (shape != (0, 4))
    assert agreement.same == agreement.entries


def test_scores_prove_a_tie_and_an_error() -> None:
    scores = np.array([[1.0, 5.0, 5.0], [1.0, 5.0, 2.0]])
    assert tied(np.array([2, 2]), np.array([1, 1]), scores, scores).tolist() == [True, False]
    assert not tied(np.array([9, -1]), np.array([1, 1]), scores, scores).any()
    assert not tied(np.array([2]), np.array([1]), scores[0], scores[0]).any()


# -- against a plain quantization


@law
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(1, 8))
def test_a_plain_quantization_is_never_over_itself(shares: list[float], most: float) -> None:
    ratio, proven = over_honest(shares, shares, most)
    assert not proven and (ratio in (0.0, 1.0) or ratio == pytest.approx(1.0))


def test_one_near_tie_proves_nothing_and_many_labels_do() -> None:
    none = [0.0] * 32
    assert over_honest([1.0, *none[1:]], none, 4.0) == (np.inf, False)
    rng = np.random.default_rng(0)
    plain = rng.uniform(0.0, 0.04, 32)
    ratio, proven = over_honest((plain + 0.4).tolist(), plain.tolist(), 4.0)
    assert ratio > 10 and proven
    ratio, proven = over_honest((3.0 * plain).tolist(), plain.tolist(), 4.0)
    assert ratio == pytest.approx(3.0) and not proven
    assert not over_honest([1.0] * 4, [0.0] * 4, 4.0)[1], "four samples are too few"
    assert over_honest([1.0] * 40, [0.0] * 40, 4.0)[1]


def test_chance_alone_is_hardly_ever_proof() -> None:
    """Labels that change four times as often by the same law are at the limit, not beyond it."""
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(2000):
        own, plain = rng.binomial(1, 0.2, 40), rng.binomial(1, 0.05, 40)
        false += over_honest(own.tolist(), plain.tolist(), 4.0)[1]
    assert false <= 4
