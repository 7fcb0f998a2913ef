"""Streaming inclusion probabilities, their standard errors, and weight moments."""

import pytest
import torch
from torch import Tensor

from sgmcmc_prune.pruning.inclusion import MIN_BATCHES, InclusionAverage, Moments


def draws(count: int, groups: int = 3) -> Tensor:
    """Log-odds of some draws, shape (count, groups)."""
    return 2 * torch.randn(count, groups, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def average_of(eta: Tensor, batch: int) -> InclusionAverage:
    """The average over draws, closed every `batch` draws."""
    average = InclusionAverage()
    for i, row in enumerate(eta, start=1):
        average.update(row)
        if i % batch == 0:
            average.end_batch()
    return average


def test_the_mean_is_over_draws() -> None:
    eta = draws(20)
    average = average_of(eta, 7)
    torch.testing.assert_close(average.included, eta.sigmoid().mean(0))
    torch.testing.assert_close(average.excluded, (-eta).sigmoid().mean(0))


def test_the_complement_does_not_saturate() -> None:
    average = average_of(torch.full((4, 1), 80.0), 2)
    assert average.included.item() == 1
    log_odds = (average.included / average.excluded).log()
    torch.testing.assert_close(log_odds, torch.tensor([80.0], dtype=torch.float64), rtol=1e-12, atol=0)


def test_expected_log_odds_tell_apart_what_crosses_zero_from_what_is_weak() -> None:
    average = InclusionAverage()
    # Far from zero but for one draw that crosses it; and steadily a little above even odds.
    for eta in ([-5.0, 4.0], [40.0, 4.0], [41.0, 4.0], [42.0, 4.0]):
        average.update(torch.tensor(eta))
    assert average.included[0] < average.included[1]
    assert average.expected_log_odds.tolist() == pytest.approx([29.5, 4.0])


def test_log_odds_in_single_precision_are_averaged_in_double() -> None:
    average = average_of(torch.full((1, 1), 30.0, dtype=torch.float32), 1)
    assert average.included.dtype == torch.float64
    assert average.included.item() < 1


def test_standard_error_is_that_of_the_batch_means() -> None:
    eta = draws(60)
    average = average_of(eta, 5)
    means = eta.sigmoid().view(12, 5, 3).mean(1)
    torch.testing.assert_close(average.standard_error, means.std(0) / 12**0.5)


def test_draws_of_an_open_batch_do_not_enter_the_standard_error() -> None:
    eta = draws(43)
    torch.testing.assert_close(average_of(eta, 5).standard_error, average_of(eta[:40], 5).standard_error)


def test_standard_error_is_nan_under_eight_batches() -> None:
    eta = draws(2 * MIN_BATCHES)
    assert MIN_BATCHES == 8
    assert average_of(eta[:-2], 2).standard_error.isnan().all()
    assert average_of(eta, 2).standard_error.isfinite().all()


def test_standard_error_of_independent_draws_covers() -> None:
    """4 SE of 400 batches of independent draws hold the mean: false-alarm rate 3 * 6.3e-5 = 2e-4."""
    generator = torch.Generator().manual_seed(11)
    p = torch.rand(4000, 3, generator=generator, dtype=torch.float64)
    average = average_of(p.logit(), 10)
    assert ((average.included - 0.5).abs() < 4 * average.standard_error).all()


def test_last_batch_is_the_mean_of_the_last_closed_batch() -> None:
    eta = draws(11)
    torch.testing.assert_close(average_of(eta, 5).last_batch, eta[5:10].sigmoid().mean(0))


def test_last_batch_is_kept_when_another_closes() -> None:
    eta = draws(10)
    average = average_of(eta[:5], 5)
    first = average.last_batch
    before = first.clone()
    for row in eta[5:]:
        average.update(row)
    average.end_batch()
    assert torch.equal(first, before)


def test_closing_an_empty_batch_changes_nothing() -> None:
    average = average_of(draws(10), 5)
    error = average.standard_error
    average.end_batch()
    assert average.batches == 2
    torch.testing.assert_close(average.standard_error, error, equal_nan=True)


def test_an_average_goes_on_after_a_round_trip() -> None:
    eta = draws(53)
    whole = average_of(eta, 5)
    saved = average_of(eta[:23], 5).state_dict()
    resumed = InclusionAverage()
    resumed.load_state_dict(saved)
    for i, row in enumerate(eta[23:], start=24):
        resumed.update(row)
        if i % 5 == 0:
            resumed.end_batch()
    assert torch.equal(resumed.included, whole.included)
    assert torch.equal(resumed.standard_error, whole.standard_error)


@pytest.mark.parametrize("name", ["included", "excluded", "last_batch", "standard_error"])
def test_no_draw_no_probability(name: str) -> None:
    with pytest.raises(ValueError, match="no draw was collected"):
        getattr(InclusionAverage(), name)


def moments_of(x: Tensor) -> Moments:
    """Moments of the rows."""
    moments = Moments()
    for row in x:
        moments.update(row)
    return moments


def test_moments_are_those_of_torch() -> None:
    x = 100 + draws(50)
    moments = moments_of(x)
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.variance, x.var(0))


def test_moments_of_a_parameter_do_not_follow_it() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    moments = Moments()
    moments.update(w)
    with torch.no_grad():
        w.fill_(9)
    assert moments.mean.tolist() == [1, 1]
    assert not moments.mean.requires_grad


def test_moments_go_on_after_a_round_trip() -> None:
    x = draws(20)
    resumed = Moments()
    resumed.load_state_dict(moments_of(x[:9]).state_dict())
    for row in x[9:]:
        resumed.update(row)
    assert torch.equal(resumed.variance, moments_of(x).variance)


def test_moments_need_draws() -> None:
    with pytest.raises(ValueError, match="no draw"):
        _ = Moments().mean
    with pytest.raises(ValueError, match="at least two draws"):
        _ = moments_of(draws(1)).variance
