"""Training of the variational baselines: exact recovery, the bound, watchdogs, predictors, bad input."""

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational import (
    PREDICTORS,
    ContinuousSpike,
    LearnedGaussian,
    PointSpike,
    Settings,
    Structured,
    bayesianise,
    fit,
    mean_field,
    point_spike,
    predictors,
    ss_ghs,
    ss_gl,
    ss_ig,
    svbnn,
)
from sgmcmc_prune.baselines.variational.evidence import point_spike_log_odds
from sgmcmc_prune.baselines.variational.scales import GroupLasso
from sgmcmc_prune.baselines.variational.training import BoundTrainer, kl_weight, lower_bound, step_loss
from sgmcmc_prune.baselines.variational.watchdogs import Watchdog
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.selection import SUPPORT, features, teacher
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import categorical, gaussian
from sgmcmc_prune.models import MLP, LinearModel
from sgmcmc_prune.predictive.metrics import negative_log_likelihood
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.shrink import shrink

NOISE, SLAB, INCLUSION = 0.7, 1.0, 0.3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def orthogonal_regression(n: int = 64, p: int = 8) -> tuple[Tensor, Tensor]:
    """Inputs with orthogonal columns, so that a factorised posterior is exact; effects from none to plain."""
    x = torch.linalg.qr(torch.randn(n, p, dtype=torch.float64)).Q * math.sqrt(n)
    effects = torch.tensor([0.0, 0.05, 0.1, 0.15, -0.2, 0.25, -0.3, 1.0], dtype=torch.float64)
    return x.float(), (x @ effects + NOISE * torch.randn(n, dtype=torch.float64)).float()


def enumerate_models(x: Tensor, y: Tensor) -> Tensor:
    """Exact inclusion probabilities: every one of the 2^p models by its marginal likelihood."""
    x, y = x.double(), y.double()
    p = x.shape[1]
    models = torch.tensor(list(itertools.product((0.0, 1.0), repeat=p))).double()
    log_weights = []
    for gamma in models:
        covariance = NOISE**2 * torch.eye(len(x)).double() + SLAB**2 * (x * gamma) @ x.T
        size = float(gamma.sum())
        prior = size * math.log(INCLUSION) + (p - size) * math.log1p(-INCLUSION)
        log_weights.append(MultivariateNormal(torch.zeros(len(x)).double(), covariance).log_prob(y) + prior)
    return torch.stack(log_weights).softmax(0) @ models


def linear(p: int = 8) -> nn.Module:
    model = LinearModel((p,), 1, bias=False)
    nn.init.zeros_(model.linear.weight)
    return model


def regression_settings(family: object, steps: int = 1200, **changes: object) -> Settings:
    return Settings(family, steps, 64, lr=0.03, trace_every=400, **changes)  # type: ignore[arg-type]


def test_point_spike_equals_enumeration_of_256_models() -> None:
    x, y = orthogonal_regression()
    precision = x.double().square().sum(0) / NOISE**2 + SLAB**-2
    mean = (x.double().T @ y.double()) / NOISE**2 / precision
    odds = point_spike_log_odds(mean, 1 / precision, None, SLAB, INCLUSION)
    assert torch.allclose(odds.sigmoid(), enumerate_models(x, y), atol=1e-5)


def test_trained_mean_field_with_point_spike_recovers_the_enumeration() -> None:
    x, y = orthogonal_regression()
    fitted = fit(linear(), (x, y), regression_settings(mean_field(initial_std=0.1)), gaussian(NOISE**2))
    selected = point_spike(fitted.posterior, {"linear.weight": GroupMap("input", (1, 8))}, SLAB, INCLUSION)
    found = selected.log_odds()[0]["linear.weight"].sigmoid()
    assert float((found - enumerate_models(x, y)).abs().max()) < 0.03


