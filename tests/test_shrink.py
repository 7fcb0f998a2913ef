"""Physically smaller networks: the same function as the masked one, and as small as they can be."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from sgmcmc_prune import models
from sgmcmc_prune.likelihoods.gaussian import LearnedNoise
from sgmcmc_prune.models import num_parameters
from sgmcmc_prune.models.normalisation import FilterResponseNorm, ThresholdedLinear
from sgmcmc_prune.models.resnet import BasicBlock, Bottleneck, ResNet
from sgmcmc_prune.models.wide_resnet import WideResNet
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.shrink import shrink, why_not_shrinkable

IMAGE = (3, 32, 32)


def residual(normalisation: str, block: type[nn.Module] = BasicBlock) -> nn.Module:
    options = {"blocks": (1, 1), "width": 16, "block": block, "projection": block is Bottleneck}
    return ResNet((3, 8, 8), 5, normalisation=normalisation, **options)


def sequential() -> nn.Module:
    """Padded and unpadded convolutions with biases, all kinds of normalisation, a channel of several columns."""
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 8, 3, stride=2, padding=1), FilterResponseNorm(8), ThresholdedLinear(8)]
    third = [nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6, affine=False), nn.SiLU(), nn.AvgPool2d(2, padding=1)]
    return nn.Sequential(*first, *second, *third, nn.Flatten(), nn.Linear(6 * 9, 7), nn.Tanh(), nn.Linear(7, 4))


MODELS = {
    "mlp": (lambda: models.MLP((6,), 3, (8, 6)), (6,)),
    "mlp tanh": (lambda: models.MLP((6,), 3, (8, 6), activation="tanh"), (6,)),
    "lenet": (lambda: models.LeNet((1, 28, 28), 10), (1, 28, 28)),
    "sequential": (sequential, (3, 12, 12)),
    "vgg": (lambda: models.build("vgg16", IMAGE, 10, seed=0), IMAGE),
    "vgg frn": (lambda: models.build("vgg16", IMAGE, 10, seed=0, normalisation="filter_response_swish"), IMAGE),
    "resnet": (lambda: residual("batch"), (3, 8, 8)),
    "resnet frn": (lambda: residual("filter_response"), (3, 8, 8)),
    "resnet group": (lambda: residual("group"), (3, 8, 8)),
    "bottleneck": (lambda: residual("batch", Bottleneck), (3, 8, 8)),
    "wide resnet": (lambda: WideResNet((3, 8, 8), 5, depth=10, widening=1), (3, 8, 8)),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def make_random(model: nn.Module) -> nn.Module:
    """Give biases, affine parameters and running statistics values that matter; evaluation mode."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.ndim == 1:
            value.uniform_(0.5, 1.5) if name.endswith(("weight", "running_var")) else value.normal_(std=0.5)
    return model.eval()


def node_mask(model: nn.Module, share: float, skip: tuple[str, ...] = ()) -> masks.Mask:
    """Mask a share of all whole nodes and a third of the other weights; the outputs stay."""
    found = {}
    *inner, last = masks.prunable(model).items()
    for name, p in inner:
        kept = torch.rand(len(p)) >= share
        kept[0] = True
        found[name] = (torch.rand_like(p) > 1 / 3) & (kept | (name in skip)).view(-1, *[1] * (p.ndim - 1))
    return found | {last[0]: torch.ones_like(last[1], dtype=torch.bool)}


def masked(model: nn.Module, mask: masks.Mask) -> nn.Module:
    network = copy.deepcopy(model)
    masks.apply(mask, dict(network.named_parameters()))
    return network


