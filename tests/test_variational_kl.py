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
from sgmcmc_prune.baselines.variational import any_active, local
from sgmcmc_prune.baselines.variational.evidence import (
    continuous_spike_divergence,
    continuous_spike_log_odds,
    point_spike_log_odds,
)
from sgmcmc_prune.baselines.variational.factors import GatedNormal, Normal
from sgmcmc_prune.baselines.variational.gates import Gate
from sgmcmc_prune.baselines.variational.scales import (
    GroupLasso,
    HalfCauchy,
    Horseshoe,
)
from sgmcmc_prune.baselines.variational.statistics import Factors, per_row, row_divergence, statistics, total
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


def group_lasso(rate_mean: float, rate_std: float) -> GroupLasso:
    """One node with 12 weights, the log of its scale N(., 0.25^2)."""
    scales = GroupLasso({"layer": (1, 12)}, 0.25).double()
    scales.rate.mean.data.fill_(rate_mean)
    scales.rate.log_std.data.fill_(math.log(rate_std))
    return scales


def test_group_lasso_value() -> None:
    scales = group_lasso(0.4, 0.15)
    scales.variance.mean.data.fill_(0.3)
    rate = kl.log_normal_from_gamma(t(0.4), t(0.15).log(), 4.0, 2.0, math.log(2))
    assert float(scales.kl().detach() - rate) == pytest.approx(6.6360, abs=5e-5)


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


def random_factors(*shape: int, gated: bool, bias: bool, dtype: torch.dtype = torch.float64) -> Factors:
    weights = [torch.randn(*shape, dtype=dtype, requires_grad=True) for _ in range(3 if gated else 2)]
    biases = [torch.randn(shape[0], dtype=dtype, requires_grad=True) for _ in range(2 if bias else 0)]
    return Factors(*weights, *([] if gated else [None]), *biases)


def flat(factors: Factors) -> list[Tensor]:
    moments, sums = statistics(factors)
    return [x for x in (*moments, *sums) if x is not None]


LAYERS = {"gated": [False, True], "bias": [False, True], "shape": [(3, 4), (3,), (2, 3, 2, 2)]}


@pytest.fixture(params=[(g, b, s) for g in LAYERS["gated"] for b in LAYERS["bias"] for s in LAYERS["shape"]], ids=str)
def layer(request: pytest.FixtureRequest) -> Factors:
    gated, bias, shape = request.param
    return random_factors(*shape, gated=gated, bias=bias)


def test_statistics_of_a_layer(layer: Factors) -> None:
    """Moments and divergence are those of the factors one by one, and the gradient is theirs."""
    gated, biased = layer.logits is not None, layer.bias_mean is not None
    weight = GatedNormal(layer.mean, 0.1, 0.2, 0.5) if gated else Normal(layer.mean, 0.1)
    weight.log_std.data = layer.log_std.data
    if gated:
        weight.logits.data = layer.logits.data
    prior = (0.3, 0.7) if gated else torch.randn(2, len(layer.mean), dtype=torch.float64).unbind()
    expected = total(weight.divergence(*(per_row(x, layer.mean) for x in prior)))
    moments, sums = statistics(layer)
    for ours, exact in zip(moments, weight.moments(), strict=False):
        assert torch.allclose(ours, exact)
    if biased:
        expected = expected + kl.normal(layer.bias_mean, layer.bias_log_std, *prior)
        assert torch.equal(moments.bias_mean, layer.bias_mean)
        assert torch.allclose(moments.bias_variance, (2 * layer.bias_log_std).exp())
    assert torch.allclose(row_divergence(layer, sums, *prior, 0.2 if gated else None), expected)
    given = [x for x in layer if x is not None]

    def function(*x: Tensor) -> tuple[Tensor, ...]:
        values = iter(x)
        return tuple(flat(Factors(*(None if f is None else next(values) for f in layer))))

    assert torch.autograd.gradcheck(function, given)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 37), (5,), (4, 3, 3, 3), "channels_last"])
