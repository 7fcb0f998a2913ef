"""SpaM and OPD end to end: damage on a quadratic, temperature, masks while training, deletion, the method record."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune import models
from sgmcmc_prune.baselines.laplace import (
    LaplaceFit,
    LaplacePosterior,
    OnlinePruning,
    Recipe,
    curvature,
    fit,
    optimal_posterior_damage,
    remove_units,
    unit_mask,
)
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import categorical, gaussian
from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.priors import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity


def clusters(n: int = 120, inputs: int = 6) -> tuple[Tensor, Tensor]:
    """Three overlapping classes in two informative dimensions; the other inputs are noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    x = torch.randn(n, inputs, generator=generator)
    x[:, 0] += 2.0 * (labels == 1)
    x[:, 1] += 2.0 * (labels == 2)
    return x, labels


def network(seed: int = 0, width: int = 8) -> nn.Module:
    return models.build("mlp", (6,), 3, seed=seed, widths=(width,), activation="relu")


#: Four passes over 120 examples.
QUICK = Recipe(steps=24, every=6, batch_size=20, prior_steps=20, lr=5e-3, lr_min=5e-3, draws=5)


def quick(**changes: object) -> Recipe:
    return Recipe(**{**QUICK.__dict__, **changes})  # type: ignore[arg-type]