@torch.no_grad()
def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("name", MODELS)
def test_masked_equals_shrunk(name: str, share: float) -> None:
    make, shape = MODELS[name]
    model = make_random(make())
    before = copy.deepcopy(model.state_dict())
    mask, inputs = node_mask(model, share), torch.randn(3, *shape)
    small = shrink(model, mask, inputs[:1]).model
    expected = outputs(masked(model, mask), inputs)
    torch.testing.assert_close(outputs(small, inputs), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    if name != "resnet group":  # a group's statistics hold all its channels
        assert num_parameters(small) < num_parameters(model)
        assert multiply_adds(small, inputs) < multiply_adds(model, inputs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not small.training


def whole_nodes(model: nn.Module, kept: dict[str, int]) -> masks.Mask:
    """Keep the last so many nodes of some layers, and every weight of theirs."""
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(model).items()}
    for name, count in kept.items():
        mask[f"{name}.weight"][:-count] = False
    return mask


def test_lenet_is_as_small_as_it_can_be() -> None:
    model = make_random(models.LeNet((1, 28, 28), 10))
    mask, example = whole_nodes(model, {"conv1": 4, "conv2": 10, "conv3": 80, "fc1": 50}), torch.randn(1, 1, 28, 28)
    shrunk = shrink(model, mask, example)
    small = shrunk.model
    # No later convolution pads, so that all constants went into biases.
    sizes = ((25 + 1) * 4, (4 * 25 + 1) * 10, (10 * 25 + 1) * 80, (80 + 1) * 50, (50 + 1) * 10)
    assert num_parameters(small) == sum(sizes)
    positions = (28 * 28 * 25 * 4, 10 * 10 * 4 * 25 * 10, 10 * 25 * 80, 80 * 50, 50 * 10)
    assert multiply_adds(small, example) == sum(positions)
    assert (small.conv2.in_channels, small.conv2.out_channels, small.fc1.in_features) == (4, 10, 80)
    assert shrunk.obstacles.keys() == {"fc2"}


def test_constants_of_removed_nodes_count() -> None:
    """The same network without the biases of its masked nodes is another function: dropping them is no option."""
    model = make_random(models.LeNet((1, 28, 28), 10))
    mask, inputs = whole_nodes(model, {"conv2": 4}), torch.randn(2, 1, 28, 28)
    expected = outputs(masked(model, mask), inputs)
    shrunk = shrink(model, mask, inputs[:1])
    torch.testing.assert_close(outputs(shrunk.model, inputs), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        model.conv2.bias[:-4] = 0
    assert float((outputs(masked(model, mask), inputs) - expected).abs().max()) > 0.05


def test_behind_padding_one_constant_node_stays() -> None:
    model = make_random(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 5, 3, padding=1)))
    mask, inputs = whole_nodes(model, {"0": 3}), torch.randn(2, 3, 6, 6)
    small = shrink(model, mask, inputs[:1]).model
    assert small[0].out_channels == 3 + 1
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        model[0].bias.zero_()  # tanh(0) = 0: nothing to carry
    assert shrink(model, mask, inputs[:1]).model[0].out_channels == 3


def test_a_node_that_reads_constants_is_constant_unless_padding_shows() -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)]
    plain = make_random(nn.Sequential(*layers))
    padded = copy.deepcopy(plain)
    padded[2].padding = (1, 1)
    with torch.no_grad():
        plain[0].bias.fill_(1.0)
        padded[0].bias.fill_(1.0)
    for model, nodes in ((plain, 2), (padded, 4)):
        mask, inputs = whole_nodes(model, {"0": 2}), torch.randn(2, 1, 9, 9)
        mask["2.weight"][:2, 2:] = False  # these two read the two constant nodes alone
        small = shrink(model, mask, inputs[:1]).model
        assert small[2].out_channels == nodes
        torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=1e-5, atol=1e-5)


def test_nodes_that_nobody_reads_go_too() -> None:
    model = make_random(models.MLP((6,), 3, (8, 6)))
    mask, inputs = whole_nodes(model, {}), torch.randn(4, 6)
    mask["layers.2.weight"][:, :4] = False  # then four nodes of layer 1 are not read,
    mask["layers.1.weight"][4:, :5] = False  # and five of layer 0 only by those four
    small = shrink(model, mask, inputs[:1]).model
    assert [layer.out_features for layer in small.layers] == [3, 2, 3]
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=1e-5, atol=1e-5)


def test_everything_masked_still_predicts() -> None:
    model = make_random(models.LeNet((1, 28, 28), 10))
    mask = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in masks.prunable(model).items()}
    small = shrink(model, mask, torch.randn(1, 1, 28, 28)).model
    inputs = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs))
    assert small.conv1.out_channels == small.fc1.out_features == 1


def test_index_maps_take_state_along() -> None:
    model = make_random(models.LeNet((1, 28, 28), 10))
    mask = whole_nodes(model, {"conv2": 10, "fc1": 50})
    shrunk = shrink(model, mask, torch.randn(1, 1, 28, 28))
    momentum = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    shapes = {name: p.shape for name, p in shrunk.model.named_parameters()}
    assert {name: m.shape for name, m in shrunk.select(momentum).items()} == shapes
    assert torch.equal(shrunk.select(momentum)["conv3.weight"], momentum["conv3.weight"][:, 6:])
    weights = shrunk.select(dict(model.named_parameters()))
    assert all(torch.equal(weights[n], p) for n, p in shrunk.model.named_parameters() if n.endswith("weight"))
    assert all(bool(kept.all()) for kept in shrunk.select(mask).values())


