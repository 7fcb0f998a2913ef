"""The vision transformer and the MLP-Mixer: sizes, and the forward pass written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune import models

SMALL = {"patch": 4, "width": 8, "depth": 1}


@pytest.mark.parametrize(
    ("shape", "classes", "vit", "mixer"),
    [
        ((1, 32, 32), 10, 3_186_954, 1_987_722),
        ((3, 32, 32), 10, 3_195_146, 1_995_914),
        ((3, 32, 32), 100, 3_218_276, 2_019_044),
    ],
)
def test_sizes(shape: tuple[int, ...], classes: int, vit: int, mixer: int) -> None:
    for name, count in (("vit", vit), ("mlp-mixer", mixer)):
        model = models.build(name, shape, classes, seed=0)
        assert models.num_parameters(model) == count
        assert model(torch.zeros(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize(("shape", "classes", "count"), [((1, 28, 28), 10, 1_149_010), ((3, 32, 32), 100, 2_338_100)])
def test_the_deep_mlp_of_the_same_paper(shape: tuple[int, ...], classes: int, count: int) -> None:
    model = models.build("mlp", shape, classes, seed=0, widths=(500,) * 4, activation="silu")
    assert models.num_parameters(model) == count


def parameters(model: torch.nn.Module) -> dict[str, Tensor]:
    """Random weights, the normalisations' included."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) / 2)
    return dict(model.named_parameters())


def affine(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def norm(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return x * p[f"{name}.weight"] + p[f"{name}.bias"]


def patches(x: Tensor) -> Tensor:
    """2 channels of 8x8 pixels in four patches of 4x4, row by row; pixels of a channel stay together."""
    rows = [x[:, :, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4)]
    return torch.stack(rows, 1)


IMAGES = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_transformer_is_its_description() -> None:
    model = models.build("vit", (2, 8, 8), 3, seed=0, heads=2, hidden=5, **SMALL)
    p = parameters(model)
    tokens = affine(p, "embedding.linear", patches(IMAGES))
    x = torch.cat([p["tokens"][:1].expand(3, 1, 8), tokens], 1) + p["tokens"][1:]
    h = norm(p, "blocks.0.norm1", x)
    q, k, v = affine(p, "blocks.0.attention.qkv", h).split(8, -1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        attention = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(4)).softmax(-1)
        heads.append(attention @ v[..., part])
    x = x + affine(p, "blocks.0.attention.proj", torch.cat(heads, -1))
    h = F.gelu(affine(p, "blocks.0.feedforward.0", norm(p, "blocks.0.norm2", x)))
    x = x + affine(p, "blocks.0.feedforward.3", h)
    expected = affine(p, "head", norm(p, "norm", x)[:, 0])
    torch.testing.assert_close(model.eval()(IMAGES), expected)


def test_the_mixer_is_its_description() -> None:
    model = models.build("mlp-mixer", (2, 8, 8), 3, seed=0, token_hidden=5, channel_hidden=6, **SMALL)
    p = parameters(model)
    x = affine(p, "embedding.linear", patches(IMAGES))
    h = norm(p, "blocks.0.norm1", x).transpose(1, 2)
    h = affine(p, "blocks.0.token_mixing.3", F.gelu(affine(p, "blocks.0.token_mixing.0", h)))
    x = x + h.transpose(1, 2)
    h = affine(p, "blocks.0.channel_mixing.0", norm(p, "blocks.0.norm2", x))
    x = x + affine(p, "blocks.0.channel_mixing.3", F.gelu(h))
    expected = affine(p, "head", norm(p, "norm", x).mean(1))
    torch.testing.assert_close(model(IMAGES), expected)


def test_dropout_is_for_training() -> None:
    model = models.build("vit", (2, 8, 8), 3, seed=0, heads=2, hidden=5, dropout=0.5, **SMALL)
    torch.manual_seed(0)
    assert not torch.equal(model.train()(IMAGES), model(IMAGES))
    assert torch.equal(model.eval()(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("vit", (1, 28, 30), {}, r"images of shape \(1, 28, 30\) do not divide into patches of 4x4"),
        ("mlp-mixer", (784,), {}, r"images of shape \(784,\) do not divide"),
        ("vit", (1, 32, 32), {"heads": 7}, "width is 256 and heads 7; the heads must divide the width"),
    ],
)
def test_bad_input(name: str, shape: tuple[int, ...], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build(name, shape, 10, seed=0, **options)
