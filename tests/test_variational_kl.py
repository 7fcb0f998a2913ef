"""Divergences, samplers and closed-form inclusion of the variational baselines, against Monte Carlo and known values.

Monte-Carlo comparisons use 10^6 draws at a fixed seed and 4 standard errors: false alarms 6e-5 each.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Gamma, InverseGamma, LogNormal
from torch.distributions import Normal as NormalLaw

from sgmcmc_prune import native
from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational import any_active
from sgmcmc_prune.baselines.variational.evidence import continuous_spike_log_odds, point_spike_log_odds
from sgmcmc_prune.baselines.variational.factors import GatedNormal, Normal
from sgmcmc_prune.baselines.variational.gates import Gate
from sgmcmc_prune.baselines.variational.layers import _LocalDraw
from sgmcmc_prune.baselines.variational.scales import (
    GroupLassoScale,
    GroupLassoShared,
    HalfCauchy,
    HorseshoeScale,
    HorseshoeShared,
    _HalfCauchyDraw,
    _HalfCauchyKL,
    _Regularised,
)
from sgmcmc_prune.baselines.variational.statistics import per_row, statistics, total
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
        NormalLaw(t(1.3), t(0.2)),
        NormalLaw(t(1.0), t(0.7)).log_prob,
        kl.normal(t(1.3), t(0.2).log(), math.log(0.7), 0.7**-2, 1),
    )


def random_factors(*shape: int, gated: bool, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(*shape, dtype=dtype, requires_grad=True) for _ in range(3 if gated else 2)]


@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 3, 2, 2)])
def test_statistics_of_gated_entries(shape: tuple[int, ...]) -> None:
    """Moments and divergence are those of the elementary operations, and so is the gradient."""
    mean, log_std, logits = random_factors(*shape, gated=True)
    found, g, v = statistics(mean, log_std, logits), logits.sigmoid(), (2 * log_std).exp()
    assert torch.allclose(found.mean, g * mean)
    assert torch.allclose(found.variance, g * (v + (1 - g) * mean.square()))
    slab = GatedNormal(mean, 0.1, 0.2, 0.5).double()
    slab.log_std.data, slab.logits.data = log_std.data, logits.data
    each = g * kl.normal(mean, log_std, 0.3, 0.7) + kl.bernoulli(logits, 0.2)
    assert torch.allclose(slab.kl(0.3, 0.7), total(each))
    assert torch.autograd.gradcheck(lambda *x: statistics(*x)[:6], (mean, log_std, logits))


@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 3, 2, 2)])
def test_statistics_without_gates(shape: tuple[int, ...]) -> None:
    mean, log_std = random_factors(*shape, gated=False)
    factor, prior = Normal(mean, 0.1).double(), torch.randn(2, shape[0], dtype=torch.float64)
    factor.log_std.data = log_std.data
    each = kl.normal(mean, log_std, *(per_row(p, mean) for p in prior))
    assert torch.allclose(factor.kl(*prior), total(each))
    assert torch.autograd.gradcheck(lambda *x: statistics(*x)[:4], (mean, log_std))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("shape", [(7, 37), (5,), (4, 3, 3, 3)])
def test_kernels_of_statistics_agree_with_torch(shape: tuple[int, ...], gated: bool) -> None:
    """The values, and a gradient, in single precision on either way, to rounding (1e-5 relative to the largest)."""
    factors = random_factors(*shape, gated=gated, dtype=torch.float32)
    if not native.takes(factors[0]):
        pytest.skip("no C compiler")
    results = []
    for dtype in (torch.float32, torch.float64):  # the kernels are for float32
        x = [f.detach().to(dtype).requires_grad_() for f in factors]
        outputs = statistics(*x)[: 6 if gated else 4]
        weights = [torch.linspace(-1, 1, o.numel(), dtype=dtype).view_as(o) for o in outputs]
        sum((w * o).sum() for w, o in zip(weights, outputs, strict=True)).backward()
        results.append([*(o.detach() for o in outputs), *(f.grad for f in x)])
    for ours, exact in zip(*results, strict=True):
        assert float((ours - exact).abs().max()) < 1e-5 * max(1.0, float(exact.abs().max()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_gradient_of_local_reparametrisation(bias: bool, scaled: bool) -> None:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    biases = (draw(3), draw(3).exp()) if bias else (None, None)
    noise = torch.randn(5, 3, dtype=torch.float64)
    arguments = (draw(5, 4), draw(3, 4), draw(3, 4).exp(), *biases, draw(3) if scaled else None, noise)
    assert torch.autograd.gradcheck(_LocalDraw.apply, arguments)


def test_gradients_in_closed_form() -> None:
    """Gates, log-normal means; of the horseshoe: draws, divergences, regularised scales."""
    a, b, c, d = (0.5 * torch.randn(4, dtype=torch.float64) for _ in range(4))
    for x in (a, b, c, d):
        x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kl.bernoulli(x, 0.2), a)
    assert torch.autograd.gradcheck(kl.log_normal_mean, (a, b))
    noise = torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: _HalfCauchyDraw.apply(*x, noise), (a, b, c, d))
    assert torch.autograd.gradcheck(lambda *x: _HalfCauchyKL.apply(*x, 0.3), (a, b, c, d))
    assert torch.autograd.gradcheck(_Regularised.apply, (a, b.sum(), c.sum()))
    each = kl.log_normal_from_gamma(torch.stack([a - 2 * math.log(0.3), -c]), torch.stack([b, d]), 0.5, 1.0, 0.0)
    assert torch.allclose(_HalfCauchyKL.apply(a, b, c, d, 0.3), each.sum(0))


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
    gate = Gate(1, 0.5, 0.3, temperature)
    z = gate(torch.ones(DRAWS, 1))
    assert set(z.detach().unique().tolist()) == {0.0, 1.0}
    assert_mean(z.detach(), 0.3)
    # The gradient is that of the relaxation, E[y (1 - y)] / T: here by quadrature over the uniform behind the noise.
    u = (torch.arange(FEWER) + 0.5).double() / FEWER
    y = ((gate.logits.detach() + u.logit()) / temperature).sigmoid()
    z.mean().backward()
    assert float(gate.logits.grad) == pytest.approx(float((y * (1 - y)).mean()) / temperature, rel=0.02)


def test_gated_activations_pass_the_gradient_of_open_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both gradients from their definition, on images."""
    noise = torch.randn(2, 3)
    monkeypatch.setattr("sgmcmc_prune.baselines.variational.gates._logistic", lambda like: noise.clone())
    gate, x = Gate(3, 0.5, 0.4), torch.randn(2, 3, 4, 4, requires_grad=True)
    weights, logits = torch.randn(2, 3, 4, 4), gate.logits.detach()[:, None, None].requires_grad_()
    (gate(x) * weights).sum().backward()
    shaped = noise[..., None, None]
    relaxed = ((logits + shaped) / gate.temperature).sigmoid()
    (relaxed * x.detach() * weights).sum().backward()
    assert torch.equal(x.grad, weights * (logits.detach() + shaped > 0))
    assert torch.allclose(gate.logits.grad, logits.grad.flatten(), atol=1e-6)


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
    exact = kl.log_odds(pi) + NormalLaw(0.0, math.hypot(s, s1)).log_prob(y) - NormalLaw(0.0, s).log_prob(y)
    assert torch.allclose(odds, exact, atol=1e-6)


def test_probability_of_any_active_weight() -> None:
    phi = torch.tensor([[0.5, 0.0, 1.0], [0.5, 0.2, 0.3]])
    found = any_active(phi.flatten(), GroupMap("weight", (2, 3)), GroupMap("input", (2, 3)))
    assert found.tolist() == pytest.approx([0.75, 0.2, 1.0])


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_inclusion_is_inside_the_unit_interval(value: float) -> None:
    with pytest.raises(ValueError, match=r"must be inside \(0, 1\)"):
        kl.check_inclusion(value)
