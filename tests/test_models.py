"""The papers' networks: sizes, shapes, seeding, and a user's own by dotted path."""

from pathlib import Path

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
        ("resnet", IMAGE, {}, ValueError, "network is 'resnet'; choose one of lenet, mlp, linear, "),
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


def own(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module with this content; its name."""
    name = f"stranger_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise RuntimeError('first\\nsecond')",
            r"cannot be imported: RuntimeError: first \(stranger_\w+.py, line 1\)",
        ),
        ("import sys\nsys.exit(3)", r"cannot be imported: SystemExit: 3 \(stranger_\w+.py, line 2\)"),
        ("def net(:", "cannot be imported: SyntaxError"),
        ("import torch\nnet = torch.nn.Linear(2, 2)", "is a network already; it must be callable, and make a network"),
        ("def net(): pass", r"the call .*net\(\(6,\), 2\) of your network fails: TypeError: net\(\) takes 0"),
        ("def net(*, input_shape, num_classes): pass", "of your network fails: TypeError"),
        ("def net(shape, classes):\n    raise KeyError('x\\ny')", r"fails: KeyError: .* \(stranger_\w+.py, line 2\)"),
    ],
)
def test_what_goes_wrong_in_a_users_module_is_one_line(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = own(code, tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=message) as caught:
        models.build(f"{name}:net", (6,), 2, seed=0)
    assert "\n" not in str(caught.value)


def test_a_network_that_chains_would_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import torch\none = torch.nn.Linear(6, 2)\ndef net(shape, classes): return one"
    name = own(code, tmp_path, monkeypatch)
    assert isinstance(models.build(f"{name}:net", (6,), 2, seed=0), nn.Linear)
    with pytest.raises(ValueError, match="returned the same network twice; it must make a new one at every call"):
        models.build(f"{name}:net", (6,), 2, seed=1)


@pytest.mark.parametrize(
    "name", ["./nets:net", "nets/x:net", "/tmp/nets.py:net", ".nets:net", "a:b:c", "nets:", ":net"]
)
def test_a_path_of_a_file_is_no_dotted_path(name: str) -> None:
    with pytest.raises(ValueError, match=r"or your own as 'package.module:attribute'"):
        models.build(name, (6,), 2, seed=0)