def test_residual_streams_that_are_padded_with_channels_stay() -> None:
    model = make_random(residual("batch"))
    shrunk = shrink(model, node_mask(model, 0.7), torch.randn(1, 3, 8, 8))
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, p in shrunk.model.named_parameters():
        inner = "conv1" in name or "norm1" in name or "conv2.weight" in name
        assert p.shape == shapes[name] or inner
    assert shrunk.model.blocks[0].conv1.out_channels < 16
    assert "'pad'" in shrunk.obstacles["blocks.0.conv2"]


class Stream(nn.Module):
    """A residual stream of eight channels, and a reader; no layer behind the first pads or lacks a bias."""

    def __init__(self, padding: int = 0) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 5, 3, padding=padding)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 6, 1), nn.Tanh(), nn.Conv2d(6, 8, 1)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = torch.relu(x + branch(x))
        return self.wide(x)


@pytest.mark.parametrize("padding", [0, 1])
def test_channels_that_every_branch_of_a_sum_leaves_empty_go(padding: int) -> None:
    """Channels 0 to 4 are written by nobody, and 5 by the stem alone; behind padding one carries the constants."""
    model = make_random(Stream(padding))
    mask = whole_nodes(model, {"stem": 3, "branches.0.2": 2, "branches.1.2": 2})
    shrunk, inputs = shrink(model, mask, torch.randn(2, 2, 7, 7)), torch.randn(5, 2, 7, 7)
    sizes = [shrunk.model.stem.out_channels, shrunk.model.branches[1][2].out_channels, shrunk.model.wide.in_channels]
    assert sizes == [3 + padding] * 3
    assert shrunk.obstacles.keys() == {"wide"}
    torch.testing.assert_close(outputs(shrunk.model, inputs), outputs(masked(model, mask), inputs))


def test_channels_of_a_sum_that_nobody_reads_go() -> None:
    model = make_random(Stream(1))
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(model).items()}
    for name in ("wide", "branches.0.0", "branches.1.0"):
        mask[f"{name}.weight"][:, :3] = False
    mask["branches.1.0.weight"][:, 3:5] = False  # two that others read
    small, inputs = shrink(model, mask, torch.randn(2, 2, 7, 7)).model, torch.randn(5, 2, 7, 7)
    assert (small.stem.out_channels, small.branches[0][2].out_channels, small.wide.in_channels) == (5, 5, 5)
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs))


class Joined(nn.Module):
    """Two branches side by side, a normalisation over both, and a reader; the first is read a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 6, 3, padding=1)
        self.norm, self.read, self.again = nn.BatchNorm2d(10), nn.Conv2d(10, 3, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.read(self.norm(torch.cat([a, self.b(x)], dim=1)).relu()) + self.again(a)


class Twice(Joined):
    """One branch on both sides of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.read = nn.BatchNorm2d(14), nn.Conv2d(14, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.read(self.norm(torch.cat([a, self.b(x), a], 1)).relu()) + self.again(a)


def test_a_branch_that_is_concatenated_twice_stays() -> None:
    model = make_random(Twice())
    mask, inputs = whole_nodes(model, {"a": 3, "b": 2}), torch.randn(3, 2, 5, 5)
    shrunk = shrink(model, mask, inputs[:2])
    assert "'cat'" in shrunk.obstacles["a"]
    torch.testing.assert_close(outputs(shrunk.model, inputs), outputs(masked(model, mask), inputs))


class Chosen(nn.Module):
    """Two readers of four channels each, or one of all of them shuffled: sizes are written into the forward."""

    def __init__(self, shuffle: bool) -> None:
        super().__init__()
        self.shuffle = shuffle
        self.a, self.b, self.c = nn.Conv2d(2, 8, 3), nn.Conv2d(8 if shuffle else 4, 3, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        if self.shuffle:
            return self.b(x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2))
        return self.b(x[:, :4]) + self.c(x[:, 4:])


@pytest.mark.parametrize(("shuffle", "reason"), [(True, "'b' reads its nodes in another order"), (False, "'getitem'")])
def test_channels_that_are_chosen_or_shuffled_by_number_stay(shuffle: bool, reason: str) -> None:
    model = make_random(Chosen(shuffle))
    mask, inputs = whole_nodes(model, {"a": 3}), torch.randn(3, 2, 6, 6)
    shrunk = shrink(model, mask, inputs[:2])
    assert reason in shrunk.obstacles["a"]
    assert num_parameters(shrunk.model) == num_parameters(model)
    torch.testing.assert_close(outputs(shrunk.model, inputs), outputs(masked(model, mask), inputs))


def test_channels_are_cut_out_of_a_concatenation() -> None:
    model = make_random(Joined())
    shrunk = shrink(model, whole_nodes(model, {"a": 3, "b": 2}), torch.randn(2, 2, 5, 5))
    small, inputs = shrunk.model, torch.randn(4, 2, 5, 5)
    sizes = (small.a.out_channels, small.b.out_channels, small.norm.num_features, small.read.in_channels)
    assert (*sizes, small.again.in_channels) == (3, 2, 5, 5, 3)
    assert shrunk.kept["norm.weight"][0].tolist() == [1, 2, 3, 8, 9]
    expected = outputs(masked(model, whole_nodes(model, {"a": 3, "b": 2})), inputs)
    torch.testing.assert_close(outputs(small, inputs), expected)


class FixedView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(-1, 16))


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x))  # the linear layer reads the width, not the channels


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (FixedView(), (1, 4, 4), "FixedView cannot run with fewer channels.*flatten"),
    ],
)
def test_what_cannot_be_shrunk_is_named(model: nn.Module, shape: tuple[int, ...], message: str) -> None:
    mask = whole_nodes(model, {"conv": 2}) if hasattr(model, "conv") else {}
    with pytest.raises(ValueError, match=message):
        shrink(make_random(model), mask, torch.randn(1, *shape))


