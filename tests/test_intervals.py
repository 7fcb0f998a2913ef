"""Intervals of scores over examples, and of differences between two networks on the same ones."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sgmcmc_prune.likelihoods import Gaussian, ObservationModel, bernoulli, categorical, observation_model, poisson
from sgmcmc_prune.likelihoods.base import scores_of
from sgmcmc_prune.predictive.intervals import (
    half_widths,
    mean_and_half_width,
    paired_half_widths,
    wilson_half_width,
    wilson_interval,
)

#: Of a share of replicates that an exact 95 % interval covers, five standard errors at 4,000 of them: an exact interval
#: falls outside with probability 6e-7. The delta method and the added examples of a share may cost one point more.
REPLICATES, TOLERANCE = 4000, 0.0173 + 0.01


def covered(draw: Callable[[np.random.Generator], tuple[float, float, float]]) -> float:
    """The share of replicates (estimate, half-width, truth) whose interval holds the truth."""
    generator = np.random.default_rng(0)
    found = np.array([draw(generator) for _ in range(REPLICATES)])
    return float((np.abs(found[:, 0] - found[:, 2]) <= found[:, 1]).mean())


def test_an_rmse_and_a_mean_are_inside_their_intervals_as_often_as_these_say() -> None:
    """Errors of a normal distribution, whose RMSE is 2 and mean absolute value 2 sqrt(2 / pi)."""

    def rmse(generator: np.random.Generator) -> tuple[float, float, float]:
        squared = (2 * generator.normal(size=200)) ** 2
        return np.sqrt(squared.mean()), half_widths({"rmse": squared})["rmse"], 2.0

    def mean(generator: np.random.Generator) -> tuple[float, float, float]:
        absolute = np.abs(2 * generator.normal(size=200))
        return absolute.mean(), half_widths({"crps": absolute})["crps"], 2 * np.sqrt(2 / np.pi)

    assert covered(rmse) == pytest.approx(0.95, abs=TOLERANCE)
    assert covered(mean) == pytest.approx(0.95, abs=TOLERANCE)


def test_a_difference_of_paired_errors_is_inside_its_interval_as_often_as_it_says() -> None:
    """Two networks that share most of their error: the interval of the difference is far below that of each."""
    ratios = []

    def difference(generator: np.random.Generator) -> tuple[float, float, float]:
        shared, own = generator.normal(size=200), 0.2 * generator.normal(size=200)
        ours, theirs = {"rmse": (shared + own) ** 2}, {"rmse": shared**2}
        half = paired_half_widths(ours, theirs)["rmse"]
        ratios.append(half / half_widths(theirs)["rmse"])
        return np.sqrt(ours["rmse"].mean()) - np.sqrt(theirs["rmse"].mean()), half, np.sqrt(1.04) - 1

    assert covered(difference) == pytest.approx(0.95, abs=TOLERANCE)
    assert max(ratios) < 0.5


def test_a_difference_of_paired_shares_is_inside_its_interval_as_often_as_it_says() -> None:
    """Of right answers that are mostly the same; with the two added examples the interval is a little wide."""

    def difference(generator: np.random.Generator) -> tuple[float, float, float]:
        first = generator.random(300) < 0.9
        second = np.where(generator.random(300) < 0.1, generator.random(300) < 0.7, first)
        ours, theirs = {"accuracy": second.astype(float)}, {"accuracy": first.astype(float)}
        return second.mean() - first.mean(), paired_half_widths(ours, theirs)["accuracy"], 0.1 * (0.7 - 0.9)

    assert covered(difference) == pytest.approx(0.95, abs=TOLERANCE)
    same = {"accuracy": np.ones(100)}
    assert 0 < paired_half_widths(same, same)["accuracy"] < 0.05


def test_a_difference_of_shares_is_that_of_bonett_and_price() -> None:
    """z sqrt((p + q - (p - q)^2) / (n + 2)), p = (f + 1) / (n + 2) of the f pairs that one network alone gets right."""
    first, second = np.repeat([1.0, 0.0, 1.0, 0.0], [3, 1, 4, 2]), np.repeat([0.0, 1.0, 1.0, 0.0], [3, 1, 4, 2])
    p, q = (3 + 1) / 12, (1 + 1) / 12
    for key in ("accuracy", "coverage"):
        half = paired_half_widths({key: first}, {key: second})[key]
        assert half == pytest.approx(1.96 * np.sqrt((p + q - (p - q) ** 2) / 12))


def test_a_difference_of_shares_is_never_further_off_than_1() -> None:
    for ours, theirs, half in (([1.0], [1.0], 1.96 * np.sqrt(2) / 3), ([1.0], [0.0], 1.0), ([0.0], [1.0], 1.0)):
        assert paired_half_widths({"accuracy": ours}, {"accuracy": theirs})["accuracy"] == pytest.approx(half)


@pytest.mark.parametrize("share", [0.0, 0.025, 0.5, 0.95, 1.0])
def test_the_half_width_of_a_share_holds_all_of_its_interval(share: float) -> None:
    low, high = wilson_interval(share, 40)
    half = wilson_half_width(share, 40)
    assert max(share - low, high - share) == half
    assert share - half <= low < high <= share + half


def test_an_accuracy_in_percent_is_a_mean() -> None:
    right, others = np.array([100.0, 0.0, 100.0, 100.0, 0.0]), np.array([100.0, 100.0, 100.0, 0.0, 0.0])
    ours, theirs = {"accuracy": right}, {"accuracy": others}
    assert half_widths(ours)["accuracy"] == pytest.approx(mean_and_half_width(right)[1])
    assert paired_half_widths(ours, theirs)["accuracy"] == pytest.approx(mean_and_half_width(right - others)[1])


def test_what_is_not_finite_has_no_interval_and_no_warning() -> None:
    infinite = {"nll": [1.0, 2.0, np.inf], "rmse": [1.0, np.inf, 2.0]}
    finite = {"nll": [1.0, np.nan, 1e300], "rmse": [0.0, 0.0, 0.0]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in (
            half_widths(infinite),
            paired_half_widths(infinite, infinite),
            paired_half_widths(infinite, finite),
        ):
            assert np.isnan([*found.values()]).all()


def test_each_kind_of_score_has_its_interval() -> None:
    values = np.array([0.0, 1.0, 1.0, 1.0, 4.0])
    found = half_widths({"nll": values, "rmse": values, "accuracy": values > 0})
    assert found["nll"] == pytest.approx(mean_and_half_width(values)[1])
    assert found["rmse"] == pytest.approx(found["nll"] / (2 * np.sqrt(values.mean())))
    assert found["accuracy"] == pytest.approx(wilson_half_width(0.8, 5))
    assert list(paired_half_widths({"nll": values, "rmse": values}, {"nll": values})) == ["nll"]
    unknown = half_widths({"nll": [1.0], "rmse": [1.0]})
    assert np.isnan([*unknown.values()]).all()
    missing = paired_half_widths(
        {"nll": [1.0, None, 2.0]}, {"nll": [1.0, 2.0, 3.0]}
    )  # as JSON has a number that is none
    assert np.isnan(missing["nll"])


OWN = observation_model(lambda outputs, targets: (outputs.flatten() - targets).abs(), labels=False)


@pytest.mark.parametrize("model", [Gaussian(), Gaussian(0.5), poisson, bernoulli, categorical, OWN])
def test_what_each_example_adds_makes_the_score(model: ObservationModel) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = model is categorical
    outputs = torch.randn(30, 3 if labels else model.num_outputs(1), generator=generator)
    targets = torch.randint(3 if labels else 2, (30,), generator=generator)
    targets = targets if labels else targets.float()
    prediction = model.prediction(outputs).pooled(model.prediction(-outputs))
    scores, each = model.score(prediction, targets, 3.0), model.each(prediction, targets, 3.0)
    assert {len(values) for values in each.values()} == {30}
    assert scores.keys() - each.keys() == ({"ece"} if labels else set())
    for key, value in scores_of(each).items():
        assert value == pytest.approx(scores[key], rel=1e-12)
