"""Metrics against hand-computed values, closed-form bounds and (where it is installed) scikit-learn."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sgmcmc_prune.predictive.metrics import (
    accuracy,
    auroc,
    brier,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
    summarise,
)

P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
Y = torch.tensor([0, 1, 1, 2])


def calibrated(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Distributions, and labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (2 * torch.randn(n, 4, generator=generator, dtype=torch.float64)).softmax(1)
    return probabilities, torch.multinomial(probabilities, 1, generator=generator).squeeze(1)


def test_by_hand() -> None:
    assert accuracy(P, Y) == 0.5  # the tie in row 2 goes to class 0
    assert negative_log_likelihood(P, Y) == pytest.approx(-math.log(0.7 * 0.3 * 0.5) / 4, rel=1e-14)
    assert brier(P, Y) == pytest.approx((0.14 + 0.86 + 0.5 + 0) / 4, rel=1e-14)
    # Confidences .7 (right), .6 (wrong), .5 (wrong), 1 (right), in bins of width .25: (.25, .5], (.5, .75], (.75, 1].
    assert expected_calibration_error(P, Y, bins=4) == pytest.approx((0.5 + abs(1 - 1.3) + 0) / 4, rel=1e-14)
    # Two bins of two examples each: {.5, .6} and {.7, 1}.
    assert expected_calibration_error(P, Y, bins=2, binning="mass") == pytest.approx((1.1 + 0.3) / 4, rel=1e-14)
    assert set(summarise(P, Y)) == {"accuracy", "nll", "brier", "ece"}
    assert summarise(P.float(), Y.int())["ece"] == pytest.approx(expected_calibration_error(P, Y), rel=1e-6)


def test_reliability_by_hand() -> None:
    diagram = reliability(P, Y, bins=4)
    assert diagram.count.tolist() == [0, 1, 2, 1]
    assert diagram.confidence.isnan().tolist() == [True, False, False, False]
    assert diagram.confidence[1:].tolist() == pytest.approx([0.5, 0.65, 1.0])
    assert diagram.accuracy[1:].tolist() == [0.0, 0.5, 1.0]


def test_impossible_example_costs_a_finite_amount() -> None:
    nll = negative_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert nll == pytest.approx(-math.log(torch.finfo(torch.float64).tiny))


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_calibrated_probabilities_have_little_calibration_error(binning: str) -> None:
    # Given the confidences, E[ECE] <= sqrt(bins / 4n) (Cauchy-Schwarz), and changing one label moves ECE by at most
    # 1 / n, so by McDiarmid P(ECE > sqrt(bins / 4n) + sqrt(log(1 / a) / 2n)) <= a. False-alarm rate below a = 1e-6.
    n, bins = 100_000, 15
    bound = math.sqrt(bins / (4 * n)) + math.sqrt(math.log(1e6) / (2 * n))
    probabilities, labels = calibrated(n)
    assert expected_calibration_error(probabilities, labels, bins, binning) < bound < 0.015
    sharpened = probabilities.pow(1.5)
    sharpened /= sharpened.sum(1, keepdim=True)
    assert expected_calibration_error(sharpened, labels, bins, binning) > 3 * bound


@pytest.mark.parametrize("bins", [1, 2, 7, 15, 40])
def test_mass_bins_hold_equal_numbers_and_ignore_the_order_of_ties(bins: int) -> None:
    probabilities, labels = calibrated(30, seed=bins)
    count = reliability(probabilities, labels, bins, "mass").count
    assert len(count) == bins
    assert int(count.sum()) == 30
    assert int(count.max()) - int(count.min()) <= 1
    tied = (probabilities * 4).round().clamp_min(0.5)
    tied /= tied.sum(1, keepdim=True)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    ece = expected_calibration_error(tied, labels, bins, "mass")
    assert expected_calibration_error(tied[order], labels[order], bins, "mass") == pytest.approx(ece, rel=1e-12)


def test_auroc_by_hand() -> None:
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])) == 1.0
    assert auroc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 0.0
    assert auroc(torch.ones(3), torch.ones(5)) == 0.5
    # Pairs (1, 2), (1, 3) win, (2, 2) ties, (2, 3) wins.
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])) == 3.5 / 4


def test_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    probabilities, labels = calibrated(500, seed=2)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(sklearn.log_loss(labels, probabilities))
    assert accuracy(probabilities, labels) == sklearn.accuracy_score(labels, probabilities.argmax(1))
    two = torch.stack([probabilities[:, 0], 1 - probabilities[:, 0]], 1)
    is_second = (labels != 0).long()
    # scikit-learn scores one of two classes; ours sums over both.
    assert brier(two, is_second) == pytest.approx(2 * sklearn.brier_score_loss(is_second, two[:, 1]))
    scores = (10 * probabilities[:, 1]).round()  # many ties
    ours = auroc(scores[is_second == 0], scores[is_second == 1])
    assert ours == pytest.approx(sklearn.roc_auc_score(is_second, scores))


@pytest.mark.parametrize(
    ("probabilities", "labels", "error", "message"),
    [
        (P.long(), Y, TypeError, "floating point"),
        (P, Y.double(), TypeError, "labels must be integers"),
        (P, Y > 0, TypeError, "labels must be integers"),
        (P, Y[:3], ValueError, r"\(4, 3\) and \(3,\)"),
        (P[0], Y[0], ValueError, "shapes"),
        (P[:0], Y[:0], ValueError, "n > 0"),
        (P.log(), Y, ValueError, "apply softmax"),
        (P * math.nan, Y, ValueError, "sum to 1"),
        (torch.tensor([[1.5, -0.5]]), Y[:1], ValueError, "non-negative"),
        (P, Y + 1, ValueError, "labels run from 1 to 3; 3 classes need 0..2"),
        (P, Y - 1, ValueError, "labels run from -1"),
    ],
)
def test_bad_input(probabilities: Tensor, labels: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        summarise(probabilities, labels)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="bins is 0"):
        reliability(P, Y, bins=0)
    with pytest.raises(ValueError, match="choose 'width' or 'mass'"):
        expected_calibration_error(P, Y, binning="equal")
    for bad in (torch.tensor([]), torch.tensor([math.nan]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="out_scores must be"):
            auroc(torch.ones(2), bad)


def test_the_first_row_that_is_no_distribution_is_named() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [0.7, 0.7], [float("nan"), 1.0]])
    with pytest.raises(ValueError, match=r"row 1 of the probabilities sums to 1.4, its smallest is 0.7"):
        accuracy(probabilities, torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("labels", [[0, 1], np.array([0, 1])])
def test_what_is_no_tensor_is_refused(labels: object) -> None:
    with pytest.raises(TypeError, match=r"labels are of type .*; give a tensor: torch.as_tensor\(labels\)"):
        accuracy(torch.eye(2), labels)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="in_scores is of type"):
        auroc(labels, torch.zeros(2))  # type: ignore[arg-type]
