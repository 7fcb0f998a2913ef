"""SNIP, RigL, AC/DC, gradual magnitude, Sun et al. and Deng et al.: what each chooses, and the record each gives."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune import models
from sgmcmc_prune.baselines import acdc, deng_sa, grasp, magnitude, rigl, snip, sun_mixture, synflow
from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.sparse_start import fit_to_mask, variance_scaling
from sgmcmc_prune.baselines.training import Recipe, Trainer
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import categorical
from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.allocation import erdos_renyi_kernel


def clusters(n: int = 300) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    x = torch.randn(n, 6, generator=generator)
    x[:, 0] += 4.0 * (labels == 1)
    x[:, 1] += 4.0 * (labels == 2)
    return x, labels


def network() -> nn.Module:
    return models.build("mlp", (6,), 3, seed=0, widths=(16,), activation="relu")


QUICK = Recipe(steps=80, batch_size=30, lr=0.05)
SUN = sun_mixture.Recipe(
    steps=100,
    plain_steps=50,
    fine_tune_steps=10,
    raise_every=5,
    lr=0.02,
    fine_tune_lr=1e-3,
    batch_size=30,
    inclusion_rate=0.1,
    spike_variance=1e-3,
)
DENG = deng_sa.Recipe(
    steps=60,
    prune_every=10,
    fine_tune_steps=20,
    draws=3,
    lr=0.02,
    lr_min=0.005,
    batch_size=30,
    half_life=20,
    em=EMSettings(every=5),
    spike_variance=1e-3,
)

#: method, how to fit it at 75 %, whether that sparsity is exact
FITS: dict[str, tuple[Callable[..., Fit], bool]] = {
    "snip": (lambda model, train, **o: snip.fit(model, train, 0.75, QUICK, examples=60, **o), True),
    "grasp": (lambda model, train, **o: grasp.fit(model, train, 0.75, QUICK, examples=60, **o), True),
    "synflow": (lambda model, train, **o: synflow.fit(model, train, 0.75, QUICK, **o), True),
    "rigl": (lambda model, train, **o: rigl.fit(model, train, 0.75, QUICK, rigl.Topology(every=10), **o), True),
    "static": (lambda model, train, **o: rigl.fit(model, train, 0.75, QUICK, rigl.Topology(drop=0.0), **o), True),
    "acdc": (lambda model, train, **o: acdc.fit(model, train, 0.75, QUICK, acdc.Phases(pairs=3), **o), True),
    "gradual-magnitude": (
        lambda model, train, **o: magnitude.fit(model, train, QUICK, magnitude.Gradual(0.75, every=7), **o),
        True,
    ),
    "adamw": (lambda model, train, **o: magnitude.fit(model, train, Recipe("adamw", 0.01, steps=80), **o), False),
    "sun-mixture": (lambda model, train, **o: sun_mixture.fit(model, train, SUN, 0.75, **o), True),
    "sghmc-sa": (lambda model, train, **o: deng_sa.fit(model, train, 0.75, DENG, **o), True),
}


@pytest.mark.parametrize("method", FITS)
def test_the_method_record(method: str) -> None:
    fit, exact = FITS[method]
    model, train = network(), clusters()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    fitted = fit(model, train, seed=1)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    prunable = masks.prunable(fitted.model)
    scores, mask = fitted.scores, fitted.mask or {}
    assert (fitted.mask is None) == (method == "adamw")
    assert scores.keys() == prunable.keys()
    assert mask.keys() in (set(), prunable.keys())
    assert all(scores[n].shape == (p.numel(),) for n, p in prunable.items())
    check_mask(mask, prunable)
    assert all(bool((prunable[n][~kept] == 0).all()) for n, kept in mask.items())
    if exact:  # 96 + 48 weights, one protected group a layer at most
        assert sum(int((~kept).sum()) for kept in mask.values()) == 108
    single = fitted.single(train[0])
    assert float((single.argmax(1) == train[1]).double().mean()) > 0.5  # chance is 1/3
    ensemble = fitted.predict(train[0])
    assert ensemble.shape == (300, 3)
    torch.testing.assert_close(ensemble.sum(1), torch.ones(300, dtype=torch.float64))
    assert fitted.members == (3 if method == "sghmc-sa" else 1)


def test_gradient_evaluations_count_every_backward_pass() -> None:
    train = clusters()
    assert snip.fit(network(), train, 0.5, QUICK, examples=60).cost.gradient_evaluations == 8 * 300 + 60
    assert grasp.fit(network(), train, 0.5, QUICK, examples=60).cost.gradient_evaluations == 8 * 300 + 2 * 60
    assert synflow.fit(network(), train, 0.5, QUICK).cost.gradient_evaluations == 8 * 300
    assert rigl.fit(network(), train, 0.5, QUICK).cost.gradient_evaluations == 8 * 300
    assert sun_mixture.fit(network(), train, SUN).cost.gradient_evaluations == (100 + 10) * 30
    assert deng_sa.fit(network(), train, 0.5, DENG).cost.gradient_evaluations == 8 * 300


def test_a_unit_keeps_its_variance_under_a_mask() -> None:
    """A row with k of n inputs: the squares of its weights grow by n / k."""
    weight = torch.arange(1.0, 13.0).view(3, 4)
    kept = torch.tensor([[True, True, True, True], [True, False, False, False], [False] * 4])
    before = weight.clone()
    fit_to_mask({"w": weight}, {"w": kept})
    torch.testing.assert_close(weight / before, torch.tensor([1.0, 2.0, 2.0])[:, None].expand(3, 4))


@pytest.mark.parametrize("gain", [1, 2])
def test_the_variance_of_a_scaled_start_is_its_gain_over_fan_in(gain: float) -> None:
    """60,000 draws: the standard error of a variance is 0.6 % of it, and the bound three of these."""
    weight = torch.empty(600, 4, 5, 5)
    variance_scaling({"w": weight}, seed=0, gain=gain)
    assert float(weight.var() * 100) == pytest.approx(gain, abs=0.018 * gain)
    assert float(weight.abs().max()) < 2.28 * 0.1 * gain**0.5


@pytest.mark.parametrize(("method", "gain", "rows"), [(snip, 1, True), (grasp, 2, False), (synflow, 1, False)])
def test_what_a_mask_at_the_start_leaves_is_drawn_as_in_the_paper(method: Any, gain: float, rows: bool) -> None:
    """Untrained (a rate of nearly nothing): the kept weights are those of the start, SNIP's scaled to each unit."""
    start = network()
    variance_scaling(masks.prunable(start), 0, gain)
    still = Recipe(steps=1, batch_size=30, lr=1e-12)
    fitted = method.fit(network(), clusters(), 0.5, still)
    expected = masks.prunable(start)
    if rows:
        fit_to_mask({name: p.data for name, p in expected.items()}, fitted.mask)
    for name, weight in masks.prunable(fitted.model).items():
        torch.testing.assert_close(weight, expected[name] * fitted.mask[name])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rigl", "snip"])