def test_kernels_of_statistics_agree_with_torch(shape: tuple[int, ...] | str, bias: bool, gated: bool) -> None:
    """The values, and a gradient, in single precision on either way, to rounding (1e-5 relative to the largest)."""
    last, shape = shape == "channels_last", (4, 3, 3, 2) if isinstance(shape, str) else shape
    factors = random_factors(*shape, gated=gated, bias=bias, dtype=torch.float32)
    if not native.takes(factors.mean):
        pytest.skip("no C compiler")
    results = []
    for dtype in (torch.float32, torch.float64):  # the kernels are for float32
        x = [None if f is None else f.detach().to(dtype) for f in factors]
        if last:
            x[:3] = [None if f is None else f.to(memory_format=torch.channels_last) for f in x[:3]]
        x = [None if f is None else f.requires_grad_() for f in x]
        outputs = flat(Factors(*x))
        assert not last or outputs[1].is_contiguous(memory_format=torch.channels_last)
        weights = [torch.linspace(-1, 1, o.numel(), dtype=dtype).view_as(o) for o in outputs]
        sum((w * o).sum() for w, o in zip(weights, outputs, strict=True)).backward()
        results.append([*(o.detach() for o in outputs), *(f.grad for f in x if f is not None)])
    for ours, exact in zip(*results, strict=True):
        assert float((ours - exact).abs().max()) < 1e-5 * max(1.0, float(exact.abs().max()))


def test_gradients_that_are_given_stay_as_they_are() -> None:
    """The kernels work in place: not on what belongs to others."""
    factors = random_factors(3, 4, gated=False, bias=True, dtype=torch.float32)
    moments, _ = statistics(factors)
    given = torch.ones(3, 4)
    moments.variance.backward(given)
    assert torch.equal(given, torch.ones(3, 4))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_gradient_of_local_reparametrisation(
    bias: bool, scaled: bool, gated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against finite differences, and against elementary operations with the same noise."""
    factors = random_factors(3, 4, gated=gated, bias=bias)
    x, scale = torch.randn(2, 5, 4, dtype=torch.float64)[0].requires_grad_(), torch.randn(3).double().requires_grad_()
    noise = torch.randn(5, 3, dtype=torch.float64)
    monkeypatch.setattr(local, "noise_like", lambda like: noise.clone())
    given = [f for f in factors if f is not None]

    def function(x: Tensor, scale: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        values = iter(rest)
        filled = Factors(*(None if f is None else next(values) for f in factors))
        outputs, sums = local.local_draw(x, filled, scale if scaled else None)
        return outputs, *(s for s in sums if s is not None)

    assert torch.autograd.gradcheck(function, (x, scale, *given))
    plain = local.draw_from_moments(x, statistics(factors)[0], scale if scaled else None)
    assert torch.allclose(function(x, scale, *given)[0], plain)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_kernels_of_local_reparametrisation_agree_with_torch(
    bias: bool, scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients in single precision, to rounding (1e-5 relative to the largest), with the kernel's noise."""
    factors = random_factors(37, 11, gated=True, bias=bias, dtype=torch.float32)
    if not native.takes(factors.mean):
        pytest.skip("no C compiler")
    key, x, scale = (5, 0, 7), torch.randn(23, 11), torch.randn(37)
    noise = native.standard_normal(*key, 0, 23 * 37).view(23, 37)
    monkeypatch.setattr(local, "random_key", lambda: key)
    monkeypatch.setattr(local, "noise_like", lambda like: noise.to(like))
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [f.detach().to(dtype).requires_grad_() for f in (x, scale, *(f for f in factors if f is not None))]
        values = iter(leaves[2:])
        filled = Factors(*(None if f is None else next(values) for f in factors))
        outputs, sums = local.local_draw(leaves[0], filled, leaves[1] if scaled else None)
        loss = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=dtype).view_as(outputs)).sum()
        (loss + 0.1 * sum(s.sum() for s in sums if s is not None)).backward()
        results.append([outputs.detach(), *(f.grad for f in leaves if f.grad is not None)])
    assert len(results[0]) == 5 + 2 * bias + scaled
    for ours, exact in zip(*results, strict=True):
        assert float((ours - exact).abs().max()) < 1e-5 * max(1.0, float(exact.abs().max()))


def test_the_gradient_of_the_gates_divergence_is_exact_where_they_are_surely_open_or_closed() -> None:
    """In single precision at log odds of 12, where 1 - g has two digits left."""
    logits = torch.tensor([-12.0, -3.0, 0.5, 12.0], requires_grad=True)
    exact = logits.detach().double().requires_grad_()
    for x in (logits, exact):
        kl.bernoulli(x, 0.2).sum().backward()
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-5, atol=0)
    assert torch.autograd.gradcheck(lambda x: kl.bernoulli(x, 0.2), exact)