def test_continuous_spike_decides_as_the_enumeration() -> None:
    """A spike much narrower than the posterior stands for a point mass; decisions where the odds are beyond 2 : 1."""
    x, y = orthogonal_regression()
    family = ContinuousSpike("weight", slab_std=SLAB, spike_std=0.02, spike_start=0.1, inclusion=INCLUSION)
    fitted = fit(linear(), (x, y), regression_settings(family), gaussian(NOISE**2))
    exact = enumerate_models(x, y)
    plain = (exact - 0.5).abs() > 1 / 6
    assert int(plain.sum()) >= 5
    assert ((fitted.inclusion()["linear.weight"] > 0.5) == (exact > 0.5))[plain].all()


def test_point_spike_is_a_family_like_the_continuous_one() -> None:
    """R2 by `fit` is mean field under the slab, regrouped."""
    x, y = orthogonal_regression()
    family = PointSpike("input", slab_std=SLAB, inclusion=INCLUSION, initial_std=0.1)
    fitted = fit(linear(), (x, y), regression_settings(family), gaussian(NOISE**2))
    assert float((fitted.inclusion()["linear.weight"] - enumerate_models(x, y)).abs().max()) < 0.03
    plain = fit(linear(), (x, y), regression_settings(mean_field(initial_std=0.1)), gaussian(NOISE**2))
    again = point_spike(plain.posterior, {"linear.weight": GroupMap("input", (1, 8))}, SLAB, INCLUSION)
    assert torch.allclose(fitted.scores["linear.weight"], again.log_odds()[0]["linear.weight"])


def test_gated_weights_recover_the_enumeration() -> None:
    x, y = orthogonal_regression()
    family = svbnn(prior_std=SLAB, inclusion=INCLUSION, start=0.5, initial_std=0.1)
    fitted = fit(linear(), (x, y), regression_settings(family), gaussian(NOISE**2))
    exact = enumerate_models(x, y)
    assert float((fitted.inclusion()["linear.weight"] - exact).abs().max()) < 0.1
    assert ((fitted.inclusion()["linear.weight"] > 0.5) == (exact > 0.5)).all()


def test_relaxed_gates_select_as_the_enumeration_does() -> None:
    # The straight-through gradient is biased, so probabilities between 0 and 1 are not exact; decisions are.
    x, y = orthogonal_regression()
    family = Structured(gates="input", prior_std=SLAB, inclusion=INCLUSION, start=0.5, initial_std=0.1)
    fitted = fit(linear(), (x, y), regression_settings(family), gaussian(NOISE**2))
    exact, found = enumerate_models(x, y), fitted.inclusion()["linear.weight"]
    clear = (exact - 0.5).abs() > 0.25
    assert ((found > 0.5) == (exact > 0.5))[clear].all()


def test_loss_is_minus_bound_over_num_data_at_any_batch_size() -> None:
    x, y = torch.randn(60, 6), torch.randint(0, 3, (60,))
    network = bayesianise(MLP((6,), 3, (5,)), ss_ig(initial_std=1e-8))
    network.units[0].gate.logits.data.fill_(40)
    losses = []
    for size in (5, 20, 60):
        parts = zip(x.split(size), y.split(size), strict=True)
        losses.append(torch.stack([step_loss(network, categorical, part, 60)[0] for part in parts]).mean().detach())
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)
    assert torch.allclose(losses[0], losses[2], rtol=1e-5)
    bounds = [lower_bound(network, categorical, (x, y), 1, size)[0] for size in (7, 60)]
    assert bounds == pytest.approx([-60 * float(losses[0])] * 2, rel=1e-5)
    loss, nll, divergence = step_loss(network, categorical, (x, y), 60)
    assert float((loss - nll).detach()) == pytest.approx(float(divergence.detach()) / 60)


def test_the_divergence_fades_in_and_training_ends_on_the_bound() -> None:
    assert [kl_weight(progress, 0.5) for progress in (0.0, 0.25, 0.5, 0.75)] == [0.0, 0.5, 1.0, 1.0]
    assert kl_weight(0.0, 0.0) == 1.0
    stream = MinibatchStream(torch.randn(60, 6), torch.randint(0, 3, (60,)), 20, 0, 0)
    network = bayesianise(MLP((6,), 3, (5,)), ss_ig())
    trainer, weights = BoundTrainer(network, stream, categorical, Settings(ss_ig(), 8, 20, warm_up=0.5)), []
    for loss in (trainer.run(1) for _ in range(8)):
        weights.append(float((loss - trainer.nll.detach()) / trainer.divergence.detach() * 60))
    assert weights == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0], abs=1e-5)


