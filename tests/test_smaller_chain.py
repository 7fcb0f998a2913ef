"""A chain on a cut network is the masked chain: the same draws, averages and hyperparameters.

The two differ by rounding alone, and under a Gaussian prior the difference stays as it is. Under groups of whole nodes
it was seen to grow from 1e-17 to 1e-12 within twenty steps of one chain, whose nodes went between spike and slab; so
the chains here are others.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune import likelihoods, models
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.pruner import Pruner
from sgmcmc_prune.chains.record import Recorder
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.chains.smaller import SmallerChain, _cut, cut
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.em import adaptation
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.gaussian import Gaussian
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.priors.horseshoe import Horseshoe
from sgmcmc_prune.priors.student_t import StudentT
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.samplers import BAOAB, SGHMC, SGLD, SGNHT, AdaptiveSGHMC

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: models.MLP((6,), 3, (12, 9), activation="tanh"), (6,)),
    "convolution": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 5, 2), nn.SiLU(), nn.Flatten(), nn.Linear(45, 3))
        ),
        (2, 6, 6),
    ),
    "group norm": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 8, 3), nn.GroupNorm(4, 8), nn.Tanh(), nn.Conv2d(8, 6, 2), nn.GroupNorm(3, 6), nn.SiLU()),
            *(nn.Flatten(), nn.Linear(54, 3)),
        ),
        (2, 6, 6),
    ),
    "attention": (
        lambda: models.VisionTransformer((2, 4, 4), 3, patch=2, width=12, depth=1, heads=3, hidden=8),
        (2, 4, 4),
    ),
}
STEPS = 100
#: A spike that the step follows with a margin: near the limit of stability rounding grows tenfold every few steps.
WIDE = {"spike_variance": 2e-3, "slab_variance": 0.1}
PRIORS: dict[str, Callable[[Mapping[str, Tensor]], Any]] = {
    "node": lambda p: SpikeSlab(p, group="node", seed=1, **WIDE),
    "weight": lambda p: SpikeSlab(p, group="weight", seed=1, **WIDE),
    "input, laplace": lambda p: SpikeSlab(p, group="input", spike="laplace", seed=1, **WIDE),
    "node, gibbs": lambda p: SpikeSlab(p, group="node", mode="gibbs", seed=1, **WIDE),
    "weight, em": lambda p: SpikeSlab(p, group="weight", mode="em", seed=1, **WIDE),
    "index": lambda p: SpikeSlab(
        p, group={n: _scattered_groups(w) for n, w in p.items() if w.ndim > 1}, seed=1, **WIDE
    ),
    "horseshoe": lambda p: Horseshoe(p, min_variance=2e-3, slab_variance=0.1, seed=1),
    "gaussian": lambda p: Gaussian(0.1),
    "student": lambda p: StudentT(0.1),
}


def _scattered_groups(w: Tensor) -> GroupMap:
    """Groups of four, in no order."""
    generator = torch.Generator().manual_seed(w.numel())
    return GroupMap.from_index(torch.randperm(w.numel(), generator=generator).view(w.shape) // 4)


def make(network: str, prior: str, sampler: type, dtype: torch.dtype, temperature: float = 1.0, **own: Any) -> Chain:
    """A chain that has just begun to sample, with EM all the way."""
    torch.manual_seed(0)
    build, shape = NETWORKS[network]
    model = build().to(dtype)
    density = PRIORS[prior](dict(model.named_parameters()))
    inputs, targets = torch.randn(400, *shape, dtype=dtype), torch.randint(3, (400,))
    settings = {"lr": 0.01, "num_data": 400, "prior": density, "preconditioner": RMSprop(), "seed": 3, **own}
    made = sampler(model.named_parameters(), **settings)
    schedule = Cyclical(0.01, 0.01, 0.005, 0.9, temperature, burn_in=10, cycles=2, explore=5, sample=STEPS, thin=7)
    em = adaptation(EMSettings(every=4), density, 1e-6)
    stream = MinibatchStream(inputs, targets, 8, 0, 0)
    phases = ("burn_in", "explore", "sample")
    chain = Chain(0, model, made, schedule, stream, likelihoods.categorical, em, adapt=phases)
    for _ in range(12):
        chain.advance()
    return chain


def node_mask(model: nn.Module, share: float, seed: int) -> masks.Mask:
    """Mask a share of the nodes of each layer but the last, and a tenth of the other weights there."""
    generator = torch.Generator().manual_seed(seed)
    *inner, last = masks.prunable(model).items()
    mask = {name: torch.rand(p.shape, generator=generator) > 0.1 for name, p in inner}
    for name, p in inner:
        stays = torch.rand(len(p), generator=generator) >= share
        stays[0] = True
        mask[name] &= stays.view(-1, *[1] * (p.ndim - 1))
    return mask | {last[0]: torch.ones_like(last[1], dtype=torch.bool)}


def pair(chain: Chain, mask: masks.Mask) -> tuple[Chain, SmallerChain]:
    """The chain under the closed mask, and the cut chain with a large chain of its own."""
    chain.set_mask(mask)
    small = cut(chain)
    return copy.deepcopy(chain), small


def assert_same(masked: Chain, small: SmallerChain, tolerance: float) -> None:
    """All that moves, and the averages; but not the running statistics of channels that are gone."""
    small.put_back()
    large = small.large
    assert (large.step, large.draws) == (masked.step, masked.draws)
    close(network(masked), network(large), tolerance)
    close(statistics(masked, small), statistics(large, small), tolerance)
    close(momenta(masked), momenta(large), tolerance)
    close(masked.em.state_dict() if masked.em else {}, large.em.state_dict() if large.em else {}, 10 * tolerance)
    assert large.prior is not None
    assert masked.prior is not None
    for name in masked.parameters:
        assert large.prior.hyperparameters(name) == pytest.approx(
            masked.prior.hyperparameters(name), rel=10 * tolerance
        )
    for kind in ("inclusion", "moments", "observed"):
        for name, average in getattr(masked, kind).items():
            close(average.state_dict(), getattr(large, kind)[name].state_dict(), 10 * tolerance)


def network(chain: Chain) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in chain.model.named_parameters()}


def statistics(chain: Chain, small: SmallerChain) -> Any:
    """The running statistics of the channels that stay."""
    return _cut(dict(chain.model.named_buffers()), small.places)


def momenta(chain: Chain) -> dict[str, Tensor]:
    return {n: s["momentum_buffer"] for n, _, s, _ in chain.sampler.named_states() if "momentum_buffer" in s}


def close(expected: Any, found: Any, tolerance: float) -> None:
    if isinstance(expected, Mapping):
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            close(value, found[key], tolerance)
    elif isinstance(expected, Tensor) and not expected.is_floating_point():
        assert torch.equal(found, expected)
    elif isinstance(expected, Tensor):
        scale = 1 + float(expected[expected.isfinite()].abs().max()) if expected.numel() else 1.0
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)
    else:
        assert found == (pytest.approx(expected, rel=tolerance) if isinstance(expected, float) else expected)


def in_short(every: Mapping[str, Any], *names: str) -> list[Any]:
    """All of some kind; those that are not named are slow, for there are many."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in every]


