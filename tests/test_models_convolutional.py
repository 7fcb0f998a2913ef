"""The residual networks and VGG: sizes of the papers, what each layer computes, and normalisation chosen by name."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmcmc_prune import models
from sgmcmc_prune.models import resnet, vgg, wide_resnet
from sgmcmc_prune.models.normalisation import NORMALISATIONS, FilterResponseNorm, ThresholdedLinear

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
NETWORKS = resnet.NETWORKS | wide_resnet.NETWORKS | vgg.NETWORKS
LIKELIHOOD_KEEPING = [name for name in NORMALISATIONS if name != "batch"]


def images(n: int, size: int = 32, seed: int = 0) -> Tensor:
    """Random images."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        ("resnet20", CIFAR, 10, 269_722),
        ("resnet32", CIFAR, 10, 464_154),
        ("resnet32_wide", CIFAR, 10, 1_849_898),
        ("resnet20_wide", CIFAR, 10, 1_073_962),
        ("resnet20_frn_swish", CIFAR, 10, 274_042),
        ("resnet18", CIFAR, 10, 11_173_962),
        ("resnet18", CIFAR, 100, 11_220_132),
        ("resnet34", CIFAR, 10, 21_282_122),
        ("resnet34", CIFAR, 100, 21_328_292),
        ("resnet50", IMAGENET, 1000, 25_557_032),
        ("wide_resnet28_10", CIFAR, 10, 36_479_194),
        ("wide_resnet28_10", CIFAR, 100, 36_536_884),
        ("vgg16", CIFAR, 10, 14_724_042),
    ],
)
def test_sizes_are_those_of_the_papers(name: str, shape: tuple, classes: int, count: int) -> None:
    with torch.device("meta"):
        model = NETWORKS[name](shape, classes)
    assert models.num_parameters(model) == count


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_logits(name: str) -> None:
    with torch.device("meta"):
        model = NETWORKS[name](CIFAR, 7)
        assert model(torch.empty(2, *CIFAR)).shape == (2, 7)


@pytest.mark.parametrize("normalisation", LIKELIHOOD_KEEPING)
def test_without_batch_normalisation_an_example_does_not_depend_on_its_minibatch(normalisation: str) -> None:
    model = models.build("resnet20", CIFAR, 10, seed=0, normalisation=normalisation).double()
    x = images(3).double()
    torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-10, atol=1e-10)


def test_with_batch_normalisation_it_does() -> None:
    model = models.build("resnet20", CIFAR, 10, seed=0)
    x = images(3)
    assert not torch.allclose(model(x)[:1], model(x[:1]), atol=1e-2)


def test_filter_response_is_its_equations() -> None:
    norm, threshold = FilterResponseNorm(3), ThresholdedLinear(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    nn.init.normal_(threshold.threshold)
    x = images(2, 5)
    for n in range(2):
        for c in range(3):
            nu2 = (x[n, c] ** 2).sum() / 25
            y = norm.weight[c] * x[n, c] / (nu2 + 1e-6) ** 0.5 + norm.bias[c]
            torch.testing.assert_close(norm(x)[n, c], y)
            torch.testing.assert_close(threshold(x)[n, c], y.new_tensor(0) + x[n, c].clamp(min=threshold.threshold[c]))


def test_group_norm_has_groups_of_sixteen_channels() -> None:
    norms = [m for m in NETWORKS["resnet20"](CIFAR, 10, normalisation="group").modules() if isinstance(m, nn.GroupNorm)]
    assert {(m.num_channels, m.num_groups) for m in norms} == {(16, 1), (32, 2), (64, 4)}


def test_shortcut_without_parameters_subsamples_and_pads_with_zeros() -> None:
    x = images(1, 4)
    y = resnet.Subsample(4, 2)(x)
    assert y.shape == (1, 7, 2, 2)
    assert torch.equal(y[:, 2:5], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 5:].any()


def test_a_basic_block_is_its_description() -> None:
    block = models.build("resnet20", CIFAR, 10, seed=0).blocks[3].eval()
    p = dict(block.named_parameters())
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    y = F.conv2d(x, p["conv1.weight"], stride=2, padding=1) / (1 + 1e-5) ** 0.5
    y = F.conv2d(y.relu(), p["conv2.weight"], padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), (y + block.shortcut(x)).relu())


def test_stages_halve_the_image_and_double_the_channels() -> None:
    seen: list[tuple] = []
    with torch.device("meta"):
        model = NETWORKS["resnet50"](IMAGENET, 1000)
        model.blocks.register_forward_hook(lambda module, args, out: seen.extend([args[0].shape, out.shape]))
        model(torch.empty(1, *IMAGENET))
    assert seen == [(1, 64, 56, 56), (1, 2048, 7, 7)]


def test_weights_start_at_the_scale_of_he() -> None:
    weight = models.build("resnet18", CIFAR, 10, seed=0).blocks[-1].conv2.weight.detach()
    # 2,359,296 normal draws: their standard deviation is within 5e-4 relative, one standard error; four are allowed.
    assert float(weight.std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=2e-3)


@pytest.mark.parametrize("name", ["lenet", "mlp", "linear"])
def test_a_network_without_the_choice_says_so(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} has no option 'normalisation'; it has "):
        models.build(name, (1, 28, 28), 10, seed=0, normalisation="group")


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("resnet20", CIFAR, {"normalisation": "layer"}, "normalisation is 'layer'; choose one of batch, group, filter"),
        ("resnet20", (3, 4, 4), {}, r"at least 8 pixels high and wide, not \(3, 4, 4\)"),
        ("vgg16", (3, 28, 28), {}, r"vgg16 takes images .* at least 32 pixels high and wide, not \(3, 28, 28\)"),
        ("resnet20", (784,), {}, r"\(channels, height, width\).* not \(784,\)"),
        ("wide_resnet28_10", CIFAR, {"depth": 20}, "depth is 20 and widening 10; depth must be 10, 16, 22"),
    ],
)
def test_bad_input(name: str, shape: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        models.build(name, shape, 10, seed=0, **options)
    assert "\n" not in str(caught.value)