def test_every_parameter_moves_at_its_own_rate() -> None:
    """The first step of Adam is the learning rate, whatever the gradient."""
    model, data = MLP((6,), 1, (5,)), (torch.randn(64, 6), torch.randn(64))
    start = dict(bayesianise(model, ss_gl()).named_parameters())
    settings = Settings(ss_gl(), 1, 64, lr=1e-3, gate_lr=3e-2, std_lr=1e-2)
    for name, parameter in fit(model, data, settings, gaussian()).posterior.named_parameters():
        selects = name.endswith("logits") or name.startswith("shared")
        rate = 3e-2 if selects else 1e-2 if name.endswith("log_std") else 1e-3
        assert float((parameter - start[name]).detach().abs().max()) == pytest.approx(rate, rel=1e-2), name


@pytest.mark.parametrize("family", [ss_gl(), ss_ghs(), ss_ghs(centred=True), ss_ghs(regulariser="learned")])
def test_every_scale_moves_within_ten_steps(family: Structured) -> None:
    x, y = torch.randn(64, 6), torch.randn(64)
    model = MLP((6,), 1, (5,))
    start = {n: p.detach().clone() for n, p in bayesianise(model, family).named_parameters()}
    fitted = fit(model, (x, y), Settings(family, 10, 64), gaussian())
    moved = {n for n, p in fitted.posterior.named_parameters() if not torch.equal(p, start[n])}
    assert moved == start.keys()


def first_layer_only(scales: GroupLasso) -> Tensor:
    """The bug of a released implementation: the divergences of the other layers are computed and not added."""
    n = next(iter(scales.num_nodes.values()))
    mean, log_std, rate = scales.variance.mean[:n], scales.variance.log_std[:n], scales.rate
    return kl.log_normal_from_gamma(mean, log_std, scales.shape[:n], rate.mean.exp(), rate.log_std).sum()


