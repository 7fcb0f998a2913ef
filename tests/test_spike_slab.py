"""The spike-and-slab prior in its three modes, and the Gaussian prior, against direct float64 computations."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import binom, norm
from torch import Tensor

from sgmcmc_prune.priors import Gaussian, GroupMap, SpikeSlab
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.spike_slab import check_hyperparameters, smallest_stable_spike

PI, V0, V1 = 0.3, 0.01, 0.4
MODES = ("marginal", "gibbs", "em")
KINDS = ("weight", "kernel", "filter", "input")


def weights(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A convolutional and a linear weight, and a bias, on the scale where spike and slab compete."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"conv.weight": (2, 3, 2, 2), "fc.weight": (4, 5), "fc.bias": (4,)}
    return {n: 0.2 * torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for n, s in shapes.items()}


def spike_slab(params: dict[str, Tensor], **settings: Any) -> SpikeSlab:
    """The prior with this file's hyperparameters."""
    defaults = {"inclusion_rate": PI, "spike_variance": V0, "slab_variance": V1, "dense_variance": 2.0}
    return SpikeSlab(params, **(defaults | settings))


def component_log_densities(group: GroupMap, w: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Log pi N(w_g; 0, v1) and log (1 - pi) N(w_g; 0, v0) of each group, from scipy's normal density."""
    slab = group.sum(torch.from_numpy(norm.logpdf(w.numpy(), scale=V1**0.5))).numpy()
    spike = group.sum(torch.from_numpy(norm.logpdf(w.numpy(), scale=V0**0.5))).numpy()
    return math.log(PI) + slab, math.log(1 - PI) + spike


# --- log-odds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_log_odds_are_the_ratio_of_the_weighted_densities(kind: str) -> None:
    params = weights()
    prior = spike_slab(params, group=kind)
    for name, layer in prior.layers.items():
        slab, spike = component_log_densities(layer.groups, params[name])
        np.testing.assert_allclose(prior.log_odds(name, params[name]).numpy(), slab - spike, rtol=1e-11, atol=1e-11)


def test_responsibility_at_zero_is_the_ratio_of_the_normalisers() -> None:
    w = torch.zeros(3, 4, dtype=torch.float64)
    r = spike_slab({"w": w}, group="node").log_odds("w", w).sigmoid()
    slab, spike = PI * V1 ** (-4 / 2), (1 - PI) * V0 ** (-4 / 2)
    torch.testing.assert_close(r, torch.full_like(r, slab / (slab + spike)))


@pytest.mark.parametrize("size", [1, 9, 40])
def test_the_cut_is_where_the_mean_square_says(size: int) -> None:
    """R = 1/2 at mean(w^2) = [log(v1/v0) + (2/|g|) log((1-pi)/pi)] / (1/v0 - 1/v1)."""
    square = (math.log(V1 / V0) + 2 / size * math.log((1 - PI) / PI)) / (1 / V0 - 1 / V1)
    w = torch.full((1, size), math.sqrt(square), dtype=torch.float64)
    eta = spike_slab({"w": w}, group="node").log_odds("w", w)
    torch.testing.assert_close(eta, torch.zeros_like(eta), rtol=0, atol=1e-11)


@pytest.mark.parametrize("mode", ["gibbs", "em"])
def test_modes_that_temper_the_joint_density_divide_the_log_odds(mode: str) -> None:
    params = weights()
    prior = spike_slab(params, mode=mode)
    eta = prior.log_odds("fc.weight", params["fc.weight"])
    torch.testing.assert_close(prior.log_odds("fc.weight", params["fc.weight"], 0.1), eta / 0.1)


@pytest.mark.parametrize("mode", ["gibbs", "em"])
def test_zero_temperature_assigns_hard(mode: str) -> None:
    params = weights()
    prior = spike_slab(params, mode=mode)
    eta = prior.log_odds("fc.weight", params["fc.weight"])
    hard = prior.log_odds("fc.weight", params["fc.weight"], 0.0).sigmoid()
    assert torch.equal(hard, (eta >= 0).to(hard))
    assert 0 < hard.mean() < 1


@pytest.mark.parametrize("temperature", [0.0, 0.1, 3.0])
def test_marginal_log_odds_are_not_tempered(temperature: float) -> None:
    params = weights()
    prior = spike_slab(params, mode="marginal")
    w = params["fc.weight"]
    assert torch.equal(prior.log_odds("fc.weight", w, temperature), prior.log_odds("fc.weight", w))


# --- density and gradient ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_marginal_log_density_sums_the_indicators_out(kind: str) -> None:
    params = weights()
    prior = spike_slab(params, group=kind)
    expected = norm.logpdf(params["fc.bias"].numpy(), scale=2.0**0.5).sum()
    for name, layer in prior.layers.items():
        expected += logsumexp(component_log_densities(layer.groups, params[name]), axis=0).sum()
    torch.testing.assert_close(prior.log_density(params).item(), float(expected), rtol=1e-11, atol=0)


def test_conditional_log_density_uses_the_indicators() -> None:
    params = weights()
    prior = spike_slab(params, group={"fc.weight": GroupMap("node", (4, 5))}, mode="gibbs")
    gamma = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    prior.layers["fc.weight"].held = gamma
    scale = (gamma * V1 + (1 - gamma) * V0).sqrt().unsqueeze(1).expand(4, 5).numpy()
    dense = sum(norm.logpdf(params[n].numpy(), scale=2.0**0.5).sum() for n in ("conv.weight", "fc.bias"))
    expected = norm.logpdf(params["fc.weight"].numpy(), scale=scale).sum() + dense
    torch.testing.assert_close(prior.log_density(params).item(), float(expected), rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_density_is_a_float64_scalar(dtype: torch.dtype) -> None:
    params = weights(dtype)
    density = spike_slab(params).log_density(params)
    assert (density.dtype, density.shape) == (torch.float64, ())
    torch.testing.assert_close(density, spike_slab(weights()).log_density(weights()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_potential_gradient_is_that_of_the_log_density(mode: str, kind: str) -> None:
    params = {n: w.requires_grad_() for n, w in weights().items()}
    prior = spike_slab(params, group=kind, mode=mode)
    if mode == "em":
        for layer in prior.layers.values():
            layer.held = torch.linspace(0, 1, layer.groups.num_groups, dtype=torch.float64)
    else:
        prior.sample_indicators(params, step=0)
    gradients = torch.autograd.grad(-prior.log_density(params), list(params.values()))
    for (name, w), expected in zip(params.items(), gradients, strict=True):
        torch.testing.assert_close(prior.potential_gradient(name, w), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("spike", [1e-8, V0])
@pytest.mark.parametrize("mode", MODES)
def test_extreme_weights_overflow_nothing(mode: str, spike: float) -> None:
    w = torch.tensor([[0.0, 1e-6, 5.0, -5.0]], dtype=torch.float64, requires_grad=True)
    prior = spike_slab({"w": w}, mode=mode, spike_variance=spike)
    density = prior.log_density({"w": w})
    (expected,) = torch.autograd.grad(-density, w)
    assert density.isfinite()
    assert expected.isfinite().all()
    torch.testing.assert_close(prior.potential_gradient("w", w), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_keeps_the_dtype(dtype: torch.dtype) -> None:
    params = weights(dtype)
    prior = spike_slab(params)
    assert all(prior.potential_gradient(n, w).dtype == dtype for n, w in params.items())


@pytest.mark.parametrize("mode", MODES)
def test_masked_groups_are_left_out_of_the_log_density(mode: str) -> None:
    params = weights()
    name, kept = "fc.weight", torch.tensor([True, False, True, True])
    prior = spike_slab(params, group="node", mode=mode)
    prior.set_mask({name: kept.unsqueeze(1).expand(4, 5)})
    rest = {n: w for n, w in params.items() if n != name} | {name: params[name][kept]}
    assert prior.layers[name].alive.tolist() == kept.tolist()
    torch.testing.assert_close(prior.log_density(params), spike_slab(rest, group="node", mode=mode).log_density(rest))


def test_a_group_with_one_kept_weight_is_alive() -> None:
    params = weights()
    prior = spike_slab(params, group="node")
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[2, 3] = True
    prior.set_mask({"fc.weight": mask})
    assert prior.layers["fc.weight"].alive.tolist() == [False, False, True, False]


# --- indicators ----------------------------------------------------------------------------------------------------


def test_indicators_have_their_conditional_frequency() -> None:
    """Counts of 12 weights in 4000 draws, inside the binomial interval: false-alarm rate 12 * 1e-5 = 1.2e-4."""
    copies, steps = 100, 40
    params = {"w": torch.linspace(0, 0.45, 12, dtype=torch.float64).unsqueeze(1).repeat(1, copies)}
    prior = spike_slab(params, mode="gibbs", seed=7)
    count = torch.zeros(12)
    for step in range(steps):
        prior.sample_indicators(params, step)
        count += prior.layers["w"].held.view(12, copies).sum(1)
    r = prior.log_odds("w", params["w"]).sigmoid().view(12, copies)[:, 0].numpy()
    low, high = binom.interval(1 - 1e-5, copies * steps, r)
    assert (count.numpy() >= low).all()
    assert (count.numpy() <= high).all()


def indicators(seed: int, chain: int, step: int) -> Tensor:
    """The indicators of a few hundred undecided weights, drawn by a fresh prior."""
    params = {"a": torch.full((20, 20), 0.25), "b": torch.full((20, 20), 0.25)}
    prior = spike_slab(params, mode="gibbs", seed=seed, chain=chain)
    prior.sample_indicators(params, step)
    return torch.cat([layer.held for layer in prior.layers.values()])


def test_indicators_are_a_function_of_seed_chain_and_step() -> None:
    assert torch.equal(indicators(1, 2, 3), indicators(1, 2, 3))


@pytest.mark.parametrize("key", [(0, 2, 3), (1, 1, 3), (1, 2, 4)])
def test_another_seed_chain_or_step_gives_other_indicators(key: tuple[int, int, int]) -> None:
    assert not torch.equal(indicators(*key), indicators(1, 2, 3))


def test_layers_have_independent_indicators() -> None:
    first, second = indicators(1, 2, 3).chunk(2)
    assert not torch.equal(first, second)


def test_indicators_start_in_the_slab() -> None:
    prior = spike_slab(weights(), mode="gibbs")
    assert all((layer.held == 1).all() for layer in prior.layers.values())


def test_cold_indicators_are_hard() -> None:
    params = weights()
    prior = spike_slab(params, mode="gibbs")
    prior.sample_indicators(params, 0, temperature=0.0)
    eta = prior.log_odds("fc.weight", params["fc.weight"])
    assert torch.equal(prior.layers["fc.weight"].held, (eta >= 0).double())


@pytest.mark.parametrize("mode", ["gibbs", "em"])
def test_the_held_indicator_or_responsibility_sets_the_precision(mode: str) -> None:
    params = weights()
    prior = spike_slab(params, mode=mode)
    layer, w = prior.layers["fc.weight"], params["fc.weight"]
    layer.held = torch.linspace(0, 1, 20, dtype=torch.float64)
    expected = (layer.held / V1 + (1 - layer.held) / V0).view(4, 5) * w
    torch.testing.assert_close(prior.potential_gradient("fc.weight", w), expected)


# --- state and errors ----------------------------------------------------------------------------------------------


def test_state_round_trip() -> None:
    params = weights()
    prior, other = spike_slab(params, mode="gibbs"), SpikeSlab(params, mode="gibbs")
    prior.sample_indicators(params, 4)
    prior.set_mask({"fc.weight": torch.arange(20).view(4, 5) % 3 > 0})
    prior.layers["fc.weight"].inclusion_rate = 0.07
    other.load_state_dict(prior.state_dict())
    other.dense_variance = prior.dense_variance
    assert torch.equal(other.log_density(params), prior.log_density(params))
    assert torch.equal(other.layers["fc.weight"].held, prior.layers["fc.weight"].held)
    assert torch.equal(other.layers["fc.weight"].alive, prior.layers["fc.weight"].alive)
    assert other.layers["fc.weight"].inclusion_rate == 0.07


def test_state_of_another_model_is_refused() -> None:
    params = weights()
    with pytest.raises(ValueError, match="saved prior has layers"):
        spike_slab(params).load_state_dict(spike_slab({"w": params["fc.weight"]}).state_dict())


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_an_inclusion_rate_outside_its_interval_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="inclusion_rate"):
        spike_slab(weights(), inclusion_rate=rate)


@pytest.mark.parametrize(
    ("spike", "slab"), [(0.4, 0.4), (0.5, 0.4), (0.0, 0.4), (math.nan, 0.4), (0.1, math.nan), (0.1, math.inf)]
)
def test_a_spike_that_is_not_narrower_is_refused(spike: float, slab: float) -> None:
    with pytest.raises(ValueError, match="0 < spike < slab"):
        check_hyperparameters(PI, spike, slab)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="choose marginal, gibbs or em"):
        spike_slab(weights(), mode="vb")


@pytest.mark.parametrize(
    ("name", "found"), [("fc.weight", r"the model has \(4, 5\)"), ("fc.wieght", "no such parameter")]
)
def test_a_group_map_that_does_not_fit_is_refused(name: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        spike_slab(weights(), group={name: GroupMap("weight", (5, 4))})


@pytest.mark.parametrize("dense", [0.0, -1.0, math.nan])
def test_a_dense_variance_that_is_not_positive_is_refused(dense: float) -> None:
    with pytest.raises(ValueError, match="dense_variance"):
        spike_slab(weights(), dense_variance=dense)


def test_the_smallest_spike_is_twice_inside_stability() -> None:
    """Symplectic Euler is stable for l / (N v0 M) < 2 (1 + beta); this spike sits at half of that."""
    v0 = smallest_stable_spike(lr=0.1, num_data=100, min_mass=0.25, momentum=0.9)
    assert 0.1 / (100 * v0 * 0.25) == pytest.approx(1.9)


# --- Gaussian ------------------------------------------------------------------------------------------------------


def test_gaussian_is_that_of_torch() -> None:
    params = {n: w.requires_grad_() for n, w in weights().items()}
    prior = Gaussian(0.3)
    normal = torch.distributions.Normal(*torch.tensor([0.0, 0.3**0.5], dtype=torch.float64))
    expected = sum(normal.log_prob(w).sum() for w in params.values())
    torch.testing.assert_close(prior.log_density(params), expected)
    gradients = torch.autograd.grad(-expected, list(params.values()))
    for (name, w), gradient in zip(params.items(), gradients, strict=True):
        torch.testing.assert_close(prior.potential_gradient(name, w), gradient)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.inf, math.nan])
def test_gaussian_needs_a_positive_variance(variance: float) -> None:
    with pytest.raises(ValueError, match="finite and > 0"):
        Gaussian(variance)


def test_the_valley_between_spike_and_slab_of_a_group_is_told_by_its_depth() -> None:
    """Against the density of log |w| of 16 weights, on a grid: from the lower of its two modes down to the valley."""
    params = {"w": torch.zeros(3, 16)}
    prior = SpikeSlab(params, group="node")
    radii = torch.logspace(-3, 1, 2000, dtype=torch.float64)
    mixture = SpikeSlab({"w": torch.zeros(1, 16)}, group="node")
    unit = torch.zeros(1, 16, dtype=torch.float64)
    unit[0, 0] = 1
    log_density = torch.stack([mixture.log_density({"w": r * unit}) for r in radii]) + 16 * radii.log()
    peaks = ((log_density[1:-1] > log_density[:-2]) & (log_density[1:-1] > log_density[2:])).nonzero().flatten() + 1
    assert len(peaks) == 2
    valley = float(log_density[peaks].min() - log_density[peaks[0] : peaks[1]].min())
    (said,) = prior.departures(EMSettings(kind="fixed"))
    depth = float(re.search(r"a valley of (\d+) nats", said).group(1))  # type: ignore[union-attr]
    assert depth == pytest.approx(valley + math.log(2), abs=0.7)  # there both densities count
    assert said.startswith("groups of 16 weights with spike_variance 0.0001 and slab_variance 0.05")
    assert SpikeSlab(params).departures(EMSettings(kind="fixed")) == []
    assert SpikeSlab(params, group="node", spike_variance=0.03).departures(EMSettings(kind="fixed")) == []
