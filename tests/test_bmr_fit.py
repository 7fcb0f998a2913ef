"""Variational training with rounds of reduction: an exact posterior, masks, predictions, the count of pruned."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.bmr import METHODS, HorseshoeSettings, Recipe, fit, paper_recipe, reduction
from sgmcmc_prune.baselines.bmr.fit import PosteriorTrainer
from sgmcmc_prune.baselines.bmr.layers import layers_of, pruned_fraction, unflatten
from sgmcmc_prune.baselines.bmr.posterior import NetworkPosterior
from sgmcmc_prune.baselines.bmr.rounds import inclusion_log_odds, reduce_horseshoe
from sgmcmc_prune.baselines.bmr.scales import FlatScale, GammaPrior, HorseshoeScale
from sgmcmc_prune.baselines.bmr.spike_slab import infer_inclusion
from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.data import MinibatchStream
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import gaussian
from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.models import build
from sgmcmc_prune.predictive.metrics import accuracy
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity

TINY = Recipe(rounds=3, iterations=120, warm_up=150, batch_size=50, lr=0.03, draws=8)
QUICK = HorseshoeSettings(per_weight=False, particles=2, iterations=150, draws=50, lr=0.05)


class UnitScale:
    """The fixed prior N(0, 1)."""

    variables: tuple[GammaPrior, ...] = ()

    def __call__(self, *values: Tensor) -> Tensor:
        """One, whatever the data."""
        return torch.ones(1)


def classes(n: int = 2000) -> tuple[Tensor, Tensor]:
    """Three classes told apart by two of ten inputs; 92 % can be right."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (n,), generator=g)
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    x = torch.randn(n, 10, generator=g)
    x[:, :2] += centres[labels]
    return x, labels


def network() -> nn.Module:
    return build("mlp", (10,), 3, seed=0, widths=(8,), activation="silu")


def spike_slab() -> tuple[Fit, NetworkPosterior]:
    """A fit, and the posterior that it ended at."""
    seen: list[NetworkPosterior] = []
    found = fit(network(), classes(), "bmr-spike-slab", TINY, seed=1, after_round=lambda _, q: seen.append(q))
    return found, seen[-1]


def test_pruned_weights_count_in_the_inclusion_rate_if_told_with_no_evidence() -> None:
    """As if each of them were one more weight with delta F = 0; left out, they are as if they were not there."""
    posterior = spike_slab()[1]
    layer = posterior.layers[0]
    kept = posterior.kept[layer.slice]
    pruned = int((~kept).sum())
    assert 0 < pruned < len(kept)
    delta_f = reduction.diagonal(posterior.loc, posterior.variance, 1.0)[layer.slice][kept]
    for count, extra in ((True, pruned), (False, 0)):
        padded = torch.cat([delta_f, torch.zeros(extra, dtype=torch.float64)])
        expected = infer_inclusion(padded, torch.ones(len(padded), dtype=torch.bool)).log_odds[: len(delta_f)]
        found = inclusion_log_odds(posterior, 4, count_pruned=count)[layer.slice][kept]
        torch.testing.assert_close(found, expected)