@pytest.mark.parametrize(
    ("model", "shape", "layer", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)), (4,), "0", "'1', a LayerNorm, whose"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.LayerNorm(4), nn.Conv2d(4, 2, 3)), (1, 6, 6), "0", "'1', a LayerNorm"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(5), nn.Flatten(), nn.Linear(15, 2)),
            (5, 4),
            "0",
            "'1', a BatchNorm1d, which mixes channels or",
        ),
        (nn.Sequential(nn.Linear(4, 4), nn.MaxPool2d(2), nn.Linear(2, 2)), (1, 4, 4), "0", "'1', a MaxPool2d"),
        (nn.Sequential(nn.Linear(6, 6), nn.Conv1d(5, 2, 3)), (5, 6), "0", "'1' reads its nodes in another order"),
        (nn.Sequential(nn.Conv2d(1, 4, 3, groups=1), nn.PixelShuffle(2), nn.Conv2d(1, 2, 1)), (1, 6, 6), "0", "Pixel"),
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 8, 3, groups=4)), (1, 6, 6), "0", "'1', a Conv2d, which mixes"),
    ],
)
def test_structure_whose_coupling_is_unknown_stays_and_is_named(
    model: nn.Module, shape: tuple[int, ...], layer: str, reason: str
) -> None:
    make_random(model)
    mask, inputs = whole_nodes(model, {layer: 2}), torch.randn(3, *shape)
    shrunk = shrink(model, mask, inputs)
    assert reason in shrunk.obstacles[layer]
    torch.testing.assert_close(outputs(shrunk.model, inputs), outputs(masked(model, mask), inputs))
    assert num_parameters(shrunk.model) == num_parameters(model)


def test_a_reader_along_another_dimension_is_none() -> None:
    model = make_random(Shuffled())
    shrunk = shrink(model, whole_nodes(model, {"conv": 2}), torch.randn(1, 1, 6, 6))
    assert num_parameters(shrunk.model) == num_parameters(model)
    assert "'head' reads its nodes in another order" in shrunk.obstacles["conv"]


def test_a_mask_that_does_not_fit_is_refused() -> None:
    model = models.MLP((6,), 3, (4,))
    with pytest.raises(ValueError, match="no parameter"):
        shrink(model, {"absent": torch.ones(2, dtype=torch.bool)}, torch.randn(1, 6))
    with pytest.raises(TypeError, match=r"must be torch\.bool"):
        shrink(model, {"layers.0.weight": torch.ones(4, 6)}, torch.randn(1, 6))


def test_without_a_mask_nothing_goes() -> None:
    model = make_random(sequential())
    shrunk = shrink(model, {}, torch.randn(2, *MODELS["sequential"][1]))
    assert num_parameters(shrunk.model) == num_parameters(model)
    assert shrunk.kept == {}


