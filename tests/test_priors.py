"""Laplace, Student-t, horseshoe, Laplace spike: densities by quadrature, gradients by autograd, EM and Gibbs steps.

`test_spike_slab.py` has the spike-and-slab prior with Gaussian spike, and the Gaussian prior.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import halfcauchy, invgamma, kstest, laplace, norm, t
from torch import Tensor

from sgmcmc_prune.priors import Gaussian, Horseshoe, Laplace, Prior, SpikeSlab, StudentT
from sgmcmc_prune.priors.em import EM, ScaleEM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.horseshoe import inverse_gamma_above

FALSE_ALARM = 1e-3
PI, V0, V1 = 0.3, 0.01, 0.4


def test_a_prior_says_what_its_density_depends_on() -> None:
    params = {"w": torch.ones(2, 3), "b": torch.zeros(3)}
    scale = Laplace(0.1)
    scale.scales["w"] = 0.3
    assert [scale.hyperparameters(name) for name in params] == [{"scale": 0.3}, {"scale": 0.1}]
    assert StudentT(0.1, 5.0).hyperparameters("w") == {"scale": 0.1, "degrees_of_freedom": 5.0}
    assert Gaussian(2.0).hyperparameters("w") == {"variance": 2.0}
    prior = Horseshoe(params, global_scale=0.2, seed=0)
    assert prior.hyperparameters("w") == {"global_scale": pytest.approx(0.2)}
    sparse = SpikeSlab(params, inclusion_rate=PI, spike_variance=V0, slab_variance=V1)
    assert sparse.hyperparameters("w") == {"inclusion_rate": PI, "spike_variance": V0, "slab_variance": V1}
    assert sparse.hyperparameters("b") == prior.hyperparameters("b") == {"dense_variance": 1.0}


NUMBERS: dict[str, Callable[[Any], Prior]] = {
    **{
        name: lambda value, name=name: SpikeSlab({"w": torch.ones(2, 3)}, **{name: value})  # type: ignore[misc]
        for name in ("inclusion_rate", "spike_variance", "slab_variance", "dense_variance")
    },
    "global_scale": lambda value: Horseshoe({"w": torch.ones(2, 3)}, global_scale=value),
    "min_variance": lambda value: Horseshoe({"w": torch.ones(2, 3)}, min_variance=value),
    "prior variance": Gaussian,
    "prior scale": Laplace,
    "degrees_of_freedom": lambda value: StudentT(0.1, value),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, "a", None])
def test_a_setting_that_is_no_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} is {value!r}; it must be a number$"):
        NUMBERS[name](value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_a_number_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        NUMBERS[name](value)


def test_the_state_of_another_mode_or_spike_is_refused() -> None:
    params = {"w": torch.ones(2, 3)}
    state = SpikeSlab(params, mode="gibbs").state_dict()
    with pytest.raises(ValueError, match="the saved prior has mode 'gibbs'; this one has 'em'"):
        SpikeSlab(params, mode="em").load_state_dict(state)
    with pytest.raises(ValueError, match="the saved prior has spike 'gaussian'; this one has 'laplace'"):
        SpikeSlab(params, mode="gibbs", spike="laplace").load_state_dict(state)
    older = {key: value for key, value in state.items() if key not in ("mode", "spike")}
    SpikeSlab(params, mode="gibbs").load_state_dict(older)


def held_horseshoe(params: dict[str, Tensor]) -> Horseshoe:
    """A horseshoe whose scales have been drawn once."""
    prior = Horseshoe(params, global_scale=0.2, slab_variance=2.0, dense_variance=0.5, seed=0)
    prior.sample_latent(params, 3)
    return prior


def laplace_spike(params: dict[str, Tensor], mode: str = "marginal", **settings: Any) -> SpikeSlab:
    """A spike-and-slab prior with Laplace spike; held responsibilities are 0, ..., 1."""
    defaults = {"inclusion_rate": PI, "spike_variance": V0, "slab_variance": V1}
    prior = SpikeSlab(params, mode=mode, spike="laplace", **(defaults | settings))  # type: ignore[arg-type]
    for layer in prior.layers.values():
        layer.held = torch.linspace(0, 1, layer.groups.num_groups, dtype=torch.float64)
    return prior


PRIORS: dict[str, Callable[[dict[str, Tensor]], Prior]] = {
    "laplace": lambda params: Laplace(0.3),
    "student_t": lambda params: StudentT(0.3, 2.5),
    "cauchy": lambda params: StudentT(0.2, 1.0),
    "horseshoe": held_horseshoe,
    "laplace spike, marginal": laplace_spike,
    "laplace spike, held": lambda params: laplace_spike(params, "em"),
}


def weights() -> dict[str, Tensor]:
    """A matrix and a bias."""
    generator = torch.Generator().manual_seed(5)
    return {n: 0.3 * torch.randn(s, generator=generator, dtype=torch.float64) for n, s in (("w", (4, 3)), ("b", (3,)))}


# --- densities and gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIORS)
def test_the_density_integrates_to_one(name: str) -> None:
    """One weight at a time; the others are held, and cancel."""
    params = {"w": torch.full((1, 1), 0.1, dtype=torch.float64)}
    prior = PRIORS[name](params)

    def density(w: float) -> float:
        return math.exp(float(prior.log_density({"w": torch.full((1, 1), w, dtype=torch.float64)})))

    cuts = [0.0, 0.05, 0.5, 5.0, np.inf]
    half = sum(quad(density, a, b, epsabs=1e-10)[0] for a, b in pairwise(cuts))
    assert 2 * half == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("name", PRIORS)
def test_the_gradient_is_that_of_the_log_density(name: str) -> None:
    params = {n: w.requires_grad_() for n, w in weights().items()}
    prior = PRIORS[name](params)
    density = prior.log_density(params)
    assert (density.dtype, density.shape) == (torch.float64, ())
    gradients = torch.autograd.grad(-density, list(params.values()))
    for (n, w), expected in zip(params.items(), gradients, strict=True):
        torch.testing.assert_close(prior.potential_gradient(n, w), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("prior", "reference"), [(Laplace(0.3), laplace(scale=0.3)), (StudentT(0.3, 2.5), t(2.5, scale=0.3))]
)
def test_log_densities_are_those_of_scipy(prior: Prior, reference: Any) -> None:
    params = weights()
    expected = sum(reference.logpdf(w.numpy()).sum() for w in params.values())
    assert float(prior.log_density(params)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["laplace", "student_t", "horseshoe", "laplace spike, marginal"])
def test_masked_weights_are_left_out(name: str) -> None:
    """What a mask keeps and what its complement keeps add up to the whole; the bias is counted in both."""
    params = weights()
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[1] = False

    def density(kept: Tensor) -> Tensor:
        prior = PRIORS[name](params)
        prior.set_mask({"w": kept})
        return prior.log_density({"w": params["w"] * kept, "b": params["b"]})

    whole, bias = PRIORS[name](params).log_density(params), density(torch.zeros_like(mask))
    torch.testing.assert_close(density(mask) + density(~mask) - bias, whole)


# --- learned scales ------------------------------------------------------------------------------------------------


def test_the_laplace_scale_is_the_mean_magnitude() -> None:
    params = weights()
    prior = Laplace(0.3)
    ScaleEM(EMSettings("soft"), prior).update(params, 0.5)
    assert prior.scale_of("w") == pytest.approx(float(params["w"].abs().mean()))
    assert prior.scale_of("b") == 0.3


@pytest.mark.parametrize("prior", [Laplace(0.05), StudentT(0.05, 3.0), StudentT(3.0, 1.0)])
def test_soft_em_climbs_to_the_maximum_likelihood_scale(prior: Any) -> None:
    """Under fixed weights EM is exact: the log density never falls, and ends at its maximum over the scale."""
    params = {"w": 0.3 * torch.randn(40, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)}
    em = ScaleEM(EMSettings("soft"), prior)
    path = [float(prior.log_density(params))]
    for _ in range(200):
        em.update(params, 1.0)
        path.append(float(prior.log_density(params)))
    assert (np.diff(path) > -1e-9).all()
    assert path[1] > path[0] + 1
    best = prior.scales["w"]
    for scale in (0.999 * best, 1.001 * best):
        prior.scales["w"] = scale
        assert float(prior.log_density(params)) < path[-1]


def test_stochastic_weights_smooth_the_statistic() -> None:
    prior = Laplace(0.3)
    em = ScaleEM(EMSettings("stochastic", decay=0.6, delay=4.0), prior)
    for scale in (1.0, 2.0):
        em.update({"w": torch.full((2, 2), scale)}, 1.0)
    assert prior.scale_of("w") == pytest.approx(1 + (1 + 1 / 4) ** -0.6)


def test_scales_have_a_floor_leave_masked_zeros_out_and_can_be_fixed() -> None:
    prior, params = Laplace(0.3), {"w": torch.tensor([[0.0, 0.4], [0.2, 0.0]])}
    prior.set_mask({"w": params["w"] != 0})
    ScaleEM(EMSettings("soft"), prior).update(params, 1.0)
    assert prior.scale_of("w") == pytest.approx(0.3)
    ScaleEM(EMSettings("soft"), prior, min_scale=0.5).update(params, 1.0)
    assert prior.scale_of("w") == 0.5
    ScaleEM(EMSettings("fixed"), prior).update(params, 1.0)
    assert prior.scale_of("w") == 0.5
    with pytest.raises(ValueError, match="temperature > 0"):
        ScaleEM(EMSettings("soft"), prior).update(params, 0.0)


@pytest.mark.parametrize("make", [lambda: Laplace(0.3), lambda: StudentT(0.3)])
def test_a_learned_scale_survives_a_round_trip(make: Callable[[], Any]) -> None:
    params = weights()
    prior, other = make(), make()
    em, again = ScaleEM(EMSettings(), prior), ScaleEM(EMSettings(), other)
    em.update(params, 1.0)
    other.load_state_dict(prior.state_dict())
    again.load_state_dict(em.state_dict())
    for e in (em, again):
        e.update({n: 2 * w for n, w in params.items()}, 1.0)
    assert other.scales == prior.scales


# --- the Laplace spike ---------------------------------------------------------------------------------------------


def test_log_odds_of_a_laplace_spike_are_the_ratio_of_the_weighted_densities() -> None:
    params = weights()
    w = params["w"].numpy()
    eta = laplace_spike(params, group="node").log_odds("w", params["w"])
    slab = math.log(PI) + norm.logpdf(w, scale=V1**0.5).sum(1)
    spike = math.log(1 - PI) + laplace.logpdf(w, scale=(V0 / 2) ** 0.5).sum(1)
    np.testing.assert_allclose(eta.numpy(), slab - spike, rtol=1e-11)


def test_the_variance_of_the_laplace_spike_is_the_spike_variance() -> None:
    prior = laplace_spike({"w": torch.zeros(1, 1)}, inclusion_rate=1e-12)

    def integrand(w: float) -> float:
        return w**2 * math.exp(float(prior.log_density({"w": torch.full((1, 1), w, dtype=torch.float64)})))

    assert 2 * quad(integrand, 0, 5, points=[0.1, 1.0])[0] == pytest.approx(V0, rel=1e-6)


def test_soft_em_climbs_with_a_laplace_spike() -> None:
    generator = torch.Generator().manual_seed(9)
    scale = torch.where(torch.rand(30, 1, generator=generator) < 0.4, 0.7, 0.05).double()
    params = {"w": scale * torch.randn(30, 3, generator=generator, dtype=torch.float64)}
    prior = laplace_spike(params, group="node")
    em = EM(EMSettings("soft", learn_variances="both", complexity=0.0, variance_ratio=1.001), prior)
    path = [float(prior.log_density(params))]
    for _ in range(60):
        em.update(params, 1.0)
        path.append(float(prior.log_density(params)))
    assert (np.diff(path) > -1e-9).all()
    assert path[1] > path[0] + 0.1
    assert path[-1] - path[-2] < 1e-6


def test_an_unknown_spike_is_refused() -> None:
    with pytest.raises(ValueError, match="choose gaussian or laplace"):
        SpikeSlab({"w": torch.zeros(2, 2)}, spike="cauchy")  # type: ignore[arg-type]


# --- the horseshoe -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [1.0, 5.5, 500.5])
def test_truncated_inverse_gamma_draws_have_their_law(shape: float) -> None:
    """IG(shape, rate), conditioned on x >= floor. Kolmogorov-Smirnov distance of an even grid of uniforms."""
    rate, law = 0.7 * shape, invgamma(shape, scale=0.7 * shape)
    floor = float(law.ppf(0.1))
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    draws = inverse_gamma_above(u, shape, torch.full_like(u, rate), floor).numpy()
    assert draws.min() >= floor
    assert kstest(draws, lambda x: (law.cdf(x) - 0.1) / 0.9).statistic < 1 / 4000


def test_an_inverse_gamma_far_below_its_floor_stays_at_the_floor() -> None:
    draws = inverse_gamma_above(torch.full((5,), 0.5), 50000.5, torch.full((5,), 1e-6), 1e-3)
    assert torch.equal(draws, torch.full((5,), 1e-3))


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_the_gibbs_step_leaves_the_horseshoe_invariant(temperature: float) -> None:
    """The weights' marginal after many Gibbs sweeps w | s, (s, nu) | w at fixed tau, against quadrature over s.

    4000 independent weights, Kolmogorov-Smirnov at level `FALSE_ALARM`.
    """
    tau, slab, floor = 0.3, 1.5, 1e-3
    w = torch.zeros(4000, 1, dtype=torch.float64)
    prior = Horseshoe({"w": w}, slab_variance=slab, min_variance=floor, seed=2)
    layer = prior.layers["w"]
    generator = torch.Generator().manual_seed(8)
    for step in range(60):
        sd = (temperature / prior.precision(layer)).sqrt()
        w = torch.randn(w.shape, generator=generator, dtype=w.dtype) * sd
        layer.global_variance = tau**2
        prior.sample_latent({"w": w}, step, temperature)

    s = np.geomspace(floor**0.5, 1e4, 4001)
    # (N(w; 0, s^2) N(w; 0, c^2))^(1/T) integrates over w to s^(-1/T) (1/s^2 + 1/c^2)^(-1/2), up to constants.
    precision = 1 / s**2 + 1 / slab
    mass = halfcauchy.pdf(s, scale=tau) * s ** (1 - 1 / temperature) / np.sqrt(precision)
    grid = np.linspace(-8, 8, 4001)
    cdf = norm.cdf(grid[:, None] * np.sqrt(precision / temperature)) @ mass / mass.sum()
    assert kstest(w.flatten().numpy(), lambda x: np.interp(x, grid, cdf)).pvalue > FALSE_ALARM


def test_the_global_scale_follows_the_weights() -> None:
    """Ten thousand weights drawn from a horseshoe of known tau: its draws settle there (its sd is about 2 per cent)."""
    tau = 0.05
    generator = np.random.default_rng(3)
    s = tau * np.abs(generator.standard_cauchy(10_000))
    w = torch.from_numpy(s * generator.standard_normal(10_000)).view(-1, 1)
    prior = Horseshoe({"w": w}, global_scale=1.0, slab_variance=1e6, min_variance=1e-12)
    draws = []
    for step in range(150):
        prior.sample_latent({"w": w}, step)
        draws.append(prior.layers["w"].global_variance ** 0.5)
    assert np.mean(draws[50:]) == pytest.approx(tau, rel=0.1)


def test_horseshoe_draws_are_a_function_of_seed_chain_and_step() -> None:
    params = weights()

    def scales(seed: int, chain: int, step: int) -> Tensor:
        prior = Horseshoe(params, seed=seed, chain=chain)
        prior.sample_latent(params, step)
        return prior.layers["w"].local_variance

    assert torch.equal(scales(1, 2, 3), scales(1, 2, 3))
    for other in ((2, 2, 3), (1, 1, 3), (1, 2, 4)):
        assert not torch.equal(scales(1, 2, 3), scales(*other))


def test_horseshoe_state_round_trip_and_cold_steps() -> None:
    params = weights()
    prior, other = held_horseshoe(params), Horseshoe(params, global_scale=0.2, slab_variance=2.0, dense_variance=0.5)
    before = prior.layers["w"].local_variance
    prior.sample_latent(params, 4, temperature=0.0)
    assert prior.layers["w"].local_variance is before
    other.load_state_dict(prior.state_dict())
    for p in (prior, other):
        p.sample_latent(params, 5)
    assert torch.equal(prior.log_density(params), other.log_density(params))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Laplace(0.0), "prior scale"),
        (lambda: StudentT(1.0, math.nan), "degrees_of_freedom"),
        (lambda: Horseshoe({}, global_scale=-1.0), "global_scale"),
        (lambda: Horseshoe({}, slab_variance=math.inf), "slab_variance"),
        (lambda: Horseshoe({}, min_variance=2.0), "min_variance"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Prior], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
