"""What a training leaves: predictions of one network and of draws, masks that change nothing else, costs."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from sgmcmc_prune.baselines.fit import Cost, Fit
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.pruning import masks


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    model[0].requires_grad_(False)
    return model


def trained(model: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A draw of the weights that are not frozen."""
    return {name: p.detach() for name, p in network(seed).named_parameters() if not name.startswith("0.")}


def test_predictions_are_averaged_over_draws_that_leave_out_what_is_frozen() -> None:
    model, x = network(), torch.randn(50, 4)
    alone = Fit(model, Cost(1, 0.0))
    assert alone.members == 1
    assert torch.equal(alone.predict(x), class_probabilities(model, x))
    fit = Fit(model, Cost(1, 0.0), [trained(model, seed) for seed in (1, 2)])
    expected = []
    for draw in fit.draws:
        member = network()
        member.load_state_dict(draw, strict=False)
        expected.append(class_probabilities(member, x))
    assert fit.members == 2
    torch.testing.assert_close(fit.predict(x), torch.stack(expected).mean(0))
    assert torch.equal(fit.single(x), alone.single(x))


def test_a_mask_makes_another_fit_and_changes_nothing() -> None:
    model, x = network(), torch.randn(50, 4) + 1
    fit = Fit(model, Cost(1, 0.0), [trained(model, seed) for seed in (1, 2)])
    before = fit.single(x), fit.predict(x)
    mask = {"3.weight": torch.arange(18).view(3, 6) % 2 == 0}
    pruned = fit.under(mask, lambda: [x])
    assert torch.equal(fit.single(x), before[0])
    assert torch.equal(fit.predict(x), before[1])
    for weights in (dict(pruned.model.named_parameters()), *pruned.draws):
        assert masks.sparsity({"3.weight": weights["3.weight"] != 0}) == 0.5
    # Every member has statistics of the inputs that were given, which the start has not.
    assert all(not torch.equal(draw["1.running_mean"], model[1].running_mean) for draw in pruned.draws)
    with pytest.raises(FrozenInstanceError):
        fit.mask = mask  # type: ignore[misc]


def test_costs_add_up() -> None:
    assert Cost(3, 1.5) + Cost(4, 0.5) == Cost(7, 2.0)