def go(masked: Chain, small: SmallerChain, steps: int = STEPS) -> None:
    for _ in range(steps):
        masked.advance()
        small.advance()


@pytest.mark.parametrize("name", ["mlp", pytest.param("convolution", marks=pytest.mark.slow)])
@pytest.mark.parametrize("prior", in_short(PRIORS, "node", "weight", "node, gibbs", "index", "student", "horseshoe"))
def test_a_hundred_steps_are_those_of_the_masked_chain(name: str, prior: str) -> None:
    """In float64 to 1e-10, at T = 1 with the same noise, EM on."""
    chain = make(name, prior, SGHMC, torch.float64)
    masked, small = pair(chain, node_mask(chain.model, 0.5, 1))
    assert models.num_parameters(small.model) < models.num_parameters(masked.model)
    assert small.stays == {}
    go(masked, small)
    assert masked.draws > 10
    assert_same(masked, small, 1e-10)


@pytest.mark.parametrize(
    ("name", "dead"),
    [
        ("group norm", {"0.weight": slice(2, 6), "3.weight": slice(0, 2)}),
        ("attention", {"blocks.0.attention.qkv.weight": slice(24, 28), "blocks.0.feedforward.0.weight": slice(0, 3)}),
    ],
)
def test_groups_of_channels_and_heads_go_as_one(name: str, dead: dict[str, slice]) -> None:
    chain = make(name, "gaussian", SGHMC, torch.float64)
    mask = {n: torch.ones_like(p, dtype=torch.bool) for n, p in masks.prunable(chain.model).items()}
    for layer, rows in dead.items():
        mask[layer][rows] = False
    masked, small = pair(chain, mask)
    assert all(small.parameters[layer].shape[0] < masked.parameters[layer].shape[0] for layer in dead)
    go(masked, small)
    assert_same(masked, small, 1e-10)