def test_t11_mean_field_inference_finds_conditional_variances() -> None:
    """Linear regression: q has s_i^2 = 1 / P_ii and the exact mean, and understates the variance at correlation .8.

    One draw a step, averaged over the last half of the way: within 10 %, and a tenth of a standard deviation.
    """
    g = torch.Generator().manual_seed(0)
    x = 0.2**0.5 * torch.randn(60, 4, generator=g) + 0.8**0.5 * torch.randn(60, 1, generator=g)
    y = x @ torch.tensor([1.0, -0.5, 0.0, 0.3]) + 0.5 * torch.randn(60, generator=g)
    precision = (x.T @ x / 0.25 + torch.eye(4)).double()
    covariance = precision.inverse()
    mean = covariance @ (x.T @ y / 0.25).double()
    model = build("linear", (4,), 1, seed=0, bias=False)
    posterior = NetworkPosterior(layers_of(model), [UnitScale()], g)
    trainer = PosteriorTrainer(model, posterior, MinibatchStream(x, y, 60, 0, 0), gaussian(0.25), 0.03, g)
    trainer.run(400)
    trainer.rates, trainer.lr_min = [0.003], 0.003
    trainer.run(200)
    means, variances = [], []
    for _ in range(50):
        trainer.run(10)
        means.append(posterior.loc.detach().double())
        variances.append(posterior.variance.detach().double())
    variance = torch.stack(variances).mean(0)
    torch.testing.assert_close(variance * precision.diagonal(), torch.ones(4).double(), rtol=0, atol=0.1)
    error = (torch.stack(means).mean(0) - mean) / covariance.diagonal().sqrt()
    assert error.abs().max() < 0.1
    assert bool((covariance.diagonal() > 2 * variance).all())


def test_t12_pruned_fraction_on_a_mask_made_by_hand() -> None:
    """2-3-2-2 network: layers of 9 and 8 entries, and 4 output weights whose bias does not count."""
    layers = layers_of(build("mlp", (2,), 2, seed=0, widths=(3, 2)))
    kept = torch.ones(layers[-1].slice.stop, dtype=torch.bool)
    entries = unflatten(layers, kept)
    entries["layers.0.weight"][0, 1] = False
    entries["layers.0.bias"][2] = False
    assert pruned_fraction(layers, kept) == pytest.approx(2 / 21)
    entries["layers.1.weight"][1] = False
    assert pruned_fraction(layers, kept) == pytest.approx(5 / 21)  # the unit still has its bias
    entries["layers.1.bias"][1] = False
    assert pruned_fraction(layers, kept) == pytest.approx((6 + 2) / 21)  # now two output weights are of no use
    entries["layers.2.weight"][:] = False
    assert pruned_fraction(layers, kept) == pytest.approx((6 + 2) / 21)  # the output layer itself is not counted


def test_t12_masks_only_shrink_and_pruned_weights_do_not_matter() -> None:
    seen: list[tuple[Tensor, float]] = []
    posteriors: list[NetworkPosterior] = []

    def record(round_: dict[str, Any], posterior: NetworkPosterior) -> None:
        seen.append((posterior.kept.clone(), round_["pruned_fraction"]))
        posteriors.append(posterior)

    x, y = classes()
    fitted = fit(network(), (x, y), "bmr-spike-slab", TINY, seed=1, after_round=record)
    assert all(not bool((later & ~earlier).any()) for (earlier, _), (later, _) in itertools.pairwise(seen))
    assert 0.1 < seen[0][1] <= seen[-1][1] < 0.9
    assert [row["pruned_fraction"] for row in fitted.history] == [fraction for _, fraction in seen]
    posterior = posteriors[-1]
    with torch.no_grad():
        pruned = ~posterior.kept
        posterior.loc[pruned] = torch.randn(int(pruned.sum()))
        posterior.rho[pruned] = torch.randn(int(pruned.sum()))
    again = {name: posterior.moments(1).mean[name] for name in fitted.mask}
    assert all(torch.equal(fitted.model.get_parameter(name), mean) for name, mean in again.items())
    for draw, same in zip(fitted.draws, posterior.draws(8, 1), strict=True):
        assert all(bool((draw[name][~kept] == 0).all()) for name, kept in fitted.mask.items())
        assert all(torch.equal(draw[name], same[name]) for name in draw)