def test_a_very_sparse_start_still_carries_signal(method: str) -> None:
    """A LeNet at 99 %: its logits vary over inputs before any training (with a dense start they differ by 1e-5)."""
    inputs = torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    train = inputs, torch.arange(64) % 10
    model = models.build("lenet", (1, 28, 28), 10, seed=0)
    one_step = Recipe(steps=1, batch_size=32, lr=1e-12)
    fit = {"rigl": rigl.fit, "snip": snip.fit}[method]
    fitted = fit(model, train, 0.99, one_step)
    with torch.no_grad():
        assert float(fitted.model(inputs).std(0).max()) > 1e-3


def test_connection_sensitivity_leaves_the_network_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    snip.connection_sensitivity(model, *clusters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_connection_sensitivity_is_the_derivative_with_respect_to_the_mask() -> None:
    model, (x, y) = network().double(), clusters()
    x = x.double()
    scores = snip.connection_sensitivity(model, x, y)
    name, k, h = "layers.0.weight", 17, 1e-6
    weight = dict(model.named_parameters())[name].data
    value, losses = float(weight.view(-1)[k]), []
    for c in (1 + h, 1 - h):
        weight.view(-1)[k] = c * value
        losses.append(float(categorical(model(x), y).mean().detach()))
    weight.view(-1)[k] = value
    assert float(scores[name][k]) == pytest.approx(abs(losses[0] - losses[1]) / (2 * h), rel=1e-5)


def test_gradient_flow_is_the_derivative_of_half_the_squared_gradient() -> None:
    """With respect to a mask on one weight, so that its removal changes the flow by minus that, to first order."""
    model, (x, y) = network().double(), clusters()
    x = x.double()
    scores = grasp.gradient_flow(model, x, y, temperature=3.0)
    name, k, h = "layers.0.weight", 17, 1e-5
    weight = dict(model.named_parameters())[name].data
    value, flows = float(weight.view(-1)[k]), []
    for c in (1 + h, 1 - h):
        weight.view(-1)[k] = c * value
        gradients = torch.autograd.grad(categorical(model(x) / 3, y).mean(), list(masks.prunable(model).values()))
        flows.append(sum(float(g.square().sum()) for g in gradients) / 2)
    weight.view(-1)[k] = value
    assert float(scores[name][k]) == pytest.approx((flows[0] - flows[1]) / (2 * h), rel=1e-5)


def test_synaptic_flow_is_conserved_from_layer_to_layer() -> None:
    """Without biases the scores of every layer, and those into and out of every hidden unit, add up to the same."""
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    scores = synflow.synaptic_flow(model, torch.randn(1, 6), {})
    into, out = scores["0.weight"].view(8, 6).sum(1), scores["2.weight"].view(3, 8).sum(0)
    torch.testing.assert_close(into, out)
    product = model[2].weight.abs().double() @ model[0].weight.abs().double()
    torch.testing.assert_close(into.sum(), product.sum())


def test_synflow_empties_no_layer_where_one_round_does() -> None:
    """Maximal critical compression (their theorem 3): wide first layer, narrow last one, one weight in a hundred."""
    torch.manual_seed(0)
    widths = (64, 100, 100, 100, 4)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    example = torch.randn(1, 64)
    many, _ = synflow.synflow_mask(model, example, 0.99)
    paths = torch.eye(64)
    for name in (f"{2 * i}.weight" for i in range(4)):
        paths = many[name].float() @ paths
    assert float(paths.sum()) > 0, "some path leads through"


def test_synflow_refuses_a_network_that_bends_positive_numbers() -> None:
    model = models.build("lenet", (1, 28, 28), 10, seed=0)
    with pytest.raises(ValueError, match="passes positive numbers on unbent"):
        synflow.synaptic_flow(model, torch.randn(1, 1, 28, 28), {})


def test_snip_keeps_the_most_sensitive_weights_from_the_start() -> None:
    fitted = snip.fit(network(), clusters(), 0.5, QUICK, examples=300)
    start = network()
    variance_scaling(masks.prunable(start), 0)
    expected = snip.connection_sensitivity(start, *clusters())
    kept = torch.cat([mask.flatten() for mask in fitted.mask.values()])
    scores = torch.cat(list(expected.values()))
    torch.testing.assert_close(torch.cat(list(fitted.scores.values())), scores)
    assert float(scores[kept].min()) >= float(scores[~kept].max())


def test_connections_move_from_small_weights_to_large_gradients() -> None:
    weights = {"w": torch.tensor([[1.0, -0.1, 0.2], [0.0, 0.0, 0.0]])}
    gradients = {"w": torch.tensor([[0.0, 0.5, 0.0], [3.0, -4.0, 1.0]])}
    mask = {"w": torch.tensor([[True, True, True], [False, False, False]])}
    moved = rigl.move_connections(weights, gradients, mask, 0.7)["w"]
    assert moved.tolist() == [[True, False, False], [True, True, False]]
    gradients["w"][1] = torch.tensor(
        [0.1, -4.0, 0.2]
    )  # the dropped -0.1 has the second largest gradient now, and comes back
    moved = rigl.move_connections(weights, gradients, mask, 0.7)["w"]
    assert moved.tolist() == [[True, True, False], [False, True, False]]
    assert torch.equal(rigl.move_connections(weights, gradients, mask, 0.0)["w"], mask["w"])


def test_rigl_keeps_erdos_renyi_kernel_densities_and_moves_connections() -> None:
    shapes = {"layers.0.weight": (16, 6), "layers.1.weight": (3, 16)}
    static, moved = (
        rigl.fit(network(), clusters(), 0.8, QUICK, rigl.Topology(every=5, drop=drop)).mask for drop in (0.0, 0.3)
    )
    for name, density in erdos_renyi_kernel(shapes, 0.8).items():
        assert int(moved[name].sum()) == int(static[name].sum())
        assert abs(int(moved[name].sum()) - density * math.prod(shapes[name])) <= 1
    assert any(not torch.equal(moved[name], static[name]) for name in shapes)


def test_topology_schedule() -> None:
    topology = rigl.Topology(every=10, drop=0.4, stop=0.5)
    assert [topology.fraction(step, 100) for step in (0, 5, 50, 60)] == [0, 0, 0, 0]
    assert topology.fraction(10, 100) == pytest.approx(0.2 * (1 + math.cos(math.pi * 0.2)))


def test_grown_weights_start_at_zero_with_a_clear_momentum() -> None:
    model = network()
    trainer = Trainer(model, MinibatchStream(*clusters(), 30, 0, 0), categorical, QUICK.build(model), 80)
    name = "layers.0.weight"
    first = {name: torch.arange(96).view(16, 6) % 2 == 0}
    trainer.run(5)
    trainer.set_mask(first)
    trainer.run(5)
    weight = trainer.parameters[name]
    trainer.set_mask({name: torch.ones(16, 6, dtype=torch.bool)})
    momentum = trainer.optimizer.state[weight]["momentum_buffer"]
    assert bool((weight[~first[name]] == 0).all())
    assert bool((momentum[~first[name]] == 0).all())
    assert bool((momentum[first[name]] != 0).any())


def test_dense_and_sparse_take_turns_as_by_hand() -> None:
    """A quadratic loss of eight weights, all data in every step: SGD's recursion, its masks and its clear momentum."""
    generator = torch.Generator().manual_seed(0)
    best = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    start = 0.3 / best  # those that shall be large begin small
    model = nn.Linear(4, 2, bias=False).double()
    model.weight.data.copy_(start)
    recipe = Recipe(lr=0.2, momentum=0.9, weight_decay=0.0, steps=40, batch_size=4)

    def quadratic(outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (outputs - targets).square().sum(
            1
        )  # of the inputs e_i: the gradient of the mean is (W - best) / 4

    data = (torch.eye(4, dtype=torch.float64), best.T.contiguous())
    fitted = acdc.fit(model, data, 0.5, recipe, acdc.Phases(pairs=3), likelihood=quadratic)
    w, momentum, kept, found = start, torch.zeros(2, 4).double(), torch.ones(2, 4).double(), []
    for step in range(40):
        gradient = (w - best) / 4
        if step in (4, 14, 24, 34):
            kept = (w.abs() >= w.abs().flatten().sort().values[4]).double()
            momentum = momentum * kept
            found.append(kept)
        if step in (9, 19, 29):
            kept, momentum = torch.ones(2, 4).double(), torch.zeros(2, 4).double()
        w = w * kept
        momentum = 0.9 * momentum + gradient * kept
        w = (w - 0.2 * (1 + math.cos(math.pi * step / 40)) / 2 * momentum) * kept
    torch.testing.assert_close(fitted.model.weight.detach(), w, rtol=1e-12, atol=1e-14)
    assert torch.equal(fitted.mask["weight"], kept.bool())
    assert int(kept.sum()) == 4
    assert bool((found[-1] > found[0]).any()), "a weight that was masked first has come back"


def test_phases_have_steps_or_are_refused() -> None:
    assert acdc.Phases(0.1, 0.15, 3).begin(40) == {
        4: True,
        9: False,
        14: True,
        19: False,
        24: True,
        29: False,
        34: True,
    }
    with pytest.raises(ValueError, match="10 steps are too few for 7 pairs of phases"):
        acdc.fit(network(), clusters(), 0.5, Recipe(steps=10, batch_size=30))


def test_gradual_masks_only_grow() -> None:
    fitted = magnitude.fit(network(), clusters(), QUICK, magnitude.Gradual(0.9, every=3))
    assert masks.sparsity(fitted.mask) == pytest.approx(0.9, abs=0.5 / 144)
    assert magnitude.fit(network(), clusters(), QUICK).mask is None


@pytest.mark.parametrize(
    ("inclusion_rate", "spike", "threshold"),
    [(1e-5, 2e-5, 0.0248), (1e-7, 6e-5, 0.0483), (1e-6, 4e-5, 0.0372), (1e-6, 6e-6, 0.0148)],
)
def test_the_mixture_prunes_at_the_thresholds_of_the_authors_settings(
    inclusion_rate: float, spike: float, threshold: float
) -> None:
    w = torch.tensor([[threshold - 1e-4, threshold + 1e-4]])
    prior = SpikeSlab({"w": w}, inclusion_rate=inclusion_rate, spike_variance=spike, slab_variance=0.04)
    assert (prior.log_odds("w", w) >= 0).tolist() == [False, True]


def test_the_mixture_separates_weights_and_masks_by_its_threshold() -> None:
    fitted = sun_mixture.fit(network(), clusters(), SUN)
    assert 0.2 < masks.sparsity(fitted.mask) < 0.98
    assert all(torch.equal(fitted.scores[n] >= 0, kept.flatten()) for n, kept in fitted.mask.items())
    # Log-odds are affine in w^2, so a masked weight's (w / w*)^2 is 1 - odds / (odds at zero). A Gaussian alone leaves
    # weights spread evenly up to the threshold, with a root mean square of 0.58.
    origin = torch.zeros(1, 1)
    at_zero = SpikeSlab(
        {"w": origin}, inclusion_rate=0.1, spike_variance=1e-3, slab_variance=SUN.slab_variance
    ).log_odds("w", origin)
    odds = torch.cat(list(fitted.scores.values()))
    assert float((1 - odds[odds < 0] / at_zero).mean().sqrt()) < 0.4


@pytest.mark.parametrize("rate", [1e-200, 1e-6, 0.01])
def test_a_threshold_gives_its_inclusion_rate_back(rate: float) -> None:
    threshold = sun_mixture.threshold(rate, 1e-4, 0.04)
    assert sun_mixture.inclusion_rate(threshold, 1e-4, 0.04) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(("scale", "widens"), [(1e-3, False), (1.0, True)])
def test_a_threshold_rises_to_a_sparsity_and_never_falls(scale: float, widens: bool) -> None:
    """Where the inclusion rate would leave double precision, the spike widens."""
    weights = {"w": torch.arange(1.0, 101.0).view(10, 10) * scale}
    mixture = SpikeSlab(weights, inclusion_rate=0.3, spike_variance=1e-4, slab_variance=4e5 * scale**2)
    counts = []
    for sparsity in (0.5, 0.3, 0.9):
        sun_mixture.raise_threshold(mixture, weights, sparsity)
        counts.append(int((mixture.log_odds("w", weights["w"]) < 0).sum()))
    assert counts == [50, 50, 90]
    assert 0 < mixture.layers["w"].inclusion_rate < 0.3
    assert (mixture.layers["w"].spike_variance > 1e-4) == widens


def test_the_own_rule_of_the_mixture_ends_at_the_target_or_beyond() -> None:
    """The mask of stage 3 then keeps no weight that another one beats."""
    for sparsity in (0.6, 0.9):
        fitted = sun_mixture.fit(network(), clusters(), SUN, sparsity)
        odds = torch.cat(list(fitted.scores.values()))
        assert float((odds < 0).double().mean()) >= sparsity - 1 / len(odds)
        assert masks.sparsity(fitted.mask) == pytest.approx(sparsity, abs=1 / len(odds))


def test_a_step_that_masks_also_trains() -> None:
    """A mask of everything at every step leaves the training as it is without them."""
    full = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(network()).items()}
    trained = []
    for update in (None, lambda step: full):
        model = network()
        trainer = Trainer(model, MinibatchStream(*clusters(), 30, 0, 0), categorical, QUICK.build(model), 80)
        trainer.run(5, update)
        trained.append(trainer.parameters)
    for name, p in trained[0].items():
        assert torch.equal(p, trained[1][name])


def test_the_mixture_refuses_an_empty_layer_unless_told() -> None:
    narrow = sun_mixture.Recipe(**{**SUN.__dict__, "inclusion_rate": 1e-300})
    with pytest.raises(ValueError, match=r"all weights of 'layers.0.weight' fell into the spike; raise inclusion_rate"):
        sun_mixture.fit(network(), clusters(), narrow)
    assert masks.sparsity(sun_mixture.fit(network(), clusters(), narrow, allow_empty=True).mask) == 1


def test_a_spike_too_narrow_for_the_step_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"spike_variance 1e-06 is too narrow for the step 0.01 where the mixture begins"
    ):
        sun_mixture.fit(network(), clusters(), sun_mixture.Recipe(**{**SUN.__dict__, "spike_variance": 1e-6}))
    with pytest.raises(ValueError, match=r"spike_variance 1e-06 is too narrow for the step 0.02"):
        deng_sa.fit(network(), clusters(), 0.5, deng_sa.Recipe(**{**DENG.__dict__, "spike_variance": 1e-6}))