@pytest.mark.parametrize(
    ("family", "dropped", "instead"),
    [
        (ss_gl(), "scales.GroupLasso", lambda self: torch.zeros(())),
        (ss_gl(), "scales.GroupLasso", first_layer_only),
        (ss_ghs(), "scales.Horseshoe", lambda self: torch.zeros(())),
        (ss_ig(), "units.StructuredUnit", lambda self: torch.zeros(())),
        (svbnn(), "units.Unit", lambda self: torch.zeros(())),
    ],
    ids=["group-lasso", "group-lasso-of-other-layers", "horseshoe", "nodes", "weights"],
)
def test_a_divergence_left_out_is_noticed(
    family: Structured, dropped: str, instead: Callable[[Any], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"sgmcmc_prune.baselines.variational.{dropped}.kl", instead)
    with pytest.raises(RunError, match=r"the divergence does not depend on all of .*: a KL term is missing"):
        fit(MLP((6,), 1, (5, 4)), (torch.randn(64, 6), torch.randn(64)), Settings(family, 20, 64), gaussian())


@pytest.mark.parametrize(
    "family",
    [ss_gl(initial_std=1e-5), ss_ig(start=0.1, inclusion=0.1), svbnn(start=0.5, inclusion=0.5), ss_ghs(centred=True)],
    ids=["narrow", "at-its-prior", "weights-at-their-prior", "centred"],
)
def test_a_stationary_start_is_no_missing_divergence(family: Structured) -> None:
    model = MLP((6,), 1, (6, 6))
    nn.init.zeros_(model.layers[1].weight)
    Watchdog(bayesianise(model, family), "stop").check_divergence()


def test_saturated_scales_stop_the_run() -> None:
    network = bayesianise(MLP((6,), 1, (5,)), ss_ghs())
    network.shared.half_cauchy.gamma.mean.data.fill_(14.0)
    with pytest.raises(RunError, match="saturated"):
        Watchdog(network, "stop").check_state()


def test_a_layer_whose_gates_close_stops_or_warns() -> None:
    data = (torch.randn(64, 6), torch.randn(64))
    settings = {"family": ss_ig(inclusion=1e-6, start=0.6), "steps": 40, "batch_size": 64, "lr": 0.3, "trace_every": 5}
    with pytest.raises(RunError, match=r"nothing of layers.0.weight is kept.*Raise inclusion.*on_empty='warn'"):
        fit(MLP((6,), 1, (5,)), data, Settings(**settings), gaussian())
    with pytest.warns(UserWarning, match="nothing of layers.0.weight is kept"):
        fitted = fit(MLP((6,), 1, (5,)), data, Settings(**settings, on_empty="warn"), gaussian())
    for each in predictors(fitted).values():
        assert torch.isfinite(each.predict(data[0])).all()
        assert torch.equal(each.alone().predict(data[0]), each.single(data[0]))
    assert math.isfinite(fitted.bound)


def test_gates_that_have_not_opened_yet_stop_no_run() -> None:
    network = bayesianise(MLP((6,), 1, (5,)), ss_ig(start=0.1))
    watchdog = Watchdog(network, "stop")
    watchdog.check_state()
    with pytest.warns(UserWarning, match=r"nothing of layers.0.weight is kept"):  # what was trained is not lost
        watchdog.check_state(last=True)


def test_kept_groups_are_counted_three_ways() -> None:
    data = classification()
    fitted = fit(MLP((6,), 2, (5,)), data, Settings(ContinuousSpike("node"), 3, 50))
    assert 0 <= fitted.kept_groups()["layers.0.weight"][1] <= 5
    fitted = fit(MLP((6,), 2, (5,)), data, Settings(ss_ig(), 1, 50))
    assert fitted.kept_groups().keys() == fitted.scores.keys()
    fitted = replace(fitted, scores={"layers.0.weight": torch.tensor([-12.0, -1.0, 1.0, 12.0, 12.0])})
    expected, count, drawn = fitted.kept_groups()["layers.0.weight"]
    assert expected == pytest.approx(3.0, abs=1e-4)
    assert count == 3
    assert drawn in (2, 3, 4)


def test_divergence_is_one_line() -> None:
    x = torch.full((64, 6), 3e38)  # the outputs overflow
    with pytest.raises(RunError, match="diverged at step 0"):
        fit(MLP((6,), 1, (5,)), (x, torch.randn(64)), Settings(mean_field(), 10, 64, trace_every=10), gaussian())


def test_bad_settings() -> None:
    data = (torch.randn(8, 6), torch.randn(8))
    with pytest.raises(ValueError, match="batch_size is 64; choose 1 to 8"):
        fit(MLP((6,), 1, (5,)), data, Settings(mean_field(), 10, 64), gaussian())
    for changes in (
        {"steps": 0},
        {"lr": 0.0},
        {"gate_lr": -1.0},
        {"std_lr": 0.0},
        {"warm_up": 1.0},
        {"trace_every": 0},
    ):
        with pytest.raises(ValueError, match="must be"):
            Settings(**changes)
    with pytest.raises(ValueError, match="in this order"):
        ContinuousSpike(spike_std=0.5, spike_start=0.2)
    with pytest.raises(ValueError, match=r"anneal is 2; it must be in \[0, 1\)"):
        ContinuousSpike(anneal=2)
    with pytest.raises(ValueError, match="needs gates='node' or 'input'"):
        Structured(scale="horseshoe")
    model = MLP((6,), 1, (5,))
    for family, message in (
        (ss_ghs(regulariser="learnt"), "regulariser is 'learnt'"),
        (ss_ig(inclusion={"layers.0": 0.1, "layer.1": 0.1}), r"inclusion names \['layer.1'\], which are no layers"),
    ):
        with pytest.raises(ValueError, match=message):
            bayesianise(model, family)
    with pytest.raises(TypeError, match=r"such as ss_ig\(\)"):
        bayesianise(model, ss_ig)
    with pytest.raises(ValueError, match="no layer whose nodes can be removed"):
        bayesianise(LinearModel((6,), 1), ContinuousSpike("node"))
    with pytest.raises(ValueError, match=r"the mask names 'layer', which is no parameter"):
        fit(model, data, Settings(mean_field(), 10, 8), gaussian(), mask={"layer": torch.ones(5, 6)})
    with pytest.raises(ValueError, match=r"has shape \(5, 5\); its parameter has \(5, 6\)"):
        fit(model, data, Settings(mean_field(), 10, 8), gaussian(), mask={"layers.0.weight": torch.ones(5, 5)})
    with pytest.raises(ValueError, match="flatten them before"):
        bayesianise(nn.Sequential(nn.Linear(6, 2)), mean_field())(torch.randn(4, 3, 6))
    tied = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match=r"'0.weight' and '1.weight' are one parameter"):
        bayesianise(tied, mean_field())
    with pytest.raises(ValueError, match="choose stop or warn"):
        fit(MLP((6,), 1, (5,)), data, Settings(mean_field(), 10, 8, on_empty="ask"), gaussian())


