"""What stands on top of reduced free energies: masks with a Beta rate, horseshoe scales, their variational factors."""

import math

import pytest
import torch
from torch.distributions import Gamma, Normal

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.bmr import reduction
from sgmcmc_prune.baselines.bmr.adabelief import AdaBelief
from sgmcmc_prune.baselines.bmr.horseshoe import HorseshoeSettings, infer_scales
from sgmcmc_prune.baselines.bmr.layers import Layer
from sgmcmc_prune.baselines.bmr.scales import FlatScale, HorseshoeScale, LogNormals
from sgmcmc_prune.baselines.bmr.spike_slab import infer_inclusion


def everything(n: int) -> torch.Tensor:
    return torch.ones(n, dtype=torch.bool)


@pytest.mark.parametrize(("delta_f", "kept"), [(5.0, False), (-5.0, True)])
def test_t10_evidence_of_one_sign_decides_for_the_whole_layer(delta_f: float, kept: bool) -> None:
    log_odds, zeta = infer_inclusion(torch.full((1000,), delta_f), everything(1000))
    assert float(zeta) * delta_f < 0
    assert bool(((log_odds >= 0) == kept).all())


def test_t10_pruned_weights_do_not_count() -> None:
    delta_f = torch.linspace(-4, 2, 50)
    alive = infer_inclusion(delta_f, everything(50))
    padded = infer_inclusion(torch.cat([delta_f, torch.zeros(500)]), torch.arange(550) < 50)
    assert float(padded.zeta) == float(alive.zeta)
    torch.testing.assert_close(padded.log_odds[:50], alive.log_odds)


def test_t10_a_large_uniform_layer_moves_by_its_evidence_in_every_iteration() -> None:
    for iterations in (0, 1, 4, 20):
        zeta = infer_inclusion(torch.full((1_000_000,), 0.3), everything(1_000_000), iterations=iterations).zeta
        assert float(zeta) == pytest.approx(-0.3 * iterations, abs=2e-3)


def test_coordinate_ascent_raises_its_bound() -> None:
    """E log p(D, z, pi) + entropies never falls from one iteration to the next."""
    delta_f = torch.linspace(-6, 3, 40, dtype=torch.float64)
    a, b = torch.tensor(2.0), torch.tensor(5.0)

    def bound(iterations: int) -> float:
        """The bound after q(z) was updated given zeta, with q(pi) then at its best."""
        q = torch.sigmoid(infer_inclusion(delta_f, everything(40), alpha=2, beta=5, iterations=iterations).log_odds)
        alpha, beta = a + q.sum(), b + (1 - q).sum()
        log_beta = alpha.lgamma() + beta.lgamma() - (alpha + beta).lgamma()
        entropy = torch.special.entr(q) + torch.special.entr(1 - q)
        return float(((1 - q) * delta_f).sum() + log_beta + entropy.sum())

    bounds = [bound(k) for k in range(8)]
    assert bounds == sorted(bounds)
    assert bounds[-1] > bounds[0] + 0.01


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"Beta prior on the inclusion rate is \(0, 1.0\); both must be > 0"):
        infer_inclusion(torch.zeros(3), everything(3), alpha=0)
    with pytest.raises(ValueError, match="delta F holds NaN"):
        infer_inclusion(torch.tensor([math.nan]), everything(1))
    with pytest.raises(ValueError, match="must be > 0"):
        HorseshoeSettings(particles=0)


@pytest.mark.parametrize("values", [(0.3, 0.5, 2.0, 6.0), (-1.0, 0.1, 0.5, 1.0), (0.0, 1.5, 0.5, 1.0)])
def test_kl_of_a_lognormal_from_a_gamma_by_quadrature(values: tuple[float, ...]) -> None:
    loc, scale, a, b = torch.tensor(values, dtype=torch.float64)
    u = torch.linspace(float(loc - 14 * scale), float(loc + 14 * scale), 100_001, dtype=torch.float64)
    log_q = Normal(loc, scale).log_prob(u)  # of u = log x
    log_p = Gamma(a, b).log_prob(u.exp()) + u
    exact = torch.trapezoid(log_q.exp() * (log_q - log_p), u)
    torch.testing.assert_close(kl.log_normal_from_gamma(loc, scale.log(), a, b, b.log()), exact, rtol=1e-9, atol=1e-9)


