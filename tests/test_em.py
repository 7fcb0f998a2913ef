"""EM over the hyperparameters of the spike-and-slab prior, against sums worked out by hand."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import beta
from torch import Tensor

from sgmcmc_prune.priors import GroupMap, SpikeSlab
from sgmcmc_prune.priors.em import EM, sufficient_statistics
from sgmcmc_prune.priors.em_settings import EMSettings

PI, V0, V1 = 0.3, 0.01, 0.4


def weights() -> dict[str, Tensor]:
    """Two layers whose weights come from a spike and a slab."""
    generator = torch.Generator().manual_seed(9)
    params = {}
    for name, shape in {"a": (6, 4), "b": (8, 3)}.items():
        scale = torch.where(torch.rand(shape[0], 1, generator=generator) < 0.4, 0.7, 0.08)
        params[name] = scale.double() * torch.randn(shape, generator=generator, dtype=torch.float64)
    return params


def spike_slab(params: dict[str, Tensor], mode: str = "em", **settings: Any) -> SpikeSlab:
    """The prior with this file's hyperparameters, one group per row."""
    defaults = {"inclusion_rate": PI, "spike_variance": V0, "slab_variance": V1, "group": "node"}
    return SpikeSlab(params, mode=mode, **(defaults | settings))  # type: ignore[arg-type]


def settings_of(kind: str = "soft", **changes: Any) -> EMSettings:
    """Plain maximum likelihood of all hyperparameters, with `changes`."""
    plain = {"learn_variances": "both", "beta_a": 1.0, "beta_b": 1.0, "complexity": 0.0, "variance_ratio": 1.001}
    return EMSettings(kind, **(plain | changes))  # type: ignore[arg-type]


def updated(params: dict[str, Tensor], temperature: float = 1.0, bound: float = 0.0, **settings: Any) -> SpikeSlab:
    """The prior after one EM iteration."""
    prior = spike_slab(params)
    EM(settings_of(**settings), prior, bound).update(params, temperature)
    return prior


# --- one iteration -------------------------------------------------------------------------------------------------


def test_one_iteration_by_hand() -> None:
    """Groups (0.1, 0.2) and (0.5, 0.5, 0.5): every sum of the E-step and every ratio of the M-step written out."""
    w = torch.tensor([[0.1, 0.2, 0.5, 0.5, 0.5]], dtype=torch.float64)
    groups = {"w": GroupMap.from_index(torch.tensor([[0, 0, 1, 1, 1]]))}
    prior = spike_slab({"w": w}, group=groups)
    EM(settings_of(beta_a=2.0, beta_b=3.0), prior).update({"w": w}, 1.0)

    prior_odds = math.log(0.3 / 0.7)
    eta = (
        prior_odds + 1.0 * math.log(0.01 / 0.4) + 0.05 / 2 * (100 - 2.5),
        prior_odds + 1.5 * math.log(0.01 / 0.4) + 0.75 / 2 * (100 - 2.5),
    )
    r1, r2 = (1 / (1 + math.exp(-e)) for e in eta)
    layer = prior.layers["w"]
    assert layer.held.tolist() == pytest.approx([r1, r2], rel=1e-10)
    assert layer.inclusion_rate == pytest.approx((r1 + r2 + 1) / (2 + 2 + 3 - 2), rel=1e-10)
    assert layer.slab_variance == pytest.approx((r1 * 0.05 + r2 * 0.75) / (2 * r1 + 3 * r2), rel=1e-10)
    spike = ((1 - r1) * 0.05 + (1 - r2) * 0.75) / (2 * (1 - r1) + 3 * (1 - r2))
    assert layer.spike_variance == pytest.approx(spike, rel=1e-9)


