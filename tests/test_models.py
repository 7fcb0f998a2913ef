"""The papers' networks: sizes, shapes, seeding, and a user's own by dotted path."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmcmc_prune import models

IMAGE = (1, 28, 28)


def own_model(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A user's own network, named by dotted path below."""
    return nn.Linear(input_shape[0], num_classes)


def no_model(input_shape: tuple[int, ...], num_classes: int) -> int:
    """A mistake."""
    return num_classes


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("lenet", {}, 61_706),
        ("mlp", {}, 478_410),
        ("mlp", {"widths": (20,), "activation": "silu"}, 785 * 20 + 21 * 10),
        ("mlp", {"widths": ()}, 7_850),
        ("linear", {}, 7_850),
        ("linear", {"bias": False}, 7_840),
    ],
)
def test_sizes_and_output(name: str, options: dict, count: int) -> None:
    model = models.build(name, IMAGE, 10, seed=0, **options)
    assert models.num_parameters(model) == count
    assert model(torch.zeros(3, *IMAGE)).shape == (3, 10)


def test_lenet_is_its_description() -> None:
    model = models.build("lenet", (3, 28, 28), 4, seed=0)
    p = dict(model.named_parameters())
    x = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    h = F.pad(x, (2, 2, 2, 2))
    for layer in ("conv1", "conv2", "conv3"):
        h = torch.tanh(F.conv2d(h, p[f"{layer}.weight"], p[f"{layer}.bias"]))
        h = h if layer == "conv3" else F.avg_pool2d(h, 2)
    assert h.shape == (2, 120, 1, 1)
    h = torch.tanh(h.flatten(1) @ p["fc1.weight"].T + p["fc1.bias"])
    torch.testing.assert_close(model(x), h @ p["fc2.weight"].T + p["fc2.bias"])


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_mlp_is_its_description(activation: str) -> None:
    model = models.build("mlp", (5,), 2, seed=0, widths=(4, 3), activation=activation)
    first, second, last = model.layers
    act = getattr(F, activation)
    x = torch.linspace(-1, 1, 10).view(2, 5)
    torch.testing.assert_close(model(x), last(act(second(act(first(x))))))


def test_a_seed_fixes_the_weights_and_nothing_else() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, same, other = (_weights(models.build("mlp", (6,), 2, seed=s, widths=(5,))) for s in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    torch.rand(5)
    assert torch.equal(_weights(models.build("mlp", (6,), 2, seed=1, widths=(5,))), one)


def test_own_model_by_dotted_path() -> None:
    model = models.build(f"{__name__}:own_model", (6,), 2, seed=0)
    assert isinstance(model, nn.Linear)
    assert model.weight.shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "shape", "keywords", "error", "message"),
    [
        ("resnet", IMAGE, {}, ValueError, "model is 'resnet'; choose one of lenet, mlp, linear, "),
        ("no_such_package:net", IMAGE, {}, ValueError, "cannot be imported: No module named 'no_such_package'"),
        ("math:net", IMAGE, {}, ValueError, "cannot be imported: module 'math' has no attribute 'net'"),
        ("math:pi", IMAGE, {}, ValueError, "'math:pi' is a float; it must be callable"),
        (
            f"{__name__}:no_model",
            IMAGE,
            {},
            TypeError,
            "no_model returned an object of type int; it must return a torch.nn.Module",
        ),
        ("lenet", (1, 32, 32), {}, ValueError, r"\(channels, 28, 28\), not \(1, 32, 32\)"),
        ("lenet", IMAGE, {"widths": (3,)}, TypeError, "widths"),
        ("mlp", (), {}, ValueError, r"input_shape is \(\)"),
        ("mlp", IMAGE, {"seed": -1}, ValueError, "seed is -1; choose 0"),
        ("mlp", IMAGE, {"activation": "sign"}, ValueError, "activation is 'sign'; choose one of relu, tanh, silu"),
        ("mlp", IMAGE, {"widths": (3, 0)}, ValueError, r"widths are \(3, 0\)"),
    ],
)
def test_bad_input(name: str, shape: tuple, keywords: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        models.build(name, shape, 10, **({"seed": 0} | keywords))
    assert "\n" not in str(caught.value)
