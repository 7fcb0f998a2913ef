"""Divergences, samplers and closed-form inclusion of the variational baselines, against Monte Carlo and known values.

Monte-Carlo comparisons use 10^6 draws at a fixed seed and 4 standard errors: false alarms 6e-5 each.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Gamma, InverseGamma, LogNormal, Normal

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational import any_active
from sgmcmc_prune.baselines.variational.evidence import continuous_spike_log_odds, point_spike_log_odds
from sgmcmc_prune.baselines.variational.gates import straight_through
from sgmcmc_prune.baselines.variational.scales import (
    GroupLassoScale,
    GroupLassoShared,
    HalfCauchy,
    HorseshoeScale,
    HorseshoeShared,
)
from sgmcmc_prune.priors.groups import GroupMap

DRAWS = 1_000_000
FEWER = 100_000


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def t(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def assert_mean(values: Tensor, expected: Tensor | float, standard_errors: float = 4) -> None:
    error = abs(float(values.detach().mean()) - float(torch.as_tensor(expected).detach()))
    assert error < standard_errors * float(values.detach().std()) / math.sqrt(len(values))


def check(q: Distribution, log_prior: Callable[[Tensor], Tensor], closed: Tensor) -> None:
    x = q.sample((DRAWS,))
    assert_mean(q.log_prob(x) - log_prior(x), closed)


def test_listed_values() -> None:
    gate, slab = kl.bernoulli(t(kl.log_odds(0.3)), 0.01), kl.normal(t(0.4), t(0.2).log(), math.log(0.7), 0.7**-2)
    assert float(gate + 0.3 * slab) == pytest.approx(1.0648, abs=5e-5)
    loc, log_std = t(0.3), t(0.4).log()
    assert float(kl.log_normal_from_gamma(loc, log_std, 0.5, 1, 0)) == pytest.approx(1.3820, abs=5e-5)
    assert float(kl.log_normal_from_inverse_gamma(loc, log_std, 0.5, 1)) == pytest.approx(1.0222, abs=5e-5)
    assert 0.5 * math.log(2 * math.pi) + 0.5 == pytest.approx(kl.NORMAL_ENTROPY)


def test_group_lasso_value() -> None:
    shared = GroupLassoShared(math.exp(0.4), 0.15).double()
    scale = GroupLassoScale(1, 12, 0.25, shared).double()
    scale.variance.mean.data.fill_(0.3)
    assert float(scale.kl().detach()) == pytest.approx(6.6360, abs=5e-5)


def test_gate_divergence() -> None:
    check(Bernoulli(t(0.3)), Bernoulli(t(0.01)).log_prob, kl.bernoulli(t(kl.log_odds(0.3)), 0.01))
    assert float(kl.bernoulli(t(kl.log_odds(0.2)), 0.2)) == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(kl.bernoulli(torch.tensor([-200.0, 200.0]), 1e-6)).all()


def test_slab_divergence() -> None:
    check(
        Normal(t(1.3), t(0.2)),
        Normal(t(1.0), t(0.7)).log_prob,
        kl.normal(t(1.3), t(0.2).log(), math.log(0.7), 0.7**-2, 1),
    )


def test_row_sums_are_those_of_the_entries() -> None:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    weight, bias, prior = (draw(3, 2, 2), draw(3, 2, 2)), (draw(3), draw(3)), (draw(3), draw(3))
    each = [kl.normal(*f, *(p.view(3, *[1] * (f[0].ndim - 1)) for p in prior)) for f in (weight, bias)]
    assert torch.allclose(kl.normal_rows([weight, bias], *prior), each[0].sum((1, 2)) + each[1])
    assert torch.autograd.gradcheck(lambda *x: kl.normal_rows([x[:2], x[2:4]], *x[4:]), (*weight, *bias, *prior))


def test_group_lasso_divergence_over_its_uncertain_rate() -> None:
    shared = GroupLassoShared(3.0, 0.3).double()
    scale = GroupLassoScale(1, 12, 0.25, shared).double()
    q_rate, q = LogNormal(t(math.log(3.0)), t(0.3)), LogNormal(t(0.0), t(0.25))
    rate, variance = q_rate.sample((DRAWS,)), q.sample((DRAWS,))
    assert_mean(q.log_prob(variance) - Gamma(t(6.5), rate / 2).log_prob(variance), scale.kl())
    assert_mean(q_rate.log_prob(rate) - Gamma(t(4.0), t(2.0)).log_prob(rate), shared.kl())


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_half_cauchy_divergence(scale: float) -> None:
    factor = HalfCauchy((), 0.4, scale).double()
    a, b = LogNormal(t(2 * math.log(scale)), t(0.4)), LogNormal(t(0.0), t(0.4))
    x, y = a.sample((DRAWS,)), b.sample((DRAWS,))
    prior = Gamma(t(0.5), t(scale**-2)).log_prob(x) + InverseGamma(t(0.5), t(1.0)).log_prob(y)
    assert_mean(a.log_prob(x) + b.log_prob(y) - prior, factor.kl())


def test_learned_regulariser_divergence() -> None:
    shared = HorseshoeShared(0.3, "learned").double()
    q = LogNormal(t(math.log(6.0)), t(0.3))
    x = q.sample((DRAWS,))
    assert_mean(q.log_prob(x) - InverseGamma(t(2.0), t(6.0)).log_prob(x), shared.kl() - shared.half_cauchy.kl())


@pytest.mark.parametrize("regulariser", [0.8, "learned"])
def test_centred_horseshoe_slab_divergence(regulariser: float) -> None:
    # Term 7: the scale's expectations are closed forms, but for E log(c^2 + s^2), of which each node here is one draw.
    shared = HorseshoeShared(0.3, regulariser).double()
    scale = HorseshoeScale(FEWER, 0.3, shared).double()
    values = []
    for _ in range(40):  # one global draw serves all local ones: average over global draws
        shared.resample()
        values.append(scale.prior_moments()[0].mean().detach())
        precision = scale.prior_moments()[1][0]
    local, slab = scale.half_cauchy.log_draw(), t(0.0)
    common = 0.3 / math.sqrt(2) * torch.randn(FEWER, dtype=torch.float64)
    log_slab = t(math.log(0.8)) if regulariser != "learned" else 0.5 * (math.log(6) + 0.3 * torch.randn(FEWER).double())
    log_scale = local + common
    slab = log_slab + log_scale - 0.5 * torch.logaddexp(2 * log_slab, 2 * log_scale)
    assert_mean(torch.stack(values), slab.mean())
    assert_mean((-2 * slab).exp().detach(), precision)


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_product_of_gammas_is_half_cauchy(scale: float) -> None:
    a, b = Gamma(t(0.5), t(scale**-2)).sample((DRAWS,)), InverseGamma(t(0.5), t(1.0)).sample((DRAWS,))
    below = [float(((a * b).sqrt() < scale * q).double().mean()) for q in (math.sqrt(2) - 1, 1, math.sqrt(2) + 1)]
    assert below == pytest.approx([0.25, 0.5, 0.75], abs=4 * 0.5 / math.sqrt(DRAWS))


def test_group_lasso_marginal_is_multi_laplace() -> None:
    k, rate = 12, 2.25
    variance = Gamma(t((k + 1) / 2), t(rate / 2)).sample((200_000,))
    norm = (variance[:, None].sqrt() * torch.randn(200_000, k, dtype=torch.float64)).norm(dim=1)
    assert_mean(norm, k / math.sqrt(rate))
    assert_mean((norm - k / math.sqrt(rate)).square(), k / rate)


def test_one_draw_serves_for_the_product_of_two_factors() -> None:
    factor = HalfCauchy((DRAWS,), 0.5).double()
    factor.gamma.mean.data.fill_(0.7)
    one = factor.log_draw().detach()
    two = 0.5 * (0.7 + 0.5 * torch.randn(DRAWS).double() + 0.5 * torch.randn(DRAWS).double())
    assert_mean(one, 0.35)
    assert float(one.var()) == pytest.approx(float(two.var()), rel=8 * math.sqrt(2 / DRAWS))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_gates_open_with_their_probability(temperature: float) -> None:
    logits = torch.full((DRAWS,), kl.log_odds(0.3), requires_grad=True)
    z = straight_through(logits, temperature)
    assert set(z.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    assert_mean(z.detach(), 0.3)
    z.sum().backward()
    assert float(logits.grad.min()) >= 0
    assert float(logits.grad.sum()) > 0


def test_continuous_spike_value_and_limits() -> None:
    odds = continuous_spike_log_odds(t(0.15), t(0.05).square(), None, 0.05, 1.0, 0.1)
    assert float(odds) == pytest.approx(-0.2055, abs=5e-5)
    mean, variance = torch.randn(3, 4).double(), torch.rand(3, 4).double() + 0.1
    equal = continuous_spike_log_odds(mean, variance, None, 0.7, 0.7, 0.2)
    assert torch.allclose(equal.sigmoid(), torch.full_like(mean, 0.2))
    alone = continuous_spike_log_odds(mean, variance, GroupMap("weight", (3, 4)), 0.1, 1.0, 0.2)
    assert torch.allclose(alone.view(3, 4), continuous_spike_log_odds(mean, variance, None, 0.1, 1.0, 0.2))


def test_responsibility_minimises_its_part_of_the_bound() -> None:
    mean, log_std = t(0.15), t(0.05).log()
    slab, spike = kl.normal(mean, log_std, 0.0, 1.0), kl.normal(mean, log_std, math.log(0.05), 400.0)
    phi = torch.linspace(0.001, 0.999, 999).double()
    objective = phi * slab + (1 - phi) * spike + kl.bernoulli(phi.logit(), 0.1)
    best = continuous_spike_log_odds(mean, (2 * log_std).exp(), None, 0.05, 1.0, 0.1).sigmoid()
    assert float(phi[objective.argmin()]) == pytest.approx(float(best), abs=1e-3)


def test_point_spike_is_exact_for_normal_means() -> None:
    # y ~ N(w, s^2), w ~ pi N(0, s1^2) + (1 - pi) delta_0: the Bayes factor is known.
    y, s, s1, pi = torch.tensor([0.1, 1.0, -3.0]).double(), 0.6, 2.0, 0.3
    variance = 1 / (1 / s**2 + 1 / s1**2)
    odds = point_spike_log_odds(y * variance / s**2, torch.full_like(y, variance), None, s1, pi)
    exact = kl.log_odds(pi) + Normal(0.0, math.hypot(s, s1)).log_prob(y) - Normal(0.0, s).log_prob(y)
    assert torch.allclose(odds, exact, atol=1e-6)


def test_probability_of_any_active_weight() -> None:
    phi = torch.tensor([[0.5, 0.0, 1.0], [0.5, 0.2, 0.3]])
    found = any_active(phi.flatten(), GroupMap("weight", (2, 3)), GroupMap("input", (2, 3)))
    assert found.tolist() == pytest.approx([0.75, 0.2, 1.0])


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_inclusion_is_inside_the_unit_interval(value: float) -> None:
    with pytest.raises(ValueError, match=r"must be inside \(0, 1\)"):
        kl.check_inclusion(value)