def test_temperature_divides_the_log_odds_and_nothing_else() -> None:
    """At temperature T the responsibilities are sigmoid(eta / T); the squares are those of the draw."""
    params, temperature = weights(), 0.25
    prior = spike_slab(params)
    layer = prior.layers["a"]
    r = (layer.log_odds(params["a"]) / temperature).sigmoid()
    square = params["a"].square().sum(1)
    after = updated(params, temperature).layers["a"]
    torch.testing.assert_close(after.held, r)
    assert after.slab_variance == pytest.approx(float(r @ square / (4 * r.sum())), rel=1e-10)
    assert after.spike_variance == pytest.approx(float((1 - r) @ square / (4 * (1 - r).sum())), rel=1e-10)


def test_hard_em_rounds_the_responsibilities() -> None:
    params = weights()
    r = spike_slab(params).log_odds("a", params["a"]).sigmoid().round()
    layer = updated(params, kind="hard").layers["a"]
    assert torch.equal(layer.held, r)
    assert layer.inclusion_rate == pytest.approx(float(r.mean()))
    assert layer.slab_variance == pytest.approx(float(r @ params["a"].square().sum(1) / (4 * r.sum())))


@pytest.mark.parametrize("complexity", [0.0, 0.5, 1.0])
def test_complexity_adds_its_multiple_of_the_groups_to_b(complexity: float) -> None:
    params = weights()
    r = spike_slab(params).log_odds("b", params["b"]).sigmoid().sum().item()
    rate = updated(params, beta_a=1.5, beta_b=2.0, complexity=complexity).layers["b"].inclusion_rate
    assert rate == pytest.approx((r + 0.5) / (8 + 1.5 + 2.0 + complexity * 8 - 2), rel=1e-10)


@pytest.mark.parametrize(
    ("learn", "slab", "spike"), [("none", False, False), ("slab", True, False), ("both", True, True)]
)
def test_only_the_chosen_variances_are_learned(learn: str, slab: bool, spike: bool) -> None:
    layer = updated(weights(), learn_variances=learn).layers["a"]
    assert (layer.slab_variance != V1, layer.spike_variance != V0) == (slab, spike)
    assert layer.inclusion_rate != PI


def test_shared_variances_pool_the_layers() -> None:
    params = weights()
    prior = spike_slab(params)
    sums = sum(
        sufficient_statistics(q, params[n], prior.log_odds(n, params[n]).sigmoid()) for n, q in prior.layers.items()
    )
    a, b = updated(params, shared_variances=True).layers.values()
    assert a.slab_variance == b.slab_variance == pytest.approx(float(sums[1] / sums[2]))
    assert a.spike_variance == b.spike_variance == pytest.approx(float(sums[3] / sums[4]))
    assert a.inclusion_rate != b.inclusion_rate


# --- masks ---------------------------------------------------------------------------------------------------------


def masked(params: dict[str, Tensor], removed: int) -> tuple[SpikeSlab, dict[str, Tensor]]:
    """The prior after one iteration with the last rows of layer `a` masked, and the masked weights."""
    keep = (torch.arange(6) < 6 - removed).unsqueeze(1).expand(6, 4)
    params = params | {"a": params["a"] * keep}
    prior = spike_slab(params)
    prior.set_mask({"a": keep})
    EM(settings_of(), prior).update(params, 1.0)
    return prior, params


def test_a_masked_group_counts_as_excluded_in_the_rate() -> None:
    prior, params = masked(weights(), removed=2)
    r = spike_slab(params).log_odds("a", params["a"]).sigmoid()[:4]
    assert prior.layers["a"].inclusion_rate == pytest.approx(float(r.sum() / 6))


def test_masked_zeros_do_not_enter_the_variances() -> None:
    prior, params = masked(weights(), removed=2)
    alone = updated({"a": params["a"][:4]}).layers["a"]
    assert prior.layers["a"].spike_variance == pytest.approx(alone.spike_variance)
    assert prior.layers["a"].slab_variance == pytest.approx(alone.slab_variance)


def test_a_fully_masked_layer_keeps_its_variances() -> None:
    layer = masked(weights(), removed=6)[0].layers["a"]
    assert (layer.spike_variance, layer.slab_variance) == (V0, V1)
    assert layer.inclusion_rate == pytest.approx(0.5 / 6)


# --- bounds --------------------------------------------------------------------------------------------------------


