"""Joint evidence against the exact conditional of a Gaussian, and against Bayesian model reduction."""

import math

import pytest
import torch
from torch import Tensor

from sgmcmc_prune.baselines.bmr.reduction import Gaussian, full, spike
from sgmcmc_prune.certify.enumeration import all_models, enumerate_models
from sgmcmc_prune.pruning.conditional.gaussian import condition, eliminate

PRIOR = 0.7  # precision


def posterior(size: int = 8, blocks: int = 3) -> tuple[Tensor, Tensor]:
    """P and the modes of linear regressions with correlated features, (B, d, d) and (1, B, d)."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(blocks, 20, size, generator=generator, dtype=torch.float64)
    x[:, :, 1] += 2 * x[:, :, 0]
    y = torch.randn(blocks, 20, generator=generator, dtype=torch.float64)
    precision = x.transpose(1, 2) @ x / 0.3 + PRIOR * torch.eye(size, dtype=torch.float64)
    return precision, torch.linalg.solve(precision, torch.einsum("bni,bn->bi", x, y) / 0.3)[None]


def masks(size: int = 8) -> Tensor:
    """Blocks that keep unlike numbers of weights, one of them all."""
    kept = torch.ones(3, size, dtype=torch.bool)
    kept[0, [0, 3, 5]] = False
    kept[1, 1:] = False
    return kept


def test_the_moved_weights_are_the_mean_given_that_the_others_are_zero() -> None:
    precision, w = posterior()
    kept = masks()
    moved = condition(precision, w, kept)
    for b in range(3):
        sigma, r, s = precision[b].inverse(), kept[b], ~kept[b]
        lost = torch.linalg.solve(sigma[s][:, s], w[0, b, s])
        torch.testing.assert_close(moved.weights[0, b, r], w[0, b, r] - sigma[r][:, s] @ lost, rtol=1e-10, atol=1e-10)
        assert bool((moved.weights[0, b, s] == 0).all())
        torch.testing.assert_close(moved.delta_u[0, b], w[0, b, s] @ lost / 2, rtol=1e-10, atol=1e-10)


def test_a_smaller_model_fitted_anew_has_the_moved_weights() -> None:
    """The posterior of a regression without the removed features: the same Gaussian, conditioned."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(30, generator=generator, dtype=torch.float64)
    precision = x.T @ x + PRIOR * torch.eye(6, dtype=torch.float64)
    kept = torch.tensor([[True, False, True, True, False, True]])
    moved = condition(precision[None], torch.linalg.solve(precision, x.T @ y)[None, None], kept)
    r = kept[0]
    anew = torch.linalg.solve(precision[r][:, r], x[:, r].T @ y)
    torch.testing.assert_close(moved.weights[0, 0, r], anew, rtol=1e-10, atol=1e-10)

    def potential(w: Tensor) -> Tensor:
        return ((y - x @ w).square().sum() + PRIOR * w.square().sum()) / 2

    rise = potential(moved.weights[0, 0]) - potential(torch.linalg.solve(precision, x.T @ y))
    torch.testing.assert_close(moved.delta_u[0, 0], rise, rtol=1e-10, atol=1e-10)


def test_every_draw_is_moved_by_the_same_map() -> None:
    precision, w = posterior()
    draws = torch.cat([w, 3 * w, w + 1])
    together = condition(precision, draws, masks())
    for draw, moved, cost in zip(draws, *together, strict=True):
        alone = condition(precision, draw[None], masks())
        torch.testing.assert_close(moved, alone.weights[0])
        torch.testing.assert_close(cost, alone.delta_u[0])


def test_losses_of_the_turns_sum_to_the_loss_of_the_set() -> None:
    precision, w = posterior()
    free = torch.ones(3, 8, dtype=torch.bool)
    free[2, :3] = False
    loss, turn = eliminate(precision, w[0], free)
    assert bool((turn[2, :3] == 8).all())
    assert bool(loss[2, :3].isinf().all())
    for k in range(1, 6):
        gone = turn < k
        together = condition(precision, w, ~gone).delta_u[0]
        torch.testing.assert_close(loss.where(gone, 0.0).sum(1), together, rtol=1e-10, atol=1e-10)


def test_the_first_turn_is_the_cheapest_single_weight() -> None:
    precision, w = posterior()
    _, turn = eliminate(precision, w[0], torch.ones(3, 8, dtype=torch.bool))
    singles = torch.stack(
        [condition(precision, w, torch.arange(8).ne(q).expand(3, 8)).delta_u[0] for q in range(8)], dim=1
    )
    assert torch.equal(singles.argmin(1), turn.argmin(1))


@pytest.mark.parametrize("removed", [[2], [0, 3, 5]])
def test_it_is_bayesian_model_reduction_with_full_covariance(removed: list[int]) -> None:
    """-Delta U and the Savage-Dickey term are the change of evidence as the prior of the set shrinks to a point."""
    precision, w = posterior()
    sigma, mean = precision[0].inverse(), w[0, 0]
    prior = Gaussian(torch.zeros(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64) / PRIOR)
    kept = torch.ones(1, 8, dtype=torch.bool)
    kept[0, removed] = False
    moved = condition(precision[:1], w[:, :1], kept)
    volume = (torch.logdet(prior.covariance[removed][:, removed]) - torch.logdet(sigma[removed][:, removed])) / 2
    marginal = Gaussian(mean[removed], sigma[removed][:, removed])
    exact = spike(marginal, Gaussian(prior.mean[removed], prior.covariance[removed][:, removed]))
    torch.testing.assert_close(volume - moved.delta_u[0, 0], exact, rtol=1e-10, atol=1e-10)
    narrow = prior.covariance.clone()
    narrow[removed, removed] = 1e-9
    reduced = full(Gaussian(mean, sigma), prior, Gaussian(prior.mean, narrow))
    torch.testing.assert_close(reduced.delta_f, exact, rtol=0, atol=1e-5)
    torch.testing.assert_close(reduced.posterior.mean, moved.weights[0, 0], rtol=0, atol=1e-6)


def test_a_curvature_that_is_none_is_refused() -> None:
    precision, w = posterior()
    precision[1] = -precision[1]
    with pytest.raises(ValueError, match="1 of 3 blocks"):
        condition(precision, w, masks())
    with pytest.raises(ValueError, match="1 of 3 blocks"):
        eliminate(precision, w[0], masks())


def test_joint_evidence_is_that_of_enumerated_models() -> None:
    """With a spike of no width, the odds of the model without a set and of the whole model are its joint evidence."""
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    x[:, 1] += 2 * x[:, 0]
    y = 0.3 * x[:, 0] + torch.randn(30, generator=generator, dtype=torch.float64)
    known = {"noise_variance": 1.0, "spike_variance": 1e-11, "slab_variance": 1 / PRIOR, "inclusion_rate": 0.5}
    probability = enumerate_models(x, y, **known).model_probability
    precision = x.T @ x + PRIOR * torch.eye(6, dtype=torch.float64)
    mean, sigma = torch.linalg.solve(precision, x.T @ y), precision.inverse()
    models = all_models(6)
    for kept in models[[3, 21, 42, 60]]:
        gone = ~kept
        volume = -(torch.logdet(sigma[gone][:, gone]) + int(gone.sum()) * math.log(PRIOR)) / 2
        cost = condition(precision[None], mean[None, None], kept[None]).delta_u[0, 0]
        (place,) = (models == kept).all(1).nonzero()[:, 0].tolist()
        odds = probability[place].log() - probability[-1].log()
        torch.testing.assert_close(volume - cost, odds, rtol=1e-6, atol=1e-6)