@pytest.mark.parametrize("method", [*METHODS[:4], pytest.param(METHODS[4], marks=pytest.mark.slow)])
def test_every_method_gives_the_same_record(method: str) -> None:
    x, y = classes()
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fitted = fit(model, (x, y), method, TINY, seed=0, horseshoe=QUICK, allow_empty=True)
    shapes = {name: p.numel() for name, p in masks.prunable(model).items()}
    assert {name: len(s) for name, s in fitted.scores.items()} == shapes
    for probabilities in (fitted.single(x), fitted.predict(x)):
        torch.testing.assert_close(probabilities.sum(1), torch.ones(2000).double())
        assert accuracy(probabilities, y) > 0.85
    torch.testing.assert_close(fitted.predict(x), fitted.predict(x), rtol=0, atol=0)
    steps = 360 + 150 * method.startswith("bmr")
    assert fitted.cost.gradient_evaluations == steps * 50
    assert fitted.members == (1 if method == "flat-map" else 8)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert (fitted.mask is None) == (not method.startswith("bmr"))
    check_mask(fitted.mask or {}, dict(model.named_parameters()))


def test_scores_rank_pruned_weights_last_and_informative_inputs_first() -> None:
    fitted, _ = spike_slab()
    scores, mask = fitted.scores, fitted.mask
    assert mask is not None
    for name, kept in mask.items():
        if not bool(kept.all()):
            assert scores[name][~kept.flatten()].max() < scores[name][kept.flatten()].min()
    by_input = scores["layers.0.weight"].view(8, 10).mean(0)
    assert by_input[:2].min() > by_input[2:].max()
    assert masks.sparsity(target_sparsity(scores, fitted.groups, 0.5)) == pytest.approx(0.5, abs=0.01)