def test_the_spike_is_not_narrower_than_the_sampler_can_follow() -> None:
    assert updated(weights(), bound=0.02).layers["a"].spike_variance == 0.02


def test_the_slab_stays_wider_than_the_spike_by_the_ratio() -> None:
    layer = updated(weights(), variance_ratio=1000.0).layers["a"]
    assert layer.spike_variance == pytest.approx(layer.slab_variance / 1000)


def test_the_bounds_hold_together() -> None:
    """Tiny weights would close the slab: it stays at ratio times the narrowest spike."""
    params = {"a": torch.full((6, 4), 1e-3, dtype=torch.float64)}
    prior = spike_slab(params, inclusion_rate=0.999)
    EM(settings_of(variance_ratio=10.0), prior, min_spike_variance=0.02).update(params, 1.0)
    layer = prior.layers["a"]
    assert (layer.spike_variance, layer.slab_variance) == (pytest.approx(0.02), pytest.approx(0.2))


@pytest.mark.parametrize("scale", [0.0, 50.0])
def test_the_rate_stays_half_a_group_inside_its_interval(scale: float) -> None:
    params = {"a": torch.full((6, 4), scale, dtype=torch.float64)}
    rate = updated(params, kind="hard").layers["a"].inclusion_rate
    assert rate == pytest.approx(0.5 / 6 if scale == 0 else 1 - 0.5 / 6)


# --- stochastic approximation --------------------------------------------------------------------------------------


def test_stochastic_weights_smooth_the_statistics() -> None:
    """S <- (1 - omega_k) S + omega_k S~ with omega_k = (1 + k / delay)^-decay, from a first S~ that is taken whole."""
    draws = [{"a": weights()["a"] * scale} for scale in (1.0, 0.5, 2.0)]
    prior = spike_slab(draws[0])
    em = EM(settings_of("stochastic", decay=0.6, delay=4.0), prior)
    expected = torch.zeros(5, dtype=torch.float64)
    held = torch.ones(6, dtype=torch.float64)
    for k, draw in enumerate(draws):
        omega = (1 + k / 4.0) ** -0.6
        r = prior.log_odds("a", draw["a"]).sigmoid()
        held = (1 - omega) * held + omega * r
        expected = (1 - omega) * expected + omega * sufficient_statistics(prior.layers["a"], draw["a"], held)
        em.update(draw, 1.0)
    torch.testing.assert_close(em.statistics["a"], expected)
    torch.testing.assert_close(prior.layers["a"].held, held)


def test_soft_em_forgets_the_past() -> None:
    draws = [{"a": weights()["a"] * scale} for scale in (1.0, 0.5)]
    prior = spike_slab(draws[0])
    em = EM(settings_of(learn_variances="none"), prior)
    em.update(draws[0], 1.0)
    r = prior.log_odds("a", draws[1]["a"]).sigmoid()
    em.update(draws[1], 1.0)
    torch.testing.assert_close(prior.layers["a"].held, r)
    assert prior.layers["a"].inclusion_rate == pytest.approx(float(r.mean()))


@pytest.mark.parametrize("mode", ["em", "gibbs", "marginal"])
def test_fixed_hyperparameters_stay_and_only_em_mode_holds_responsibilities(mode: str) -> None:
    params = weights()
    prior = spike_slab(params, mode=mode)
    EM(EMSettings("fixed"), prior).update(params, 1.0)
    layer = prior.layers["a"]
    r = layer.log_odds(params["a"]).sigmoid() if mode == "em" else torch.ones(6, dtype=torch.float64)
    assert (layer.inclusion_rate, layer.spike_variance, layer.slab_variance) == (PI, V0, V1)
    torch.testing.assert_close(layer.held, r)


# --- the objective -------------------------------------------------------------------------------------------------


def objective(prior: SpikeSlab, params: dict[str, Tensor], a: float, b: float) -> float:
    """Log p(w | pi, v0, v1) + sum over layers of the log Beta(a, b) density of pi."""
    rates = [layer.inclusion_rate for layer in prior.layers.values()]
    return float(prior.log_density(params)) + sum(beta.logpdf(rate, a, b) for rate in rates)


