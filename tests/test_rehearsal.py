"""What a rehearsal refuses, what it finds by running, and that it changes nothing."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from sgmcmc_prune import likelihoods, models
from sgmcmc_prune.chains.rehearsal import Rehearsal, rehearse
from sgmcmc_prune.likelihoods.gaussian import Gaussian, LearnedNoise
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.pruning import batchnorm
from sgmcmc_prune.pruning.prunable import output_weights, prunable, trainable

CLASSES = 4


class Net(nn.Module):
    """Two linear layers around a function; attributes are set by keywords."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Any] = lambda self, x: x.relu(), **layers: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, CLASSES)
        self.between = between
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.between(self, self.first(x)))


class Returns(Net):
    """Gives something else than its logits."""

    def __init__(self, made: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: Tensor) -> Any:
        return self.made(self, super().forward(x))


class ExtraState(Net):
    def get_extra_state(self) -> int:
        return 3

    def set_extra_state(self, state: int) -> None:
        pass


class InPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.relu_()))


class Stepwise(Net):
    """Reads numbers one after the other, by a normalised weight."""

    def __init__(self, norm: Callable[..., nn.Module]) -> None:
        super().__init__(steps=nn.GRU(1, 8, batch_first=True))
        del self.first
        norm(self.steps, "weight_hh_l0")

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.steps(x[:, :, None])[0][:, -1])