def test_scales_are_the_stated_functions() -> None:
    g = torch.Generator().manual_seed(0)
    flat = LogNormals(FlatScale(last=False).variables, g)
    (precision,) = flat.sample(g)
    torch.testing.assert_close(FlatScale(last=False)(precision), 0.1 / precision.sqrt())
    torch.testing.assert_close(FlatScale(last=True)(precision), 1 / precision.sqrt())
    scale = HorseshoeScale(rows=3, last=False, tau=0.1, columns=2)
    values = LogNormals(scale.variables, g).sample(g, particles=5)
    slab_precision, u, v, z0, z1, local_u, local_v = values
    psi = 0.01 * (z0 / z1)[:, :, None] * (v / u)[:, :, None] * (local_v / local_u).view(5, 3, 2)
    gamma = (psi / (1 + psi * slab_precision[:, :, None])).sqrt()
    torch.testing.assert_close(scale(*values), gamma.flatten(1))
    assert HorseshoeScale(rows=1, last=False).variables[1].size == 1
    assert len(HorseshoeScale(rows=1, last=False).variables) == 3  # no shared scale for one row
    (z0, z1) = LogNormals(HorseshoeScale(rows=3, last=True).variables, g).sample(g)
    torch.testing.assert_close(HorseshoeScale(rows=3, last=True)(z0, z1), (z0 / z1).sqrt())


def test_horseshoe_reduction_shrinks_what_the_evidence_does_not_need() -> None:
    """Two rows carry signal, the posterior of the other two is their prior."""
    layer = Layer("layer", {"weight": (4, 5), "bias": (4,)}, 0)
    mean = layer.from_matrix(torch.tensor([[1.5] * 6, [0.0] * 6, [-1.2] * 6, [0.0] * 6]))
    variance = layer.from_matrix(torch.tensor([[1e-3] * 6, [1.0] * 6, [1e-3] * 6, [1.0] * 6]))
    settings = HorseshoeSettings(per_weight=False, particles=4, iterations=400, draws=200, lr=0.03)
    gamma = layer.matrix(infer_scales(layer, mean, variance, settings, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(gamma, gamma[:, :1].expand(4, 6))  # one scale per row
    assert gamma[0::2].min() > 0.5
    assert gamma[1::2].max() < 0.1
    # A dead row has no evidence either way; removing a live one would cost thousands of nats.
    delta_f = layer.matrix(reduction.diagonal(mean, variance, 1.0, layer.from_matrix(gamma).square()))
    assert delta_f[1::2].abs().max() < 1e-6
    assert delta_f[0::2].sum() > -5
    assert layer.matrix(reduction.diagonal(mean, variance, 1.0))[0::2].sum() < -5000


def test_adabelief_is_its_formula_and_does_not_see_the_scale_of_the_loss() -> None:
    gradients = torch.tensor([[0.5, -2.0], [0.1, -1.0], [-0.3, 4.0]], dtype=torch.float64)
    paths = []
    for factor in (1.0, 6e4):
        w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = AdaBelief([w], lr=0.01)
        for g in gradients:
            w.grad = factor * g
            optimizer.step()
        paths.append(w.detach())
    m, s, w = torch.zeros(2).double(), torch.zeros(2).double(), torch.zeros(2).double()
    for t, g in enumerate(gradients, 1):
        s = 0.999 * s + 0.001 * (g - m) ** 2 + 1e-16  # from the mean before this gradient
        m = 0.9 * m + 0.1 * g
        w = w - 0.01 * (m / (1 - 0.9**t)) / ((s / (1 - 0.999**t)).sqrt() + 1e-16)
    torch.testing.assert_close(paths[0], w)
    torch.testing.assert_close(paths[1], w, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="lr is 0; it must be > 0"):
        AdaBelief([torch.zeros(1, requires_grad=True)], lr=0)
    with pytest.raises(TypeError, match="takes no closure"):
        AdaBelief([torch.zeros(1, requires_grad=True)], lr=1).step(lambda: None)
