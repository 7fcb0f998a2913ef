"""Ordinary users' networks, cut under random masks: the outputs of the masked network, and never a larger one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_shrink import MODELS, make_random, masked, outputs, whole_nodes
from torch import Tensor, nn

from sgmcmc_prune import models
from sgmcmc_prune.models import num_parameters
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.shrink import shrink
from sgmcmc_prune.store.network import About, load_network, save_network


class Sum(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Concatenation(Sum):
    """A layer of a DenseNet: x and branch(x), side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.branch(x)], 1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.up(torch.relu(self.down(x.mean((2, 3))))).sigmoid()
        return x * gates[:, :, None, None]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        attention = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
        return self.out((attention @ v).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """Words or vectors, learned positions, one block of attention and one feedforward network."""

    def __init__(self, read: nn.Module, width: int = 8, length: int = 5) -> None:
        super().__init__()
        self.read, self.positions = read, nn.Parameter(torch.randn(length, width))
        feedforward = [nn.LayerNorm(width), nn.Linear(width, 12), nn.GELU(), nn.Dropout(0.1), nn.Linear(12, width)]
        self.blocks = nn.Sequential(
            Sum(nn.Sequential(nn.LayerNorm(width), Attention(width, 2))), Sum(nn.Sequential(*feedforward))
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.read(x) + self.positions)[:, 0])


class Tokens(nn.Module):
    """Convolutions over a sequence; linear layers at each place of it; their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.inner, self.last = nn.Conv1d(4, 8, 3, padding=1), nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.conv(x).relu().transpose(1, 2) * 2)
        return self.last(torch.tanh(x).mean(1))


class Recurrent(nn.Module):
    """A feedforward network, a recurrent layer, another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.read = nn.Linear(4, 9), nn.Linear(9, 6)
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.hidden, self.head = nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(self.read(self.first(x).relu()))
        return self.head(self.hidden(states[:, -1]).relu())


def cnn_1d() -> nn.Module:
    first = [nn.Conv1d(3, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*first, nn.Conv1d(8, 6, 3), nn.GELU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, 4))


def cnn_3d() -> nn.Module:
    first = [nn.Conv3d(2, 6, 3, padding=1, bias=False), nn.BatchNorm3d(6), nn.ReLU(), nn.AvgPool3d(2)]
    return nn.Sequential(*first, nn.Conv3d(6, 5, 2), nn.SiLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(5, 3))


def separable() -> nn.Module:
    """An inverted residual of MobileNet, and a depthwise convolution that does not pad."""
    inner = [nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6()]
    depthwise = [nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6()]
    block = Sum(nn.Sequential(*inner, *depthwise, nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4)))
    last = [nn.Conv2d(4, 10, 1), nn.SiLU(), nn.Conv2d(10, 10, 3, groups=10), nn.BatchNorm2d(10), nn.Hardswish()]
    return nn.Sequential(nn.Conv2d(3, 4, 3), block, *last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3))


def prelu_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.PReLU(9), nn.Linear(9, 7), nn.PReLU(), nn.Linear(7, 3))