SAMPLERS: dict[str, tuple[type, dict[str, Any]]] = {
    "sghmc": (SGHMC, {}),
    "signs": (SGHMC, {"noise": "rademacher"}),
    "reference": (SGHMC, {"implementation": "reference"}),
    "sgld": (SGLD, {}),
    "baoab": (BAOAB, {}),
    "sgnht": (SGNHT, {}),
    "adaptive": (AdaptiveSGHMC, {"preconditioner": None}),
}


class Recurrent(nn.Module):
    """Two depths of a recurrent layer in both directions, and a reader of the mean of its states."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(4, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0].mean(1))


@pytest.mark.parametrize("kind", [pytest.param(nn.RNN, marks=pytest.mark.slow), nn.GRU, nn.LSTM])
@pytest.mark.parametrize(
    ("prior", "dtype", "tolerance"),
    [("gaussian", torch.float64, 1e-10), pytest.param("weight", torch.float32, 1e-5, marks=pytest.mark.slow)],
)
def test_units_of_recurrent_layers_go(
    monkeypatch: pytest.MonkeyPatch, kind: type[nn.RNNBase], prior: str, dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setitem(NETWORKS, "recurrent", (lambda: Recurrent(kind), (5, 4)))
    chain = make("recurrent", prior, SGHMC, dtype)
    mask = {n: torch.ones_like(p, dtype=torch.bool) for n, p in masks.prunable(chain.model).items()}
    for name in mask:
        if "ih_l0" not in name:  # of all four, the first two units
            mask[name].unflatten(1, (-1, 6))[..., :2] = False
    masked, small = pair(chain, mask)
    assert small.model.rnn.hidden_size == 4
    assert small.stays == {}
    go(masked, small)
    assert_same(masked, small, tolerance)


def test_units_of_recurrent_layers_that_change_from_step_to_step_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "recurrent", (lambda: Recurrent(nn.GRU), (5, 4)))
    chain = make("recurrent", "gaussian", SGHMC, torch.float64)
    mask = {n: torch.ones_like(p, dtype=torch.bool) for n, p in masks.prunable(chain.model).items()}
    for part in ("ih_l0", "hh_l0"):
        mask[f"rnn.weight_{part}"].unflatten(0, (3, 6))[:, :2] = False
    masked, small = pair(chain, mask)
    assert small.stays["rnn"].startswith("2 of its nodes read nothing, and stay")
    go(masked, small, 20)
    assert_same(masked, small, 1e-10)


@pytest.mark.parametrize("sampler", in_short(SAMPLERS, "sghmc", "signs", "sgnht", "adaptive"))
def test_every_sampler_goes_on_with_its_state_and_its_noise(sampler: str) -> None:
    """In float32 to 1e-5, in the tier that it has there."""
    kind, own = SAMPLERS[sampler]
    chain = make("mlp", "node", kind, torch.float32, **own)
    masked, small = pair(chain, node_mask(chain.model, 0.5, 2))
    tiers = [group["implementation"] for group in small.sampler.param_groups]
    assert tiers == [group["implementation"] for group in masked.sampler.param_groups]
    go(masked, small)
    assert_same(masked, small, 1e-5)


def test_without_noise_the_two_are_one_too() -> None:
    chain = make("mlp", "weight", SGHMC, torch.float64, temperature=0.0)
    masked, small = pair(chain, node_mask(chain.model, 0.7, 3))
    go(masked, small)
    assert_same(masked, small, 1e-10)


def test_channels_last_stays_channels_last() -> None:
    torch.manual_seed(0)
    chain = make("convolution", "weight", SGHMC, torch.float32)
    chain.model.to(memory_format=torch.channels_last)
    masked, small = pair(chain, node_mask(chain.model, 0.3, 4))
    weight = small.model.get_parameter("2.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    go(masked, small)
    assert_same(masked, small, 1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_closing_the_mask_changes_no_output(seed: int) -> None:
    """What nodes without inputs sent on is in the next biases, and everything of theirs is zero and masked."""
    chain = make("convolution", "node", SGHMC, torch.float64)
    mask = node_mask(chain.model, 0.5, seed)
    chain.set_mask(mask)
    before = copy.deepcopy(chain.model)
    small = cut(chain)
    inputs = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(chain.model(inputs), before(inputs), rtol=0, atol=1e-12)
    torch.testing.assert_close(small.model(inputs), before(inputs), rtol=0, atol=1e-12)
    empty = ~mask["0.weight"].flatten(1).any(1)
    assert empty.any()
    assert not chain.mask["0.bias"][empty].any()
    assert not chain.mask["2.weight"][:, empty].any()
    assert all(bool((p[~chain.mask[n]] == 0).all()) for n, p in chain.parameters.items() if n in chain.mask)
    assert not torch.equal(before[2].bias, chain.model[2].bias)  # the masked chain could not have dropped them


def test_the_masked_chain_can_take_over_again() -> None:
    """A state that was put back is a state of the masked chain: from there it takes the same steps."""
    chain = make("mlp", "node, gibbs", SGHMC, torch.float64)
    masked, small = pair(chain, node_mask(chain.model, 0.5, 5))
    go(masked, small, 31)
    small.put_back()
    again = make("mlp", "node, gibbs", SGHMC, torch.float64)
    again.load_state_dict(copy.deepcopy(small.large.state_dict()))
    for _ in range(40):
        masked.advance()
        again.advance()
    close(network(masked), network(again), 1e-12)
    assert small.large.configurational_temperature() == pytest.approx(masked.configurational_temperature(), rel=0.5)


class Residual(nn.Module):
    """A stream of nine channels that two branches add to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 9), nn.Linear(9, 3)
        self.branches = nn.ModuleList(nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 9)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = torch.tanh(x + branch(x))
        return self.head(x)