def classification() -> tuple[Tensor, Tensor]:
    x = torch.randn(200, 6)
    return x, (x[:, 0] + x[:, 1] > 0).long()


@pytest.mark.parametrize(
    "family",
    [
        mean_field(),
        ss_ig(),
        svbnn(),
        *(reading(g) for reading in (ContinuousSpike, PointSpike) for g in ("node", "input")),
    ],
)
def test_fitted_gives_scores_masks_and_predictions(family: Structured | ContinuousSpike) -> None:
    data = classification()
    fitted = fit(MLP((6,), 2, (5,)), data, Settings(family, 50, 50, lr=0.02, trace_every=25, seed=3, draws=3))
    parameters = dict(fitted.model.named_parameters())
    for name, score in fitted.scores.items():
        assert score.shape == (fitted.groups[name].num_groups,)
    for name, kept in fitted.mask.items():
        assert (kept.dtype, kept.shape) == (torch.bool, parameters[name].shape)
    found = predictors(fitted)
    assert list(found) == list(PREDICTORS)
    assert [each.members for each in found.values()] == [3, 1, 3, 1]
    for each in found.values():
        probabilities = each.predict(data[0])
        assert torch.allclose(probabilities.sum(1), torch.ones(200, dtype=torch.float64))
        # Probabilities are averaged, not logits: the log score of the average is the mixture's.
        assert each.nll(*data) == pytest.approx(negative_log_likelihood(probabilities, data[1]), rel=1e-4)
    small = shrink(found["median_mean"].model, {}, data[0][:2]).model
    torch.testing.assert_close(class_probabilities(small, data[0]), found["median_mean"].predict(data[0]))
    assert fitted.cost.gradient_evaluations == 2500


@pytest.mark.parametrize("family", [mean_field(), ss_gl(), ss_ghs(), ss_ghs(centred=True), ContinuousSpike()], ids=str)
def test_networks_and_fits_can_be_copied_and_stored(family: Structured | ContinuousSpike) -> None:
    data = classification()
    network = bayesianise(MLP((6,), 2, (5,)), family)
    network.outputs_and_kl(data[0])  # leaves what was drawn, with its graph
    assert float(copy.deepcopy(network).kl().detach()) == pytest.approx(float(network.kl().detach()), rel=0.1)
    fitted = fit(MLP((6,), 2, (5,)), data, Settings(family, 3, 50, on_empty="warn"))
    again = pickle.loads(pickle.dumps(fitted))
    assert torch.equal(again.single(data[0]), fitted.single(data[0]))
    with pytest.raises(FrozenInstanceError):
        fitted.mask = None  # type: ignore[misc]


def test_precision_is_the_models() -> None:
    model = MLP((6,), 2, (5,)).double()
    outputs, divergence = bayesianise(model, ss_gl()).outputs_and_kl(torch.randn(4, 6, dtype=torch.float64))
    assert outputs.dtype == divergence.dtype == torch.float64