class Remembers(Net):
    """Every pass changes what the next one gives."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.last(self.first(x) * self.passes)


def tied() -> Net:
    net = Net(lambda self, x: self.again(self.inner(x).relu()), inner=nn.Linear(8, 8), again=nn.Linear(8, 8))
    net.again.weight = net.inner.weight
    return net


def frozen() -> Net:
    net = Net(lambda self, x: self.inner(x.relu()).relu(), inner=nn.Linear(8, 8))
    net.first.requires_grad_(False)
    return net


def old_weight_norm() -> Net:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Net(first=nn.utils.weight_norm(nn.Linear(6, 8)))


def half_frozen() -> Net:
    return Net().requires_grad_(False)


def data(count: int = 20) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=g), torch.randint(CLASSES, (count,), generator=g)


def rehearsed(model: nn.Module) -> Rehearsal:
    return rehearse(model, *data(), likelihoods.categorical, CLASSES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Returns(lambda self, y: (y, y.mean())), "returns a tuple of 2; it must return one tensor"),
        (lambda: Returns(lambda self, y: {"logits": y}), "returns a dict; it must return one tensor"),
        (lambda: Returns(lambda self, y: (y, y) if self.training else y), "returns a tuple of 2"),
        (lambda: Returns(lambda self, y: y if self.training else y[:, :2]), r"shape \(16, 2\); it must be \(16, 4\)"),
        (lambda: Returns(lambda self, y: y[:, :3]), r"shape \(16, 3\); it must be \(16, 4\)"),
        (lambda: Returns(lambda self, y: torch.cat([y, y], 1)), r"shape \(16, 8\)"),
        (lambda: Returns(lambda self, y: y[:, :, None]), r"shape \(16, 4, 1\)"),
        (lambda: Returns(lambda self, y: y.mean(0, keepdim=True)), r"shape \(1, 4\)"),
        (lambda: Returns(lambda self, y: y / 0), "not finite"),
        (lambda: Returns(lambda self, y: y.detach()), "no trained parameter"),
        (half_frozen, "no trained parameter"),
        (lambda: Net(spare=nn.Linear(3, 3)), "does not depend on spare.weight, spare.bias"),
        (
            lambda: Net(lambda self, x: (0 * x).sqrt()),
            "gradient of .* is not finite",
        ),
        (lambda: Net(first=nn.Linear(7, 8)), r"fails on 16 training examples, shape \(16, 6\).*RuntimeError"),
        (lambda: Net(first=nn.LazyLinear(8)), "'first.weight' has no shape yet"),
        (lambda: Net().bfloat16(), r"'first.weight' is torch.bfloat16; samplers move float32"),
        (ExtraState, "_extra_state, which is no parameter and no buffer"),
        (old_weight_norm, "cannot be copied .*parametrizations do not"),
        (
            lambda: Stepwise(parametrizations.weight_norm),
            "'steps' keeps a weight that it computed from other parameters",
        ),
        (lambda: Stepwise(parametrizations.spectral_norm), "'steps' keeps a weight that it computed"),
        (InPlace, "changes its inputs, the data, in place"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        rehearsed(make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((5, 1), r"shape \(16, 5, 1\); it must be \(16, 2\)"), ((3,), r"\(16, 3\); it must be \(16, 2\)")],
)
def test_shapes_are_those_of_the_network_without_the_learned_noise(shape: tuple[int, ...], message: str) -> None:
    net = nn.Sequential(nn.Linear(6, math.prod(shape)), nn.Unflatten(1, shape))
    with pytest.raises(ValueError, match=message):
        rehearse(LearnedNoise(net, 2), data()[0], torch.randn(20, 2), Gaussian(), 4)


def test_inputs_that_a_network_changes_are_put_back() -> None:
    inputs, targets = data()
    before = inputs.clone()
    with pytest.raises(ValueError, match="in place"):
        rehearse(InPlace(), inputs, targets, likelihoods.categorical, CLASSES)
    assert torch.equal(inputs, before)


def test_a_likelihood_that_averages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(\); it must be \(16,\).*reduction='none'"):
        rehearse(Net(), *data(), lambda outputs, targets: F.cross_entropy(outputs, targets), CLASSES)


@pytest.mark.parametrize(
    ("make", "departures"),
    [
        (Net, []),
        (lambda: Net(lambda self, x: F.dropout(x, 0.5, self.training)), ["randomness in the network"]),
        (lambda: Net(lambda self, x: self.drop(x), drop=nn.Dropout(0.5)), ["dropout"]),
        (lambda: Net(lambda self, x: self.drop(x), drop=nn.Dropout(0.0)), []),
        (lambda: Net(lambda self, x: self.norm(x), norm=nn.BatchNorm1d(8)), ["batch normalisation"]),
        (lambda: Net(lambda self, x: x - x.mean(0)), ["examples interact"]),
        (Remembers, ["state"]),
        (lambda: Net(first=parametrizations.weight_norm(nn.Linear(6, 8))), []),
    ],
)
def test_departures_are_found_by_running(make: Callable[[], nn.Module], departures: list[str]) -> None:
    assert [line.split(":")[0] for line in rehearsed(make()).departures] == departures


def test_nothing_is_changed() -> None:
    model = Net(lambda self, x: self.norm(F.dropout(x, 0.5, self.training)), norm=nn.BatchNorm1d(8))
    model.last.eval()
    state, rng = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    rehearsed(model)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (model.training, model.last.training) == (True, False)
    assert all(p.grad is None for p in model.parameters())


def test_a_tied_weight_is_one_weight_and_a_frozen_one_is_in_nothing() -> None:
    assert list(prunable(tied())) == ["first.weight", "last.weight", "inner.weight"]
    assert "again.weight" not in network_state(tied())
    assert list(prunable(frozen())) == ["last.weight", "inner.weight"]
    assert list(trainable(frozen())) == ["last.weight", "last.bias", "inner.weight", "inner.bias"]
    assert rehearsed(frozen()).not_prunable["first.weight"] == "frozen"


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parts_of_a_parametrised_weight_are_not_prunable(norm: Callable[[nn.Module], nn.Module]) -> None:
    assert list(prunable(Net(first=norm(nn.Linear(6, 8))))) == ["last.weight"]


def test_parts_of_an_old_weight_norm_are_not_prunable() -> None:
    assert list(prunable(old_weight_norm())) == ["last.weight"]


@pytest.mark.parametrize("shape", [(3, 5, 4), (4, 3, 3, 3), (2, 3, 2, 2, 2)])
def test_weights_of_every_dimension_above_one_are_prunable(shape: tuple[int, ...]) -> None:
    convolution = [None, None, nn.Conv1d, nn.Conv2d, nn.Conv3d][len(shape) - 1]
    assert list(prunable(nn.Sequential(convolution(shape[1], shape[0], shape[2:])))) == ["0.weight"]  # type: ignore[misc]


def test_the_state_of_a_tied_network_goes_into_a_copy() -> None:
    one, other = tied(), tied()
    with torch.no_grad():
        for p in one.parameters():
            p.normal_()
    load_network_state(other, network_state(one))
    assert torch.equal(other(data()[0]), one(data()[0]))
    assert other.again.weight is other.inner.weight
    with pytest.raises(ValueError, match=r"the weights lack \['last.bias'\]"):
        load_network_state(other, {n: v for n, v in network_state(one).items() if n != "last.bias"})
    with pytest.raises(ValueError, match=r"last.bias has shape \(5,\); the network's is \(4,\)"):
        load_network_state(other, {**network_state(one), "last.bias": torch.zeros(5)})


@pytest.mark.parametrize("name", ["lenet", "mlp", "resnet20", "vit", "mlp-mixer", "vgg16"])
def test_output_weights_of_the_librarys_networks(name: str) -> None:
    shape = (1, 28, 28) if name in ("lenet", "mlp") else (3, 32, 32)
    model = models.build(name, shape, 10, seed=0)
    last = [n for n, p in model.named_parameters() if p.dim() > 1][-1]
    assert output_weights(model, torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))) == {last}


@pytest.mark.parametrize("end", [[], [nn.Flatten(0)]])
def test_output_weights_of_a_regression_with_a_learned_noise(end: list[nn.Module]) -> None:
    """The outputs of the network are the means, also where it gives (n,); the noise beside them is no unit's."""
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1), *end)
    assert output_weights(LearnedNoise(network, 1), torch.randn(6, 5)) == {"network.2.weight"}