def group_norm() -> nn.Module:
    """Residual blocks, with a group normalisation within and a plain inner convolution in the other."""
    normalised = [nn.Conv2d(6, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1)]
    plain = [nn.GroupNorm(3, 6), nn.Conv2d(6, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 6, 1)]
    blocks = [Sum(nn.Sequential(*normalised)), Sum(nn.Sequential(*plain))]
    return nn.Sequential(nn.Conv2d(3, 6, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def small_groups() -> nn.Module:
    """Groups of two channels, within a residual branch and on the stream."""
    branch = [nn.Conv2d(8, 12, 3, padding=1), nn.GroupNorm(6, 12), nn.Tanh(), nn.Conv2d(12, 8, 3, padding=1)]
    first = [nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU()]
    last = [nn.GroupNorm(4, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(*first, Sum(nn.Sequential(*branch, nn.GroupNorm(2, 8))), *last)


def dense_net() -> nn.Module:
    def layer(channels: int) -> nn.Module:
        first = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 10, 1, bias=False)]
        return Concatenation(nn.Sequential(*first, nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 3, 3, padding=1)))

    return nn.Sequential(nn.Conv2d(3, 4, 3), layer(4), layer(7), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(90, 3))


def autoencoder() -> nn.Module:
    down = [nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()]
    up = [nn.ConvTranspose2d(8, 7, 2, stride=2), nn.BatchNorm2d(7), nn.ReLU()]
    again = [nn.ConvTranspose2d(7, 5, 3, stride=2, padding=1, output_padding=1), nn.Upsample(scale_factor=2)]
    return nn.Sequential(*down, *up, *again, nn.InstanceNorm2d(5, affine=True), nn.Conv2d(5, 1, 3, padding=1))


def squeeze_excite() -> nn.Module:
    first = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), SqueezeExcite(6, 8)]
    return nn.Sequential(*first, nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


def grouped() -> nn.Module:
    """A block of a ResNeXt: nothing but the last inner layer can go."""
    first = [nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(8, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def mixer() -> nn.Module:
    return models.MLPMixer((3, 8, 8), 4, patch=4, width=8, depth=2, token_hidden=6, channel_hidden=10)


def vit() -> nn.Module:
    return models.VisionTransformer((3, 8, 8), 4, patch=4, width=8, depth=2, heads=2, hidden=10)


WORDS = (5,)
FOREIGN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1-D": (cnn_1d, (3, 12)),
    "3-D": (cnn_3d, (2, 6, 6, 6)),
    "depthwise separable": (separable, (3, 8, 8)),
    "prelu": (prelu_mlp, (6,)),
    "group norm": (group_norm, (3, 8, 8)),
    "small groups": (small_groups, (3, 8, 8)),
    "dense net": (dense_net, (3, 8, 8)),
    "mixer": (mixer, (3, 8, 8)),
    "vision transformer": (vit, (3, 8, 8)),
    "transformer": (lambda: Encoder(nn.Linear(4, 8)), (5, 4)),
    "language": (lambda: Encoder(nn.Embedding(11, 8)), WORDS),
    "autoencoder": (autoencoder, (1, 8, 8)),
    "squeeze and excite": (squeeze_excite, (3, 8, 8)),
    "tokens": (Tokens, (4, 6)),
    "recurrent": (Recurrent, (6, 4)),
    "grouped": (grouped, (3, 6, 6)),
}
#: Of the library's, all but those for large images, which `test_shrink` cuts.
LIBRARY = {name: MODELS[name] for name in MODELS if not name.startswith("vgg")}


def examples(shape: tuple[int, ...], count: int) -> Tensor:
    return torch.randint(11, (count, *shape)) if shape is WORDS else torch.randn(count, *shape)


def random_mask(model: nn.Module) -> masks.Mask:
    """Single weights and whole nodes at random, in shares at random; here and there a whole layer."""
    found = {}
    for name, p in masks.prunable(model).items():
        weights, nodes, inputs = torch.rand(3).tolist()
        shape = (-1, *[1] * (p.ndim - 1))
        kept = (torch.rand(p.shape) >= 0.5 * weights) & (torch.rand(len(p)) >= nodes).view(shape)
        found[name] = kept & (torch.rand(p.shape[1]) >= 0.5 * inputs).view(1, *shape[:-1])
    return found


def check(name: str, count: int, dtype: torch.dtype, tolerance: float) -> int:
    """Cut under so many masks; return how many networks became smaller."""
    make, shape = (FOREIGN | LIBRARY)[name]
    smaller = 0
    for seed in range(count):
        torch.manual_seed(seed)
        model = make_random(make()).to(dtype)
        inputs = examples(shape, 4)
        inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
        mask = random_mask(model)
        small = shrink(model, mask, inputs[:2]).model
        expected, found = outputs(masked(model, mask), inputs), outputs(small, inputs)
        scale = float(expected.abs().max())
        assert float((found - expected).abs().max()) <= tolerance * (scale + 1e-3), (name, seed)
        assert num_parameters(small) <= num_parameters(model)
        smaller += num_parameters(small) < num_parameters(model)
    return smaller


@pytest.mark.parametrize("name", FOREIGN | LIBRARY)
def test_cut_is_masked_under_random_masks(name: str) -> None:
    assert check(name, 4, torch.float64, 1e-10) > 0 or name == "resnet group"
    check(name, 2, torch.float32, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN | LIBRARY)
def test_cut_is_masked_under_two_hundred_random_masks(name: str) -> None:
    check(name, 200, torch.float64, 1e-10)
    check(name, 200, torch.float32, 1e-5)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_cut_network_is_read_from_its_file(name: str, tmp_path: Path) -> None:
    make, shape = FOREIGN[name]
    torch.manual_seed(1)
    model, inputs = make_random(make()), examples(shape, 4)
    small = shrink(model, random_mask(model), inputs[:2]).model
    expected = outputs(small, inputs)
    save_network(tmp_path / "net.safetensors", small, About("user:make", None, shape, 3, (0.0,), (1.0,)))
    read, _ = load_network(tmp_path / "net.safetensors", lambda input_shape, num_classes: make())
    torch.testing.assert_close(outputs(read, inputs), expected, rtol=0, atol=0)
    assert repr(read) == repr(small)  # it says the sizes that it has
    again = shrink(read, {}, inputs[:2]).model
    torch.testing.assert_close(outputs(again, inputs), expected)


@pytest.mark.parametrize("name", ["prelu", "depthwise separable", "autoencoder", "tokens"])
@pytest.mark.slow
def test_a_cut_network_is_exported_by_torch(name: str) -> None:
    make, shape = FOREIGN[name]
    model, inputs = make_random(make()), examples(shape, 4)
    small = shrink(model, random_mask(model), inputs[:2]).model
    exported = torch.export.export(small, (inputs,)).module()
    torch.testing.assert_close(outputs(exported, inputs), outputs(small, inputs))


def test_constants_go_into_biases_behind_padding_that_repeats_them() -> None:
    layers = [nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1, padding_mode="reflect")]
    model, inputs = make_random(nn.Sequential(*layers)), torch.randn(2, 1, 7, 7)
    mask = whole_nodes(model, {"0": 2})
    small = shrink(model, mask, inputs).model
    assert small[0].out_channels == 2
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=1e-5, atol=1e-5)