def test_channels_of_a_residual_stream_go_in_the_chain_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "residual", (Residual, (6,)))
    chain = make("residual", "node", SGHMC, torch.float64)
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(chain.model).items()}
    for name in ("stem", "branches.0.2", "branches.1.2"):
        mask[f"{name}.weight"][2:6] = False  # four channels that nobody writes
    masked, small = pair(chain, mask)
    assert (small.model.stem.out_features, small.model.branches[0][0].in_features) == (5, 5)
    go(masked, small)
    assert_same(masked, small, 1e-10)


def normalised() -> nn.Module:
    """Batch normalisation and padding, past which no constant can be moved."""
    first = [nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(
        *first, nn.Conv2d(6, 5, 3, padding=1), nn.SiLU(), nn.Conv2d(5, 4, 6), nn.Flatten(), nn.Linear(4, 3)
    )


@pytest.mark.parametrize("outgoing", [False, True])
def test_nodes_whose_constants_cannot_be_moved_stay_unless_nobody_reads_them(
    monkeypatch: pytest.MonkeyPatch, outgoing: bool
) -> None:
    monkeypatch.setitem(NETWORKS, "normalised", (normalised, (2, 6, 6)))
    chain = make("normalised", "node", SGHMC, torch.float64)
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(chain.model).items()}
    mask["0.weight"][:4] = False
    mask["3.weight"][:, :4] = not outgoing
    masked, small = pair(chain, mask)
    if outgoing:
        assert small.model[0].out_channels == 2
        assert small.stays == {}
    else:
        assert small.model[0].out_channels == 6
        assert small.stays["0"].startswith("4 of its nodes read nothing, and stay: what they send cannot be moved")
    go(masked, small, 30)
    assert_same(masked, small, 1e-10)