def test_group_lasso_divergence_over_its_uncertain_rate() -> None:
    q_rate, q = LogNormal(t(math.log(3.0)), t(0.3)), LogNormal(t(0.0), t(0.25))
    rate, variance = q_rate.sample((DRAWS,)), q.sample((DRAWS,))
    scales = q.log_prob(variance) - Gamma(t(6.5), rate / 2).log_prob(variance)
    own = q_rate.log_prob(rate) - Gamma(t(4.0), t(2.0)).log_prob(rate)
    assert_mean(scales + own, group_lasso(math.log(3.0), 0.3).kl())


def test_half_cauchy_divergence() -> None:
    factor = HalfCauchy(1, 0.4).double()
    a, b = LogNormal(t(0.0), t(0.4)), LogNormal(t(0.0), t(0.4))
    x, y = a.sample((DRAWS,)), b.sample((DRAWS,))
    prior = Gamma(t(0.5), t(1.0)).log_prob(x) + InverseGamma(t(0.5), t(1.0)).log_prob(y)
    assert_mean(a.log_prob(x) + b.log_prob(y) - prior, factor.kl())


def test_learned_regulariser_divergence() -> None:
    scales = Horseshoe({"layer": 1}, 0.3, "learned").double()
    q = LogNormal(t(math.log(6.0)), t(0.3))
    x = q.sample((DRAWS,))
    found = scales.kl() - scales.half_cauchy.kl()
    assert_mean(q.log_prob(x) - InverseGamma(t(2.0), t(6.0)).log_prob(x), found)


@pytest.mark.parametrize("regulariser", [0.8, "learned"])
def test_centred_horseshoe_slab_divergence(regulariser: float) -> None:
    # Term 7: the scale's expectations are closed forms, but for E log(c^2 + s^2), of which each node here is one draw.
    scales = Horseshoe({"layer": FEWER}, 0.3, regulariser, centred=True).double()
    values = []
    for _ in range(40):  # one global draw serves all local ones: average over global draws
        scales.resample()
        expected_log, precision = scales.moments["layer"]
        values.append(expected_log.mean().detach())
    local, common = 0.3 / math.sqrt(2) * torch.randn(2, FEWER, dtype=torch.float64)
    log_slab = t(math.log(0.8)) if regulariser != "learned" else 0.5 * (math.log(6) + 0.3 * torch.randn(FEWER).double())
    log_scale = local + common
    slab = log_slab + log_scale - 0.5 * torch.logaddexp(2 * log_slab, 2 * log_scale)
    assert_mean(torch.stack(values), slab.mean())
    assert_mean((-2 * slab).exp(), precision[0])


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
    factor = HalfCauchy(DRAWS, 0.5).double()
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
    monkeypatch.setattr("sgmcmc_prune.baselines.variational.gates.logistic_like", lambda like: noise.clone())
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


@pytest.mark.parametrize("kind", [None, "weight", "node", "input"])
@pytest.mark.parametrize("masked", [False, True])
def test_continuous_spike_divergence(kind: str | None, masked: bool) -> None:
    """The weighted divergences one by one with phi held, and their gradient."""
    factor = Normal(torch.randn(3, 4), 0.3).double()
    factor.log_std.data += 0.3 * torch.randn(3, 4)
    factor.kept = (torch.rand(3, 4) > 0.4).double() if masked else None
    groups = GroupMap(kind, (3, 4)) if kind else None
    spike, slab, inclusion = 0.4, 1.3, 0.2
    kept = torch.ones(3, 4).double() if factor.kept is None else factor.kept
    evidence = kept * (kl.normal(factor.mean, factor.log_std, math.log(spike), spike**-2))
    evidence = evidence - kept * kl.normal(factor.mean, factor.log_std, math.log(slab), slab**-2)
    odds = (kl.log_odds(inclusion) + (groups.sum(evidence) if groups else evidence)).detach()
    phi = groups.expand(odds.sigmoid()) if groups else odds.sigmoid()
    log_std, precision = math.log(spike) + phi * math.log(slab / spike), phi * slab**-2 + (1 - phi) * spike**-2
    expected = factor.divergence(log_std, precision).sum() + kl.bernoulli(odds, inclusion).sum()
    expected.backward()
    gradients, given = [factor.mean.grad, factor.log_std.grad], (factor.mean, factor.log_std)
    found = continuous_spike_divergence(*given, factor.kept, groups, spike, slab, inclusion)
    assert torch.allclose(found, expected)
    for ours, exact in zip(torch.autograd.grad(found, given), gradients, strict=True):
        assert torch.allclose(ours, exact)


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