@pytest.mark.parametrize("classes", [1, 2, 3, 8])
@pytest.mark.parametrize("end", [nn.Identity(), nn.LogSoftmax(1)])
def test_output_weights_are_told_from_hidden_ones_of_the_same_size(classes: int, end: nn.Module) -> None:
    torch.manual_seed(0)
    hidden = max(classes, 3)
    end = nn.Identity() if classes == 1 else end  # the logarithm of one share is a constant
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, hidden), nn.Tanh(), nn.Linear(hidden, classes), end)
    assert output_weights(model, torch.randn(6, 5)) == {"4.weight"}


def test_what_was_found_in_words() -> None:
    lines = rehearsed(frozen()).lines()
    assert lines[0] == "outputs of one example have shape (4,)"
    assert "prunable: last.weight, inner.weight" in lines
    assert "not prunable (frozen): first.weight, first.bias" in lines
    assert "whole units are never pruned of: last.weight" in lines


class InAList(nn.Module):
    """A layer that the network does not know, for it is in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(4, 5)]
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden[0](x).tanh())


class Empty(nn.Module):
    """A parameter without entries."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(0, 4))
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) + self.nothing.sum()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            InAList(),
            r"depend on a tensor of shape \(5,?( 4)?\).* no parameter of the network; keep layers in nn.ModuleList",
        ),
        (Empty(), r"'nothing' has shape \(0, 4\), no entry to sample"),
        (nn.DataParallel(nn.Linear(4, 3)), r"cannot be run with given weights \(.*DataParallel.*\); return the plain"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
            "returns probabilities, rows that sum to 1; it must return logits",
        ),
    ],
)
def test_networks_of_strangers_are_refused_in_one_line(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        rehearse(model, torch.randn(8, 4), torch.arange(8) % 3, likelihoods.categorical, 3)
    assert "\n" not in str(caught.value)


def test_log_probabilities_are_logits() -> None:
    found = rehearse(
        nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)),
        torch.randn(8, 4),
        torch.arange(8) % 3,
        likelihoods.categorical,
        3,
    )
    assert (found.output_shape, found.departures) == ((3,), ())


def test_inputs_that_are_not_finite_are_named() -> None:
    inputs = torch.randn(8, 4)
    inputs[2, 1] = float("nan")
    with pytest.raises(ValueError, match="inputs of example 2 hold a number that is not finite"):
        rehearse(nn.Linear(4, 3), inputs, torch.arange(8) % 3, likelihoods.categorical, 3)


class StochasticDepth(Net):
    """A branch that whole batches skip."""

    def __init__(self) -> None:
        super().__init__(inner=nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if not self.training or bool(torch.rand(()) < 0.5):
            x = x + self.inner(x)
        return self.last(x)


def test_a_branch_that_is_skipped_at_times_is_randomness_and_no_reason_to_refuse() -> None:
    for seed in range(4):
        torch.manual_seed(seed)  # the caller's seed does not matter
        assert [line.split(":")[0] for line in rehearsed(StochasticDepth()).departures] == ["randomness in the network"]


class HeldNorm(Net):
    """Batch normalisation in evaluation mode whatever happens, as in fine-tuning."""

    def __init__(self) -> None:
        super().__init__(lambda self, x: self.norm(x), norm=nn.BatchNorm1d(8))

    def train(self, mode: bool = True) -> "HeldNorm":
        super().train(mode)
        self.norm.eval()
        return self


def test_batch_normalisation_that_is_held_neither_interacts_nor_is_estimated_anew() -> None:
    model = HeldNorm()
    assert rehearsed(model).departures == ()
    assert batchnorm.reestimate(model, [data()[0]]) == 0
    assert batchnorm.reestimate(Net(lambda self, x: self.norm(x), norm=nn.BatchNorm1d(8)), [data()[0]]) == 1


def test_a_weight_named_like_a_part_of_another_is_prunable() -> None:
    model = Net(q=nn.Linear(2, 2))
    model.q.weight_v = nn.Parameter(torch.ones(2, 2))
    assert "q.weight_v" in prunable(model)


def test_outputs_along_the_second_dimension_and_behind_a_zero_head() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(5, CLASSES))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.first).tanh() @ self.last

    torch.manual_seed(0)
    assert output_weights(Product(), data()[0], dim=1) == {"last"}
    assert output_weights(Product(), data()[0]) == set()
    model = nn.Sequential(nn.Linear(6, CLASSES), nn.Tanh(), nn.Linear(CLASSES, CLASSES))
    nn.init.zeros_(model[2].weight)
    assert output_weights(model, data()[0]) == {"2.weight"}