def test_the_temperature_of_sghmc_sa_is_annealed() -> None:
    recipe = deng_sa.Recipe(temperature=1e-3, final_temperature=1e-5, steps=100)
    assert [recipe.temperature_at(t) for t in (0, 50, 100, 120)] == pytest.approx([1e-3, 1e-4, 1e-5, 1e-5])
    hot = deng_sa.Recipe(**{**DENG.__dict__, "temperature": 1.0, "final_temperature": 1.0})
    cold, warm = (deng_sa.fit(network(), clusters(), 0.5, recipe).scores for recipe in (DENG, hot))
    assert not torch.equal(cold["layers.0.weight"], warm["layers.0.weight"])


def test_every_draw_of_sghmc_sa_is_sparse_and_the_prior_adapts() -> None:
    fitted = deng_sa.fit(network(), clusters(), 0.75, DENG)
    for draw in fitted.draws:
        assert [int((draw[n] == 0).sum()) for n in fitted.mask] == [72, 36]
    assert not torch.equal(fitted.draws[0]["layers.0.weight"], fitted.draws[1]["layers.0.weight"])
    never = deng_sa.Recipe(**{**DENG.__dict__, "em": EMSettings(every=10**6)})
    held = deng_sa.fit(network(), clusters(), 0.75, never)
    assert not torch.equal(fitted.scores["layers.0.weight"], held.scores["layers.0.weight"])