def test_a_seed_fixes_the_fit() -> None:
    one, same, other = (
        fit(network(), classes(), "flat-ff", Recipe(1, 5, batch_size=40), seed=s).model.get_parameter("layers.0.weight")
        for s in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_moments_are_those_of_the_draws() -> None:
    """4,000 draws of a small network against the moments."""
    g = torch.Generator().manual_seed(0)
    layers = layers_of(build("mlp", (2,), 2, seed=0, widths=(3,)))
    scales = [HorseshoeScale(layers[0].rows, False), FlatScale(True)]
    posterior = NetworkPosterior(layers, scales, g)
    posterior.gain[1] = 0
    with torch.no_grad():
        draws = torch.stack([posterior.sample(g)["layers.0.weight"] for _ in range(4_000)]).double()
    moments = posterior.moments(0, particles=4_000)
    mean, variance = moments.mean["layers.0.weight"], moments.variance["layers.0.weight"]
    error = draws.std(0) / math.sqrt(4_000)
    assert bool(((draws.mean(0) - mean).abs() <= 5 * error + 0.02 * mean.abs()).all())
    kept = torch.ones(3, 2, dtype=torch.bool)
    kept[0, 1] = False
    torch.testing.assert_close(variance[kept].double(), draws.var(0)[kept], rtol=0.15, atol=0)
    assert variance[0, 1] == mean[0, 1] == 0


def test_the_divergence_leaves_pruned_weights_out_and_a_point_has_minus_its_log_prior() -> None:
    g = torch.Generator().manual_seed(0)
    layers = layers_of(build("linear", (3,), 2, seed=0))
    posterior = NetworkPosterior(layers, [UnitScale()], g)
    q = torch.distributions.Normal(posterior.loc, posterior.variance.sqrt())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(posterior.divergence(), kl.sum())
    posterior.gain[2:] = 0
    torch.testing.assert_close(posterior.divergence(), kl[:2].sum())
    point = NetworkPosterior(layers, [FlatScale(True)], g, point=True)
    precision = point.hyper.loc.exp()
    expected = point.loc.square().sum() / 2 - torch.distributions.Gamma(2.0, 2.0).log_prob(precision).sum()
    torch.testing.assert_close(point.divergence(), expected)


def test_horseshoe_reduction_carries_the_posterior_over() -> None:
    """What it does to a weight is the reduced posterior: mean and variance of gain * w~ are those of the formula."""
    from sgmcmc_prune.baselines.bmr import reduction

    g = torch.Generator().manual_seed(0)
    layers = layers_of(build("mlp", (2,), 2, seed=0, widths=(3,)))
    posterior = NetworkPosterior(layers, [FlatScale(False), FlatScale(True)], g)
    part = layers[0].slice
    mean, variance = posterior.loc[part].detach().clone(), posterior.variance[part].detach().clone()
    last = posterior.loc[layers[1].slice].detach().clone()
    reduce_horseshoe(posterior, QUICK, g)
    gamma = posterior.gain[part]
    assert bool((gamma > 0).all())
    assert bool((gamma < 1).any())
    expected = reduction.diagonal_posterior(mean, variance, 1.0, gamma.square())
    torch.testing.assert_close((gamma * posterior.loc[part]).double(), expected[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close((gamma.square() * posterior.variance[part]).double(), expected[1], rtol=1e-4, atol=0)
    assert torch.equal(posterior.loc[layers[1].slice], last)


class Awkward(nn.Module):
    """Two parameters of one module with different numbers of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))


def test_layers_follow_modules() -> None:
    layers = layers_of(build("vit", (1, 8, 8), 3, seed=0, width=8, depth=1, heads=2, hidden=4))
    assert layers[0].name == "(top)"
    assert layers[0].shapes == {"tokens": (6, 8)}
    assert layers[-1].name == "head"
    flat = torch.arange(float(layers[-1].slice.stop))
    linear = layers[-1]
    matrix = linear.matrix(flat[linear.slice])
    assert matrix.shape == (3, 9)
    assert torch.equal(matrix[:, -1], unflatten(layers, flat)["head.bias"])
    assert torch.equal(linear.from_matrix(matrix), flat[linear.slice])
    assert linear.expand(torch.tensor([1.0, 2, 3])).tolist() == [1.0] * 8 + [2.0] * 8 + [3.0] * 8 + [1.0, 2, 3]


def test_bad_input() -> None:
    data = classes()
    with pytest.raises(ValueError, match="method is 'map'; choose one of flat-map, flat-ff"):
        fit(network(), data, "map", TINY)
    with pytest.raises(ValueError, match="must share the first dimension"):
        fit(Awkward(), data, "flat-ff", TINY)
    with pytest.raises(ValueError, match="Identity has no parameters"):
        fit(nn.Identity(), data, "flat-ff", TINY)
    with pytest.raises(ValueError, match="rounds, iterations, batch_size, draws and lr must be > 0"):
        Recipe(rounds=0)
    with pytest.raises(ValueError, match="warm_up and cavi_iterations must not be negative"):
        Recipe(warm_up=-1)
    with pytest.raises(ValueError, match="generation is 'C'"):
        paper_recipe("C", "flat-ff")
    with pytest.raises(RunError, match=r"training diverged at step 0: the loss is nan. Lower lr"):
        fit(network(), (torch.full_like(data[0], 3e38), data[1]), "flat-ff", TINY)


def test_an_empty_layer_is_accepted_only_on_request() -> None:
    x, _ = classes(200)
    noise = (x, torch.randint(3, (200,), generator=torch.Generator().manual_seed(1)))
    recipe = Recipe(rounds=4, iterations=100, warm_up=200, batch_size=40, lr=0.05, draws=4, cavi_iterations=20)
    with pytest.raises(RunError, match=r"removed all \d+ weights of layer 'layers.\d'.*pass allow_empty=True"):
        fit(network(), noise, "bmr-spike-slab", recipe)
    fitted = fit(network(), noise, "bmr-spike-slab", recipe, allow_empty=True)
    assert fitted.predict(x).isfinite().all()


def test_the_papers_recipes() -> None:
    assert paper_recipe("A", "flat-ff") == Recipe(5, 20_000, 100_000, 128, 1e-3)
    assert paper_recipe("B", "bmr-spike-slab") == Recipe(50, 500, 500, 120, 1e-2)
    assert [paper_recipe("B", m).lr for m in METHODS] == [1e-3, 5e-3, 5e-3, 1e-2, 1e-2]