class Places(nn.Module):
    """Linear layers at each place of a sequence, then a mean or a flattening, with or without functional dropout."""

    def __init__(self, end: str, dropout: float) -> None:
        super().__init__()
        self.end, self.dropout = end, dropout
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 6)
        self.c = nn.Linear(6 * 4 if end == "flatten" else 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(self.a(x).relu(), self.dropout, training=self.training)
        x = self.b(x).relu()
        return self.c(x.flatten(1) if self.end == "flatten" else x.mean(1))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["mean", "flatten", "pixels"]),
    st.sampled_from([0.0, 0.4]),
    st.booleans(),
    st.floats(0.2, 0.95),
    st.integers(0, 10**6),
)
def test_a_cut_network_is_the_masked_network_on_any_input(
    end: str, dropout: float, training: bool, share: float, seed: int
) -> None:
    """In training mode, too, and whatever the network does between its layers; or it is refused."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 2), nn.Flatten(), nn.Linear(36, 3))
    shape: tuple[int, ...] = (2, 4, 4)
    if end != "pixels":
        model, shape = Places(end, dropout), (4, 5)
    make_random(model).train(training)
    mask = {n: (torch.rand(len(p)) > share).view(-1, *[1] * (p.ndim - 1)).expand(p.shape).clone()
            for n, p in model.named_parameters() if p.ndim > 1}  # fmt: skip
    small = shrink(model, mask, torch.randn(1, *shape)).model.eval()
    inputs = 3 * torch.randn(20, *shape)
    expected = outputs(masked(model, mask).eval(), inputs)
    torch.testing.assert_close(
        outputs(small, inputs), expected, rtol=1e-5, atol=1e-5 * (1 + float(expected.abs().max()))
    )


def test_nodes_go_from_every_place_that_is_flattened() -> None:
    model = make_random(Places("flatten", 0.0))
    mask = whole_nodes(model, {"b": 2, "a": 3})
    shrunk, inputs = shrink(model, mask, torch.randn(1, 4, 5)), torch.randn(7, 4, 5)
    assert (shrunk.model.a.out_features, shrunk.model.b.out_features, shrunk.model.c.in_features) == (3, 2, 8)
    torch.testing.assert_close(outputs(shrunk.model, inputs), outputs(masked(model, mask), inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2)), "computed from other"),
        (lambda: tied_layers(), "'2.weight' and '0.weight' are one parameter"),
        (lambda: Branching(), "cannot be traced"),
    ],
)
def test_shared_and_computed_weights_are_not_cut(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shrink(make(), {}, torch.randn(1, 4))


class Returns(nn.Module):
    """Gives something else than one tensor."""

    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.made = nn.Linear(4, 2), made

    def forward(self, x: Tensor) -> Any:
        return self.made(self.layer(x))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3))), "cannot be copied .*parametrizations do not$"),
        (lambda: nn.utils.weight_norm(nn.GRU(4, 3), "weight_ih_l0"), "cannot be copied .* keeps a weight that it comp"),
        (lambda: nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), "'0.weight' has no shape yet; pass one batch thr"),
        (lambda: Returns(lambda y: (y, y)), "the network returns a tuple; it must return one tensor"),
        (lambda: Returns(lambda y: {"y": y}), "the network returns a dict; it must return one tensor"),
    ],
)
def test_networks_that_cannot_be_cut_are_named_in_one_line(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        shrink(make(), {}, torch.randn(3, 4))
    assert "\n" not in str(caught.value)
    assert why_not_shrinkable(make(), torch.randn(3, 4)) == str(caught.value)


@pytest.mark.parametrize(
    ("model", "example", "kind", "message"),
    [
        ("x", torch.randn(3, 4), TypeError, "model is a str; it must be an nn.Module"),
        (nn.Linear(4, 2), [[0.0] * 4], TypeError, "example is a list; it must be a tensor"),
        (
            nn.Linear(4, 2),
            torch.randn(0, 4),
            ValueError,
            r"example has shape \(0, 4\); it must hold at least one input",
        ),
    ],
)
def test_what_is_no_network_and_no_example_is_refused(
    model: Any, example: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        shrink(model, {}, example)


def tied_layers() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


class Branching(nn.Module):
    """An error of a kind of its own under tracing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer({torch.Size([1, 4]): x}[x.shape])


def test_a_network_with_a_learned_noise_is_cut_in_its_inside() -> None:
    model = make_random(LearnedNoise(models.MLP((4,), 2, (8, 6)), 2))
    mask, inputs = whole_nodes(model, {"network.layers.0": 3}), torch.randn(5, 4)
    shrunk = shrink(model, mask, inputs)
    assert shrunk.model.network.layers[0].out_features == 3
    assert shrunk.model.log_noise.shape == (2,)
    torch.testing.assert_close(outputs(shrunk.model, inputs), outputs(masked(model, mask), inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_below_float32_is_cut_to_its_own_rounding(dtype: torch.dtype) -> None:
    model = make_random(nn.Sequential(nn.Linear(7, 12), nn.Tanh(), nn.Linear(12, 3))).to(dtype)
    mask, inputs = whole_nodes(model, {"0": 9}), torch.randn(5, 7).to(dtype)
    small = shrink(model, mask, inputs).model
    assert small[0].out_features == 9
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=0.02, atol=0.02)