def test_damage_is_the_rise_of_the_log_joint_and_not_of_the_loss() -> None:
    """Uncorrelated linear regression at its mode: the log joint is quadratic and its Hessian diagonal."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(20, 4, generator=generator, dtype=torch.float64)).Q * torch.arange(1.0, 5.0)
    y = x.sum(1) + torch.randn(20, generator=generator, dtype=torch.float64)
    delta = torch.tensor([[0.3, 1.0, 2.0, 10.0]], dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    h = x.T @ x / 0.5
    theta = torch.linalg.solve(h + torch.diag(delta[0]), x.T @ y / 0.5)[None]
    model.weight.data = theta

    def nll(w: Tensor) -> float:
        return float(gaussian(0.5)(x @ w[0], y).sum())

    found = curvature(model, x, y, likelihood=gaussian(0.5))
    precision = {"weight": found.blocks["weight"].posterior_precision(delta, 1.0)}
    damage = optimal_posterior_damage({"weight": theta}, precision, {"weight": GroupMap("weight", (1, 4))})["weight"]
    for k in range(4):
        without = theta.clone()
        without[0, k] = 0
        loss = nll(without) - nll(theta)
        penalty = 0.5 * float((delta * (without.square() - theta.square())).sum())
        assert loss + penalty == pytest.approx(float(damage[k]) / 2, abs=1e-12)
        assert loss == pytest.approx(float((h[k, k] / 2 + delta[0, k]) * theta[0, k] ** 2), abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_training_and_evidence_have_one_temperature(temperature: float) -> None:
    """At the trained weights the log joint of the evidence, log p / T - sum delta theta^2 / 2, is stationary."""
    x, y = clusters(60)
    x = x.double()
    recipe = Recipe(burn_in=801, steps=800, batch_size=60, optimizer="sgd", lr=0.5, lr_min=0.5, temperature=temperature)
    fitted = fit(nn.Sequential(nn.Linear(6, 3)).double(), (x, y), recipe)
    log_joint = -categorical(fitted.model(x), y).sum() / temperature
    for p in fitted.model.parameters():
        log_joint = log_joint - p.square().sum() / 2
    gradients = torch.autograd.grad(log_joint, list(fitted.model.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 1e-4
    assert min(float(p.detach().abs().max()) for p in fitted.model.parameters()) > 0.3


def test_with_one_precision_per_weight_damage_ranks_as_optimal_brain_damage() -> None:
    fitted = fit(network(), clusters(), quick(update="closed_form"))
    for name, scores in fitted.scores.items():
        h = fitted.posterior.curvature.blocks[name].curvature  # type: ignore[attr-defined]
        delta = fitted.posterior.prior.precision()[name]
        at_optimum = (fitted.posterior.prior.log_precision()[name].abs() < 19.99).flatten()
        torch.testing.assert_close(scores[at_optimum], (h / delta).flatten()[at_optimum], rtol=1e-8, atol=0)
        brain_damage = (h * fitted.posterior.weights[name].double().square()).flatten()
        assert torch.equal(scores[at_optimum].argsort(), brain_damage[at_optimum].argsort())
        assert int(at_optimum.sum()) >= len(scores) // 2


@pytest.mark.parametrize(
    ("prior", "structure", "estimator", "update"),
    [
        ("scalar", "diagonal", "ggn", "mackay"),
        ("layerwise", "kfac", "ggn", "mackay"),
        ("unitwise", "kfac", "monte_carlo", "adam"),
        ("unitwise", "diagonal", "empirical", "mackay"),
        ("parameterwise", "kfac", "ggn", "adam"),
        ("parameterwise", "diagonal", "ggn", "closed_form"),
    ],
)
def test_the_method_record(prior: str, structure: str, estimator: str, update: str) -> None:
    model, train = network(), clusters()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    recipe = quick(prior=prior, structure=structure, estimator=estimator, update=update)
    fitted = fit(model, train, recipe)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    passes = 3 if estimator == "ggn" else 1
    assert fitted.cost.gradient_evaluations == 4 * 120 * (1 + passes)
    scores, mask = fitted.scores, fitted.mask
    prunable = masks.prunable(fitted.model)
    assert scores.keys() == mask.keys() == prunable.keys()
    assert all(s.shape == (prunable[n].numel(),) and bool((s >= 0).all()) for n, s in scores.items())
    check_mask(mask, prunable)
    damage = torch.cat([scores[name][~kept.flatten()] for name, kept in mask.items()]).sum() / 2
    spared = min(float(scores[name][kept.flatten()].min()) for name, kept in mask.items())
    assert float(damage) <= 0.01 * 120 < float(damage) + spared / 2
    for probabilities, members in ((fitted.single(train[0]), 1), (fitted.predict(train[0]), 5)):
        assert probabilities.shape == (120, 3)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(120, dtype=torch.float64))
        assert members in (1, fitted.members)
    assert [row["step"] for row in fitted.history] == [6, 12, 18, 24]
    assert fitted.history[-1]["log_evidence"] == pytest.approx(fitted.posterior.log_evidence())


def test_the_linearised_predictive_is_exact_for_a_linear_model() -> None:
    """For a model linear in its weights, linearised draws are draws; the spread is that of the posterior."""
    train = clusters()
    fitted = fit(nn.Sequential(nn.Linear(6, 3)), train, quick(prior="layerwise", structure="kfac"))
    direct = torch.zeros(120, 3, dtype=torch.float64)
    for draw in fitted.draws:
        direct += (train[0] @ draw["0.weight"].T + draw["0.bias"]).double().softmax(1) / 5
    torch.testing.assert_close(fitted.predict(train[0]), direct, rtol=1e-5, atol=1e-6)


def test_equal_seeds_give_equal_fits_and_the_prior_is_updated_when_told() -> None:
    a, b = (fit(network(), clusters(), quick(estimator="monte_carlo", burn_in=12, every=12), seed=3) for _ in range(2))
    assert all(torch.equal(a.scores[n], b.scores[n]) for n in a.scores)
    assert [row["step"] for row in a.history] == [12, 24]


def test_online_hard_masks_only_grow_and_hold() -> None:
    seen: list[dict[str, Tensor]] = []

    def after(step: int, posterior: LaplacePosterior, mask: masks.Mask | None) -> None:
        if mask is not None:
            assert all(bool((posterior.weights[n][~kept] == 0).all()) for n, kept in mask.items())
            seen.append(mask)

    recipe = quick(steps=36, online=OnlinePruning(final=0.9, initial=0.1, every=12), update="closed_form")
    fitted = fit(network(), clusters(), recipe, after_update=after)
    total = sum(kept.numel() for kept in seen[0].values())
    counts = [sum(int((~kept).sum()) for kept in mask.values()) for mask in seen]
    planned = [recipe.online.sparsity(t - t % 12, 36) for t in range(12, 37, 6)]  # type: ignore[union-attr]
    assert counts == [round(float(s) * total) for s in planned]  # type: ignore[arg-type]
    assert not any(bool((new[n] & ~old[n]).any()) for old, new in itertools.pairwise(seen) for n in new)
    assert all(torch.equal(kept, seen[-1][n]) for n, kept in fitted.mask.items())
    assert all(bool((draw[n][~kept] == 0).all()) for draw in fitted.draws for n, kept in fitted.mask.items())
    assert fitted.history[-1]["sparsity"] == pytest.approx(0.9, abs=1 / total)


def test_online_regrowth_lets_weights_return() -> None:
    zeros: list[dict[str, Tensor]] = []
    recipe = quick(steps=30, online=OnlinePruning(final=0.8, initial=0.8, every=24, mode="regrow"))
    fitted = fit(
        network(),
        clusters(),
        recipe,
        after_update=lambda t, q, _: zeros.append({n: w == 0 for n, w in q.weights.items()}),
    )
    masked = sum(int(z.sum()) for n, z in zeros[3].items() if "weight" in n)
    assert masked == round(0.8 * 72)
    assert sum(int(z.sum()) for z in zeros[4].values()) < masked / 2
    assert masks.sparsity(fitted.mask) == pytest.approx(0.8, abs=1 / 72)


def test_the_online_schedule() -> None:
    online = OnlinePruning(final=0.99, initial=0.1, every=10)
    assert [online.sparsity(e, 50) for e in (9, 11)] == [None, None]
    assert [online.sparsity(e, 50) for e in (10, 30, 50)] == pytest.approx([0.1 + 0.89 / 5, 0.1 + 0.89 * 0.6, 0.99])


def test_reported_sparsity_is_the_requested_one() -> None:
    fitted = fit(network(), clusters(), QUICK)
    groups = {n: GroupMap("weight", tuple(p.shape)) for n, p in masks.prunable(fitted.model).items()}
    for sparsity in (0.2, 0.55, 0.9):
        mask = target_sparsity(fitted.scores, groups, sparsity)
        assert sum(int((~kept).sum()) for kept in mask.values()) == round(72 * sparsity)


def mlp_without(model: nn.Module, kept: Tensor) -> nn.Module:
    """A smaller network: the kept hidden units only."""
    smaller = nn.Sequential(nn.Linear(6, int(kept.sum())), nn.ReLU(), nn.Linear(int(kept.sum()), 3))
    first, last = model.layers
    smaller[0].weight.data, smaller[0].bias.data = first.weight[kept], first.bias[kept]
    smaller[2].weight.data, smaller[2].bias.data = last.weight[:, kept], last.bias
    return smaller


def conv_without(model: nn.Module, kept: Tensor) -> nn.Module:
    smaller = nn.Sequential(
        nn.Conv2d(1, int(kept.sum()), 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * int(kept.sum()), 3)
    )
    smaller[0].weight.data, smaller[0].bias.data = model[0].weight[kept], model[0].bias[kept]
    columns = kept.repeat_interleave(16)
    smaller[3].weight.data, smaller[3].bias.data = model[3].weight[:, columns], model[3].bias
    return smaller


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_removed_units_can_be_deleted(kind: str) -> None:
    """The masked network with zeroed biases and the physically smaller one give the same logits."""
    x, y = clusters() if kind == "mlp" else (torch.randn(30, 1, 6, 6), torch.arange(30) % 3)
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    start, delete = ((network(), mlp_without), (conv, conv_without))[kind == "conv"]
    check_deletion(fit(start, (x, y), QUICK), x, delete)


def check_deletion(fitted: LaplaceFit, x: Tensor, delete: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    first, last = masks.prunable(fitted.model)
    mask = unit_mask(fitted.posterior.weights, fitted.posterior.precision(), 0.625, keep=[last])
    kept = mask[first].flatten(1).all(1)
    assert int(kept.sum()) == 3
    assert torch.equal(kept, mask[first].flatten(1).any(1))
    scores = fitted.posterior.damage({first: GroupMap("node", tuple(mask[first].shape))})[first]
    assert float(scores[kept].min()) >= float(scores[~kept].max())
    with torch.no_grad():
        remove_units(fitted.model, mask)
        torch.testing.assert_close(fitted.model(x), delete(fitted.model, kept)(x), rtol=1e-5, atol=1e-5)


def test_a_whole_layer_goes_only_on_request() -> None:
    fitted = fit(network(), clusters(), QUICK)
    weights, precision = fitted.posterior.weights, fitted.posterior.precision()
    first, last = masks.prunable(fitted.model)
    assert int(unit_mask(weights, precision, 0.99, keep=[last])[first].any(1).sum()) == 1
    assert not bool(unit_mask(weights, precision, 0.99, keep=[last], allow_empty=True)[first].any())
    with pytest.raises(ValueError, match=r"keep names \['head'\], which are no weights with a score"):
        unit_mask(weights, precision, 0.5, keep=["head"])


def test_skipped_modules_stay_dense_and_without_prior() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    fitted = fit(model, clusters(), QUICK, skip=["1"])
    assert list(fitted.posterior.weights) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert list(fitted.scores) == ["0.weight", "3.weight"]
    assert fitted.predict(clusters()[0]).shape == (120, 3)
    assert not torch.equal(fitted.model[1].weight, model[1].weight)


def test_divergence_is_one_line() -> None:
    with pytest.raises(RunError, match=r"training diverged at step [0-9]+: the loss is (nan|inf). Lower lr"):
        fit(network(), clusters(), quick(optimizer="sgd", lr=1e12, lr_min=1e12))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"temperature": 0.0}, "temperature is 0.0 and precision 1.0; both must be finite and > 0"),
        ({"lr": 1e-4}, "lr is 0.0001 and lr_min 0.005; they must satisfy"),
        ({"damage": -1.0}, "damage is -1.0; a budget is >= 0 nats per example"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; choose adam or sgd"),
        ({"structure": "kfac", "online": OnlinePruning()}, "the evidence of a masked layer has no Kronecker form"),
    ],
)
def test_recipes_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quick(**changes)


def test_online_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"online sparsities are 0.5 and 0.2; give 0 <= initial <= final < 1"):
        OnlinePruning(final=0.2, initial=0.5)
    with pytest.raises(ValueError, match="online pruning every 0 steps; give at least 1"):
        OnlinePruning(every=0)
    with pytest.raises(ValueError, match="online mode is 'soft'; choose regrow or hard"):
        OnlinePruning(mode="soft")  # type: ignore[arg-type]