class Own(Gaussian):
    """A user's prior, of which nobody knows how it goes on."""

    cut = Prior.cut  # type: ignore[assignment]


def test_only_chains_that_have_settled_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(prior: str = "node") -> Chain:
        chain = make("mlp", prior, SGHMC, torch.float64)
        chain.set_mask(node_mask(chain.model, 0.5, 1))
        return chain

    chain = made()
    with pytest.raises(ValueError, match="the chain was cut before"):
        cut(cut(chain))
    chain.sampler.param_groups[0]["adapting"] = True
    with pytest.raises(ValueError, match="the mass matrix still adapts"):
        cut(chain)
    chain = made()
    chain.pruner = Pruner("magnitude", (0.5, 0.9), {})
    with pytest.raises(ValueError, match="the mask still grows"):
        cut(chain)
    chain = made()
    with torch.no_grad():
        chain.parameters["layers.2.weight"][0] = 0
    with pytest.raises(ValueError, match=r"kept weights of 'layers\.2\.weight' are exactly zero"):
        cut(chain)
    monkeypatch.setitem(PRIORS, "own", lambda p: Own(0.1))
    with pytest.raises(TypeError, match="a prior of type Own has no cut"):
        cut(made("own"))


def test_a_network_that_draws_noise_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Dropout(0.5), nn.Linear(9, 3))  # noqa: E731
    monkeypatch.setitem(NETWORKS, "dropout", (layers, (6,)))
    chain = make("dropout", "node", SGHMC, torch.float64)
    mask = node_mask(chain.model, 0.5, 1)
    mask["3.weight"] = mask["3.weight"] & mask["0.weight"].any(1)
    chain.set_mask(mask)
    before = copy.deepcopy(chain.state_dict())
    with pytest.raises(ValueError, match="as dropout does"):
        cut(chain)
    close(before, chain.state_dict(), 0.0)


def test_a_recorder_sees_nothing_of_the_cut() -> None:
    """Every value of a draw is that of the masked chain, but for the size of the gradient: it has no masked weights."""
    chain = make("mlp", "node", SGHMC, torch.float64)
    masked, small = pair(chain, node_mask(chain.model, 0.5, 6))
    inputs, targets = chain.stream.batch(0)
    recorders = [
        Recorder(inputs, targets, likelihoods.categorical, 3, list(c.moments), c.parameters, c.prior)
        for c in (masked, small.large)
    ]
    plan = masked.advance()
    small.advance()
    while not plan.collect:
        plan = masked.advance()
        small.advance()
    expected, found = (r.draw(c, plan) for r, c in zip(recorders, (masked, small.large), strict=True))
    norms = [values["sample_stats"].pop("grad_norm") for values in (expected, found)]
    assert 0 < norms[1] <= norms[0]
    for group, values in expected.items():
        for name, value in values.items():
            np.testing.assert_allclose(found[group][name], value, rtol=1e-9, atol=1e-12, err_msg=name)