@pytest.mark.parametrize("learn", ["none", "slab", "both"])
@pytest.mark.parametrize("shared", [False, True])
def test_soft_em_climbs_the_marginal_density(learn: str, shared: bool) -> None:
    """With w fixed this is exact EM: the marginal density of w never falls, and ends where EM stands still."""
    params = weights()
    prior = spike_slab(params, mode="marginal")
    em = EM(settings_of(learn_variances=learn, shared_variances=shared, beta_a=1.5, beta_b=2.0), prior)
    path = [objective(prior, params, 1.5, 2.0)]
    for _ in range(60):
        em.update(params, 1.0)
        path.append(objective(prior, params, 1.5, 2.0))
    steps = torch.tensor(path, dtype=torch.float64).diff()
    assert (steps > -1e-9).all()
    assert steps[0] > 0.01
    assert steps[-1] < 1e-6


# --- state and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_an_e_step_needs_a_draw(temperature: float) -> None:
    params = weights()
    with pytest.raises(ValueError, match="temperature > 0"):
        EM(EMSettings("soft"), spike_slab(params)).update(params, temperature)


def test_em_goes_on_after_a_round_trip() -> None:
    params = weights()
    draws = [{n: w * s for n, w in params.items()} for s in (1.0, 0.6, 1.5, 0.9)]
    whole, first, second = (spike_slab(params) for _ in range(3))
    em = EM(EMSettings(), whole)
    before, after = EM(EMSettings(), first), EM(EMSettings(), second)
    for draw in draws:
        em.update(draw, 1.0)
    for draw in draws[:2]:
        before.update(draw, 1.0)
    after.load_state_dict(before.state_dict())
    second.load_state_dict(first.state_dict())
    for draw in draws[2:]:
        after.update(draw, 1.0)
    assert after.iteration == em.iteration == 4
    for name, layer in whole.layers.items():
        assert torch.equal(second.layers[name].held, layer.held)
        assert second.layers[name].inclusion_rate == layer.inclusion_rate
        assert second.layers[name].spike_variance == layer.spike_variance


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "variational"}, "em.kind is .variational.; choose among fixed, hard, soft, stochastic"),
        ({"every": 0}, "at least 1 step"),
        ({"beta_a": 0.5}, "no interior mode"),
        ({"complexity": -1.0}, "complexity"),
        ({"complexity": math.nan}, "complexity"),
        ({"variance_ratio": 1.0}, "wider than the spike"),
        ({"decay": 0.5}, "decay"),
        ({"decay": 1.5}, "decay"),
        ({"delay": 0.0}, "delay"),
        ({"beta_b": math.nan}, "em.beta_b is nan; it must be a finite number"),
        ({"learn_variances": "spike"}, "learn_variances"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EMSettings(**settings)


def test_the_start_delays_em_in_the_burn_in_alone() -> None:
    settings = EMSettings(every=10, start=25)
    assert [step for step in range(61) if settings.due(step, burn_in=True)] == [30, 40, 50, 60]
    assert settings.due(10, burn_in=False)
    with pytest.raises(ValueError, match="em start"):
        EMSettings(start=-1)


def test_after_a_restart_the_statistics_are_those_of_the_next_draw_alone() -> None:
    """A mask takes groups away; what was smoothed over them must not stay."""
    params = weights()
    prior = spike_slab(params, mode="marginal")
    em = EM(settings_of("stochastic"), prior)
    for _ in range(200):
        em.update(params, 1.0)
    keep = (torch.arange(6) < 1).unsqueeze(1).expand(6, 4)
    params = params | {"a": params["a"] * keep}
    prior.set_mask({"a": keep})
    em.restart()
    em.update(params, 1.0)
    fresh = spike_slab(params, mode="marginal")
    fresh.load_state_dict({**prior.state_dict()})
    assert float(em.statistics["a"][0]) <= 1.0
    assert prior.layers["a"].inclusion_rate <= 1 / 6 + 1e-9