def test_equal_seeds_give_equal_networks() -> None:
    for fit, _ in FITS.values():
        a, b = (fit(network(), clusters(), seed=3) for _ in range(2))
        assert all(torch.equal(a.scores[n], b.scores[n]) for n in a.scores)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(optimizer="lion"), "optimizer is 'lion'; choose sgd or adamw"),  # type: ignore[arg-type]
        (lambda: Recipe(lr=-1), "lr is -1, momentum 0.9 and weight_decay 0.0005"),
        (lambda: Recipe(steps=0), "steps is 0 and batch_size 128; both must be at least 1"),
        (lambda: rigl.Topology(drop=1.0), "every is 100, drop 1.0 and stop 0.75"),
        (lambda: magnitude.Gradual(0.9, begin=0.8), "begin is 0.8, end 0.75 and every 100"),
        (lambda: acdc.Phases(warm_up=0.9), "warm_up is 0.9, fine_tune 0.15 and pairs 7; give fractions > 0"),
        (lambda: acdc.fit(network(), clusters(), 1.0, QUICK), "sparsity is 1.0"),
        (lambda: sun_mixture.Recipe(plain_steps=10_000), "plain_steps is 10000 of 10000 steps"),
        (lambda: deng_sa.Recipe(draws=0), "half_life is 3449, steps 10000, prune_every 400, draws 0"),
        (lambda: deng_sa.Recipe(temperature=0), "temperature is 0, final_temperature"),
        (lambda: snip.fit(network(), clusters(), 1.0, QUICK), "sparsity is 1.0"),
        (lambda: deng_sa.fit(network(), clusters(), -0.1, DENG), "sparsity is -0.1"),
    ],
)
def test_bad_input_is_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_divergence_is_one_line() -> None:
    with pytest.raises(RunError, match=r"training diverged at step \d+: the loss is (nan|inf). Lower lr"):
        magnitude.fit(network(), clusters(), Recipe(lr=1e15, steps=30, batch_size=30))