@pytest.mark.parametrize("family", [svbnn(inclusion=0.6), ContinuousSpike("weight")], ids=["svbnn", "R1"])
def test_masked_weights_cost_nothing_and_stay_out(family: Structured | ContinuousSpike) -> None:
    network = bayesianise(MLP((6,), 2, (5,)), family)
    mask = torch.arange(30).view(5, 6) % 2 == 0
    network.mask_weights({"layers.0.weight": mask})
    kept = network.kl()
    factor = next(f for name, f, _ in network.units[0].factors() if name == "layers.0.weight")
    with torch.no_grad():
        for parameter in factor.parameters():
            parameter[~mask] += 1
    assert torch.allclose(network.kl(), kept)
    assert not network.mask()["layers.0.weight"][~mask].any()


def test_a_fit_depends_on_its_seed_alone() -> None:
    model, data = MLP((6,), 2, (5,)), classification()
    fits = []
    for _ in range(2):
        torch.rand(3)  # the global state differs between the two fits
        fits.append(fit(model, data, Settings(ss_ig(), 20, 50, seed=5)).scores["layers.0.weight"])
    assert torch.equal(fits[0], fits[1])


def test_survivors_are_retrained_under_the_mask() -> None:
    data = classification()
    first = fit(MLP((6,), 2, (20,)), data, Settings(ContinuousSpike("weight"), 300, 50, lr=0.02))
    mask = first.mask["layers.0.weight"]
    assert 0 < int(mask.sum()) < mask.numel()
    second = fit(first.pruned().model, data, Settings(mean_field(), 30, 50), mask=first.mask)
    for draw in (second.draws[0], dict(second.model.named_parameters()), second.pruned().draws[0]):
        assert (draw["layers.0.weight"][~mask] == 0).all()
        assert (draw["layers.0.weight"] != 0).sum() > 0
    before, after = (f.model.get_parameter("layers.0.weight")[mask] for f in (first, second))
    assert not torch.equal(before, after)


def test_continuous_spike_ranks_weights_that_are_surely_in_the_slab() -> None:
    """Beyond any doubt, a larger weight still has larger odds: pruning to a target goes by them."""
    model = nn.Linear(4, 1)
    model.weight.data = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    odds, _ = bayesianise(nn.Sequential(model), ContinuousSpike(spike_start=0.05)).log_odds()
    assert odds["0.weight"].argsort().tolist() == [0, 1, 2, 3]
    assert float(odds["0.weight"].diff().min()) > 100


def test_continuous_spike_narrows_and_learns_its_rate() -> None:
    network = bayesianise(MLP((6,), 2, (5,)), ContinuousSpike(learn_inclusion=True))
    unit = network.units[0]
    widths = []
    for progress in (0.0, 0.3, 0.6, 1.0):
        unit.advance(progress)
        widths.append(unit.spike.spike_std)
    assert widths == pytest.approx([0.2, 0.1, 0.05, 0.05])
    assert 0 < unit.spike.inclusion < 1


@pytest.mark.slow
@pytest.mark.parametrize("family", [Structured(gates="input", inclusion=0.01), ContinuousSpike("input")], ids=str)
def test_the_five_features_are_found(family: Structured | ContinuousSpike) -> None:
    model, data = MLP((100,), 1, (32,), activation="tanh"), features(10_000, 100, seed=0)
    fitted = fit(model, data, Settings(family, 12_000, 500, lr=5e-3, on_empty="warn"), LearnedGaussian())
    found = (fitted.inclusion()["layers.0.weight"] > 0.5).nonzero().flatten()
    assert found.tolist() == list(SUPPORT)


@pytest.mark.slow
def test_a_low_start_recovers_the_teacher() -> None:
    """Two or three of twenty nodes, as on each of five seeds of `experiments/jantre/teacher.py`."""
    inputs, targets, _ = teacher(2000, 0)
    student = nn.Sequential(nn.Linear(2, 20), nn.Sigmoid(), nn.Linear(20, 1))
    family = ss_ig(prior_std=3.0, start=0.1, inclusion=1e-3)
    settings = Settings(family, 20_000, 500, lr=3e-2, gate_lr=0.3, on_empty="warn")
    fitted = fit(student, (inputs, targets), settings, LearnedGaussian())
    assert fitted.kept_groups()["0.weight"][1] in (2, 3)