def test_behind_a_transposed_convolution_one_constant_node_stays() -> None:
    layers = [nn.ConvTranspose2d(2, 6, 2), nn.Tanh(), nn.ConvTranspose2d(6, 3, 3, stride=2)]
    model, inputs = make_random(nn.Sequential(*layers)), torch.randn(2, 2, 4, 4)
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(model).items()}
    mask["0.weight"][:, :4] = False  # its nodes are the second dimension
    small = shrink(model, mask, inputs).model
    assert (small[0].out_channels, small[2].in_channels) == (2 + 1, 2 + 1)
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=1e-5, atol=1e-5)


def test_an_emptied_depthwise_filter_takes_its_channel_along() -> None:
    inner = [nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Tanh()]
    model, inputs = make_random(nn.Sequential(*inner, nn.Conv2d(8, 4, 1))), torch.randn(2, 3, 6, 6)
    mask = whole_nodes(model, {"2": 3})
    small = shrink(model, mask, inputs).model
    assert (small[0].out_channels, small[2].groups, small[2].in_channels, small[4].in_channels) == (3, 3, 3, 3)
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=1e-5, atol=1e-5)


def test_a_group_of_channels_that_are_normalised_together_goes_as_one() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    model, inputs = make_random(nn.Sequential(*layers)), torch.randn(2, 3, 6, 6)
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(model).items()}
    mask["0.weight"][[0, 1, 2, 4]] = False  # one whole group, and one channel each of two
    small = shrink(model, mask, inputs).model
    assert (small[0].out_channels, small[1].num_groups, small[1].num_channels, small[3].in_channels) == (6, 3, 6, 6)
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=1e-5, atol=1e-5)


def test_a_group_normalisation_without_values_of_its_own_stays() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8, affine=False), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    model, inputs = make_random(nn.Sequential(*layers)), torch.randn(2, 3, 6, 6)
    shrunk = shrink(model, whole_nodes(model, {"0": 2}), inputs)
    assert num_parameters(shrunk.model) == num_parameters(model)
    assert "GroupNorm" in shrunk.obstacles["0"]


@pytest.mark.parametrize("what", ["values", "projection", "both, of all"])
def test_a_head_that_gives_nothing_goes_with_its_queries_and_keys(what: str, tmp_path: Path) -> None:
    """Its values are constant (they move to the projection's bias), or nobody reads them. One head stays."""

    def make(*_: object) -> nn.Module:
        return models.VisionTransformer((3, 8, 8), 4, patch=4, width=12, depth=2, heads=3, hidden=10)

    model, inputs = make_random(make()), torch.randn(2, 3, 8, 8)
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(model).items()}
    if what != "projection":
        mask["blocks.0.attention.qkv.weight"][24 + 4 : 24 + 8] = False  # the second of three heads of four channels
    if what != "values":
        mask["blocks.1.attention.proj.weight"][:, 4 if what == "projection" else 0 :] = False
    small = shrink(model, mask, inputs).model
    shapes = [tuple(small.get_submodule(f"blocks.{block}.attention.qkv").weight.shape) for block in (0, 1)]
    assert shapes == [(24 if what != "projection" else 36, 12), (12 if what != "values" else 36, 12)]
    torch.testing.assert_close(outputs(small, inputs), outputs(masked(model, mask), inputs), rtol=1e-5, atol=1e-5)
    save_network(tmp_path / "net.safetensors", small, About("user:make", None, (3, 8, 8), 4, (0.0,), (1.0,)))
    read, _ = load_network(
        tmp_path / "net.safetensors", lambda *_: models.VisionTransformer((3, 8, 8), 4, 4, 12, 2, 3, 10)
    )
    torch.testing.assert_close(outputs(read, inputs), outputs(small, inputs), rtol=0, atol=0)


def test_a_part_of_a_head_stays() -> None:
    model, inputs = make_random(vit()), torch.randn(2, 3, 8, 8)
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(model).items()}
    mask["blocks.0.attention.proj.weight"][:, :3] = False  # three of the four channels of a head
    assert num_parameters(shrink(model, mask, inputs).model) == num_parameters(model)


def test_attention_that_is_called_twice_is_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = models.vit.Attention(8, 2, 0.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(self.attention(x))

    with pytest.raises(ValueError, match="'attention' is used more than once"):
        shrink(make_random(Twice()), {}, torch.randn(2, 5, 8))
